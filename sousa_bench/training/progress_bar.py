"""What a training run shows: a bar per epoch on a terminal; elsewhere a line per epoch, and some within a long one."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from sousa_bench.results.metrics import ranking
from sousa_bench.training.classifier import Classifier

SILENT_SECONDS = 300.0
"""How long nothing is said within an epoch where there is no bar."""


class EpochBar(pl.Callback):
    """One bar for each epoch's training steps, closed by a line with the epoch's losses and accuracy.

    Args:
        title: Which run of a sweep it is.
    """

    def __init__(self, title: str = "") -> None:
        self._title = title
        self._bar: tqdm | None = None
        self._said = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._said = time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(
                total=int(trainer.num_training_batches),
                desc=f"{self._title} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}".lstrip(),
                unit="step",
                leave=False,
                dynamic_ncols=True,
            )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """One step more; a bar that was just redrawn shows the epoch's loss so far the next time."""
        if self._bar is not None and self._bar.update():
            assert isinstance(pl_module, Classifier)
            self._bar.set_postfix(loss=f"{pl_module.sums.mean():.4f}", refresh=False)
        elif self._bar is None and trainer.is_global_zero and time.monotonic() - self._said > SILENT_SECONDS:
            self._said = time.monotonic()
            assert isinstance(pl_module, Classifier)
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            steps = f"{pl_module.steps_done:,} of {int(trainer.num_training_batches) * int(trainer.max_epochs or 1):,}"
            print(f"{epoch}, step {steps}: train_loss={pl_module.sums.mean():.4f} so far", flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's line where clips validate."""
        self._end_epoch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's line where none do."""
        if not trainer.limit_val_batches:
            self._end_epoch(trainer, pl_module)

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()
        assert isinstance(pl_module, Classifier)
        if trainer.is_global_zero and trainer.state.fn == "fit" and pl_module.history:
            last = pl_module.history[-1]
            shown = [key for key in ("train_loss", "val_loss", ranking(last)) if key in last]
            values = " ".join(f"{key}={last[key]:.4f}" for key in shown)
            print(f"epoch {last['epoch']}/{trainer.max_epochs}: {values}", flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
