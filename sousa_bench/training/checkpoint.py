"""The state of an unfinished run: written at each epoch's end and every N minutes, continued from exactly."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from sousa_bench.errors import Interrupted
from sousa_bench.results import stop_request
from sousa_bench.results.metrics import ranking
from sousa_bench.results.result import CHECKPOINT_FOLDER, Recorder
from sousa_bench.system.files import replaced
from sousa_bench.training import hardware
from sousa_bench.training.classifier import Classifier, profiled
from sousa_bench.training.distributed import any_rank, rank, world_size

if TYPE_CHECKING:
    from types import FrameType

    from sousa_bench.config.settings import TrainerSettings
    from sousa_bench.data.datamodule import Batch

LAST = "last.pt"
log = logging.getLogger(__name__)
AGREE_STEPS = 8  # on GPUs, steps between two times that the ranks of a run ask each other whether to stop
SHOW_SECONDS = 2.0  # between two updates of the progress file within an epoch


class Stop:
    """Whether the run was asked to stop; SIGTERM and SIGINT ask.

    Outside the training loop the request raises :class:`Interrupted` at once, inside it waits for the end of the
    optimizer step, where the state can be saved.
    """

    def __init__(self) -> None:
        self.asked = False
        self.training = False
        self.pruned: str | None = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals."""
        if self.asked:  # Slurm signals every process of a job, and then the supervisor does
            return
        self.asked = True
        if not self.training:
            raise Interrupted("asked to stop")

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle the signals inside the block; the former handlers come back after it."""
        former = {number: signal.signal(number, self.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, signal.SIG_IGN if self.asked else handler)


class Checkpoints:
    """The files below ``checkpoints/`` of one run.

    ``last.pt`` names the file of what is to be tested that belongs to it, so that a kill between two writes leaves a
    pair that fits. Both hold tensors and plain values alone and are read without unpickling code.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CHECKPOINT_FOLDER

    def save(self, state: dict[str, Any], tested: dict[str, Any] | None = None) -> None:
        """Write ``state`` as the last checkpoint, and before it ``tested`` when there is something new to be tested.

        Raises:
            OSError: The disk is full; the former checkpoint then still stands whole.
        """
        for name, content in ((state["tested_file"], tested), (LAST, state)):
            if content is not None:
                with replaced(self.folder / name) as draft, draft.open("wb") as file:
                    torch.save(content, file)
        for former in self.folder.glob("tested_*.pt"):
            if former.name != state["tested_file"]:
                former.unlink(missing_ok=True)

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

    def tested(self, state: dict[str, Any]) -> dict[str, Any]:
        """What is to be tested, by the file that ``state`` names: ``trainable`` and ``val``, see :class:`KeepState`."""
        return torch.load(self.folder / state["tested_file"], map_location="cpu", weights_only=True)


