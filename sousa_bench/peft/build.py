"""Put a method into a model, and prove that it did what its name says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import peft
from hydra.utils import get_class
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.models.base import AudioModel, inside
from sousa_bench.peft import adalora
from sousa_bench.peft.added_options import AddedConfig
from sousa_bench.peft.added_places import places
from sousa_bench.peft.added_tuner import AddedPeftConfig
from sousa_bench.peft.block_reader import read_blocks
from sousa_bench.peft.budget import choose_size
from sousa_bench.peft.injection import WRAPPED, Injection
from sousa_bench.peft.options import (
    NOTHING,
    OWN_KEYS,
    SOLVED,
    LocalConfig,
    Options,
    plain,
    read,
    reads_blocks,
    target_of,
    trains_nothing,
)
from sousa_bench.peft.precheck import declared_fields, refusal
from sousa_bench.peft.targets import (
    batch_norms,
    feedforward_modules,
    last_layer,
    selected_blocks,
    target_modules,
    trained_norms,
    used_groups,
)


def inject(model: AudioModel, peft_cfg: Mapping[str, Any], total_steps: int) -> Injection:
    """Prepare a model for training by the method of a ``conf/peft`` node.

    Where the method is PEFT's, ``model.backbone`` becomes a ``peft.PeftModel``; else its parameters are (un)frozen.

    Args:
        model: A fresh model.
        peft_cfg: The node: ``_target_``, the fields of that class and our :class:`~sousa_bench.peft.options.Options`.
        total_steps: Optimizer steps of the whole run, for methods with a schedule.

    Raises:
        ConfigError: An unknown key or impossible value.
        PeftError: The pair is refused, a target matches nothing, or what came out isn't what was asked.
    """
    node = plain(peft_cfg)
    config_class = _config_class(target_of(node))
    theirs = {field.name for field in fields(config_class)}
    options = read(node, theirs)
    if reason := refusal(model.name, model.targets.groups, node):
        raise PeftError(reason)
    choice = None
    if options.budget is not None:
        choice = choose_size(model, options, node, config_class)
        node = {**node, **choice.chosen}
        del node["budget"]
    arguments = {key: node[key] for key in node if key in theirs - OWN_KEYS}
    if config_class is LocalConfig:
        blocks = selected_blocks(model, options.layers)
        if reads_blocks(node):
            read_blocks(model)
        injection = Injection(model, options, _construct(node, config_class, arguments), node, blocks)
        _mark_trainable(injection)
    else:
        injection = _inject_adapters(model, options, node, config_class, arguments, total_steps)
    injection.parameters = _count_parts(injection)
    _assert_trainable(injection)
    if choice is not None:
        injection.chosen_size = choice.facts(injection.parameters)
        injection.warnings += choice.warnings()
    return injection


def _config_class(target: str) -> type:
    declared_fields(target)  # names PEFT's near classes where it has none of this name
    try:
        found: type = get_class(target)
        fields(found)
        return found
    except Exception as error:
        raise ConfigError(f"peft._target_={target}: no such class ({error})") from error


def _construct(node: Mapping[str, Any], config_class: type, arguments: Mapping[str, Any]) -> Any:
    try:
        return config_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft={node['name']} ({node['_target_']}): {error}") from error


def _mark_trainable(injection: Injection) -> None:
    """Set ``requires_grad`` on the backbone's parameters as a method that adds none says."""
    model, options, method = injection.model, injection.options, injection.config.trains  # type: ignore[union-attr]
    norms = batch_norms(model.backbone)
    head = [] if method == NOTHING else [last_layer(model) if method == SOLVED else model.head_name]
    for name, parameter in model.backbone.named_parameters():
        owner, _, kind = name.rpartition(".")
        if owner in norms and options.batch_norm == "train":
            trains = True
        elif method == "bias":
            trains = kind.endswith("bias") and parameter.ndim == 1
        else:
            trains = method == "all" and owner not in norms
        chosen = injection.blocks is None or inside(name, injection.blocks)
        parameter.requires_grad_(inside(name, head) or (chosen and trains))


def _inject_adapters(
    model: AudioModel,
    options: Options,
    node: dict[str, Any],
    config_class: type[Any],
    arguments: dict[str, Any],
    total_steps: int,
) -> Injection:
    blocks = selected_blocks(model, options.layers)
    if issubclass(config_class, AddedConfig):
        method = _construct(node, config_class, arguments)
        found = places(model, options, method)
        targets = list(found)
        groups = used_groups(model, options) if method.takes_targets else list(method.groups)
        arguments = {"method": config_class.__name__, "options": asdict(method), "places": found}
        config_class = AddedPeftConfig
    else:
        targets, groups = target_modules(model, options), used_groups(model, options)
    scales_inputs = "feedforward_modules" in {field.name for field in fields(config_class)}
    if scales_inputs and arguments.get("feedforward_modules") is None:
        arguments["feedforward_modules"] = feedforward_modules(model, targets)
    if issubclass(config_class, peft.AdaLoraConfig):
        arguments = adalora.schedule(arguments, total_steps)
    saved = [model.head_name, *trained_norms(model, options, targets)]
    arguments |= {"target_modules": targets, "modules_to_save": saved}
    config = _construct(node, config_class, arguments)
    _assert_no_grouped_convolution(model, config, options, targets)
    notes = _wrap(model, config, options)
    injection = Injection(model, options, config, node, blocks, targets, groups, notes)
    _assert_wrapped(injection)
    if isinstance(config, peft.AdaLoraConfig) and total_steps < 2:
        injection.warnings.append("AdaLoRA can't allocate its budget in a run of a single optimizer step")
    return injection


