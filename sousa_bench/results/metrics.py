"""The metrics of a split: each is declared once, with its name, its label and how it is computed.

Importing this module needs no torch, so that the analysis reads the same declarations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from sousa_bench.errors import ConfigError, first_line
from sousa_bench.task import Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

BETTER = ("higher", "lower")


@dataclass(frozen=True)
class Scores:
    """What a model said of the clips of one split.

    Attributes:
        logits: (clips, classes) float32.
        labels: (clips,) int64; (clips, classes) int64 of 0 and 1 where a clip may have several.
    """

    logits: Tensor
    labels: Tensor

    @property
    def several(self) -> bool:
        """Whether a clip may have several labels."""
        return self.labels.ndim > 1

    @cached_property
    def counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """True positives, false positives, false negatives and support: (classes,) float64 each."""
        from torchmetrics.functional.classification import multiclass_stat_scores

        classes = self.logits.shape[1]
        predicted = self.logits.argmax(dim=1)
        scores = multiclass_stat_scores(
            predicted, self.labels, num_classes=classes, average=None, validate_args=False
        ).double()
        tp, fp, _, fn, support = scores.unbind(dim=1)
        return tp, fp, fn, support

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(clips, classes) float64; of sum 1 where a clip has one label."""
        logits = self.logits.double()
        return (logits.sigmoid() if self.several else logits.softmax(dim=1)).numpy()

    @cached_property
    def average_precisions(self) -> Tensor:
        """(classes,) float64, several labels a clip; NaN for a class that no clip has."""
        from torchmetrics.functional.classification import binary_average_precision

        made = self.logits.new_full((self.logits.shape[1],), math.nan).double()
        for number, ranks, labels in self.met_classes():
            made[number] = binary_average_precision(ranks, labels, validate_args=False)
        return made

    def met_classes(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number, `_ranks` (clips,) and labels (clips,) of each class that a clip has, several labels a clip."""
        for number in range(self.logits.shape[1]):
            if self.labels[:, number].any():
                yield number, _ranks(self.logits[:, number]), self.labels[:, number]


@dataclass(frozen=True)
class Metric:
    """One number for a split, and how it is shown.

    Attributes:
        name: Its key in the result file, behind ``val_`` or ``test_``.
        label: For tables and plots.
        compute: What it is of a split.
        better: ``higher`` or ``lower``.
        format: Of its values.
    """

    name: str
    label: str
    compute: Callable[[Scores], Any]
    better: str = "higher"
    format: str = ".4f"

    def as_dict(self) -> dict[str, str]:
        """The declaration without the function, for the result file."""
        return {"label": self.label, "format": self.format, "better": self.better}


def _accuracy(scores: Scores) -> Tensor:
    tp, _, _, support = scores.counts
    return tp.sum() / support.sum()


def _top5_accuracy(scores: Scores) -> Tensor:
    top = scores.logits.topk(min(5, scores.logits.shape[1]), dim=1).indices
    return (top == scores.labels[:, None]).any(dim=1).double().mean()


def _macro_f1(scores: Scores) -> Tensor:
    """Mean over the classes that occur among the labels or the predictions, as scikit-learn has it."""
    tp, fp, fn, _ = scores.counts
    f1 = 2 * tp / (2 * tp + fp + fn).clamp(min=1)
    return f1[tp + fp + fn > 0].mean()


def _balanced_accuracy(scores: Scores) -> Tensor:
    """Mean recall over the classes that occur among the labels, as scikit-learn has it."""
    tp, _, _, support = scores.counts
    return (tp / support.clamp(min=1))[support > 0].mean()


def _loss(scores: Scores) -> Tensor:
    """Cross-entropy in nats, without label smoothing; with several labels a clip the classes' mean binary one."""
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    if scores.several:
        return binary_cross_entropy_with_logits(scores.logits.double(), scores.labels.double())
    return cross_entropy(scores.logits.double(), scores.labels)


def _calibration_error(scores: Scores) -> Tensor:
    """Expected calibration error over 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017).

    The mean distance between a bin's accuracy and its mean confidence, the probability of the predicted class.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities = scores.logits.softmax(dim=1)
    return multiclass_calibration_error(
        probabilities, scores.labels, num_classes=probabilities.shape[1], n_bins=15, validate_args=False
    )


def _mean_average_precision(scores: Scores) -> Tensor:
    """Mean over the classes that a clip has of the area under precision over recall, in steps, as scikit-learn's."""
    return scores.average_precisions.nanmean()


def _micro_average_precision(scores: Scores) -> Tensor:
    """Average precision of all pairs of a clip and a class as one list."""
    from torchmetrics.functional.classification import binary_average_precision

    return binary_average_precision(_ranks(scores.logits.flatten()), scores.labels.flatten(), validate_args=False)


def _area_under_roc(scores: Scores) -> Tensor:
    """Mean over the classes that some clips have and others not."""
    import torch
    from torchmetrics.functional.classification import binary_auroc

    areas = [
        binary_auroc(ranks, labels, validate_args=False)
        for _, ranks, labels in scores.met_classes()
        if not labels.all()
    ]
    return torch.stack(areas).mean() if areas else torch.tensor(math.nan)


def _ranks(logits: Tensor) -> Tensor:
    """Their order and ties as float64 within 0 and 1, which torchmetrics takes as they are.

    Of anything else it takes the sigmoid, in float32 the same 1 for all logits above 17.
    """
    values, places = logits.unique(return_inverse=True)
    return (places + 1).double() / (len(values) + 1)


def _lwlrap(scores: Scores) -> Tensor:
    """Label-weighted label-ranking average precision (Fonseca et al. 2019, arXiv:1906.02975).

    The mean over all labels of all clips of the precision at the label's rank among the clip's classes.
    """
    import torch

    order = scores.logits.argsort(dim=1, descending=True, stable=True)
    hits = scores.labels.gather(1, order).double()
    ranks = torch.arange(1, hits.shape[1] + 1)
    return (hits.cumsum(dim=1) / ranks * hits).sum() / hits.sum()


METRICS: tuple[Metric, ...] = (
    Metric("acc", "accuracy", _accuracy),
    Metric("top5_acc", "top-5 accuracy", _top5_accuracy),
    Metric("f1_macro", "macro F1", _macro_f1),
    Metric("balanced_acc", "balanced accuracy", _balanced_accuracy),
    Metric("loss", "loss", _loss, better="lower"),
    Metric("ece", "calibration error", _calibration_error, better="lower"),
)
"""Those of every run whose clips have one label each."""

METRICS_OF_SEVERAL: tuple[Metric, ...] = (
    Metric("map", "mean average precision", _mean_average_precision),
    Metric("map_micro", "micro average precision", _micro_average_precision),
    Metric("auc", "area under ROC", _area_under_roc),
    Metric("lwlrap", "lwlrap", _lwlrap),
    Metric("loss", "loss", _loss, better="lower"),
)
"""Those of every run whose clips may have several."""


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """The metrics of every run on a task; the first one ranks."""
    return METRICS_OF_SEVERAL if task.several else METRICS


def ranking(metrics: Mapping[str, Any], split: str = "val") -> str:
    """The key of the metric that ranks runs: ``val_acc``, or ``val_map`` where clips may have several labels.

    Args:
        metrics: Of a run, by key.
        split: ``val`` or ``test``.
    """
    several = f"{split}_{METRICS_OF_SEVERAL[0].name}"
    return several if several in metrics else f"{split}_{METRICS[0].name}"


def split_metrics(split: str, logits: Tensor, labels: Tensor, metrics: Sequence[Metric] = METRICS) -> dict[str, float]:
    """All metrics of one split.

    Args:
        split: ``val`` or ``test``; every key begins with it.
        logits: (clips, classes) float32.
        labels: As in :class:`Scores`.
        metrics: Which.
    """
    scores = Scores(logits, labels)
    return {f"{split}_{metric.name}": float(metric.compute(scores)) for metric in metrics}


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """That of arrays, each (clips, classes): float32, and 0 and 1."""
    import torch

    return float(_mean_average_precision(Scores(torch.from_numpy(logits), torch.from_numpy(labels))))


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature by which logits are divided so that the cross-entropy is least (Guo et al. 2017).

    Args:
        logits: (clips, classes) float32, of clips that were not trained on.
        labels: (clips,) int64.

    Returns:
        From 0.01 to 100: above 1 where the model is too sure of itself, below 1 where it is not sure enough.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.double()
    found = minimize_scalar(
        lambda log: float(_loss(Scores(logits / math.exp(log), labels))), bounds=(math.log(0.01), math.log(100))
    )
    return math.exp(found.x)


def calibrated(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """The temperature, and the calibration error of test clips once their logits are divided by it."""
    error = _calibration_error(Scores(logits / temperature, labels))
    return {"temperature": temperature, "test_ece_calibrated": float(error)}


def per_class(logits: Tensor, labels: Tensor, task: Task) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 (None where undefined) and support of each class, by name.

    With several labels a clip: average precision (None where no clip has the class) and support.
    """
    if task.several:
        precisions = Scores(logits, labels).average_precisions.tolist()
        return {
            name: {"average_precision": None if math.isnan(value) else value, "support": int(count)}
            for name, value, count in zip(task.classes, precisions, labels.sum(dim=0).tolist(), strict=True)
        }
    tp, fp, fn, support = (part.tolist() for part in Scores(logits, labels).counts)

    def ratio(value: float, of: float) -> float | None:
        return value / of if of > 0 else None

    return {
        name: {
            "precision": ratio(tp[i], tp[i] + fp[i]),
            "recall": ratio(tp[i], support[i]),
            "f1": ratio(2 * tp[i], 2 * tp[i] + fp[i] + fn[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(task.classes)
    }


def own_metrics(nodes: Mapping[str, Any] | None) -> tuple[Metric, ...]:
    """The metrics that a config adds: its ``metrics`` node.

    Args:
        nodes: Name → ``_target_``, a function of (probabilities (clips, classes), labels (clips,)) as NumPy arrays that
            returns a float; ``label``, ``better`` and ``format`` as in :class:`Metric`; and any other keyword argument
            of the function.

    Raises:
        ConfigError: A name or value can't be, or there is no such function.
    """
    if nodes is not None and not isinstance(nodes, Mapping):
        raise ConfigError(
            f"metrics={nodes}: give each metric a name, such as metrics={{mine: {{_target_: my_module.f}}}}"
        )
    return tuple(_own_metric(str(name), node) for name, node in (nodes or {}).items())


def _own_metric(name: str, node: Any) -> Metric:
    key = f"metrics.{name}"
    if not name.isidentifier() or name in {metric.name for metric in (*METRICS, *METRICS_OF_SEVERAL)}:
        raise ConfigError(f"{key}: choose another name, of letters, digits and _, that no metric has yet")
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{key}: give its function as _target_, such as {{_target_: my_module.{name}}}")
    arguments = {str(key): value for key, value in node.items()}
    target = arguments.pop("_target_")
    label, better, form = (arguments.pop(key, usual) for key, usual in _USUAL.items())
    if better not in BETTER:
        raise ConfigError(f"{key}.better={better!r} can't be: it must be one of {', '.join(BETTER)}")
    try:
        format(0.5, form)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}.format={form!r} formats no number; write it as in Python, such as .4f") from error
    from hydra.utils import get_method  # half a second that only those pay who add a metric

    try:
        function = get_method(target)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"{key}._target_={target}: no such function ({first_line(error)}); its folder must be on PYTHONPATH"
        ) from error
    return Metric(name, str(label or name), partial(_own_value, key, partial(function, **arguments)), better, form)


_USUAL = {"label": None, "better": "higher", "format": ".4f"}


def _own_value(key: str, function: Callable[..., Any], scores: Scores) -> float:
    probabilities = scores.probabilities
    if not math.isfinite(probabilities.sum()):  # training has diverged, which the loss reports
        return math.nan
    try:
        value = float(function(probabilities, scores.labels.numpy()))
    except Exception as error:  # whatever the user's function raises
        raise ConfigError(f"{key}: its function failed: {type(error).__name__}: {first_line(error)}") from error
    if not math.isfinite(value):
        raise ConfigError(f"{key}: its function returned {value}; it must return a finite number")
    return value
