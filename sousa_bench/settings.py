"""How a run trains: the ``trainer`` config group as one checked object."""

from __future__ import annotations

from dataclasses import dataclass

from sousa_bench.errors import ConfigError

PRECISIONS = ("auto", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TrainerSettings:
    """The choices of ``conf/trainer``; that file says what each means.

    Raises:
        ConfigError: A value is impossible; the message names the key.
    """

    max_epochs: int
    batch_size: int
    micro_batch_size: int | None
    eval_batch_size: int
    learning_rate: float | None
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    gradient_clip: float | None
    early_stopping: int | None
    accelerator: str
    devices: int
    precision: str
    checkpoint_minutes: float
    feature_memory_mb: int
    train_batches: int | None
    eval_batches: int | None
    progress: bool

    def __post_init__(self) -> None:
        for key in ("max_epochs", "batch_size", "eval_batch_size", "devices"):
            self._need(key, getattr(self, key) >= 1, "at least 1")
        for key in ("micro_batch_size", "early_stopping", "train_batches", "eval_batches"):
            value = getattr(self, key)
            self._need(key, value is None or (value is not False and value >= 1), "at least 1, or null")
        for key in ("warmup_fraction", "label_smoothing"):
            self._need(key, 0 <= getattr(self, key) < 1, "from 0 up to, not including, 1")
        for key in ("learning_rate", "gradient_clip"):
            self._need(key, getattr(self, key) is None or getattr(self, key) > 0, "above 0, or null")
        for key in ("weight_decay", "feature_memory_mb"):
            self._need(key, getattr(self, key) >= 0, "0 or more")
        self._need("checkpoint_minutes", self.checkpoint_minutes > 0, "above 0")
        self._need("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._need("accelerator", self.accelerator in ("auto", "cpu", "gpu"), "auto, cpu or gpu")

    def _need(self, key: str, good: bool, what: str) -> None:
        if not good:
            raise ConfigError(f"trainer.{key}={getattr(self, key)!r} can't be: it must be {what}")
