"""Checkpoints: what was trained, in PEFT's own format or as safetensors (no pickle), and what rebuilds the model."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import torch
from omegaconf import DictConfig, OmegaConf
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import CONFIG_NAME
from safetensors.torch import save_file
from torch import Tensor

import sousa_bench
from sousa_bench.data.saved_task import saved_task
from sousa_bench.errors import PeftError, WeightsError
from sousa_bench.models.base import AudioModel
from sousa_bench.models.checkpoint_formats import read_safetensors
from sousa_bench.models.family import rebuild
from sousa_bench.peft.block_reader import read_blocks
from sousa_bench.peft.build import inject
from sousa_bench.peft.nearest_neighbours import let_vote
from sousa_bench.peft.options import (
    DESCRIPTION_FILE,
    is_adalora,
    read,
    reads_blocks,
    target_of,
    trains_all,
    trains_nothing,
)
from sousa_bench.peft.precheck import declared_fields
from sousa_bench.system.foreign import read_facts

if TYPE_CHECKING:
    from sousa_bench.peft.injection import Injection
    from sousa_bench.task import Task

WEIGHTS_FILE = "model.safetensors"
FORMAT = 1
LOCAL_METHODS = ("sousa_bench.peft.LocalConfig", "sousa_bench.peft.options.LocalConfig")
"""What trains parameters that the model has, so that their values alone are saved."""
DESCRIPTION_TYPES = {
    **dict.fromkeys(("format", "num_classes"), int),
    "sousa_bench": str,
    **dict.fromkeys(("model", "peft", "weights"), dict),
    "labels": list,
    **dict.fromkeys(("weights.kind", "weights.origin", "weights.sha256"), str),
}
"""What readers of a description rely on."""


def save(injection: Injection, folder: Path, cfg: Mapping[str, Any], task: Task) -> Path:
    """Write a checkpoint folder as a whole or not at all, replacing an older one.

    It holds ``adapter_config.json`` and ``adapter_model.safetensors`` (PEFT's methods;
    ``peft.PeftModel.from_pretrained`` loads them onto the same backbone) or ``model.safetensors`` (full, head, bitfit),
    and ``sousa.json``.

    Args:
        injection: What was trained.
        folder: Where to.
        cfg: The run's config, whose ``model`` node built the model.
        task: What the logits answer.

    Returns:
        ``folder``.
    """
    model, node = injection.model, cfg["model"]
    description = {
        "format": FORMAT,
        "sousa_bench": sousa_bench.__version__,
        "model": OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node),
        "variant": model.variant,
        "peft": injection.node,
        "weights": model.weights.as_dict(),
        "num_classes": len(task.classes),
        "labels": list(task.classes),
        "task": task.as_dict(),
        "parameters": injection.parameters,
        "facts": injection.facts(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as around:
        draft = Path(around) / folder.name
        draft.mkdir()
        if injection.is_peft:
            _save_peft(injection, draft)
        else:
            state = {name: tensor.contiguous() for name, tensor in injection.trainable_state().items()}
            save_file(state, draft / WEIGHTS_FILE, metadata={"format": "pt"})
        (draft / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        for file in draft.iterdir():
            file.chmod(0o644)  # safetensors writes for the owner alone
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    return folder


def read_description(folder: Path) -> dict[str, Any]:
    """Read ``sousa.json`` of a checkpoint folder, or of a run's folder that holds one in ``adapter``.

    Raises:
        PeftError: There is none, or it is not readable.
    """
    file = checkpoint_folder(folder) / DESCRIPTION_FILE
    try:
        description = read_facts(file, DESCRIPTION_TYPES, linked=True)
    except (OSError, ValueError) as error:
        raise PeftError(f"{file}: can't be read as the description of a checkpoint ({error})") from error
    if description["format"] > FORMAT:
        raise PeftError(f"{file}: written by a newer sousa_bench ({description['sousa_bench']}); update this one")
    classes = len(saved_task(description, file).classes)
    if not description["num_classes"] == len(description["labels"]) == classes:
        raise PeftError(f"{file}: its num_classes, labels and task are of different numbers of classes; copy it again")
    return description


def checkpoint_folder(folder: Path) -> Path:
    """``folder``, or its ``adapter``.

    Raises:
        PeftError: Neither holds a checkpoint.
    """
    for candidate in (folder, folder / "adapter"):
        if (candidate / DESCRIPTION_FILE).is_file():
            return candidate
    raise PeftError(f"{folder}: no checkpoint here (no {DESCRIPTION_FILE}); give the folder of a completed run")


def load_run_model(folder: Path, **overrides: Any) -> AudioModel:
    """Rebuild a trained model, in evaluation mode on the CPU, from its checkpoint.

    Base weights that training replaced, all of them (``peft=full``), are not asked for.

    Args:
        folder: A run's folder or its ``adapter``.
        overrides: Keys of the model's config to replace, such as ``checkpoint`` where the base weights have moved.

    Raises:
        PeftError: No or a damaged checkpoint, or other base weights than it was trained on.
        WeightsError: The base weights can't be had.
    """
    description = read_description(folder)
    node, variant = {**description["model"], **overrides}, description.get("variant")  # none in earlier checkpoints
    replaced = variant is not None and trains_all(description["peft"])
    if replaced and "variant" in node:
        node["variant"] = variant
    model = rebuild(node, description["num_classes"], folder, own_models=True, with_weights=not replaced)
    return load(model, folder)


def load(model: AudioModel, folder: Path) -> AudioModel:
    """Load a checkpoint onto a fresh model with the base weights that it was trained on.

    Args:
        model: Built from the same config; its backbone is replaced where the method is PEFT's.
        folder: A run's folder or its ``adapter``.

    Returns:
        ``model``, in evaluation mode.

    Raises:
        PeftError: No or a damaged checkpoint, another model, or other base weights where any of them are still in use.
    """
    description = read_description(folder)
    folder = checkpoint_folder(folder)
    if not trains_all(description["peft"]):
        _assert_same_base(model, description, folder)
    if (folder / CONFIG_NAME).is_file():
        _load_peft(model, folder)
    else:
        _load_plain(model, folder, description)
    return model.eval()


def _assert_same_base(model: AudioModel, description: Mapping[str, Any], folder: Path) -> None:
    """Raise PeftError unless a model holds the base weights that a checkpoint was trained on."""
    trained_on, got = description["weights"], model.weights.as_dict()
    if trained_on["sha256"] != got["sha256"]:
        raise PeftError(
            f"{folder}: was trained on {trained_on['kind']} weights from {trained_on['origin']} "
            f"(sha256 {trained_on['sha256'][:12]}…), but the model holds {got['kind']} weights from {got['origin']} "
            f"(sha256 {got['sha256'][:12]}…); load it onto the weights that it was trained on: "
            f"{_way_to_base(description)}"
        )


def _way_to_base(description: Mapping[str, Any]) -> str:
    """Where the base weights of a checkpoint can be had, when those at hand are others."""
    kind, file = description["weights"]["kind"], "(on the command line: --checkpoint FILE, or model.checkpoint=FILE)"
    if kind == "random":
        return f"random ones are drawn from the run's seed ({description['model'].get('seed')})"
    if kind == "embedded":
        return (
            f"the copy of sousa_bench that wrote it ({description['sousa_bench']}) has that file in its package, or "
            f"sousa_bench.pretrain made it: give it {file}"
        )
    return f"give their file {file}"


def _save_peft(injection: Injection, folder: Path) -> None:
    with _empty_matrices_allowed():
        pattern = getattr(injection.config, "rank_pattern", None)
        # Embedding layers don't exist here, and to look for resized ones PEFT would ask the hub.
        injection.model.backbone.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
        if pattern:
            injection.config.rank_pattern = pattern  # type: ignore[union-attr]
    (folder / "README.md").unlink(missing_ok=True)  # a model card of empty headings
    file = folder / CONFIG_NAME
    config = json.loads(file.read_text(encoding="utf-8"))
    for key in ("target_modules", "feedforward_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])  # PEFT writes a set in the order of a hash
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _empty_matrices_allowed() -> Iterator[None]:
    """AdaLoRA prunes whole modules on purpose; PEFT takes their empty matrices for lost shards."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LoRA tensor.*invalid shape")
        yield


