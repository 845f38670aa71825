"""The record of a run: opened as ``running``, closed with what became of it, whoever is left to write it."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.results import stop_request
from sousa_bench.results.lineage import lineage
from sousa_bench.results.result import (
    CHECKPOINT_FOLDER,
    ERROR_FILE,
    PROGRESS_FILE,
    ResultError,
    read_result,
    write_result,
)
from sousa_bench.results.run_process import identity
from sousa_bench.sweep.job import Job

RESERVE_FILE = ".reserve"
RESERVE_BYTES = 512 * 1024
TAIL_LINES = 200
PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "pytorch_lightning": "pytorch-lightning",
    "sousa_bench": "sousa-bench",
}
BLOCKS = ("metrics", "efficiency", "environment", "phases")


def begin(job: Job) -> dict[str, Any]:
    """Write the record of a run that starts now, and return it.

    It names the process that does the run, so that a record left at ``running`` can be told from a living one.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        (job.folder / ERROR_FILE).unlink()
    stop_request.forget(job.folder)
    earlier = read(job.folder)
    record = opening(job)
    record["attempts"] = int(earlier.get("attempts") or 0) + 1 if not job.fresh else 1
    if not job.fresh and (company := (earlier.get("environment") or {}).get("runs_on_gpu")):
        record["environment"]["runs_on_gpu"] = company
    for block in ("sweep", "lineage"):
        if record.get(block) is None and earlier.get(block):
            record[block] = earlier[block]
    _reserve(job.folder)
    save(job.folder, record)
    return record


def opening(job: Job) -> dict[str, Any]:
    """The record's first state, which needs nothing of the run but its plan."""
    now = datetime.now()
    return {
        "experiment_id": f"{job.name}_{now:%Y%m%d_%H%M%S}",
        "config": flat_config(job),
        "metrics": {},
        "efficiency": {},
        "status": "running",
        "error": None,
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}",
        "started": f"{now:%Y-%m-%dT%H:%M:%S}",
        "git_commit": job.git_commit,
        "fingerprint": job.fingerprint,
        "resolved_config": OmegaConf.to_container(task_config(job.config), resolve=True),
        "overrides": list(job.overrides),
        "sweep": job.sweep,
        "command": job.command,
        "environment": environment(),
        "process": identity(),
        "warnings": list(job.warnings),
        "failure": None,
        **({"lineage": origin} if (origin := lineage(job.config)) else {}),
    }


def finish(job: Job, status: str, blocks: Mapping[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
    """Close the record: what the run found, its status, and where it failed the reason.

    Args:
        job: The run.
        status: ``completed``, ``failed``, ``timeout`` or ``interrupted``.
        blocks: Fragments that the run returned, or as many as it had when it ended.
        facts: ``error`` and ``failure`` of the result.

    Returns:
        The record that was written.

    Raises:
        ValueError: A completed result lacks one of the fixed fields.
        OSError: The disk is full, even after the space reserved for this was given back.
    """
    record = {**opening(job), **read(job.folder)}
    for name, block in (blocks or {}).items():
        if name in BLOCKS and isinstance(block, Mapping):
            record[name] = {**(record.get(name) or {}), **block}
        elif name == "warnings":
            record[name] = list(dict.fromkeys([*(record.get(name) or []), *block]))
        elif name not in ("status", "config"):
            record[name] = block
    record.update({"error": None, "failure": None, **facts, "status": status})
    record["timestamp"] = f"{datetime.now():%Y-%m-%dT%H:%M:%S}"
    save(job.folder, record)
    with suppress(OSError):
        (job.folder / RESERVE_FILE).unlink()
    return record


def save(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record; on a full disk, first give back the space that was reserved for it."""
    try:
        write_result(folder, record)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free_space(folder)
        write_result(folder, record)


def free_space(folder: Path) -> None:
    """Drop what a run that met a full disk no longer needs: its reserve and half-written files."""
    for file in (folder / RESERVE_FILE, *folder.glob("**/*.tmp")):
        with suppress(OSError):
            file.unlink()


def read(folder: Path) -> dict[str, Any]:
    """The record as it stands, or an empty dict when there is none or it is torn."""
    with suppress(ResultError):
        return read_result(folder)
    return {}


def note_company(folder: Path, runs: int) -> None:
    """Write into a run's record how many runs, itself included, there were at most on its GPU at a time."""
    record = read(folder)
    environment = record.get("environment") or {}
    if environment.get("accelerator") == "gpu":
        runs = max(runs, environment.get("runs_on_gpu") or 1)  # of an earlier attempt
        with suppress(OSError):  # a full disk: the record stands without it
            save(folder, {**record, "environment": {**environment, "runs_on_gpu": runs}})


def drop_checkpoints(folder: Path) -> None:
    """Drop the checkpoints of a run that won't go on from them."""
    shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)


def start_over(folder: Path) -> None:
    """Drop what an earlier attempt left to continue from."""
    drop_checkpoints(folder)
    for name in (PROGRESS_FILE, ERROR_FILE, stop_request.HISTORY_FILE):
        with suppress(OSError):
            (folder / name).unlink()


def write_error_log(folder: Path, cause: str, traceback: str | None, tail: Sequence[str]) -> None:
    """Write ``error.log``: the cause, the full traceback and the last lines of the run's output."""
    parts = [f"{datetime.now():%Y-%m-%d %H:%M:%S}  {cause}", ""]
    if traceback:
        parts += ["Traceback", "---------", traceback.rstrip(), ""]
    heading = f"Last {min(len(tail), TAIL_LINES)} lines of output"
    parts += [heading, "-" * len(heading), *tail[-TAIL_LINES:], ""]
    path = folder / ERROR_FILE
    temporary = folder / f".{ERROR_FILE}.tmp"
    try:
        temporary.write_text("\n".join(parts), encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def flat_config(job: Job) -> dict[str, Any]:
    """The result's flat ``config``: six fixed keys and whatever else the sweep varied."""

    def get(key: str) -> Any:
        return OmegaConf.select(job.config, key, default=None)

    return {
        **job.varied,
        "model": get("model.name"),
        "strategy": get("peft.name"),
        "augmentation": get("augmentation.name") in ("on", True),
        "data": get("data.name"),
        "max_epochs": get("trainer.max_epochs"),
        "seed": get("seed"),
    }


def task_config(config: DictConfig) -> DictConfig:
    """The config without Hydra's own node."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def environment() -> dict[str, Any]:
    """Versions and machine; the run adds device, threads and precision."""
    versions: dict[str, Any] = {}
    for key, package in PACKAGES.items():
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[key] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
    }


def _reserve(folder: Path) -> None:
    """Set space aside, so that a run that fills the disk can still say so."""
    path = folder / RESERVE_FILE
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            else:
                os.write(handle, b"\0" * RESERVE_BYTES)
        finally:
            os.close(handle)
