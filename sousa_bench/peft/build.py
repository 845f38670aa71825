"""Put a method into a model, and prove that it did what its name says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper

from sousa_bench.errors import ConfigError, PeftError
from sousa_bench.models.base import AudioModel
from sousa_bench.peft import adalora
from sousa_bench.peft.counts import count_parts
from sousa_bench.peft.injection import WRAPPED, Injection
from sousa_bench.peft.local import LocalConfig, mark_trainable
from sousa_bench.peft.options import Choice, Options, parse
from sousa_bench.peft.refusals import refusal
from sousa_bench.peft.targets import (
    batch_norms,
    feedforward_modules,
    inside,
    selected_blocks,
    target_modules,
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
    choice = parse(peft_cfg)
    if reason := refusal(model.name, choice.node):
        raise PeftError(reason)
    options = choice.options
    blocks = selected_blocks(model, options.layers)
    if issubclass(choice.config_class, LocalConfig):
        local = _construct(choice, choice.fields)
        mark_trainable(model, local, options)
        injection = Injection(model, options, local, choice.node, blocks=blocks)
    else:
        targets = target_modules(model, options)
        config = _peft_config(model, choice, targets, total_steps)
        _assert_no_grouped_convolution(model, config, options, targets)
        groups = used_groups(model, options)
        notes = _wrap(model, config, choice)
        injection = Injection(
            model, options, config, choice.node, targets=targets, groups=groups, blocks=blocks, notes=notes
        )
        _assert_wrapped(model, config, options, targets)
        if isinstance(config, peft.AdaLoraConfig) and total_steps < 2:
            injection.warnings.append("AdaLoRA can't allocate its budget in a run of a single optimizer step")
    injection.parameters = count_parts(injection)
    _assert_trainable(injection)
    return injection


def _peft_config(model: AudioModel, choice: Choice, targets: Sequence[str], total_steps: int) -> peft.PeftConfig:
    arguments = dict(choice.fields)
    known = {field.name for field in fields(choice.config_class)}
    if "feedforward_modules" in known and arguments.get("feedforward_modules") is None:
        arguments["feedforward_modules"] = feedforward_modules(model, targets)
    if issubclass(choice.config_class, peft.AdaLoraConfig):
        arguments = adalora.schedule(arguments, total_steps)
    saved = [model.head_name]
    if choice.options.batch_norm == "train":
        blocks = selected_blocks(model, choice.options.layers)
        saved += [n for n in batch_norms(model.backbone) if n not in targets and (blocks is None or inside(n, blocks))]
    return _construct(choice, {**arguments, "target_modules": list(targets), "modules_to_save": saved})


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


def _construct(choice: Choice, arguments: Mapping[str, Any]) -> Any:
    try:
        return choice.config_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft={choice.options.name} ({choice.target}): {error}") from error


def _wrap(model: AudioModel, config: peft.PeftConfig, choice: Choice) -> list[str]:
    """Let PEFT wrap the backbone, and return what it says of it, such as a block size that it adjusted."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            model.backbone = peft.get_peft_model(model.backbone, config)
        return list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning)))
    except (TypeError, ValueError, NotImplementedError, AttributeError, RuntimeError) as error:
        raise PeftError(f"peft={choice.options.name} can't adapt model={model.name}: {error}") from error


def _assert_wrapped(model: AudioModel, config: peft.PeftConfig, options: Options, targets: Sequence[str]) -> None:
    """PEFT matches names by their ends; hold it to exactly the modules that were meant."""
    named = dict(model.backbone.named_modules())
    tuned = [
        n.removeprefix(WRAPPED) for n, m in named.items() if isinstance(m, BaseTunerLayer) and "base_layer" in dir(m)
    ]
    tuned = [name for name in tuned if not _within_tuner(name, tuned)]
    saved = [n.removeprefix(WRAPPED) for n, m in named.items() if isinstance(m, ModulesToSaveWrapper)]
    for what, found, meant in (
        ("adapters", tuned, targets),
        ("fully trained modules", saved, config.modules_to_save),  # type: ignore[attr-defined]
    ):
        if set(found) != set(meant):
            missing, extra = sorted(set(meant) - set(found)), sorted(set(found) - set(meant))
            raise PeftError(
                f"peft={options.name} on model={model.name}: PEFT made {len(found)} {what}, {len(meant)} were meant; "
                f"missing: {missing[:3]}, unasked: {extra[:3]}"
            )
    for name in getattr(config, "feedforward_modules", None) or []:
        if not named[WRAPPED + name].is_feedforward:
            raise PeftError(f"peft={options.name} on model={model.name}: {name} was meant to be feed-forward")


def _within_tuner(name: str, tuned: Sequence[str]) -> bool:
    return any(name.startswith(other + ".") for other in tuned)


def _assert_trainable(injection: Injection) -> None:
    """Adapters exist, the whole head trains, and nothing trains that nobody asked for."""
    counts, name = injection.parameters, injection.options.name
    backbone = injection.model.backbone
    if injection.is_peft and not counts["adapter"]:
        raise PeftError(f"peft={name} on model={injection.model.name}: no trainable adapter parameter came out")
    head = [p for n, p in backbone.named_parameters() if _in_head(injection, n)]
    if not head or not all(parameter.requires_grad for parameter in head):
        raise PeftError(
            f"peft={name} on model={injection.model.name}: the head {injection.model.head_name} doesn't train"
        )
    if not injection.is_peft:
        return
    allowed = [
        f"{module_name}.{attribute}"
        for module_name, module in backbone.named_modules()
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper))
        for attribute in module.adapter_layer_names
    ]
    biases = getattr(injection.config, "bias", "none") != "none"
    for parameter_name, parameter in backbone.named_parameters():
        if parameter.requires_grad and not inside(parameter_name, allowed):
            if biases and parameter_name.endswith("bias"):
                continue
            raise PeftError(
                f"peft={name} on model={injection.model.name}: {parameter_name} trains, but nobody asked for it"
            )


def _in_head(injection: Injection, parameter_name: str) -> bool:
    if injection.is_peft:
        return inside(parameter_name, [f"{injection.head_name}.modules_to_save"])
    return inside(parameter_name, [injection.head_name])