def _load_peft(model: AudioModel, folder: Path) -> None:
    device = next(model.backbone.parameters()).device
    expected = set(_read(folder / SAFETENSORS_WEIGHTS_NAME))
    try:
        config = read_facts(folder / CONFIG_NAME, {"peft_type": str, "target_modules": list}, linked=True)
    except (OSError, ValueError) as error:
        raise PeftError(f"{folder / CONFIG_NAME}: can't be read as a config of PEFT's ({error})") from error
    if config.get("megatron_config") is not None:
        raise PeftError(f"{folder / CONFIG_NAME}: megatron_config names a module to import, which no run here saves")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.backbone = peft.PeftModel.from_pretrained(model.backbone, str(folder), torch_device=str(device))
    except Exception as error:  # whatever PEFT makes of a config of someone else's
        raise PeftError(f"{folder}: doesn't fit model={model.name} ({model.variant}): {error}") from error
    with _empty_matrices_allowed():
        loaded = set(peft.get_peft_model_state_dict(model.backbone, save_embedding_layers=False))
    if loaded != expected:
        different = sorted(loaded ^ expected)
        raise PeftError(
            f"{folder}: doesn't fit model={model.name} ({model.variant}): {different[0]} is missing or unexpected"
        )


def _load_plain(model: AudioModel, folder: Path, description: Mapping[str, Any]) -> None:
    file, node = folder / WEIGHTS_FILE, description["peft"]
    state = _read(file)
    if (target := target_of(node)) not in LOCAL_METHODS:  # to inject is to import and call it
        raise PeftError(
            f"{folder / DESCRIPTION_FILE}: peft._target_ must be {LOCAL_METHODS[0]} beside {WEIGHTS_FILE}, "
            f"and it names {target[:200]}"
        )
    if trains_nothing(node):
        read(node, declared_fields(target))
        if reads_blocks(node):
            read_blocks(model)
        try:
            let_vote(model, state, float(node["temperature"]), int(description["num_classes"]))
        except PeftError as error:
            raise PeftError(f"{file}: {error}") from error
        return
    own = inject(model, node, 1).changing()
    _assert_same_tensors(own, state, f"{file}: doesn't fit model={model.name} ({model.variant})")
    _copy(own, state)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return read_safetensors(file)[0]
    except WeightsError as error:
        raise PeftError(str(error)) from error