def _assert_no_grouped_convolution(
    model: AudioModel, config: peft.PeftConfig, options: Options, targets: Sequence[str]
) -> None:
    """Other methods without them refuse them themselves; these two would fail in the first forward pass."""
    if config.peft_type not in (peft.PeftType.ADALORA, peft.PeftType.OFT):
        return
    for name in targets:
        if getattr(model.backbone.get_submodule(name), "groups", 1) > 1:
            raise PeftError(
                f"peft={options.name} can't adapt grouped convolutions such as {name} of model={model.name}; "
                "leave depthwise out of peft.targets, or use ia3, loha or lokr"
            )


def _wrap(model: AudioModel, config: peft.PeftConfig, options: Options) -> list[str]:
    """Let PEFT wrap the backbone, and return what it says of it, such as a block size that it adjusted."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            model.backbone = peft.get_peft_model(model.backbone, config)
    except (TypeError, ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
        raise PeftError(f"peft={options.name} can't adapt model={model.name}: {error}") from error
    return list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning)))


def _assert_wrapped(injection: Injection) -> None:
    """PEFT matches names by their ends; hold it to exactly the modules that were meant."""
    pair = f"peft={injection.options.name} on model={injection.model.name}"
    config: Any = injection.config
    modules = {name.removeprefix(WRAPPED): m for name, m in injection.model.backbone.named_modules()}
    tuned = [name for name, m in modules.items() if isinstance(m, BaseTunerLayer) and "base_layer" in dir(m)]
    outermost = {name for name in tuned if not any(name.startswith(f"{other}.") for other in tuned)}
    saved = {name for name, m in modules.items() if isinstance(m, ModulesToSaveWrapper)}
    for what, found, meant in (
        ("adapters", outermost, set(injection.targets)),
        ("fully trained modules", saved, set(config.modules_to_save)),
    ):
        if found != meant:
            raise PeftError(
                f"{pair}: PEFT made {len(found)} {what}, {len(meant)} were meant; "
                f"missing: {sorted(meant - found)[:3]}, unasked: {sorted(found - meant)[:3]}"
            )
    for name in getattr(config, "feedforward_modules", None) or []:
        if not modules[name].is_feedforward:
            raise PeftError(f"{pair}: {name} was meant to be feed-forward")


def _count_parts(injection: Injection) -> dict[str, int]:
    """Count parameters (numbers, not tensors).

    Returns:
        ``backbone``: the original network without its head; ``adapter``: what the method added; ``head``;
        ``total``: their sum; ``trainable``: those that an optimizer changes. PEFT keeps a frozen copy of each fully
        trained module, which counts nowhere; such a module other than the head (a norm in ``ln_tuning``, BatchNorm
        with ``batch_norm=train``) counts in ``adapter``, its frozen original in ``backbone``. Nor does the head's last
        layer count where nearest neighbours vote in its place.
    """
    backbone = injection.model.backbone
    copies, added = [f"{injection.head_name}.original_module"] if injection.is_peft else [], []
    copies += [last_layer(injection.model)] if trains_nothing(injection.node) else []
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
        if inside(name, [injection.trained_head_name]):
            parts["head"] += parameter.numel()
        elif not inside(name, added):
            parts["backbone"] += parameter.numel()
        elif parameter.requires_grad:
            parts["adapter"] += parameter.numel()
    return {**parts, "total": sum(parts.values()), "trainable": trainable}


def _assert_trainable(injection: Injection) -> None:
    """Adapters exist, the whole head trains, and nothing trains that nobody asked for."""
    pair = f"peft={injection.options.name} on model={injection.model.name}"
    backbone = injection.model.backbone
    if injection.is_peft and not injection.parameters["adapter"]:
        raise PeftError(f"{pair}: no trainable adapter parameter came out")
    if trains_nothing(injection.node):
        if injection.parameters["trainable"]:
            raise PeftError(f"{pair}: {injection.parameters['trainable']} parameters train, but nobody asked for it")
        return
    solved = injection.node.get("trains") == SOLVED
    place = last_layer(injection.model) if solved else injection.trained_head_name
    head = [p for name, p in backbone.named_parameters() if inside(name, [place])]
    if not head or not all(parameter.requires_grad for parameter in head):
        raise PeftError(f"{pair}: the head {place} doesn't train")
    if not injection.is_peft:
        return
    allowed = [
        f"{module_name}.{attribute}"
        for module_name, module in backbone.named_modules()
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper))
        for attribute in module.adapter_layer_names
    ]
    biases = getattr(injection.config, "bias", "none") != "none"
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad and not inside(name, allowed) and not (biases and name.endswith("bias")):
            raise PeftError(f"{pair}: {name} trains, but nobody asked for it")
