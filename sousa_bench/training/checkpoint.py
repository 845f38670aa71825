"""The state of an unfinished run: written at each epoch's end and every N minutes, continued from exactly."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from sousa_bench.errors import Interrupted
from sousa_bench.results import pruning
from sousa_bench.results.result import CHECKPOINT_FOLDER
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.distributed import any_rank, rank

if TYPE_CHECKING:
    from types import FrameType

    from sousa_bench.data.datamodule import Batch
    from sousa_bench.results.result import Recorder

LAST = "last.pt"
log = logging.getLogger(__name__)
AGREE_STEPS = 8  # on GPUs, steps between two times that the ranks of a run ask each other whether to stop


class Stop:
    """Whether the run was asked to stop; SIGTERM and SIGINT ask.

    Outside the training loop the request raises :class:`Interrupted` at once, inside it waits for the end of the
    optimizer step, where the state can be saved.
    """

    def __init__(self) -> None:
        self.asked = False
        self.training = False
        self.pruned: str | None = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # Slurm signals every process of a job, and then the supervisor does
            return
        self.asked = True
        if not self.training:
            raise Interrupted(f"stopped by {signal.Signals(number).name}")

    def hear_alone(self) -> None:
        """Take SIGTERM back from Lightning, which would end the run inside a validation, and lose that epoch."""
        signal.signal(signal.SIGTERM, self._ask)

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle the signals inside the block; the former handlers come back after it."""
        former = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, signal.SIG_IGN if self.asked else handler)


class Checkpoints:
    """The files below ``checkpoints/`` of one run.

    ``last.pt`` names the file of the best weights that belongs to it, so that a kill between two writes leaves a
    pair that fits. Both hold tensors and plain values alone and are read without unpickling code.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CHECKPOINT_FOLDER

    def save(self, state: dict[str, Any], best: dict[str, Any] | None = None) -> None:
        """Write ``state`` as the last checkpoint, and before it ``best`` when there are new best weights.

        Raises:
            OSError: The disk is full; the former checkpoint then still stands whole.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if best is not None:
            _write(self.folder / state["best_file"], best)
        _write(self.folder / LAST, state)
        for file in self.folder.glob("best_*.pt"):
            if file.name != state["best_file"]:
                file.unlink(missing_ok=True)

    def last(self) -> dict[str, Any] | None:
        """The last checkpoint, or None when there is none that can be read (which is said)."""
        path = self.folder / LAST
        if not path.exists():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what a torn file makes the reader stumble over has no one type
            log.warning("%s can't be read (%s): the run starts afresh", path, error)
            return None

    def best(self, state: dict[str, Any]) -> dict[str, Any]:
        """The best weights that ``state`` names."""
        return torch.load(self.folder / state["best_file"], map_location="cpu", weights_only=True)


