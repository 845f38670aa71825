"""The frozen lower part of a network: computed once a clip and remembered, where that is exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sousa_bench.models.base import Divisible, State
from sousa_bench.peft.options import keeps_features
from sousa_bench.training.kept_states import KeptStates, state_bytes

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import Clips
    from sousa_bench.peft import Injection

GROUP = 16
"""Clips that go through the lower part together, whichever of them was asked for: see :class:`FrozenPrefix`."""

Features = tuple[Tensor, Tensor | None]
Passes = list[tuple[np.ndarray, Features]]
"""Rows of a batch with their features (clips, frames, bins) and masks: clips of one length in each."""


class FrozenPrefix:
    """Remembers what the frozen lower part of a backbone makes of each clip, of a long one of each of its windows.

    To the last bit a clip's state also depends on which clips go through with it, so these are always the same: the
    group of clips of its length in which it stands. A run that was interrupted fills its memory in another order and
    still gets the same numbers, and so does another run that reads them from the disk: see :meth:`fill`.

    Args:
        injection: The prepared model.
        place: See :class:`sousa_bench.models.base.Divisible`.
        features: (split, positions) → rows, and features and mask of theirs.
        size: Most bytes that the state of a piece takes.
    """

    def __init__(
        self, injection: Injection, place: str | None, features: Callable[[str, np.ndarray], Passes], size: int
    ) -> None:
        self.place = place
        self._injection = injection
        self._features = features
        self._size = size
        self._groups: dict[str, np.ndarray] = {}
        self._states: dict[tuple[str, int], State] = {}
        model = injection.model
        what = f"what {model.name} ({model.variant}) makes below its {'head' if place is None else place}"
        self._kept = KeptStates(model, what, self._until, self._above)

    @property
    def backbone(self) -> Divisible:
        """The backbone without its wrapper; its modules hold the adapters."""
        return _unwrapped(self._injection)  # type: ignore[return-value]

    def states(self, clips: Clips, index: np.ndarray) -> State:
        """The states of pieces of clips of as many frames: tensors with ``len(index)`` rows."""
        split = clips.split
        numbers = self._numbers(clips)
        missing = [int(i) for i in index if (split, int(i)) not in self._states]
        for group in np.unique(numbers[missing]):
            members = np.flatnonzero(numbers == group)
            self._remember(split, members, self._compute(split, members))
        states = [self._states[split, int(i)] for i in index]
        return tuple(None if parts[0] is None else torch.cat(parts) for parts in zip(*states, strict=True))

    def onward(self, state: State) -> Tensor:
        """States → logits."""
        return self.backbone.onward(self.place, state)

    def fill(self, clips: Clips) -> None:
        """Remember the states of a whole split: what other runs have kept of it, and the rest."""
        compute = partial(self._compute, clips.split)
        found = self._kept.of(clips, self._numbers(clips), compute, self._size * len(clips.pieces))
        self._states |= {(clips.split, i): state for i, state in found.items()}

    def _numbers(self, clips: Clips) -> np.ndarray:
        if clips.split not in self._groups:
            self._groups[clips.split] = groups(clips.pieces.padded)
        return self._groups[clips.split]

    @torch.no_grad()
    def _compute(self, split: str, members: np.ndarray) -> State:
        [(_, features)] = self._features(split, members)
        return self._until(*features)

    def _until(self, features: Tensor, mask: Tensor | None) -> State:
        return self.backbone.until(self.place, features, mask)

    def _above(self) -> list[str]:
        blocks = [] if self.place is None else self._injection.block_names or []
        return [f"backbone.{name}" for name in (*blocks, self._injection.head_name)]

    def _remember(self, split: str, members: np.ndarray, state: State) -> None:
        for row, i in enumerate(members):
            self._states[split, int(i)] = tuple(None if part is None else part[row : row + 1].clone() for part in state)


def groups(padded: np.ndarray) -> np.ndarray:
    """(clips,) number of each clip's group: at most :data:`GROUP` clips, all of one padded length."""
    order = np.argsort(padded, kind="stable")
    _, first, length = np.unique(padded[order], return_index=True, return_inverse=True)
    place = np.arange(len(order)) - first[length]  # among the clips of one length
    numbers = np.zeros(len(padded), dtype=np.int64)
    numbers[order] = np.cumsum(place % GROUP == 0) - 1
    return numbers


def _unwrapped(injection: Injection) -> nn.Module:
    backbone = injection.model.backbone
    return backbone.base_model.model if injection.is_peft else backbone  # type: ignore[union-attr, return-value]


def frozen_place(injection: Injection) -> tuple[bool, str | None]:
    """Whether a method leaves a lower part of the network as it is, and where that ends."""
    if keeps_features(injection.config):
        return True, None
    if not injection.blocks:
        return False, None
    live = (*(f"{name}." for name in injection.block_names or []), f"{injection.head_name}.")
    trained = [name for name, p in injection.model.backbone.named_parameters() if p.requires_grad]
    return all(name.startswith(live) for name in trained), injection.blocks[0]


def frozen_prefix(
    injection: Injection,
    clips: dict[str, Clips],
    features: Callable[[str, np.ndarray], Passes],
    limit_bytes: int,
) -> FrozenPrefix | None:
    """The memory of a run's frozen lower part, or None where there is none or it would not fit.

    Whether it fits is decided beforehand from one clip, so that a run that goes on decides the same.

    Args:
        injection: The prepared model.
        clips: The splits.
        features: See :class:`FrozenPrefix`.
        limit_bytes: Most that the states of all clips may take.
    """
    frozen, place = frozen_place(injection)
    if clips["train"].cut:  # what training hears of a clip is another stretch each epoch
        return None
    backbone = _unwrapped(injection)
    if not frozen or not isinstance(backbone, Divisible):
        return None
    split, longest = max(
        ((name, int(np.argmax(part.pieces.padded))) for name, part in clips.items() if len(part)),
        key=lambda found: int(clips[found[0]].pieces.padded[found[1]]),
    )
    [(_, parts)] = features(split, np.array([longest]))
    if not backbone.divisible(parts[0].shape[1]):
        return None
    with torch.no_grad():
        state = backbone.eval().until(place, *parts)
    size = state_bytes(state)
    if size * sum(len(part.pieces) for part in clips.values()) > limit_bytes:
        return None
    return FrozenPrefix(injection, place, features, size)
