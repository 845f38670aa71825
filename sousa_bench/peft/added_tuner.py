"""PEFT's side of the methods that put modules into a network: their config, their layers, their place in its registers.

PEFT then saves, loads, switches and counts them as it does its own; for its own tools to load such an adapter,
``sousa_bench.peft`` must be imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import peft
from peft import mapping
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from sousa_bench.errors import PeftError
from sousa_bench.models.base import PerToken, TokenGrid
from sousa_bench.peft.added_options import (
    METHODS,
    AddedConfig,
    BottleneckConfig,
    ConformerConfig,
    ConvAdapterConfig,
    ConvpassConfig,
    PrefixConfig,
    PromptConfig,
    ScaleShiftConfig,
)
from sousa_bench.peft.attention_prefix import AttentionPrefix
from sousa_bench.peft.bottleneck import Bottleneck
from sousa_bench.peft.conv_adapter import ConvAdapter, MapSizes
from sousa_bench.peft.grid_adapters import ConformerAdapter, Convpass
from sousa_bench.peft.prompt_tokens import PromptTokens
from sousa_bench.peft.scale_shift import ScaleShift

PEFT_TYPE = "SOUSA_BENCH"
PREFIX = "added_"

Place = dict[str, Any]
"""What a module must know of where it is put: ``{"channels": 96}``."""


class Added(Protocol):
    """A module that stands around one of the network's own; its parameters are all that a method adds there."""

    def __call__(self, base: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the network's own module, or what stands around it, and return the like of what it returns."""


@runtime_checkable
class Mergeable(Protocol):
    """An :class:`Added` that can become part of the network's own module; others stay beside it."""

    def merged(self, base: nn.Module) -> nn.Module:
        """A module of the same kind as ``base`` that computes what both do together.

        Raises:
            NotImplementedError: There is none.
        """


class Beside(nn.Module):
    """Adds what a module makes of a sublayer's input or output to that output.

    Args:
        inner: (batch, …, channels) → the same shape.
        parallel: Whether it reads the input.
    """

    def __init__(self, inner: nn.Module, parallel: bool) -> None:
        super().__init__()
        self.inner, self.parallel = inner, parallel

    def forward(self, base: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The sublayer's input stands first among the arguments; of a tuple that it returns the first is its output."""
        made = base(*args, **kwargs)
        out: Tensor = made[0] if isinstance(made, tuple) else made
        out = out + self.inner(args[0] if self.parallel else out)
        return (out, *made[1:]) if isinstance(made, tuple) else out


def added_module(options: AddedConfig, place: Place) -> nn.Module:
    """What a method adds at a place.

    Args:
        options: An object of one of :data:`sousa_bench.peft.added_options.METHODS`.
        place: See :data:`Place`.
    """
    match options:
        case BottleneckConfig():
            return Beside(Bottleneck(options, place["channels"]), options.form == "parallel")
        case ConformerConfig():
            inner = ConformerAdapter(options, place["channels"], TokenGrid(**place["grid"]))
            return Beside(inner, options.form == "parallel")
        case ConvpassConfig():
            return Beside(Convpass(options, place["channels"], TokenGrid(**place["grid"])), options.form == "parallel")
        case ConvAdapterConfig():
            return Beside(ConvAdapter(options, MapSizes(**place)), parallel=True)
        case PromptConfig():
            beside = {argument: PerToken(**kind) for argument, kind in place["beside_tokens"].items()}
            return PromptTokens(options, place["channels"], beside, place["leaves"])
        case PrefixConfig():
            return AttentionPrefix(options, place["channels"])
        case ScaleShiftConfig():
            return ScaleShift(place["channels"], place["axis"])
    raise NotImplementedError(type(options).__name__)


@dataclass
class AddedPeftConfig(peft.PeftConfig):
    """What PEFT keeps of such a method in ``adapter_config.json``.

    Attributes:
        method: A key of :data:`sousa_bench.peft.added_options.METHODS`.
        options: Its fields.
        places: Module name → :data:`Place`.
        target_modules: The names in ``places``.
        modules_to_save: What trains as a whole.
    """

    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    target_modules: list[str] = field(default_factory=list)
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        self.own: AddedConfig = METHODS[self.method](**self.options)


class AddedLayer(nn.Module, BaseTunerLayer):
    """A module of the network with an :class:`Added` around it."""

    adapter_layer_names = ("added_modules",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, added: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.added_modules = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self.add(adapter_name, added)

    def __getattr__(self, name: str) -> Any:
        """What this layer lacks the network's own module has: WavLM's first attention is asked for its positions."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    def add(self, adapter_name: str, added: nn.Module) -> None:
        """Put one more adapter here, and use it."""
        self.added_modules[adapter_name] = added
        self.set_adapter(adapter_name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the network's own module."""
        if self.disable_adapters or self.merged:
            return self.base_layer(*args, **kwargs)
        call: Callable[..., Any] = self.base_layer
        for name in self.active_adapters:
            call = partial(self._added(name), call)
        return call(*args, **kwargs)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the active adapters into the module's weights.

        Raises:
            NotImplementedError: The method's modules stay what they are.
        """
        for name in adapter_names or self.active_adapters:
            if not isinstance(added := self._added(name), Mergeable):
                raise NotImplementedError
            self.base_layer = added.merged(self.base_layer)
            self.merged_adapters.append(name)

    def _added(self, name: str) -> Added:
        return self.added_modules[name]


class AddedTuner(BaseTuner):
    """Puts an :class:`AddedLayer` in the place of each target."""

    prefix = PREFIX
    tuner_layer_cls = AddedLayer

    @staticmethod
    def _check_target_module_exists(peft_config: AddedPeftConfig, key: str) -> bool:  # type: ignore[override]
        return key in peft_config.places

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: AddedPeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        added = added_module(peft_config.own, peft_config.places[current_key])
        added.to(next(self.model.parameters()).device)
        if isinstance(target, AddedLayer):
            target.add(adapter_name, added)
        else:
            setattr(parent, target_name, AddedLayer(target, adapter_name, added))


def insert(backbone: nn.Module, content: dict[str, Any]) -> None:
    """Put a finished network's modules into a fresh one of its kind, without PEFT's wrapper around it.

    Args:
        backbone: The fresh network, changed in place.
        content: ``method``, ``options`` and ``places`` of its :class:`AddedPeftConfig`; it may come from anyone.

    Raises:
        PeftError: There is no such method, or it doesn't fit.
    """
    try:
        config = AddedPeftConfig(**copy.deepcopy(content), target_modules=list(content["places"]))
        peft.inject_adapter_in_model(config, backbone)
    except Exception as error:  # whatever a foreign file makes of it
        raise PeftError(f"the modules that its method added can't be made: {' '.join(str(error).split())}") from error


# PEFT's own function for this takes members of its enumeration alone; its tables take any name.
mapping.PEFT_TYPE_TO_PREFIX_MAPPING[PEFT_TYPE] = PREFIX  # type: ignore[index]
mapping.PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE] = AddedPeftConfig  # type: ignore[index]
mapping.PEFT_TYPE_TO_TUNER_MAPPING[PEFT_TYPE] = AddedTuner  # type: ignore[index]
