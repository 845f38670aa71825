"""Starting from the weights of an earlier run: its adapter and head, put into a freshly injected model."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sousa_bench.errors import PeftError
from sousa_bench.peft.adapter import WEIGHTS_FILE, assert_same_base, checkpoint_folder, read_description
from sousa_bench.peft.injection import Injection
from sousa_bench.peft.options import is_adalora, trains_all


def warm_start(injection: Injection, place: Path) -> None:
    """Load what an earlier run trained, as the start of this one.

    Args:
        injection: Freshly made, by the same method on the same base weights.
        place: The earlier run's folder, or its ``adapter``.

    Raises:
        PeftError: No or damaged weights, another model, method or base weights, or AdaLoRA, whose ranks are pruned.
    """
    description = read_description(place)
    folder = checkpoint_folder(place)
    if is_adalora(description["peft"]) or is_adalora(injection.node):
        raise PeftError(f"{folder}: AdaLoRA can't go on from trained weights: its ranks are pruned")
    if not trains_all(injection.node):
        assert_same_base(injection.model, description, folder)
    file = folder / (SAFETENSORS_WEIGHTS_NAME if injection.is_peft else WEIGHTS_FILE)
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise PeftError(f"{file}: can't be read as safetensors ({error})") from error
    backbone = injection.model.backbone
    own: dict[str, Tensor] = (
        peft.get_peft_model_state_dict(backbone, save_embedding_layers=False)
        if injection.is_peft
        else injection.changing()
    )
    different = next((f"{name} is missing or unexpected" for name in sorted(own.keys() ^ state.keys())), None)
    different = different or next((f"{n} has another shape" for n in own if own[n].shape != state[n].shape), None)
    if different:
        raise PeftError(f"{file}: doesn't fit model={injection.model.name} peft={injection.options.name}: {different}")
    with torch.no_grad():
        if injection.is_peft:
            peft.set_peft_model_state_dict(backbone, state)
        else:
            for name, tensor in own.items():
                tensor.copy_(state[name])
