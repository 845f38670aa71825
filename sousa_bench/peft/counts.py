"""Parameters by part, as the result records them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from sousa_bench.peft.targets import inside

if TYPE_CHECKING:
    from sousa_bench.peft.injection import Injection


def count_parts(injection: Injection) -> dict[str, int]:
    """Count parameters (numbers, not tensors).

    Returns:
        ``backbone``: the original network without its head; ``adapter``: what the method added; ``head``;
        ``total``: their sum; ``trainable``: those that an optimizer changes. PEFT keeps a frozen copy of each fully
        trained module, which counts nowhere; such a module other than the head (a norm in ``ln_tuning``, BatchNorm
        with ``batch_norm=train``) counts in ``adapter``, its frozen original in ``backbone``.
    """
    backbone = injection.model.backbone
    head, copies, added = [injection.head_name], [], []
    if injection.is_peft:
        head = [f"{injection.head_name}.modules_to_save"]
        copies = [f"{injection.head_name}.original_module"]
        for name, module in backbone.named_modules():
            if isinstance(module, ModulesToSaveWrapper) and name != injection.head_name:
                added.append(f"{name}.modules_to_save")
            elif isinstance(module, BaseTunerLayer):
                added += [f"{name}.{part}" for part in (*module.adapter_layer_names, *module.other_param_names)]
    parts = {"backbone": 0, "adapter": 0, "head": 0}
    trainable = 0
    for name, parameter in backbone.named_parameters():
        if inside(name, copies):
            continue
        trainable += parameter.numel() * parameter.requires_grad
        if inside(name, head):
            parts["head"] += parameter.numel()
        elif not inside(name, added):
            parts["backbone"] += parameter.numel()
        elif parameter.requires_grad:
            parts["adapter"] += parameter.numel()
    return {**parts, "total": sum(parts.values()), "trainable": trainable}
