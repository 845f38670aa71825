"""The one size that a method has, the parameters that it makes, and the share of them that was asked for. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from sousa_bench.errors import ConfigError
from sousa_bench.peft.added_options import LEARNT, MOST
from sousa_bench.system.number_checks import is_positive, is_whole

KEY = "budget"
TOLERANCE = 0.1
"""A method that is further from what was asked, as a part of that, says so."""
_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%")


@dataclass(frozen=True)
class Layer:
    """What a formula of docs/peft.md takes of an adapted module.

    Attributes:
        inputs: Features or channels; of a grouped convolution those of one group.
        outputs: The same of what it puts out.
        kernel: Positions of its kernel, 1 for a linear layer.
    """

    inputs: int
    outputs: int
    kernel: int = 1

    @property
    def rank(self) -> int:
        """The highest that an update of its weight can have."""
        return min(self.inputs * self.kernel, self.outputs)


Node = Mapping[str, Any]


@dataclass(frozen=True)
class MethodSize:
    """How many parameters a method makes at a layer, by its size.

    Attributes:
        key: The size's key in the method's node.
        count: Parameters of a layer at a size, as the node's other keys say.
        most: The largest size that makes sense, or is possible, for a network's layers.
        least: The smallest.
        step: Between sizes.
        divides: Whether a size must divide the inputs of a layer.
        rises: Whether a larger size never makes fewer parameters.
        alpha: The key whose value, divided by the size, scales the update.
        fixed: Keys that change the count in another way, with the values at which they don't.
    """

    key: str
    count: Callable[[Layer, int, Node], int]
    most: Callable[[Sequence[Layer]], int]
    least: int = 1
    step: int = 1
    divides: bool = False
    rises: bool = True
    alpha: str | None = None
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: {"bias": ("none",)})

    def sizes(self, layers: Collection[Layer]) -> Sequence[int]:
        """Those to choose from for a network's layers, in order."""
        every = range(self.least, max(self.most(list(layers)), self.least) + 1, self.step)
        if not self.divides:
            return every
        return [size for size in every if any(layer.inputs * layer.kernel % size == 0 for layer in layers)]

    def chosen(self, node: Node, size: int) -> dict[str, Any]:
        """A size, with what scales the update and AdaLoRA's final rank, which keep the ratio that they had to it."""
        made: dict[str, Any] = {self.key: size}
        if self.alpha and not node.get("use_rslora"):
            alpha = node[self.alpha] * size / node[self.key]
            made[self.alpha] = int(alpha) if alpha == int(alpha) else alpha
        if "target_r" in node:
            made["target_r"] = min(max(round(node["target_r"] * size / node[self.key]), 1), size - 1)
        return made


def _highest_rank(layers: Sequence[Layer]) -> int:
    return max(layer.rank for layer in layers)


def _widest(layers: Sequence[Layer]) -> int:
    return max(layer.inputs * layer.kernel for layer in layers)


def _learnt(node: Node) -> int:
    return int(node.get("scale") == LEARNT)


@cache
def _divisors(number: int) -> tuple[int, ...]:
    return tuple(divisor for divisor in range(1, number + 1) if number % divisor == 0)


def _factors(number: int) -> tuple[int, int]:
    """The largest divisor not above the root, and its counterpart."""
    small = max(divisor for divisor in _divisors(number) if divisor**2 <= number)
    return small, number // small


def _lora(layer: Layer, r: int, node: Node) -> int:
    magnitudes = layer.outputs if node.get("use_dora") else 0
    return r * (layer.inputs * layer.kernel + layer.outputs) + magnitudes


def _lokr(layer: Layer, r: int, node: Node) -> int:
    (small_in, large_in), (small_out, large_out) = _factors(layer.inputs), _factors(layer.outputs)
    low_rank = r < max(large_in, large_out) / 2
    large = r * (large_out + large_in * layer.kernel) if low_rank else large_out * large_in * layer.kernel
    return small_in * small_out + large


def _highest_lokr(layers: Sequence[Layer]) -> int:
    return max(max(_factors(layer.inputs)[1], _factors(layer.outputs)[1]) for layer in layers) // 2 + 1


def _oft(layer: Layer, size: int, node: Node) -> int:
    inputs = layer.inputs * layer.kernel
    block = min(_divisors(inputs), key=lambda divisor: (abs(divisor - size), divisor))
    return inputs * (block - 1) // 2


def _randlora(layer: Layer, r: int, node: Node) -> int:
    return math.ceil(layer.rank / r) * (r + layer.rank)


def _conformer(layer: Layer, width: int, node: Node) -> int:
    return 3 * layer.inputs * width + (node["kernel"] + 5) * width + layer.inputs + _learnt(node)


