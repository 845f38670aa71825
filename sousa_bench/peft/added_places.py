"""Where, in a model, the methods of :mod:`sousa_bench.peft.added_options` put their modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.models.base import AudioModel, Sublayer, inside
from sousa_bench.peft.added_options import NOT_TWICE, AddedConfig, ConvAdapterConfig, GridConfig, PromptConfig
from sousa_bench.peft.conv_adapter import map_sizes
from sousa_bench.peft.options import Options
from sousa_bench.peft.scale_shift import output_channels
from sousa_bench.peft.targets import block_names, matching, module_names, selected_blocks, target_modules


def places(model: AudioModel, options: Options, config: AddedConfig) -> dict[str, dict[str, Any]]:
    """Names, in the backbone's order, of the modules that a method adapts, with what it must know of each.

    Raises:
        PeftError: The model's code has no module for such a place, or nothing is left in the chosen layers.
    """
    if config.takes_targets:
        return {name: _operation(model, options, name) for name in target_modules(model, options)}
    blocks = selected_blocks(model, options.layers)
    if isinstance(config, ConvAdapterConfig):
        sizes = {name: map_sizes(model.backbone.get_submodule(name)) for name in blocks or block_names(model)}
        beside = {name: asdict(size) for name, size in sizes.items() if size is not None}
        if not beside:
            raise PeftError(
                f"peft={options.name} on model={model.name}: no block within peft.layers={options.layers} has a 2-D "
                "convolution over neighbours; give more layers"
            )
        return beside
    if isinstance(config, PromptConfig):
        return _blocks_with_prompts(model, options, config, blocks)
    found: dict[str, dict[str, Any]] = {}
    for group in config.groups:
        for block, name, channels in _sublayers(model, options, group):
            found[name] = {"channels": channels}
            if isinstance(config, GridConfig):
                found[name]["grid"] = _grid(model, options, block)
    kept = [name for name in found if blocks is None or inside(name, blocks)]
    return {name: found[name] for name in module_names(model.backbone) if name in kept}


def _operation(model: AudioModel, options: Options, name: str) -> dict[str, Any]:
    module = model.backbone.get_submodule(name)
    if isinstance(module, _BatchNorm) and options.batch_norm == "train":
        raise PeftError(f"peft={options.name} can't adapt {name} of model={model.name}: {NOT_TWICE}")
    if (channels := output_channels(module)) is None:
        raise PeftError(
            f"peft={options.name} can't adapt {name} of model={model.name}, a {type(module).__name__}; linear layers, "
            "convolutions, LayerNorm, BatchNorm and GroupNorm have what it needs"
        )
    return dict(zip(("channels", "axis"), channels, strict=True))


def _grid(model: AudioModel, options: Options, block: str) -> dict[str, Any]:
    token_grid = getattr(model.backbone, "token_grid", None)
    if not callable(token_grid):
        raise PeftError(
            f"peft={options.name} can't adapt model={model.name}, whose backbone doesn't say how its tokens lie in "
            "frequency and time; give it token_grid(block), as sousa_bench.models.base.TokenGrid has it"
        )
    try:
        return asdict(token_grid(block))
    except ConfigError as error:
        raise PeftError(f"peft={options.name} can't adapt model={model.name}: {error}") from error


def _blocks_with_prompts(
    model: AudioModel, options: Options, config: PromptConfig, blocks: list[str] | None
) -> dict[str, dict[str, Any]]:
    beside = getattr(model.backbone, "beside_tokens", None)
    if beside is None:
        raise PeftError(
            f"peft={options.name} can't adapt model={model.name}, whose backbone doesn't say what its blocks take "
            "beside their tokens; give it beside_tokens, as sousa_bench.models.base.PerToken has it"
        )
    channels = {block: width for block, _, width in _sublayers(model, options, "attention")}
    kept = [block for block in channels if blocks is None or block in blocks]
    deep = config.depth == "deep"
    return {
        block: {
            "channels": channels[block] if deep or block == kept[0] else 0,
            "beside_tokens": {argument: asdict(kind) for argument, kind in beside.items()},
            "leaves": deep or block == kept[-1],
        }
        for block in kept
    }


def _sublayers(model: AudioModel, options: Options, group: str) -> Iterator[tuple[str, str, int]]:
    """Block, module and channels of each sublayer that a module is whole: attention, or feed-forward."""
    members = [name for pattern in model.targets.groups[group] for name in matching(pattern, model)]
    ordered = [name for name in module_names(model.backbone) if name in members]
    for block in block_names(model):
        own = [name for name in ordered if inside(name, [block])]
        if not own:
            continue
        parts = model.backbone.get_submodule(block).named_modules()
        marked = [f"{block}.{name}" for name, part in parts if isinstance(part, Sublayer) and part.group == group]
        parents = marked or list(dict.fromkeys(name.rpartition(".")[0] for name in own))
        if len(parents) > 1 or block in parents:
            raise PeftError(
                f"peft={options.name} can't adapt model={model.name}: the modules of its group {group} in {block} are "
                f"the only children of no one module; {_WAY_OUT}"
            )
        first = model.backbone.get_submodule(own[0])
        if not isinstance(first, nn.Linear):
            raise PeftError(f"peft={options.name} can't adapt model={model.name}: {own[0]} is no linear layer")
        yield block, parents[0], first.in_features


_WAY_OUT = "put them into one, or mark the sublayer by sousa_bench.models.base.Sublayer"
