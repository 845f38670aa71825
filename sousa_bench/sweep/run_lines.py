"""Several runs at once on a terminal: a line for each at its foot, redrawn as they go on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from sousa_bench.results.metrics import ranking
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.output import pin
from sousa_bench.system.text_table import shortened

BAR = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class RunLines:
    """The lines of the runs that go on now."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[Job, Mapping[str, Any]]] = {}

    def show(self, job: Job, progress: Mapping[str, Any]) -> None:
        """Draw what a run tells of itself, see :class:`sousa_bench.results.result.Recorder`."""
        self._lines[job.index] = (job, dict(progress))
        self._draw()

    def remove(self, job: Job) -> None:
        """Draw no line of a run that has ended."""
        self._lines.pop(job.index, None)
        self._draw(always=True)

    def _draw(self, *, always: bool = False) -> None:
        size = shutil.get_terminal_size()
        lines = [line(job, progress, size.columns - 1) for _, (job, progress) in sorted(self._lines.items())]
        pin(lines[: size.lines - 1], always=always)


def line(job: Job, progress: Mapping[str, Any], width: int) -> str:
    """A run in ``width`` columns: ``run 3/24 ast_lora_aug_tiny_s42 epoch 2/5  40% |███  | 120/300 [00:12<00:18]``."""
    who = f"run {job.index}/{job.total} {job.name.removesuffix(f'_{job.fingerprint[:8]}')}"
    phase, step, steps = progress.get("phase"), progress.get("step"), progress.get("total_steps")
    if phase != "fit" or not steps:
        return shortened(f"{who} {phase or 'start'}", width)
    score = ranking(progress)
    found = [(key, progress.get(name)) for key, name in (("loss", "train_loss"), (score, score))]
    facts: dict[str, Any] = {
        "n": step,
        "total": steps,
        "elapsed": progress.get("fit_seconds") or 0.0,
        "bar_format": BAR,
        "postfix": ", ".join(f"{key}={value:.4f}" for key, value in found if value is not None),
    }
    epoch = f"epoch {progress.get('epoch')}/{progress.get('max_epochs')}"
    rest = len(tqdm.format_meter(**facts, ncols=None, prefix=f" {epoch}"))  # with a short bar
    return tqdm.format_meter(**facts, ncols=width, prefix=f"{shortened(who, max(width - rest, 12))} {epoch}")
