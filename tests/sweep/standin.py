"""A stand-in for a training run: real processes, phases, checkpoints and results, and faults on request."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sousa_bench.errors import Interrupted
from sousa_bench.results.result import PHASES, Recorder, write_json


class Stop:
    asked = False

    def __init__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.ask)

    def ask(self, *_: Any) -> None:
        self.asked = True


def run(cfg: DictConfig, folder: Path, recorder: Recorder) -> dict[str, Any]:
    """Add up seed-dependent numbers, step by step, saving after each, going on where an earlier attempt stopped."""
    stop = Stop()
    checkpoint = folder / "checkpoints" / "last.json"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "value": float(cfg.seed)}
    print(f"run of {cfg.model.name}, seed {cfg.seed}, from step {state['step']}")
    for phase in PHASES:
        with recorder.phase(phase):
            misbehave(cfg, phase, recorder)
            if phase != "fit":
                continue
            print("noise\n" * (cfg.task.noise // 6), end="", flush=True)
            while state["step"] < cfg.task.steps:
                if stop.asked:
                    raise Interrupted(f"stopped at step {state['step']}")
                time.sleep(cfg.task.seconds)
                state["value"] = (state["value"] * 1.1 + 1) % 7.3
                state["step"] += 1
                recorder.show(epoch=1, max_epochs=1, step=state["step"], total_steps=cfg.task.steps)
                write_json(checkpoint, state)
    recorder.add(
        metrics=dict.fromkeys(("val_acc", "val_f1_macro", "test_acc", "test_f1_macro"), state["value"] / 10)
        | {"best_epoch": 1, "final_train_loss": 0.1, "final_val_loss": 0.1},
        efficiency={
            "total_params": 10,
            "trainable_params": 1,
            "param_efficiency": 0.1,
            "training_time_seconds": 1.0,
            "avg_epoch_time": 1.0,
        },
        environment={"threads": os.environ["OMP_NUM_THREADS"], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")},
    )
    if cfg.task.fault == "empty":
        del recorder.result["metrics"]["val_acc"]
    return recorder.result


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
            for clip in range(12):
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
