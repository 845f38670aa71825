"""A stand-in for a training run whose accuracy depends on its hyperparameters: epochs, checkpoints, pruning."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.errors import Interrupted
from sousa_bench.results import pruning
from sousa_bench.results.result import PHASES, Recorder, write_json
from tests.sweep.standin import Stop


def run(cfg: DictConfig, folder: Path, recorder: Recorder) -> dict[str, Any]:
    """Epochs whose accuracy rises to a height that the learning rate and the rank decide."""
    stop = Stop()
    checkpoint = folder / "checkpoints" / "last.json"
    history = json.loads(checkpoint.read_text())["history"] if checkpoint.exists() else []
    epochs = cfg.trainer.max_epochs
    height = 0.9 - 0.2 * abs(math.log10(cfg.peft.learning_rate) + 2) - 0.01 * abs(cfg.peft.get("r", 8) - 4)
    for phase in PHASES:
        with recorder.phase(phase):
            if phase != "fit":
                continue
            while len(history) < epochs:
                time.sleep(cfg.task.seconds)
                if stop.asked:
                    raise Interrupted(f"stopped in epoch {len(history) + 1}")
                if cfg.task.unstable is not None and cfg.peft.learning_rate >= cfg.task.unstable:
                    raise RuntimeError("the loss became nan")
                epoch = len(history) + 1
                history.append({"epoch": epoch, "val_acc": height * epoch / epochs, "val_loss": 1 - height})
                write_json(checkpoint, {"history": history})
                pruning.write_history(folder, history)
                recorder.add(history=history)
                recorder.show(epoch=epoch, max_epochs=epochs, step=epoch, total_steps=epochs)
                if epoch < epochs and (reason := pruning.asked(folder)):
                    raise pruning.Pruned(reason)
    recorder.add(
        history=history,
        metrics=dict.fromkeys(("val_acc", "val_f1_macro", "test_acc", "test_f1_macro"), history[-1]["val_acc"])
        | {"best_epoch": epochs, "final_train_loss": 0.1, "final_val_loss": 0.1, "val_loss": 1 - height},
        efficiency=dict.fromkeys(
            ("total_params", "trainable_params", "param_efficiency", "training_time_seconds", "avg_epoch_time"), 1.0
        ),
    )
    return recorder.result
