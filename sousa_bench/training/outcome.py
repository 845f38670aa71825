"""What a run that was fitted and tested says of itself: the blocks of its result file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sousa_bench.config.settings import TrainerSettings
from sousa_bench.results.confidence import Answers, answers, confidence
from sousa_bench.results.metrics import calibrated, fitted_temperature, per_class
from sousa_bench.results.result import ADAPTER_FOLDER, PREDICTIONS_FILE
from sousa_bench.task import Task
from sousa_bench.training.checkpoint import best_epoch, tested_epoch
from sousa_bench.training.classifier import Classifier


def outcome(
    module: Classifier,
    settings: TrainerSettings,
    fit_seconds: float,
    peak_bytes: int,
    repeated: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Blocks of the result file that the fit and the test leave in the module.

    Args:
        module: Fitted and, unless it repeats earlier scores, tested.
        settings: How it trained.
        fit_seconds: Of all attempts together.
        peak_bytes: Most memory at a time, of all attempts.
        repeated: Of a refit, see :func:`sousa_bench.config.refit.repeated`.

    Returns:
        ``history``, ``metrics`` (validation at the tested epoch, test), ``confidence``, ``efficiency``, ``peft``,
        ``per_class``, ``files``, and ``declared_metrics`` where the config adds some. A refit has no ``per_class``, and
        of ``files`` no predictions.
    """
    history, injection = module.history, module.injection
    parameters = injection.parameters
    clips = len(module.clips["train"])
    if settings.train_batches is not None:
        clips = min(clips, settings.train_batches * settings.batch_size)
    train_seconds = sum(entry["train_seconds"] for entry in history)
    declared = {metric.name: metric.as_dict() for metric in module.own_metrics}
    return {
        "history": history,
        **(_scores(module, settings) if repeated is None else _repeated_scores(module, repeated)),
        **({"declared_metrics": declared} if declared else {}),
        "efficiency": {
            "total_params": parameters["total"],
            "trainable_params": parameters["trainable"],
            "param_efficiency": parameters["trainable"] / parameters["total"],
            "training_time_seconds": fit_seconds,
            "avg_epoch_time": fit_seconds / len(history),
            "peak_memory_bytes": peak_bytes,
            "samples_per_second": clips * len(history) / max(train_seconds, 1e-9),
            "epochs": len(history),
            "steps": module.steps_done,
            "micro_batch_size": module.micro_batch_size,
        },
        "peft": {
            **injection.facts(),
            "learning_rate": module.optimization.learning_rate,
            "head_learning_rate": module.optimization.head_learning_rate,
        },
        "files": {**({"predictions": PREDICTIONS_FILE} if repeated is None else {}), "adapter": ADAPTER_FOLDER},
    }


def _scores(module: Classifier, settings: TrainerSettings) -> dict[str, Any]:
    """``metrics``, ``confidence`` and ``per_class`` of a tested module."""
    history, task = module.history, module.task
    best, last = history[best_epoch(history) - 1], history[-1]
    tested = history[tested_epoch(history, settings.tested_epoch) - 1]
    (logits, labels), (val_logits, val_labels) = (_logits_and_labels(module, split) for split in ("test", "val"))
    return {
        "metrics": {
            **{key: value for key, value in tested.items() if key.startswith("val_")},
            **module.test_metrics,
            **({} if task.several else calibrated(logits, labels, fitted_temperature(val_logits, val_labels))),
            "tested_epoch": tested["epoch"],
            "best_epoch": best["epoch"],
            f"best_val_{task.metric}": best[f"val_{task.metric}"],
            "best_val_loss": best["val_loss"],
            "last_epoch": last["epoch"],
            "final_train_loss": last["train_loss"],
            f"final_val_{task.metric}": last[f"val_{task.metric}"],
            "final_val_loss": last["val_loss"],
        },
        "confidence": confidence(given_answers(val_logits, val_labels, task), given_answers(logits, labels, task)),
        "per_class": per_class(logits, labels, task),
    }


def _repeated_scores(module: Classifier, repeated: Mapping[str, Any]) -> dict[str, Any]:
    """``metrics`` and ``confidence`` of a refit: those of the earlier runs, but for what its own training gave."""
    last = module.history[-1]
    own = dict.fromkeys(("tested_epoch", "best_epoch", "last_epoch"), last["epoch"])
    return {
        "metrics": {**repeated["metrics"], **own, "final_train_loss": last["train_loss"]},
        **({"confidence": repeated["confidence"]} if "confidence" in repeated else {}),
    }


def given_answers(logits: Tensor, labels: Tensor, task: Task) -> Answers:
    """The answers of logits (clips, classes) with their probabilities as `predict` gives them, and which are right."""
    probabilities = logits.float().sigmoid() if task.several else logits.float().softmax(dim=1)
    return answers(probabilities.cpu().numpy(), labels.cpu().numpy(), task.several)


def _logits_and_labels(module: Classifier, split: str) -> tuple[Tensor, Tensor]:
    positions, logits = module.outputs[split]
    return logits, module.clips[split].labels[positions]
