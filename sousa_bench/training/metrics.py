"""Classification metrics of one split, from its logits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_stat_scores


def split_metrics(prefix: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, top-5 accuracy, macro F1, balanced accuracy and loss.

    Macro F1 averages over the classes that occur among the labels or the predictions, balanced accuracy (mean
    recall) over those that occur among the labels: the conventions of scikit-learn.

    Args:
        prefix: ``val`` or ``test``; every key begins with it.
        logits: (clips, classes) float32.
        labels: (clips,) int64.

    Returns:
        ``{prefix}_acc, _top5_acc, _f1_macro, _balanced_acc`` as fractions and ``_loss``, the cross-entropy in nats
        without label smoothing.
    """
    tp, fp, fn, support = _counts(logits, labels)
    seen, present = tp + fp + fn > 0, support > 0
    f1 = 2 * tp / (2 * tp + fp + fn).clamp(min=1)
    recall = tp / support.clamp(min=1)
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return {
        f"{prefix}_acc": (tp.sum() / support.sum()).item(),
        f"{prefix}_top5_acc": (top == labels[:, None]).any(dim=1).double().mean().item(),
        f"{prefix}_f1_macro": f1[seen].mean().item(),
        f"{prefix}_balanced_acc": recall[present].mean().item(),
        f"{prefix}_loss": cross_entropy(logits.double(), labels).item(),
    }


def per_class(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 (None where undefined) and support of each class, by name."""
    tp, fp, fn, support = _counts(logits, labels)

    def ratio(value: Tensor, of: Tensor) -> float | None:
        return (value / of).item() if of > 0 else None

    return {
        name: {
            "precision": ratio(tp[i], tp[i] + fp[i]),
            "recall": ratio(tp[i], support[i]),
            "f1": ratio(2 * tp[i], 2 * tp[i] + fp[i] + fn[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }


def _counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True positives, false positives, false negatives and support per class, float64."""
    scores = multiclass_stat_scores(
        logits.argmax(dim=1), labels, num_classes=logits.shape[1], average=None, validate_args=False
    ).to(torch.float64)
    tp, fp, _, fn, support = scores.unbind(dim=1)
    return tp, fp, fn, support
