"""Methods that put small modules into a network: what can be chosen of each, and which models it fits. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sousa_bench.errors import ConfigError
from sousa_bench.system.number_checks import is_positive, is_whole

GROUPS = {"ffn": ("mlp",), "attention": ("attention",), "both": ("attention", "mlp")}
"""``peft.where`` → the groups of modules whose sublayers are meant."""
LEARNT = "learnt"
MOST = 65_536
"""Of a width, kernel or scale: wider than any network here."""


@dataclass
class AddedConfig:
    """A ``_target_`` of ``conf/peft`` whose modules are added by :mod:`sousa_bench.peft.added_tuner`.

    Attributes:
        takes_targets: Whether ``peft.targets`` says where; else the method's own ``where`` does.
        beside: What it stands beside.
        instead: What a model that has no place for it can be given.
    """

    takes_targets: ClassVar[bool] = False
    beside: ClassVar[str] = "a transformer's sublayers"
    instead: ClassVar[str] = "conv_adapter, ssf or lora"

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of modules that a model must have."""
        return ()

    def refusal(self, groups: Collection[str], node: Mapping[str, Any]) -> str | None:
        """Why it can't adapt a model of these groups, as the end of a sentence; None where it can.

        Args:
            groups: The names of the model's groups of modules.
            node: The method's node.
        """
        lacking = [group for group in self.groups if group not in groups]
        if not lacking:
            return None
        return f"it stands beside {self.beside}, and this network has no group {lacking[0]}; use {self.instead}"


@dataclass
class SublayerConfig(AddedConfig):
    """What bottlenecks beside a transformer's sublayers share: down to ``width``, and up again.

    Attributes:
        where: ``ffn`` (Pfeiffer et al. 2021, arXiv:2005.00247), ``attention``, or ``both`` (Houlsby et al. 2019,
            arXiv:1902.00751).
        form: ``sequential``: it reads the sublayer's output. ``parallel``: its input (He et al. 2022, arXiv:2110.04366;
            with ``where=ffn`` AdaptFormer, arXiv:2205.13535).
        width: Channels between down and up.
        scale: What is added is multiplied by it: a number, or ``learnt``, which starts at 1.
        dropout: Before the way up.
    """

    where: str = "ffn"
    form: str = "sequential"
    width: int = 12
    scale: float | str = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        one_of("where", self.where, tuple(GROUPS))
        one_of("form", self.form, ("sequential", "parallel"))
        whole("width", self.width)
        check_scale(self.scale)

    @property
    def groups(self) -> tuple[str, ...]:
        """See :class:`AddedConfig`."""
        return GROUPS[self.where]


@dataclass
class BottleneckConfig(SublayerConfig):
    """Bottleneck adapters: an activation between down and up.

    Attributes:
        activation: ``gelu`` or ``relu``.
    """

    activation: str = "gelu"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("activation", self.activation, ("gelu", "relu"))


@dataclass
class GridConfig(SublayerConfig):
    """What those share that look at a token's neighbours in frequency and time."""

    form: str = "parallel"
    width: int = 8


@dataclass
class ConformerConfig(GridConfig):
    """Conformer adapters (Cappellazzo et al. 2024, arXiv:2312.03694): a gate and a depthwise convolution over time.

    Attributes:
        kernel: Tokens of time that the convolution sees.
    """

    kernel: int = 31

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("kernel", self.kernel, odd=True)


@dataclass
class ConvpassConfig(GridConfig):
    """Convolutional bypasses (Jie and Deng 2022, arXiv:2207.07039): a 3×3 convolution over frequency and time."""

    where: str = "both"
    dropout: float = 0.1


