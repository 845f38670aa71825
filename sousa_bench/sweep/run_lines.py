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

BAR = "{desc} {percentage:3.0f}% |{bar}| {remaining} left{postfix}"
SHORTEST_BAR = 4


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
    """A run in ``width`` columns: ``run 3/24 ast_lora_aug_tiny_s42 epoch 2/5  40% |███    | 00:18 left, loss=1.250``.

    Where they are too few for its name, the validation accuracy is left out, and then the name's middle.
    """
    who = f"run {job.index}/{job.total} {job.name.removesuffix(f'_{job.fingerprint[:8]}')}"
    phase, step, steps = progress.get("phase"), progress.get("step"), progress.get("total_steps")
    if phase != "fit" or not steps:
        return shortened(f"{who} {phase or 'start'}", width)
    score = ranking(progress)
    values = [(key, progress.get(name)) for key, name in (("loss", "train_loss"), (score, score))]
    facts = [f"{key}={value:.3f}" for key, value in values if value is not None]
    epoch = f"epoch {progress.get('epoch')}/{progress.get('max_epochs')}"

    def drawn(name: str, bar: str = BAR) -> str:
        return tqdm.format_meter(
            step,
            steps,
            progress.get("fit_seconds") or 0.0,
            width,
            prefix=f"{name} {epoch}",
            postfix=", ".join(facts),
            bar_format=bar,
        )

    def room() -> int:
        return width - SHORTEST_BAR - len(drawn("", BAR.replace("{bar}", "")))

    if room() < len(who):
        del facts[1:]
    return drawn(shortened(who, max(room(), 12)))
