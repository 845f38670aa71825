"""What every model is: a frontend (waveform → features) and a backbone (features → logits)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sousa_bench.errors import ConfigError
from sousa_bench.models.weight_files import SMALL_NETWORKS, trained_further
from sousa_bench.task import Task


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights a model started from.

    Attributes:
        kind: ``official``, ``random``, ``embedded`` or ``further``.
        origin: Hub id, URL, file name, or ``seed N`` for random weights.
        sha256: Hash of the file that was read, or of the initial tensors when there was no file.
        license: SPDX name of the weights' licence, where one is known.
        pretraining: What they have seen before, one of the kinds of :mod:`sousa_bench.models.published`; None where
            nobody says it.
        published: Of ``further`` ones the ``origin``, ``sha256``, ``license`` and ``pretraining`` of the published
            checkpoint that they began at.
        own_head: Whether the head's last layer came with them, trained for the run's own classes.
    """

    kind: str
    origin: str
    sha256: str
    license: str | None = None
    pretraining: str | None = None
    published: Mapping[str, Any] | None = None
    own_head: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain fields for the result file; weights that this package made say what they are."""
        fields = {key: value for key, value in asdict(self).items() if key != "own_head" or value}
        if self.published is None:
            del fields["published"]
            return {**fields, **({"note": SMALL_NETWORKS} if self.kind == "embedded" else {})}
        return {**fields, "note": trained_further(self.published)}


@dataclass(frozen=True)
class Targets:
    """Where PEFT may reach inside a backbone.

    Attributes:
        groups: Group name → regular expressions that match whole module names inside the backbone
            (``attention``, ``mlp``, ``pointwise``, ``squeeze_excitation``, ``depthwise``, …).
        feedforward: Regular expressions for the modules that IA3 treats as feed-forward (it scales their input).
        blocks: Regular expressions of the stacked blocks from input to output (``peft.layers=last_k``).
        depth: Number of blocks, or the name of the variant's number (or numbers, summed) that says it. A sweep reads
            it from the config, before there is a model to count in.
    """

    groups: Mapping[str, Sequence[str]]
    feedforward: Sequence[str] = ()
    blocks: Sequence[str] = ()
    depth: int | str | None = None


class Frontend(nn.Module):
    """Waveform → the features that the official checkpoint was trained on; no trainable parameter.

    Attributes:
        sample_rate: Hz that the waveform must have.
        pad_value: What a feature frame past a clip's own end holds.
        longest: Samples of a clip that are heard; None: all.
        exact: Whether, on a CPU, a clip's features are the same to the last bit whatever stands beside it.
    """

    sample_rate: int
    pad_value: float
    longest: int | None = None
    exact: bool = True

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features.

        Args:
            waveform: (batch, samples) float32 in -1..1, padded with zeros at the end.
            lengths: (batch,) int64 true sample counts, or None when every clip fills its row.

        Returns:
            Features (batch, frames, bins) float32, and a padding mask (batch, frames) bool with True on padding,
            or None for a model that needs none. With ``lengths``, a clip's features depend on that clip alone.
        """
        raise NotImplementedError

    def centres(self) -> Tensor | None:
        """(bins,) Hz: the middle of the band that each bin of the features hears; None where there are no bands."""
        return None


class Sublayer(nn.Module):
    """A sublayer that has no module of its own, as a place where a method can put one around it.

    It holds no parameters, and changes nothing: ``sublayer(x, function)`` is ``function(x)``.

    Args:
        group: The group of :attr:`Targets.groups` whose modules the sublayer holds.
    """

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The sublayer's input → its output."""
        return function(x)


@dataclass(frozen=True)
class TokenGrid:
    """How the tokens of a transformer's block lie in frequency and time.

    A backbone with a method ``token_grid(block)``, which takes a block's name, lets methods look at neighbours.

    Attributes:
        rows: Rows of frequency.
        special: Tokens before the others that stand for no place, such as a class token.
        time_major: Whether the rows of one column stand together; else the columns of one row.
        pieces: Pieces of time that stand one below the other in a folded map, each of so many rows.
    """

    rows: int
    special: int = 0
    time_major: bool = False
    pieces: int = 1