def _conv_adapter(layer: Layer, reduction: int, node: Node) -> int:
    width = max(layer.inputs // reduction, 1)
    down = layer.inputs // math.gcd(layer.inputs, width) * node["kernel"] ** 2 + 1
    return width * (down + layer.outputs) + 2 * layer.outputs


_WHOLE_KERNEL = {"use_effective_conv2d": (False,)}
SIZES: dict[str, MethodSize] = {
    "LoraConfig": MethodSize("r", _lora, _highest_rank, alpha="lora_alpha"),
    "AdaLoraConfig": MethodSize(
        "init_r",
        lambda layer, r, node: r * (layer.inputs * layer.kernel + layer.outputs + 1),
        _highest_rank,
        least=2,
        alpha="lora_alpha",
    ),
    "VeraConfig": MethodSize("r", lambda layer, r, node: r + layer.outputs, _widest),
    "LoHaConfig": MethodSize(
        "r",
        lambda layer, r, node: 2 * r * (layer.inputs * layer.kernel + layer.outputs),
        _highest_rank,
        alpha="alpha",
        fixed=_WHOLE_KERNEL,
    ),
    "LoKrConfig": MethodSize(
        "r",
        _lokr,
        _highest_lokr,
        rises=False,
        alpha="alpha",
        fixed={**_WHOLE_KERNEL, "decompose_both": (False,), "decompose_factor": (-1,)},
    ),
    "OFTConfig": MethodSize(
        "oft_block_size",
        _oft,
        _widest,
        least=2,
        divides=True,
        fixed={"bias": ("none",), "r": (0,), "block_share": (False,)},
    ),
    "HRAConfig": MethodSize(
        "r", lambda layer, r, node: r * layer.inputs * layer.kernel, _widest, least=2, step=2
    ),  # an even number of reflections starts as the identity
    "HiraConfig": MethodSize(
        "r", lambda layer, r, node: r * (layer.inputs * layer.kernel + layer.outputs), _highest_rank
    ),
    "MissConfig": MethodSize(
        "r",
        lambda layer, r, node: r * layer.outputs,
        lambda layers: min(layer.inputs for layer in layers),
        fixed={"bias": ("none",), "init_weights": (True, False)},
    ),
    "FourierFTConfig": MethodSize(
        "n_frequency",
        lambda layer, frequencies, node: frequencies,
        lambda layers: min(layer.inputs * layer.outputs for layer in layers),
    ),
    "RandLoraConfig": MethodSize("r", _randlora, _highest_rank, rises=False, alpha="randlora_alpha"),
    "BottleneckConfig": MethodSize(
        "width",
        lambda layer, width, node: 2 * layer.inputs * width + width + layer.inputs + _learnt(node),
        _widest,
    ),
    "ConformerConfig": MethodSize("width", _conformer, _widest),
    "ConvpassConfig": MethodSize(
        "width",
        lambda layer, width, node: 2 * layer.inputs * width + 9 * width**2 + 2 * width + layer.inputs + _learnt(node),
        _widest,
    ),
    "ConvAdapterConfig": MethodSize("reduction", _conv_adapter, _widest, rises=False),
    "PrefixConfig": MethodSize("length", lambda layer, length, node: 2 * length * layer.inputs, lambda layers: MOST),
    "PromptConfig": MethodSize("length", lambda layer, length, node: length * layer.inputs, lambda layers: MOST),
}
"""The class that ``_target_`` names → its size; what has none can't be brought to a budget."""


@dataclass(frozen=True)
class Budget:
    """What ``peft.budget`` asks for.

    Attributes:
        text: In its one spelling: ``0.3%`` for ``.30 %``.
        share: Of the backbone's parameters without the head, or None where a number was asked for.
        parameters: That number.
    """

    text: str
    share: float | None
    parameters: int | None

    @classmethod
    def of(cls, value: Any) -> Budget:
        """Read ``0.3%`` or ``20000``.

        Raises:
            ConfigError: It is neither.
        """
        if is_whole(value, 1):
            return cls(str(value), None, value)
        match = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or not 0 < float(match[1]) <= 100:
            raise ConfigError(
                f"peft.{KEY}={value}: must be a share of the backbone's parameters, such as 0.3%, above 0 % and up to "
                "100 %, or a whole number of parameters, 1 or more, such as 20000, in digits alone"
            )
        percent = float(match[1])
        return cls(f"{Decimal(repr(percent)).normalize():f}%", percent / 100, None)

    def of_backbone(self, parameters: int) -> float:
        """How many parameters that is in a backbone of so many."""
        return self.parameters if self.share is None else self.share * parameters  # type: ignore[return-value]


def declared_size(node: Node) -> MethodSize | None:
    """The size of a method; None where it has none, and can't be brought to a budget."""
    return SIZES.get(str(node.get("_target_")).rpartition(".")[2])


def size_of(node: Node) -> MethodSize:
    """The size of a method that was given a budget.

    Raises:
        ConfigError: It has none, or a key changes the count in a way that the budget doesn't reckon with.
    """
    size = declared_size(node)
    if size is None:
        raise ConfigError(
            f"peft={node.get('name')} has no size that peft.{KEY} could choose: what it trains follows from the "
            f"network; leave peft.{KEY} out"
        )
    for key, value in node.items():
        if (key in size.fixed and value not in size.fixed[key]) or (key.endswith("_pattern") and value):
            raise ConfigError(
                f"peft.{key}={value}: peft.{KEY} doesn't reckon with it; leave one of them out, or choose "
                f"peft.{size.key} yourself"
            )
        if key in (size.key, size.alpha, "target_r") and not is_positive(value):
            raise ConfigError(f"peft.{key}={value}: must be a number above 0, whose ratio peft.{KEY} keeps")
    return size


def chosen_keys(node: Node) -> list[str]:
    """The keys that ``peft.budget`` sets by the network, the size first; none where no budget is given."""
    size = declared_size(node)
    if size is None or node.get(KEY) is None:
        return []
    return [size.key, *(["target_r"] if "target_r" in node else [])]


def against_given_size(node: Node, keys: Iterable[str]) -> None:
    """Refuse a budget beside the size that it is to choose.

    Args:
        node: The method's node.
        keys: Those that the user gave, but for ones forced by ``++``, from which the ratios start.

    Raises:
        ConfigError: Both were given.
    """
    own = chosen_keys(node)
    for key in own:
        if f"peft.{key}" in keys:
            raise ConfigError(
                f"peft.{key}={node[key]} can't be with peft.{KEY}={node[KEY]}, which chooses peft.{own[0]}; leave "
                "one of them out (a search whose space holds it takes no budget)"
            )