def _assert_same_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor], problem: str) -> None:
    if unpaired := sorted(own.keys() ^ state.keys()):
        raise PeftError(f"{problem}: {unpaired[0]} is missing or unexpected")
    if reshaped := [name for name in own if own[name].shape != state[name].shape]:
        raise PeftError(f"{problem}: {reshaped[0]} has another shape")


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for name, tensor in own.items():
        tensor.copy_(state[name])


def warm_start(injection: Injection, place: Path, task: Task) -> None:
    """Load what an earlier run trained, as the start of this one.

    Args:
        injection: Freshly made, by the same method on the same base weights.
        place: The earlier run's folder, or its ``adapter``.
        task: This run's; the head's rows are of its classes.

    Raises:
        PeftError: No or damaged weights, another task, model, method or base weights, or AdaLoRA, which prunes ranks.
    """
    description, folder = read_description(place), checkpoint_folder(place)
    if saved_task(description, folder / DESCRIPTION_FILE).digest != task.digest:
        raise PeftError(
            f"{folder}: was trained for other classes, or the same in another order ({description['labels'][:3]}, …; "
            f"this run has {list(task.classes[:3])}, …)"
        )
    if is_adalora(description["peft"]) or is_adalora(injection.node):
        raise PeftError(f"{folder}: AdaLoRA can't go on from trained weights: its ranks are pruned")
    if not trains_all(injection.node):
        _assert_same_base(injection.model, description, folder)
    file = folder / (SAFETENSORS_WEIGHTS_NAME if injection.is_peft else WEIGHTS_FILE)
    state, backbone = _read(file), injection.model.backbone
    own: dict[str, Tensor] = injection.changing()
    if injection.is_peft:
        own = peft.get_peft_model_state_dict(backbone, save_embedding_layers=False)
    pair = f"model={injection.model.name} peft={injection.options.name}"
    _assert_same_tensors(own, state, f"{file}: doesn't fit {pair}")
    if injection.is_peft:
        peft.set_peft_model_state_dict(backbone, state)
    else:
        _copy(own, state)
