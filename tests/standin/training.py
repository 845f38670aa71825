"""A stand-in for a training run: real processes, phases, epochs, checkpoints and results, and faults on request."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.errors import ConfigError, Interrupted
from sousa_bench.results import stop_request
from sousa_bench.results.result import PHASES, Recorder, write_json
from sousa_bench.system.cores import usable_cores


class Stop:
    asked = False

    def __init__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.ask)

    def ask(self, *_: Any) -> None:
        self.asked = True


VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "GROUP_RANK")


def run(cfg: DictConfig, folder: Path, recorder: Recorder) -> dict[str, Any]:
    """Train in appearance, saving after each step, going on where an earlier attempt stopped.

    Steps add up numbers that depend on the seed; the accuracy rises, epoch by epoch, to a height that the learning
    rate and the rank decide.
    """
    stop = Stop()
    if rank := int(os.environ.get("RANK", "0")):  # the stand-in keeps its state apart; a real run doesn't
        folder = folder / f"rank{rank}"
        recorder = replace(recorder, folder=folder, quiet=False)
    if "RANK" in os.environ:
        print({name: os.environ.get(name) for name in VARIABLES}, flush=True)
    if cfg.task.rank not in (None, rank):
        cfg.task.fault = None
    checkpoint = folder / "checkpoints" / "last.json"
    state = {"step": 0, "value": float(cfg.seed), "history": []}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
    print(f"run of {cfg.model.name}, seed {cfg.seed}, from step {state['step']}")
    recorder.add(
        environment={
            "threads": os.environ["OMP_NUM_THREADS"],
            "cores": usable_cores(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "accelerator": "gpu" if cfg.task.gpu.folder else "cpu",
        },
    )
    for phase in PHASES:
        with recorder.phase(phase):
            misbehave(cfg, phase, recorder)
            if phase == "fit":
                print("noise\n" * (cfg.task.noise // 6), end="", flush=True)
                with PretendedGpu(cfg.task.gpu) as gpu:
                    fit(cfg, recorder, state, checkpoint, stop, gpu)
    recorder.add(
        metrics=dict.fromkeys(("val_f1_macro", "test_acc", "test_f1_macro"), state["value"] / 10)
        | {key: state["history"][-1][key] for key in ("val_acc", "val_loss")}
        | {"best_epoch": cfg.trainer.max_epochs, "final_train_loss": 0.1, "final_val_loss": 0.1},
        efficiency=dict.fromkeys(
            ("total_params", "trainable_params", "param_efficiency", "training_time_seconds", "avg_epoch_time"), 1.0
        ),
    )
    if cfg.task.fault == "empty":
        del recorder.result["metrics"]["val_acc"]
    return recorder.result


class PretendedGpu:
    """A folder with a file for each run that is on the GPU."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.own = Path(cfg.folder or ".") / str(os.getpid())

    def __enter__(self) -> PretendedGpu:
        if self.cfg.folder:
            self.own.touch()
        return self

    def __exit__(self, *_: object) -> None:
        self.own.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        return self.cfg.total - self.cfg.need * len(list(self.own.parent.iterdir()))

    def check(self) -> None:
        if self.cfg.folder and self.free < 0:
            raise MemoryError("CUDA out of memory")

    def told(self) -> dict[str, Any]:
        if not self.cfg.folder:
            return {}
        total, need = self.cfg.total, self.cfg.need
        return {"gpu_memory": {"need": need, "free": self.free, "total": total, "uuid": "GPU-pretended"}}


def fit(
    cfg: DictConfig, recorder: Recorder, state: dict[str, Any], checkpoint: Path, stop: Stop, gpu: PretendedGpu
) -> None:
    folder, history, epochs = recorder.folder, state["history"], cfg.trainer.max_epochs
    steps = cfg.task.steps or epochs
    for key, value in {"trainer.max_epochs": steps, "peft.r": cfg.peft.get("r", 8)}.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{key}={value!r} can't be: it must be a whole number above 0")
    rate = cfg.peft.get("learning_rate") or 1e-3  # what takes no steps has none
    height = 0.9 - 0.2 * abs(math.log10(rate) + 2) - 0.01 * abs(cfg.peft.get("r", 8) - 4)
    recorder.add(history=history)
    while state["step"] < steps:
        time.sleep(cfg.task.seconds)
        if stop.asked:
            raise Interrupted(f"stopped at step {state['step']}")
        gpu.check()
        if cfg.task.unstable is not None and rate >= cfg.task.unstable:
            raise RuntimeError("the loss became nan")
        state["value"] = (state["value"] * 1.1 + 1) % 7.3
        state["step"] += 1
        before = len(history)
        for epoch in range(before + 1, state["step"] * epochs // steps + 1):
            history.append({"epoch": epoch, "val_acc": height * epoch / epochs, "val_loss": 1 - height})
        write_json(checkpoint, state)
        if len(history) > before:
            stop_request.write_history(folder, history)
        epoch = min(len(history) + 1, epochs)
        told = gpu.told() if len(history) > before else {}
        recorder.show(epoch=epoch, max_epochs=epochs, step=state["step"], total_steps=steps, **told)
        if before < len(history) < epochs and (reason := stop_request.asked(folder)):
            raise stop_request.Pruned(reason)


def misbehave(cfg: DictConfig, phase: str, recorder: Recorder) -> None:
    task, folder = cfg.task, recorder.folder
    if task.fault is None or task.phase != phase or cfg.seed != task.victim:
        return
    healed = Path(task.healed) if task.healed else None
    if healed and healed.exists():
        return
    print(f"fault: {task.fault}", flush=True)
    libc = ctypes.PyDLL(None)  # PyDLL keeps the interpreter lock: no Python thread or signal handler runs meanwhile
    match task.fault:
        case "raise":
            raise RuntimeError("the task broke")
        case "exit":
            raise SystemExit(7)
        case "os_exit":
            os._exit(9)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "hang":
            mutex = ctypes.create_string_buffer(128)  # zeros are an unlocked mutex; its second lock waits for ever
            libc.pthread_mutex_lock(mutex), libc.pthread_mutex_lock(mutex)
        case "sleep":
            time.sleep(600)
        case "slow":
            cfg.task.seconds = 0.5
        case "slow_data":
            for clip in range(32):
                time.sleep(0.3)
                recorder.show(clips=clip)
        case "memory":
            raise MemoryError("no memory for 3 TiB")
        case "hoard":
            hoard = []
            while len(hoard) < 100:
                hoard.append(os.urandom(2**24))
                time.sleep(0.1)
        case "disk":
            (folder / "checkpoints").mkdir(exist_ok=True)
            with (folder / "checkpoints" / "big.tmp").open("wb") as file:
                for _ in range(10_000):
                    file.write(b"x" * 2**20)
        case "descendant":
            if os.fork() == 0:
                os.close(1), os.close(2)
                time.sleep(600)
                os._exit(0)
            (folder / "descendant").write_text("x")
            time.sleep(600)
        case "noise":
            for number in range(500):
                print(f"line {number}")
            raise RuntimeError("after much noise")