@dataclass
class ConvAdapterConfig(AddedConfig):
    """Conv-Adapter (Chen et al. 2022, arXiv:2208.07463), beside each block that has a convolution over neighbours.

    Attributes:
        reduction: A bottleneck has one in so many of its block's input channels.
        kernel: Side of the convolution on the way down.
    """

    beside: ClassVar[str] = "blocks of depthwise convolutions"
    instead: ClassVar[str] = "bottleneck, in a transformer, or full"

    reduction: int = 4
    kernel: int = 3

    def __post_init__(self) -> None:
        whole("reduction", self.reduction)
        whole("kernel", self.kernel, odd=True)

    @property
    def groups(self) -> tuple[str, ...]:
        """See :class:`AddedConfig`."""
        return ("depthwise",)

    def refusal(self, groups: Collection[str], node: Mapping[str, Any]) -> str | None:
        """See :class:`AddedConfig`."""
        if node.get("batch_norm") == "train":
            return "it stands around whole blocks, whose BatchNorm stays as it is; give peft.batch_norm=frozen"
        return super().refusal(groups, node)


@dataclass
class PrefixConfig(AddedConfig):
    """Learnt keys and values in each attention: prefix-tuning (Li and Liang 2021, arXiv:2101.00190).

    Attributes:
        length: How many an attention has more.
        dropout: On them.
    """

    beside: ClassVar[str] = "a transformer's tokens"

    length: int = 12
    dropout: float = 0.0

    def __post_init__(self) -> None:
        whole("length", self.length)

    @property
    def groups(self) -> tuple[str, ...]:
        """See :class:`AddedConfig`."""
        return ("attention",)


@dataclass
class PromptConfig(PrefixConfig):
    """Learnt tokens behind those of a clip: VPT (Jia et al. 2022, arXiv:2203.12119).

    Attributes:
        depth: ``deep``: each block has its own, cut off behind it. ``shallow``: those of the first block go on to the
            last.
    """

    depth: str = "deep"
    length: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("depth", self.depth, ("shallow", "deep"))


@dataclass
class ScaleShiftConfig(AddedConfig):
    """SSF (Lian et al. 2022, arXiv:2210.08823): a factor and an offset for each channel that a target puts out."""

    takes_targets: ClassVar[bool] = True

    def refusal(self, groups: Collection[str], node: Mapping[str, Any]) -> str | None:
        """See :class:`AddedConfig`."""
        targets = node.get("targets") or ()
        norms = "norm" in ([targets] if isinstance(targets, str) else targets)
        transformer = "attention" in groups  # whose norms have no statistics
        return NOT_TWICE if node.get("batch_norm") == "train" and norms and not transformer else None


NOT_TWICE = (
    "peft.batch_norm=train trains the scale and shift of BatchNorm itself; leave norm out of peft.targets, or leave "
    "peft.batch_norm=frozen"
)
METHODS: dict[str, type[AddedConfig]] = {
    method.__name__: method
    for method in (
        BottleneckConfig,
        ConformerConfig,
        ConvAdapterConfig,
        ConvpassConfig,
        PrefixConfig,
        PromptConfig,
        ScaleShiftConfig,
    )
}
"""All of them, by the names that a ``_target_`` ends with."""


def added_method(target: str) -> type[AddedConfig] | None:
    """The class of this module that a ``_target_`` names, here or in ``sousa_bench.peft``."""
    module, _, name = target.rpartition(".")
    return METHODS.get(name) if module in ("sousa_bench.peft", __name__) else None


def one_of(key: str, value: object, values: tuple[str, ...]) -> None:
    """Raise ConfigError unless a key's value is one of those that there are."""
    if value not in values:
        raise ConfigError(f"peft.{key}={value}: must be {', '.join(values[:-1])} or {values[-1]}")


def whole(key: str, value: object, odd: bool = False) -> None:
    """Raise ConfigError unless a key's value is a whole number from 1 to ``MOST``, an odd one where that is asked."""
    if not is_whole(value, 1) or value > MOST or (odd and value % 2 == 0):
        raise ConfigError(f"peft.{key}={value}: must be {'an odd' if odd else 'a whole'} number from 1 to {MOST}")


def check_scale(value: object) -> None:
    """Raise ConfigError unless a scale is a number above 0, up to ``MOST``, or to be learnt."""
    if value != LEARNT and not (is_positive(value) and value <= MOST):
        said = f"{value:.0e}" if isinstance(value, float) else str(value)[:40]
        raise ConfigError(f"peft.scale={said}: must be a number above 0, up to {MOST}, or {LEARNT}")
