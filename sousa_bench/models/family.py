"""What a model family gives, and the one ``build`` that makes a model of it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from sousa_bench.errors import ConfigError, PeftError, UserError, WeightsError
from sousa_bench.models import audioset
from sousa_bench.models.base import AudioModel, Frontend, Targets
from sousa_bench.models.checkpoint_contents import Contents
from sousa_bench.models.official_file import recognise
from sousa_bench.models.packed_file import variant_of
from sousa_bench.models.published import CheckpointSource
from sousa_bench.models.weight_files import (
    PACKED,
    WEIGHTS,
    against_kind,
    check_weights,
    default_variant,
    official_without_address,
    unknown_variant,
)
from sousa_bench.models.weights import (
    Loaded,
    apply_state,
    load_official,
    load_packed,
    packed_head,
    random_info,
    seeded,
    take_packed_head,
)
from sousa_bench.system.foreign import check_node

OUR_MODEL = re.compile(r"sousa_bench\.models\.[a-z_]+\.build")


class Family:
    """A model family. Its module makes one instance, whose ``build`` a config names as ``_target_``.

    A family gives :meth:`frontend` and :meth:`backbone` and, where it has official weights, a ``source`` and
    :meth:`rename`. What stands below these is for families whose checkpoint files decide more than tensors.

    Attributes:
        numbers: A dataclass: the numbers of a variant (``model.variants``).
        source: Where the official weights are published.
        last_layer: The head's last layer, which gives way to a new one, inside ``model.head``; empty: all of the head.
    """

    numbers: ClassVar[type[Any]]
    source: ClassVar[CheckpointSource] = CheckpointSource()
    last_layer: ClassVar[str] = ""

    def frontend(self, numbers: Any) -> Frontend:
        """Waveform → features, for a variant."""
        raise NotImplementedError

    def backbone(self, numbers: Any, num_classes: int) -> nn.Module:
        """(features, padding mask) → logits, for a variant, with random weights drawn from torch's generator."""
        raise NotImplementedError

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of an official file under the backbone's keys; unknown keys stay as they are."""
        return dict(state)

    def published(self, numbers: Any) -> CheckpointSource:
        """Where a variant's official weights are published: at its own ``checkpoint``, where its numbers have one."""
        return self.source.of(numbers)

    def check_file(self, loaded: Loaded, variant: str, variants: Mapping[str, Any]) -> Any:
        """Hold an official file against a variant that its shapes fit, and return the numbers to build.

        Args:
            loaded: The file.
            variant: The variant that is to be built.
            variants: The numbers of all variants.

        Raises:
            WeightsError: The file is of another network.
        """
        return variants[variant]

    def head_classes(self, loaded: Loaded, count: int) -> tuple[str, ...]:
        """AudioSet's identifiers of the outputs of an official file's head; empty where they are not known."""
        return audioset.in_order(count)

    def build(
        self,
        *,
        name: str,
        variants: Mapping[str, Mapping[str, Any]],
        head: str,
        targets: Mapping[str, Any],
        num_classes: int | None = 40,
        variant: str | None = None,
        weights: str = "random",
        kinds: Sequence[str] = WEIGHTS,
        checkpoint: str | None = None,
        seed: int = 0,
        refuses: object = None,
        **numbers: Any,
    ) -> AudioModel:
        """Build a model with the weights that were asked for; the arguments are the keys of ``conf/model/*.yaml``.

        Args:
            name: The model's name in configs and results.
            variants: Variant → its numbers.
            head: Dotted name, inside the backbone, of the module that makes the logits.
            targets: Fields of :class:`sousa_bench.models.base.Targets`.
            num_classes: Outputs; a published file's own head is kept when it has as many, else the last layer is new.
                None: as many as the file's head has, or AudioSet's 527.
            variant: Key of ``variants``; None is what the file is, or ``official`` with official weights and
                ``tiny`` without.
            weights: ``official``, ``random``, ``embedded`` or ``further``.
            kinds: Those of them that there are for this model.
            checkpoint: See :func:`sousa_bench.models.weights.load_official`; None is the published one.
            seed: Of random weights and of a new last layer.
            refuses: A key of older results, without a meaning now.
            numbers: Numbers that take the place of every variant's own, unless they are None.

        Raises:
            ConfigError: An unknown variant, number, kind of weights, head or key of the targets.
            WeightsError: The weights can't be had or don't fit.
        """
        check_weights(weights, checkpoint)
        if reason := against_kind(name, weights, kinds):
            raise ConfigError(reason)
        chosen = variant or default_variant(weights)
        packed = load_packed(name, weights, variant, checkpoint) if weights in PACKED else None
        if packed is not None:
            chosen = variant_of(packed.extra)
        given = {key: value for key, value in numbers.items() if value is not None}
        shapes = {key: self._shape(name, {**own, **given}) for key, own in variants.items()}
        if reason := unknown_variant({"variant": chosen, "variants": shapes}):
            raise ConfigError(f"{reason}.")
        shape, loaded, state = shapes[chosen], packed, {}
        if weights == "official":
            loaded = self._official(name, chosen, shape, checkpoint)
            chosen = _variant(name, loaded, variant, {key: {**own, **given} for key, own in variants.items()}) or chosen
            shape = self.check_file(loaded, chosen, shapes)
            state = self.rename(loaded.state)
        last_layer = f"{head}.{self.last_layer}".rstrip(".")
        kept = state.get(f"{last_layer}.weight")
        found = None if kept is None else len(kept)
        if loaded is not None and packed is None:
            license_ = loaded.info.license or self.published(shape).license_of(loaded.info.sha256)
            seen = self.seen(loaded, shape, found)
            loaded = replace(loaded, info=replace(loaded.info, license=license_, pretraining=seen))
        own_head = None if packed is None else packed_head(packed, last_layer)
        classes = num_classes or found or len(audioset.names() if own_head is None else own_head.task.classes)
        half = found is None and f"{last_layer}.bias" in state  # which applying it then says
        fresh = () if classes == found or half else (last_layer,)
        with seeded(seed):
            backbone = self.backbone(shape, classes)
        _check_head(backbone, name, head)
        if loaded is not None:
            apply_state(backbone, packed.state if packed else state, origin=loaded.info.origin, fresh=fresh)
        model = AudioModel(
            name=name,
            variant=chosen,
            frontend=self.frontend(shape),
            backbone=backbone,
            head_name=head,
            targets=_targets(name, targets),
            weights=random_info(seed, backbone) if loaded is None else loaded.info,
            fresh=fresh,
            classes=() if fresh or loaded is None else self.head_classes(loaded, classes),
            packed_head=own_head,
        )
        if num_classes is None and own_head is not None:
            take_packed_head(model, own_head)
        return model

    def seen(self, loaded: Loaded, shape: Any, outputs: int | None = None) -> str | None:
        """What an official file has seen, by the outputs of its head, if it has one; None where nobody says it."""
        return self.published(shape).pretraining(outputs)

    def _shape(self, name: str, numbers: Mapping[str, Any]) -> Any:
        try:
            return self.numbers(**numbers)
        except TypeError as error:
            known = ", ".join(field.name for field in fields(self.numbers))
            raise ConfigError(f"model.variants of model={name}: {error}; their numbers are {known}.") from error

    def _official(self, name: str, variant: str, shape: Any, checkpoint: str | None) -> Loaded:
        source = self.published(shape)
        if not source.address and checkpoint is None:
            raise WeightsError(official_without_address(name, variant) + ".")
        return load_official(source, checkpoint)


