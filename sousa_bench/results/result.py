"""The result file: its one schema, writer, reader and the recorder that fills it while a run goes on.

``result.json`` stands in each run's folder. Its first block is fixed (people's scripts read it): keys are added,
never renamed. It is written to a temporary name and renamed, so a reader sees a whole file or none.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousa_bench.errors import UserError
from sousa_bench.system.files import replaced
from sousa_bench.system.foreign import MAX_BYTES, NUMBER, odd_field, read_json

SCHEMA_VERSION = 1
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.json"
PREDICTIONS_FILE = "predictions.parquet"
ERROR_FILE = "error.log"
LOG_FILE = "run.log"
ADAPTER_FOLDER = "adapter"
CHECKPOINT_FOLDER = "checkpoints"

STATUSES = ("running", "completed", "failed", "timeout", "interrupted")
DEAD = "dead"  # how readers name a run that was recorded as running by a process that is gone
NOT_COMPLETED = ("failed", "timeout", "interrupted", DEAD)
EVALUATED = "evaluated_run"  # the key under which an evaluation names the finished run that it evaluates
PHASES = ("data", "weights", "peft", "fit", "test")

CONFIG_KEYS = ("model", "strategy", "augmentation", "data", "max_epochs", "seed")
NETWORK_KEYS = ("model.name", "model.variant", "model.weights")
"""What names a network in a ``resolved_config``."""
PRECISION_KEY = "trainer.precision"
"""It can follow from the network (``auto`` on a CPU): then nobody varied it."""
METRIC_KEYS = (
    "val_acc",
    "val_f1_macro",
    "test_acc",
    "test_f1_macro",
    "best_epoch",
    "final_train_loss",
    "final_val_loss",
)
METRIC_KEYS_OF_SEVERAL = ("val_map", "test_map", *METRIC_KEYS[-3:])
"""In place of the former where a clip may have several labels."""
EFFICIENCY_KEYS = (
    "total_params",
    "trainable_params",
    "param_efficiency",
    "training_time_seconds",
    "avg_epoch_time",
)
CALIBRATION_KEYS = ("temperature", "test_ece", "test_ece_calibrated")
MAX_PROGRESS_BYTES = 1024 * 1024
RESULT_TYPES: dict[str, Any] = {
    **dict.fromkeys(("status", "timestamp", "started", "fingerprint", "experiment_id", "error", "git_commit"), str),
    **dict.fromkeys(("metrics", "efficiency", "process", "failure", "resolved_config", "environment", "phases"), dict),
    "resolved_config.data": dict,
    **dict.fromkeys(("history", "warnings", "overrides"), list),
    "attempts": int,
    **dict.fromkeys(("process.pid", "process.start_time"), NUMBER),
    **{f"metrics.{key}": NUMBER for key in (*METRIC_KEYS, *METRIC_KEYS_OF_SEVERAL, *CALIBRATION_KEYS)},
    **{f"efficiency.{key}": NUMBER for key in EFFICIENCY_KEYS},
}
"""What readers of a result rely on, as far as it holds these keys."""
PROGRESS_TYPES: dict[str, Any] = {
    "phase": str,
    **dict.fromkeys(
        ("epoch", "max_epochs", "step", "total_steps", "train_loss", "val_acc", "val_map", "fit_seconds", "updated"),
        NUMBER,
    ),
}


class ResultError(UserError):
    """A result file that is torn, foreign, oversized or of an unknown schema."""


def is_refit(result: Mapping[str, Any]) -> bool:
    """Whether a result is of a run that trained on the clips that chose it, and repeats the scores of earlier runs."""
    config = result.get("resolved_config")
    data = config.get("data") if isinstance(config, Mapping) else None
    return EVALUATED not in result and isinstance(data, Mapping) and data.get("refit") is not None


def own_scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a result, none where there are none or they are those of other weights (:func:`is_refit`)."""
    return {} if is_refit(result) else result.get("metrics") or {}


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, all the way down, since JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        return finite(value.item())
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` so that a reader, or a kill, never sees a part of it.

    Raises:
        OSError: The disk is full or the folder can't be written; the old file then still stands whole.
    """
    content = finite(content)
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    if not text.isascii() and text != text.encode("utf-8", "replace").decode("utf-8"):  # half a character, from others
        text = json.dumps(content, indent=2, allow_nan=False)
    with replaced(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``result`` as ``folder/result.json`` and return its path.

    Raises:
        ValueError: The result's status is none of ``STATUSES``, or a completed result lacks a fixed field.
    """
    if result.get("status") not in STATUSES:
        raise ValueError(f"status must be one of {STATUSES}, not {result.get('status')!r}")
    content = finite({"schema_version": SCHEMA_VERSION, **result})
    if content["status"] == "completed" and (missing := missing_fields(content)):
        raise ValueError(f"a completed result must hold every fixed field; missing: {', '.join(missing)}")
    path = folder / RESULT_FILE
    write_json(path, content)
    return path


def missing_fields(result: Mapping[str, Any]) -> list[str]:
    """Names of the fixed fields (dotted) that have no value; empty for a proper completed result."""
    several = (result.get("task") or {}).get("several") is True
    wanted = [
        *(("config", key) for key in CONFIG_KEYS),
        *(("metrics", key) for key in (METRIC_KEYS_OF_SEVERAL if several else METRIC_KEYS)),
        *(("efficiency", key) for key in EFFICIENCY_KEYS),
    ]
    names = [f"{block}.{key}" for block, key in wanted if (result.get(block) or {}).get(key) is None]
    names += [key for key in ("experiment_id", "status", "timestamp", "git_commit") if result.get(key) is None]
    return names


def read_object(file: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The object that a JSON file holds, or an empty dict when the file is missing, torn, too large or holds none."""
    with suppress(OSError, ValueError):
        content = read_json(file, limit)
        return content if isinstance(content, dict) else {}
    return {}


def read_result(path: Path | str) -> dict[str, Any]:
    """Read a result file (or the one in the folder ``path``), whose fields are what they ought to be.

    Raises:
        ResultError: As :func:`read_foreign_result`, or a field of :data:`RESULT_TYPES` is of another type.
    """
    content = read_foreign_result(path)
    if problem := odd_field(content, RESULT_TYPES):
        raise ResultError(f"{path}: can't be read as a result ({problem})")
    return content


def read_foreign_result(path: Path | str) -> dict[str, Any]:
    """Read a result file, whoever wrote it and whatever its fields hold: the analysis minds each field by itself.

    Raises:
        ResultError: It is missing, no regular file, too large, torn, no object, or of a newer schema.
    """
    path = Path(path)
    file = path / RESULT_FILE if path.is_dir() else path
    try:
        content = read_json(file)
    except FileNotFoundError as error:
        raise ResultError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        raise ResultError(f"{file}: can't be read as JSON ({error})") from error
    if not isinstance(content, dict) or "status" not in content or not isinstance(content.get("config"), dict):
        raise ResultError(f"{file}: is JSON but no result (it needs 'status' and 'config')")
    version = content.get("schema_version", 0)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResultError(f"{file}: schema_version {version!r} is newer than {SCHEMA_VERSION}; update sousa_bench")
    return content


@dataclass
class Recorder:
    """Collects one run's result while it goes on and keeps ``progress.json`` true.

    The progress file is what ``status`` shows and what a supervisor reads when the run died without a word:
    it always holds the present phase.

    Attributes:
        folder: The run's folder.
        result: Fragments of the result so far (``metrics``, ``efficiency``, ``history``, ``phases``, ``warnings``, …).
        progress: What ``progress.json`` holds: phase, epoch, max_epochs, step, total_steps, updated, ….
        quiet: Whether no file is written: a rank other than the first of a run over several devices.
        listener: Called with the recorder at each :meth:`show`; a supervised run tells its supervisor so.
        title: What stands before its progress bar: ``run 3/24``, or nothing for a single run.
    """

    folder: Path
    result: dict[str, Any] = field(default_factory=lambda: {"phases": {}, "warnings": [], "history": []})
    progress: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False
    listener: Callable[[Recorder], None] | None = None
    title: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase (seconds add up over attempts) and show it in the progress file."""
        started = time.perf_counter()
        self.show(phase=name)
        try:
            yield
        finally:
            phases = self.result["phases"]
            phases[name] = phases.get(name, 0.0) + time.perf_counter() - started

    def show(self, **facts: Any) -> None:
        """Merge ``facts`` into the progress file."""
        self.progress.update(facts, updated=time.time(), pid=os.getpid())
        if self.listener is not None:
            self.listener(self)
        if not self.quiet:
            write_json(self.folder / PROGRESS_FILE, self.progress)

    def add(self, **blocks: Any) -> None:
        """Merge blocks into the result: mappings are merged key by key, anything else replaces."""
        for name, block in blocks.items():
            old = self.result.get(name)
            self.result[name] = {**old, **block} if isinstance(old, dict) and isinstance(block, Mapping) else block

    def warn(self, message: str) -> None:
        """Record a warning once; it also belongs on the screen (the caller logs it)."""
        if message not in self.result["warnings"]:
            self.result["warnings"].append(message)


def read_progress(folder: Path) -> dict[str, Any]:
    """The run's last ``progress.json``, or an empty dict when there is none, or it is torn or none of ours."""
    progress = read_object(folder / PROGRESS_FILE, MAX_PROGRESS_BYTES)
    return {} if odd_field(progress, PROGRESS_TYPES) else progress
