"""Whether a checkpoint's classification head is kept or a new one is made."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

AUDIOSET_CLASSES = 527


def head_of(state: Mapping[str, Tensor], head: str, num_classes: int | None) -> tuple[int, list[str]]:
    """Classes of the model, and the key prefixes that keep their random start.

    The head of a file is kept when it has the classes that were asked for; this is the official EfficientAT rule.

    Args:
        state: Tensors of the checkpoint; empty where there is none.
        head: Key prefix of the head.
        num_classes: Classes asked for; None means the file's, or AudioSet's where it has no head.

    Returns:
        The number of classes, and ``[head]`` for a new head or ``[]`` for the file's.
    """
    weight = state.get(f"{head}.weight")
    found = None if weight is None else len(weight)
    classes = num_classes or found or AUDIOSET_CLASSES
    return classes, [] if classes == found else [head]