class KeepState(pl.Callback):
    """Saves the run's state, keeps what is to be tested, stops early, stops when asked, and continues a saved state.

    What is to be tested are the weights of the epoch that ``trainer.tested_epoch`` names (``trainable``), and what they
    say of the validation clips (``val``: positions and logits; None where there are no such clips).

    Args:
        checkpoints: Where to write.
        recorder: Shows epoch and step.
        stop: Asked by a signal.
        settings: Which epoch is tested; minutes between two checkpoints within an epoch; epochs without a better one
            before training ends.
        attempt: Gives what the result of a later attempt repeats of this one.
        state: A captured state to continue from; the module's part of it is restored already.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        recorder: Recorder,
        stop: Stop,
        settings: TrainerSettings,
        attempt: Callable[[], dict[str, Any]],
        state: dict[str, Any] | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.recorder = recorder
        self.stop = stop
        self.settings = settings
        self.attempt = attempt
        self.state = state
        self.fit_seconds: float = state["fit_seconds"] if state else 0.0
        self._counted_until = self._saved_at = time.monotonic()
        self._begun = False
        self._shown_at = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning counts on from the interrupted epoch."""
        if self.state:
            progress = trainer.fit_loop.epoch_progress.current
            progress.completed = progress.processed = self.state["epoch"]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The optimizer exists and sits on its device, and requests to stop come here."""
        if self.state:
            trainer.optimizers[0].load_state_dict(self.state["optimizer"])
        # Lightning has taken SIGTERM, and would end the run inside a validation, and lose that epoch.
        signal.signal(signal.SIGTERM, self.stop.on_signal)
        self._counted_until = time.monotonic()
        self.stop.training = world_size() > 1  # ranks are at different clips of what is shared, and stop together

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From the first step on there is something to save before a stop, and the clock of the fit runs.

        What runs share is no part of the fit's time, or that would depend on which run came first.
        """
        self.stop.training = True
        if not self._begun:
            self._begun, now = True, time.monotonic()
            phases = self.recorder.result["phases"]
            phases["shared"] = phases.get("shared", 0.0) + now - self._counted_until
            self._counted_until = self._saved_at = now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Within an epoch: save when it is time or when asked to stop."""
        assert isinstance(pl_module, Classifier)
        if time.monotonic() - self._shown_at > SHOW_SECONDS:
            if trainer.is_global_zero:
                self._look_for_a_request()
            self._show(trainer, pl_module)
        if trainer.is_last_batch:
            return  # validation follows at once; the epoch's end saves
        due = time.monotonic() - self._saved_at > 60 * self.settings.checkpoint_minutes
        asked, due = self._agreed(trainer, due, batch.step)
        if asked or due:
            self._save(trainer, pl_module, (batch.epoch, batch.step + 1))
            self._stop_if(asked)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's end where clips validate."""
        if trainer.state.fn == "fit":
            self._end_epoch(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's end where none do."""
        if not trainer.limit_val_batches:
            self._end_epoch(trainer, pl_module)

    def _end_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """New weights to be tested, early stopping, checkpoint."""
        assert isinstance(pl_module, Classifier)
        history, patience = pl_module.history, self.settings.early_stopping
        epoch = history[-1]["epoch"]
        stops_early = patience is not None and epoch - best_epoch(history) >= patience
        finished = stops_early or epoch == trainer.max_epochs
        tested = None
        if tested_epoch(history, self.settings.tested_epoch) == epoch:
            tested = {"trainable": pl_module.injection.trainable_state(), "val": pl_module.outputs.get("val")}
        self._save(trainer, pl_module, (epoch, 0), tested, finished=finished)
        self.recorder.add(history=history)
        if trainer.is_global_zero:
            stop_request.write_history(self.recorder.folder, history)
        accelerator = "gpu" if trainer.strategy.root_device.type == "cuda" else "cpu"
        self._show(trainer, pl_module, **hardware.gpu_memory(accelerator))
        if trainer.is_global_zero and not finished:  # what the line above tells may bring a request
            self._look_for_a_request()
        self._stop_if(self._agreed(trainer, False)[0])
        if stops_early:
            trainer.should_stop = True

    def _agreed(self, trainer: pl.Trainer, due: bool, step: int = 0) -> tuple[bool, bool]:
        """Whether to stop, and whether to save: the same on every rank, or they would wait for each other for ever."""
        if world_size() == 1:
            return self.stop.asked, due
        device = trainer.strategy.root_device
        if device.type != "cpu" and step % AGREE_STEPS:  # asking makes a GPU wait
            return False, False
        asked, due = any_rank((self.stop.asked, due), device)
        return asked, due

    def _look_for_a_request(self) -> None:
        """See whether a search gave this run up."""
        if (reason := stop_request.asked(self.recorder.folder)) is not None:
            self.stop.asked, self.stop.pruned = True, reason

    def _stop_if(self, asked: bool) -> None:
        if asked and self.stop.pruned is not None:
            raise stop_request.Pruned(self.stop.pruned)
        if asked:
            raise Interrupted("asked to stop; the checkpoint is written")

    def _save(
        self,
        trainer: pl.Trainer,
        module: Classifier,
        place: tuple[int, int],
        tested: dict[str, Any] | None = None,
        *,
        finished: bool = False,
    ) -> None:
        with profiled(trainer, "checkpoint"):
            now = time.monotonic()
            self.fit_seconds += now - self._counted_until
            self._counted_until = self._saved_at = now
            state = capture(module, trainer, place)
            state |= {"fit_seconds": self.fit_seconds, "finished": finished, "told": self.attempt()}
            state["tested_file"] = f"tested_{tested_epoch(module.history, self.settings.tested_epoch)}.pt"
            if trainer.is_global_zero:
                self.checkpoints.save(state, tested)
            trainer.strategy.barrier()  # the other ranks read the files at the fit's end

    def _show(self, trainer: pl.Trainer, module: Classifier, **more: Any) -> None:
        self._shown_at = time.monotonic()
        last = module.history[-1] if module.history else {}
        if trainer.is_global_zero:
            with profiled(trainer, "record"):
                self.recorder.show(
                    epoch=trainer.current_epoch + 1,
                    max_epochs=trainer.max_epochs,
                    step=module.steps_done,
                    total_steps=module.optimization.total_steps,
                    fit_seconds=self.fit_seconds + self._shown_at - self._counted_until,
                    train_loss=module.sums.mean() if module.sums.clips else last.get("train_loss"),
                    **({key: last[key]} if (key := ranking(last)) in last else {}),
                    **more,
                )


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch (from 1) that validates best, of equals the lowest ``val_loss``, of these the first.

    It is 0 for an empty history.
    """
    if not history:
        return 0
    key = ranking(history[0])
    best = min(history, key=lambda entry: (-entry[key], entry["val_loss"], entry["epoch"]))
    return best["epoch"]


def tested_epoch(history: list[dict[str, Any]], rule: str) -> int:
    """The epoch (from 1) whose weights are tested, by ``trainer.tested_epoch``; 0 for an empty history."""
    return best_epoch(history) if rule == "best" else len(history)


def capture(module: Classifier, trainer: pl.Trainer, place: tuple[int, int]) -> dict[str, Any]:
    """Everything that the rest of a run depends on, after ``place`` = (epochs, steps of the next one) are done."""
    loss, clips = module.epoch_loss()
    return {
        "epoch": place[0],
        "step": place[1],
        "steps_done": module.steps_done,
        "trainable": module.injection.trainable_state(),
        "injection": module.injection.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "history": module.history,
        "sums": {"loss": loss, "clips": clips, "seconds": module.sums.seconds},
        "micro_batch_size": module.micro_batch_size,
    }


def restore(module: Classifier, state: dict[str, Any]) -> None:
    """Put a captured state back into a freshly built module; :class:`KeepState` loads the optimizer's part."""
    module.injection.load_trainable_state(state["trainable"])
    module.injection.load_state_dict(state["injection"])
    module.steps_done = state["steps_done"]
    module.history = list(state["history"])
    if rank() == 0:  # the sums are those of all ranks
        module.sums.loss = torch.tensor(state["sums"]["loss"], dtype=torch.float64)
        module.sums.clips = state["sums"]["clips"]
    module.sums.seconds = state["sums"]["seconds"]
