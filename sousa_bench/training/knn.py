"""``peft=knn``: the nearest training clips by cosine similarity vote; nothing is trained.

How well that does is the usual first question about features that nobody has tuned (Wu et al. 2018, arXiv:1805.01978;
Caron et al. 2021, arXiv:2104.14294). The number of neighbours is chosen on validation clips.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from sousa_bench.peft.injection import Injection
from sousa_bench.peft.nearest_neighbours import NearestNeighbours, let_vote, remembered
from sousa_bench.training.pooled_features import Fitted, PooledFeatures

CHUNK = 256
"""Rows whose neighbours are looked for at a time."""


def fit(injection: Injection, train: PooledFeatures, validation: PooledFeatures) -> Fitted:
    """Let the training clips vote, as many for each clip as give the lowest validation loss.

    Of a training clip of several windows each window is a neighbour. The loss of the training clips, each without
    itself among its neighbours, is a fact about them and chooses nothing.

    Args:
        injection: A prepared ``peft=knn``; its model's backbone is replaced.
        train: Features of the training clips.
        validation: Features of the validation clips.
    """
    config, model = injection.config, injection.model
    asked: list[int] = sorted(set(config.k))  # type: ignore[union-attr]
    tried = [k for k in asked if k < len(train.rows)] or [max(1, len(train.rows) - 1)]
    memory = remembered(torch.from_numpy(train.rows), torch.from_numpy(train.labels()), tried[-1])
    classes = len(train.clips.task.classes)
    voting = let_vote(model, memory, config.temperature, classes)  # type: ignore[union-attr]
    losses = dict(zip(tried, _losses(voting, validation, tried), strict=True))
    voting.k = best = min(tried, key=lambda k: losses[k])
    (loss,) = _losses(voting, train, [best], among_themselves=True)
    path = [{"k": k, "val_loss": losses[k]} for k in tried]
    facts = {"k": best, "features": train.rows.shape[1], "neighbours": len(train.rows), "path": path}
    warnings = []
    if len(tried) > 1 and best == asked[-1]:
        warnings.append(f"peft=knn: the validation loss is lowest at the end of peft.k, {best}: try values beyond it")
    return Fitted(loss, {"knn": facts}, warnings=warnings)


@torch.no_grad()
def _losses(
    voting: NearestNeighbours, asking: PooledFeatures, numbers: list[int], *, among_themselves: bool = False
) -> Iterator[float]:
    """The mean cross-entropy of clips under each number of neighbours, in nats; of several labels, of the binary ones.

    Args:
        voting: The training clips.
        asking: The clips.
        numbers: Of neighbours, ascending.
        among_themselves: Whether the clips are the training clips, none of which votes for itself.
    """
    device = voting.features.device
    found: dict[int, list[Tensor]] = {k: [] for k in numbers}
    for start in range(0, len(asking.rows), CHUNK):
        rows = torch.from_numpy(asking.rows[start : start + CHUNK]).to(device)
        own = torch.arange(start, start + len(rows), device=device) if among_themselves else None
        nearest = voting.nearest(rows, numbers[-1], own)
        for k in numbers:
            found[k].append(voting.logits(nearest, k).cpu())
    for k in numbers:
        logits, labels = (torch.from_numpy(part) for part in asking.mean(torch.cat(found[k]).double().numpy()))
        if voting.several:
            yield float(F.binary_cross_entropy_with_logits(logits, labels.double()))
        else:
            yield float(F.cross_entropy(logits, labels))