def _variant(name: str, loaded: Loaded, variant: str | None, variants: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The variant that was asked for, or that a file tells; None where neither says one.

    Raises:
        WeightsError: The file is of another variant.
    """
    found = recognise(Contents({key: tuple(tensor.shape) for key, tensor in loaded.state.items()}, loaded.extra))
    if found is None or found.model != name:
        return variant
    if objection := found.objection(loaded.info.origin, variant, variants):
        raise WeightsError(objection)
    return variant or found.fitting(variants)[0]


def _check_head(backbone: nn.Module, name: str, head: str) -> None:
    if head not in {key for key, _ in backbone.named_modules() if key}:
        top = ", ".join(key for key, _ in backbone.named_children())
        raise ConfigError(f"model.head={head}: model={name} has no such module; its outermost ones are {top}.")


def _targets(name: str, targets: Mapping[str, Any]) -> Targets:
    try:
        return Targets(**targets)
    except TypeError as error:
        known = ", ".join(field.name for field in fields(Targets))
        raise ConfigError(f"model.targets of model={name}: {error}; its keys are {known}.") from error


def renamed(state: Mapping[str, Tensor], table: tuple[tuple[str, str], ...], unused: str = "(?!)") -> dict[str, Tensor]:
    """Tensors under other keys: the patterns of a table in order, then a fused ``attention.qkv`` in three.

    Args:
        state: Key → tensor.
        table: Pattern and replacement, as :func:`re.sub` takes them.
        unused: Pattern of whole keys that are left out.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if re.fullmatch(unused, key):
            continue
        for pattern, replacement in table:
            key = re.sub(pattern, replacement, key)
        fused = re.fullmatch(r"(.*\.attention\.)qkv(\.weight|\.bias)", key)
        if fused:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                result[f"{fused[1]}{letter}_proj{fused[2]}"] = part
        else:
            result[key] = tensor
    return result


def initialise_encoder(module: nn.Module) -> None:
    """Glorot-uniform linear layers and convolutions, zero biases.

    The usual 0.02 suits a width of 768 that is trained in full. At a tiny variant's width it makes every residual
    branch next to nothing, and a trunk that PEFT leaves frozen would pass its input on unread.
    """
    for layer in _layers(module):
        nn.init.xavier_uniform_(layer.weight.flatten(1))


def initialise_head(module: nn.Module) -> None:
    """A new head: truncated normal of deviation 0.02, zero biases, so that the first logits are close to equal."""
    for layer in _layers(module):
        nn.init.trunc_normal_(layer.weight, std=0.02)


def _layers(module: nn.Module) -> Iterator[nn.Linear | nn.Conv2d]:
    """The linear layers and convolutions of a module, their biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            yield layer


def rebuild(
    node: Mapping[str, Any], num_classes: int, place: Path, *, own_models: bool, with_weights: bool
) -> AudioModel:
    """Build the model that a checkpoint or a package describes. Its file may come from anyone: nothing else is called.

    Args:
        node: The ``model`` node as it was read from JSON.
        num_classes: Outputs.
        place: The file or folder, for messages.
        own_models: Whether it may name a model that is not sousa_bench's, as a run's may and a package's may not.
        with_weights: Whether its own file of weights is loaded; False where others replace all of them.

    Raises:
        PeftError: It names something else than a model, or one that can't be built.
        ForeignError: It holds more than plain values.
        UserError: What the model says of an impossible value.
    """
    values = dict(node)
    if not with_weights:
        values |= {key: value for key, value in {"weights": "random", "checkpoint": None}.items() if key in values}
    target = str(values.pop("_target_", None))
    target = target if target.isprintable() else repr(target)  # messages show it
    check_node(values, place)
    if not (own_models or OUR_MODEL.fullmatch(target)):
        raise PeftError(f"{place}: model._target_ must name a model of sousa_bench, and it names {target}")
    module, _, name = target.rpartition(".")
    try:
        build = getattr(importlib.import_module(module), name)
        if getattr(build, "__annotations__", {}).get("return") not in (AudioModel, AudioModel.__name__):
            raise PeftError(f"{place}: model._target_={target} is no function that says it returns an AudioModel")
        model: AudioModel = build(**values, num_classes=num_classes)
    except UserError:
        raise
    except Exception as error:  # whatever the user's module raises
        raise PeftError(f"{place}: {target} can't build its model: {' '.join(str(error).split())}") from error
    return model