class KeepState(pl.Callback):
    """Saves the run's state, keeps the best weights, stops early, and stops when asked.

    Args:
        checkpoints: Where to write.
        recorder: Shows epoch and step.
        stop: Asked by a signal.
        minutes: Between two checkpoints within an epoch.
        patience: Epochs without a better ``val_acc`` before training ends, or None.
        fit_seconds: Seconds of earlier attempts.
        told: Gives what later attempts must know of this one besides the training's state.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        recorder: Recorder,
        stop: Stop,
        minutes: float,
        patience: int | None,
        fit_seconds: float = 0.0,
        told: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.checkpoints = checkpoints
        self.recorder = recorder
        self.stop = stop
        self.minutes = minutes
        self.patience = patience
        self.fit_seconds = fit_seconds
        self.told = told
        self._mark = time.monotonic()
        self._saved = time.monotonic()
        self._shown = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock of the fit starts, and requests to stop come here."""
        self.stop.hear_alone()
        self._mark = self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Within an epoch: save when it is time or when asked to stop."""
        assert isinstance(pl_module, Classifier)
        self._show(trainer, pl_module)
        if trainer.is_last_batch:
            return  # validation follows at once; the epoch's end saves
        due = time.monotonic() - self._saved > 60 * self.minutes
        asked, due = self._agreed(trainer, due, batch.step)
        if asked or due:
            self._save(trainer, pl_module, (batch.epoch, batch.step + 1))
            self._leave_if(asked)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """At an epoch's end: new best weights, early stopping, checkpoint."""
        assert isinstance(pl_module, Classifier)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        history = pl_module.history
        epoch = history[-1]["epoch"]
        best = best_epoch(history)
        done = self.patience is not None and epoch - best >= self.patience
        state = pl_module.injection.trainable_state() if best == epoch else None
        self._save(trainer, pl_module, (epoch, 0), state, finished=done or epoch == trainer.max_epochs)
        self.recorder.add(history=history)
        if trainer.is_global_zero:
            pruning.write_history(self.recorder.folder, history)
        self._show(trainer, pl_module, force=True)
        if not (done or epoch == trainer.max_epochs):
            self._look_for_a_request(trainer)
        self._leave_if(self._agreed(trainer, False)[0])
        if done:
            trainer.should_stop = True

    def _agreed(self, trainer: pl.Trainer, due: bool, step: int = 0) -> tuple[bool, bool]:
        """Whether to stop, and whether to save: the same on every rank, or they would wait for each other for ever."""
        if trainer.world_size == 1:
            return self.stop.asked, due
        device = trainer.strategy.root_device
        if device.type != "cpu" and step % AGREE_STEPS:  # asking makes a GPU wait
            return False, False
        asked, due = any_rank((self.stop.asked, due), device)
        return asked, due

    def _look_for_a_request(self, trainer: pl.Trainer) -> None:
        """See whether a search gave this run up."""
        if trainer.is_global_zero and (reason := pruning.asked(self.recorder.folder)) is not None:
            self.stop.asked, self.stop.pruned = True, reason

    def _leave_if(self, asked: bool) -> None:
        if asked and self.stop.pruned is not None:
            raise pruning.Pruned(self.stop.pruned)
        if asked:
            raise Interrupted("asked to stop; the checkpoint is written")

    def _save(
        self,
        trainer: pl.Trainer,
        module: Classifier,
        place: tuple[int, int],
        best: dict[str, Any] | None = None,
        *,
        finished: bool = False,
    ) -> None:
        now = time.monotonic()
        self.fit_seconds += now - self._mark
        self._mark = self._saved = now
        state = capture(module, trainer, place)
        state |= {"fit_seconds": self.fit_seconds, "finished": finished, "told": self.told()}
        if trainer.is_global_zero:
            self.checkpoints.save(state, best)
        trainer.strategy.barrier()  # the other ranks read the files at the fit's end

    def _show(self, trainer: pl.Trainer, module: Classifier, *, force: bool = False) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and (force or now - self._shown > 2.0):
            self._shown = now
            if not force:
                self._look_for_a_request(trainer)
            self.recorder.show(
                epoch=trainer.current_epoch + 1,
                max_epochs=trainer.max_epochs,
                step=module.steps_done,
                total_steps=module.optimization.total_steps,
                fit_seconds=self.fit_seconds + now - self._mark,
                **({"val_acc": module.history[-1]["val_acc"]} if module.history else {}),
            )


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The first epoch (from 1) with the highest ``val_acc``; 0 for an empty history."""
    return max(history, key=lambda entry: (entry["val_acc"], -entry["epoch"]))["epoch"] if history else 0


def capture(module: Classifier, trainer: pl.Trainer, place: tuple[int, int]) -> dict[str, Any]:
    """Everything that the rest of a run depends on, after ``place`` = (epochs, steps of the next one) are done."""
    optimizer = trainer.optimizers[0]
    loss, clips = module.over_processes()
    return {
        "epoch": place[0],
        "step": place[1],
        "steps_done": module.steps_done,
        "trainable": module.injection.trainable_state(),
        "injection": module.injection.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": module.history,
        "sums": {
            "loss": loss,
            "clips": clips,
            "seconds": module.sums.seconds,
        },
        "best_file": f"best_{best_epoch(module.history)}.pt",
        "micro_batch_size": module.micro_batch_size,
    }


def restore(module: Classifier, state: dict[str, Any]) -> None:
    """Put a captured state back into a freshly built module; the optimizer's part is loaded at the fit's start."""
    module.injection.load_trainable_state(state["trainable"])
    module.injection.load_state_dict(state["injection"])
    module.steps_done = state["steps_done"]
    module.history = list(state["history"])
    if rank() == 0:  # the sums are those of all ranks
        module.sums.loss = torch.tensor(state["sums"]["loss"], dtype=torch.float64)
        module.sums.clips = state["sums"]["clips"]
    module.sums.seconds = state["sums"]["seconds"]


class LoadOptimizer(pl.Callback):
    """Puts the saved optimizer state back once Lightning has built the optimizer.

    Args:
        state: ``optimizer.state_dict()`` of the interrupted run.
        epoch: Epochs that are done.
    """

    def __init__(self, state: dict[str, Any], epoch: int) -> None:
        self.state = state
        self.epoch = epoch

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning counts on from the interrupted epoch."""
        progress = trainer.fit_loop.epoch_progress.current
        progress.completed = self.epoch
        progress.processed = self.epoch  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The optimizer exists and sits on its device."""
        trainer.optimizers[0].load_state_dict(self.state)


def _write(path: Path, content: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