@dataclass(frozen=True)
class PerToken:
    """What a transformer's block takes beside its tokens, with a number for each of them, such as a mask of padding.

    A backbone with an attribute ``beside_tokens``, argument → this in the order of a block's arguments, lets methods
    put tokens of their own behind the others. Between its blocks it reads no more of them than it gave to the first.

    Attributes:
        neutral: The number of a token that counts and stands nowhere.
        pairs: Whether there is one for each (…, query, key); else for each (…, key).
    """

    neutral: float
    pairs: bool = False


State = tuple[Tensor | None, ...]
"""What a backbone holds between two of its blocks: tensors with the clips as first dimension, or None."""


class Divisible(nn.Module):
    """A backbone that can stop before one of its blocks, or before its head, and go on from there.

    ``onward(place, until(place, features, mask))`` is ``forward(features, mask)``, operation by operation. A place is
    the name of a block of :attr:`Targets.blocks` or, for the head, None.
    """

    def divisible(self, frames: int) -> bool:
        """Whether features of so many frames go through in one piece."""
        return True

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """Features (batch, frames, bins) and mask → the state before ``place``."""
        raise NotImplementedError

    def onward(self, place: str | None, state: State) -> Tensor:
        """The state before ``place`` → logits (batch, classes)."""
        raise NotImplementedError


def place_number(place: str) -> int:
    """The last number of a block's name: ``trunk.layers.3`` → 3."""
    return int(place.rpartition(".")[2])


def inside(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of the modules ``prefixes`` or lies within one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@dataclass(frozen=True)
class PackedHead:
    """The head's last layer as a file of :mod:`sousa_bench.pretrain` has it.

    Attributes:
        task: What it answers.
        state: Its tensors, under their names inside the layer.
        quantum: Seconds; clips were padded to a whole number of these. None: not known.
        max_duration: Seconds of a clip that it was trained on. None: not known.
    """

    task: Task
    state: Mapping[str, Tensor]
    quantum: float | None = None
    max_duration: float | None = None

    def part_for(self, task: Task) -> PackedHead | None:
        """What of it answers ``task``, class by class by name; None where there is a class that it doesn't know.

        A head for one class a clip is none for any number of them, nor the other way round.
        """
        row = {name: number for number, name in enumerate(self.task.classes)}
        if task.several != self.task.several or not row.keys() >= set(task.classes):
            return None
        rows = [row[name] for name in task.classes]
        return replace(self, task=task, state={key: tensor[rows] for key, tensor in self.state.items()})


class AudioModel(nn.Module):
    """A classifier of waveforms: ``frontend`` then ``backbone``.

    Attributes:
        name: Model family as in ``conf/model`` (``ast``, ``htsat``, ``beats``, ``efficientat``).
        variant: ``official`` or ``tiny`` (or another published size).
        frontend: See :class:`Frontend`.
        backbone: Module (features, padding_mask) → logits (batch, classes); PEFT wraps this alone.
        head_name: Dotted name, inside ``backbone``, of the module that makes the logits.
        targets: Where PEFT may reach.
        weights: What the model started from.
        fresh: Key prefixes, inside ``backbone``, of what no published weights fill: the new head's last layer.
        classes: AudioSet's identifiers of the outputs, where the head came with an official file that says them.
        packed_head: What came with the weights, where a run may start from it in place of a new last layer.
    """

    def __init__(
        self,
        *,
        name: str,
        variant: str,
        frontend: Frontend,
        backbone: nn.Module,
        head_name: str,
        targets: Targets,
        weights: WeightsInfo,
        fresh: tuple[str, ...] = (),
        classes: tuple[str, ...] = (),
        packed_head: PackedHead | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.variant = variant
        self.frontend = frontend
        self.backbone = backbone
        self.head_name = head_name
        self.targets = targets
        self.weights = weights
        self.fresh = fresh
        self.classes = classes
        self.packed_head = packed_head

    @property
    def sample_rate(self) -> int:
        """Hz of the waveform that ``forward`` takes."""
        return self.frontend.sample_rate

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again in the backward pass: less memory, more time, the same gradients.

        Raises:
            ConfigError: The backbone has no method of this name.
        """
        enable = getattr(self.backbone, "enable_gradient_checkpointing", None)
        if not callable(enable):
            raise ConfigError(f"gradient_checkpointing=true: model={self.name} has no gradient checkpointing")
        enable()

    def features(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Frontend without gradient, in float32 whatever the autocast; see :meth:`Frontend.forward`."""
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            return self.frontend(waveform, lengths)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, samples) float32 in -1..1 → logits (batch, classes)."""
        return self.backbone(*self.features(waveform, lengths))
