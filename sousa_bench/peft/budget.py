"""The size at which a method comes nearest to the parameters that ``peft.budget`` asks for, by arithmetic."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from sousa_bench.errors import PeftError
from sousa_bench.models.base import AudioModel, inside
from sousa_bench.peft.added_options import AddedConfig
from sousa_bench.peft.added_places import places
from sousa_bench.peft.method_sizes import TOLERANCE, Budget, Layer, MethodSize, size_of
from sousa_bench.peft.options import Options
from sousa_bench.peft.targets import target_modules, trained_norms


@dataclass(frozen=True)
class Choice:
    """A size that was chosen for a budget.

    Attributes:
        asked: What ``peft.budget`` says.
        pair: Method and model, in words.
        chosen: Keys of the method's node, the size first, with their values.
        parameters: Trainable ones that it makes, without the head.
        backbone: Parameters of the network as it was, without the head.
    """

    asked: Budget
    pair: str
    chosen: dict[str, Any]
    parameters: int
    backbone: int

    def facts(self, counted: Mapping[str, int]) -> dict[str, Any]:
        """What the result records.

        Args:
            counted: The parameters of the network that was made.

        Raises:
            PeftError: It has others than were reckoned.
        """
        if (there := counted["trainable"] - counted["head"]) != self.parameters:
            [key, *_] = self.chosen
            raise PeftError(
                f"{self.pair}: peft.budget reckoned with {self.parameters:,} parameters, and {there:,} train: it "
                f"doesn't know one of the method's keys; leave peft.budget out, and choose peft.{key} yourself"
            )
        return {
            "asked": self.asked.text,
            "asked_params": round(self.asked.of_backbone(self.backbone)),
            "reached_params": self.parameters,
            "reached": self.parameters / self.backbone,
            "chosen": self.chosen,
        }

    def warnings(self) -> list[str]:
        """What a reader of the result must know: that no size comes near."""
        wanted = self.asked.of_backbone(self.backbone)
        if abs(self.parameters - wanted) <= TOLERANCE * wanted:
            return []
        return [f"{self.in_words()}; no other size comes nearer"]

    def in_words(self) -> str:
        """``peft.budget=0.3%: peft.r=2 makes 1,234 trainable parameters, 0.29 % of the backbone's``."""
        [(key, size), *_] = self.chosen.items()
        return (
            f"peft.budget={self.asked.text}: with {self.pair}, peft.{key}={size} makes {self.parameters:,} trainable "
            f"parameters, {100 * self.parameters / self.backbone:.3g} % of the backbone's"
        )


def choose_size(model: AudioModel, options: Options, node: Mapping[str, Any], config_class: type[Any]) -> Choice:
    """Choose a method's size for its budget, before anything is put into the network.

    Args:
        model: A fresh model.
        options: Of the method, with a budget.
        node: Its node.
        config_class: What its ``_target_`` names.

    Raises:
        ConfigError: The method has no size.
        PeftError: A target is no layer that can be reckoned with.
    """
    size, budget = size_of(node), Budget.of(options.budget)
    whole = {field.name: field.default for field in fields(config_class) if field.default is not MISSING} | dict(node)
    if issubclass(config_class, AddedConfig):
        own = {field.name for field in fields(config_class)}
        found = places(model, options, config_class(**{key: whole[key] for key in own & whole.keys()}))
        targets = list(found)
        layers = Counter(_place(place) for place in found.values())
    else:
        targets = target_modules(model, options)
        layers = Counter(_layer(model, name) for name in targets)
    named = dict(model.backbone.named_parameters())
    backbone = sum(p.numel() for name, p in named.items() if not inside(name, [model.head_name]))
    norms = trained_norms(model, options, targets)
    beside = sum(p.numel() for name, p in named.items() if inside(name, norms))
    wanted = budget.of_backbone(backbone) - beside
    best = _nearest(size, layers, whole, wanted)
    pair = f"peft={options.name} on model={model.name} ({model.variant})"
    return Choice(budget, pair, size.chosen(whole, best), _count(size, layers, whole, best) + beside, backbone)


def _nearest(size: MethodSize, layers: Counter[Layer], node: Mapping[str, Any], wanted: float) -> int:
    """The size whose parameters come nearest to a number; of two as near the one with fewer."""
    sizes = size.sizes(layers)
    if size.rises:
        above = bisect_left(sizes, wanted, key=lambda each: _count(size, layers, node, each))
        sizes = sizes[max(above - 1, 0) : above + 1]

    def distance(each: int) -> tuple[float, int]:
        count = _count(size, layers, node, each)
        return abs(count - wanted), count

    return min(sizes, key=distance)


def _count(size: MethodSize, layers: Counter[Layer], node: Mapping[str, Any], each: int) -> int:
    return sum(times * size.count(layer, each, node) for layer, times in layers.items())


def _layer(model: AudioModel, name: str) -> Layer:
    module = model.backbone.get_submodule(name)
    if isinstance(module, nn.Linear):
        return Layer(module.in_features, module.out_features)
    if isinstance(module, _ConvNd):
        return Layer(module.weight.shape[1], module.out_channels, math.prod(module.kernel_size))
    raise PeftError(
        f"peft.budget can't reckon with {name} of model={model.name}, a {type(module).__name__}; leave it out of "
        "peft.targets, or leave peft.budget out"
    )


def _place(place: Mapping[str, Any]) -> Layer:
    inputs = place.get("inputs", place.get("channels"))
    return Layer(inputs, place.get("outputs", inputs))
