"""From the names of groups, patterns and layers to exact module names inside a backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.models.base import AudioModel, inside
from sousa_bench.peft.options import WELL_KNOWN, Options
from sousa_bench.peft.precheck import known_groups

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _BatchNorm)


def selected_blocks(model: AudioModel, layers: str) -> list[str] | None:
    """Names of the blocks that ``peft.layers`` selects, from input to output; None for ``all``.

    Raises:
        PeftError: The model has fewer blocks, or a pattern of its blocks matches nothing.
    """
    if layers == "all":
        return None
    blocks = block_names(model)
    which, count = layers.split("_")
    if int(count) > len(blocks):
        raise PeftError(f"peft.layers={layers}: model={model.name} ({model.variant}) has {len(blocks)} blocks")
    return blocks[-int(count) :] if which == "last" else blocks[: int(count)]


def block_names(model: AudioModel) -> list[str]:
    """All blocks of the backbone from input to output."""
    return list(dict.fromkeys(name for pattern in model.targets.blocks for name in matching(pattern, model)))


def target_modules(model: AudioModel, options: Options) -> list[str]:
    """Exact names, in the backbone's order, of the modules that the method adapts.

    Raises:
        PeftError: A group or pattern that matches nothing, or nothing is left in the chosen layers.
    """
    asked = options.targets or tuple(model.targets.groups)
    found = {name for entry in asked for name in _entry(entry, model) if not inside(name, [model.head_name])}
    blocks = selected_blocks(model, options.layers)
    if found and blocks is not None:
        found = {name for name in found if inside(name, blocks)}
    if not found:
        where = "" if options.layers == "all" else f" within peft.layers={options.layers}"
        raise PeftError(
            f"peft.targets={list(asked)}: model={model.name} has no such module{where}; "
            f"its groups are {', '.join(known_groups(model.targets.groups))}"
        )
    return [name for name in module_names(model.backbone) if name in found]


def used_groups(model: AudioModel, options: Options) -> list[str]:
    """The entries of ``peft.targets`` that apply to this model."""
    lacking = set(WELL_KNOWN) - set(known_groups(model.targets.groups))
    return [entry for entry in options.targets or model.targets.groups if entry not in lacking]


def feedforward_modules(model: AudioModel, targets: Sequence[str]) -> list[str]:
    """Those of ``targets`` that IA3 treats as feed-forward."""
    wanted = {name for pattern in model.targets.feedforward for name in matching(pattern, model)}
    return [name for name in targets if name in wanted]


def last_layer(model: AudioModel) -> str:
    """Name, inside the backbone, of the head's last linear layer or convolution.

    Raises:
        PeftError: The head has none.
    """
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
    inner = [name for name, module in model.backbone.named_modules() if isinstance(module, layers)]
    found = [name for name in inner if inside(name, [model.head_name])]
    if not found:
        raise PeftError(
            f"the head {model.head_name} of model={model.name} has no linear layer: peft=probe and knn need one"
        )
    return found[-1]


def batch_norms(backbone: nn.Module) -> list[str]:
    """Names of the BatchNorm layers."""
    return [name for name, module in backbone.named_modules() if isinstance(module, _BatchNorm)]


def trained_norms(model: AudioModel, options: Options, targets: Sequence[str]) -> list[str]:
    """BatchNorm layers within the chosen layers that train as a whole, beside what the method adapts."""
    if options.batch_norm != "train":
        return []
    blocks = selected_blocks(model, options.layers)
    norms = [name for name in batch_norms(model.backbone) if name not in targets]
    return [name for name in norms if blocks is None or inside(name, blocks)]


def module_names(backbone: nn.Module) -> list[str]:
    """All module names but the root's."""
    return [name for name, _ in backbone.named_modules() if name]


def _entry(entry: str, model: AudioModel) -> list[str]:
    if entry in model.targets.groups:
        return [name for pattern in model.targets.groups[entry] for name in matching(pattern, model)]
    if entry == "norm":
        return [name for name, module in model.backbone.named_modules() if isinstance(module, NORMS)]
    if entry in WELL_KNOWN:
        return []
    return matching(entry, model, f"peft.targets has '{entry}', which is neither a group nor")


def matching(pattern: str, model: AudioModel, what: str | None = None) -> list[str]:
    """Names of the modules that a regular expression matches whole.

    Raises:
        ConfigError: It is none.
        PeftError: It matches nothing.
    """
    names, groups = module_names(model.backbone), known_groups(model.targets.groups)
    what = what or f"model={model.name}: the target pattern '{pattern}' is not"
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ConfigError(f"{what} a regular expression ({error})") from error
    if not found:
        plain = pattern.replace("\\", "")
        near = get_close_matches(plain, groups, 3, 0.5) + get_close_matches(plain, names, 3, 0.4)
        raise PeftError(
            f"{what} the name of a module in model={model.name}; groups: {', '.join(groups)}; "
            f"near it: {', '.join(near) or 'none'}"
        )
    return found
