"""What the screen says between runs and at the end of a sweep."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sousa_bench.config import refit
from sousa_bench.config.run_config import value_at
from sousa_bench.models.weight_files import SMALL_NETWORKS
from sousa_bench.results.manifest import relative
from sousa_bench.results.result import ERROR_FILE
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job, Outcome
from sousa_bench.sweep.output import say
from sousa_bench.system.text_table import MOST_ROWS, amount, duration, in_columns

OWN_WORD = re.compile(r"\A(Interrupted|KeyboardInterrupt|Pruned)\b[:,]?( and)? ?", re.IGNORECASE)
"""What a record's error begins with where its status says so already."""


class Progress:
    """Counts what became of the jobs, and says so after each.

    Attributes:
        outcomes: Jobs that have ended, earlier results included, by index.
        n_jobs: Runs at the same time.
    """

    def __init__(self, total: int, n_jobs: int) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._total = total
        self.n_jobs = n_jobs
        self._said: set[str] = set()
        self._first: dict[tuple[str, str] | int, Outcome] = {}

    def begin(self, job: Job) -> None:
        """A run starts."""
        if self._total > 1:
            say(f"Experiment {job.index}/{job.total}: {job.name}")

    def end(self, outcome: Outcome) -> None:
        """A job has ended."""
        first = self._first.setdefault(_alike(outcome), outcome)
        self.outcomes[outcome.job.index] = outcome
        if self._total > 1 and outcome.status != "skipped" and not outcome.reused:
            say(describe(outcome, None if first is outcome else first))
        if self._total > 1 and not outcome.reused:
            say(self.lines())

    def say_once(self, text: str) -> None:
        """Say something that would be true of several jobs."""
        if text not in self._said:
            self._said.add(text)
            say(text)

    def warn(self, job: Job) -> None:
        """Say what a job's record will warn of."""
        for warning in job.warnings:
            self.say_once(f"Warning: {warning}")

    def leave_out(self, job: Job) -> None:
        """A job is no run of its own: the same as another, or impossible."""
        self._total -= 1

    def lines(self) -> str:
        """Progress, counts and the estimated rest."""
        done, counts = len(self.outcomes), self.counts()
        text = (
            f"Progress: {done}/{self._total} ({100 * done / self._total:.1f}%)\n"
            f"Completed: {counts['completed']}, Failed: {counts['failed']}, Skipped: {counts['skipped']}"
        )
        text += "".join(f", {kind.title()}: {counts[kind]}" for kind in ("interrupted", "pruned") if counts[kind])
        rest = self.estimate()
        return text if rest is None else f"{text}\nEstimated time remaining: {rest / 60:.1f} minutes"

    def counts(self) -> dict[str, int]:
        """Completed now, ended otherwise, and skipped because an earlier result stands."""
        counts = dict.fromkeys(("completed", "failed", "skipped", "pruned", "interrupted"), 0)
        for outcome in self.outcomes.values():
            status = "skipped" if outcome.reused else outcome.status
            counts[status if status in counts else "failed"] += 1
        return counts

    def estimate(self) -> float | None:
        """Seconds until the end, from the mean of the runs with steps so far; None before the first has ended."""
        ended = self.outcomes.values()
        taken = [outcome.seconds for outcome in ended if outcome.seconds > 0 and not outcome.job.stepless]
        if not taken:
            return None
        return sum(taken) / len(taken) * (self._total - len(self.outcomes)) / self.n_jobs


def describe(outcome: Outcome, like: Outcome | None = None, who: str | None = None) -> str:
    """A run that has ended, in one line; with where to look, if it isn't completed.

    Args:
        outcome: The run's.
        like: One that failed before, for the same reason.
        who: Named in the run's place.
    """
    if outcome.status == "completed":
        return f"Completed: {outcome.job.name}: {tested(outcome)}".removesuffix(": ")
    status = "TIMED OUT" if outcome.status == "timeout" else outcome.status.upper()
    why = f"for the same reason as {like.job.name}" if like else _reason(outcome)
    line = f"{status}: {who or outcome.job.name}: {why}".removesuffix(": ")
    if outcome.status in ("failed", "timeout") and not like:
        line += f"\n  details: {shown(outcome.job.folder / ERROR_FILE)}"
    return line


def _reason(outcome: Outcome) -> str:
    first = (outcome.error or "").strip().splitlines() or [""]
    return OWN_WORD.sub("", first[0], count=1) if outcome.status in ("interrupted", "pruned") else first[0]


def _alike(outcome: Outcome) -> tuple[str, str] | int:
    """The same for runs that failed for one reason."""
    failed = outcome.status == "failed" and _reason(outcome)
    return (outcome.status, _reason(outcome)) if failed else outcome.job.index


def tested(outcome: Outcome) -> str:
    """What the test split gave: ``test_acc=0.5700``."""
    return "" if outcome.test is None else f"{outcome.test[0]}={outcome.test[1]:.4f}"


def table(outcomes: Sequence[Outcome]) -> str:
    """The runs of a sweep in columns: who, what became of it, its test accuracy, its time; of many the best ones."""
    shown_ones = list(outcomes)
    if len(shown_ones) > MOST_ROWS:
        shown_ones.sort(key=lambda outcome: -outcome.test[1] if outcome.test else math.inf)
        del shown_ones[MOST_ROWS:]
    keys = dict.fromkeys(outcome.test[0] for outcome in outcomes if outcome.test)
    rows = [("#", "run", "status", " ".join(keys) or "test_acc", "time")]
    for outcome in shown_ones:
        status = "completed earlier" if outcome.reused else outcome.status
        value = "" if outcome.test is None else f"{outcome.test[1]:.4f}"
        took = duration(outcome.seconds) if outcome.seconds else ""
        rows.append((str(outcome.job.index), outcome.job.name, status, value, took))
    text = in_columns(rows)
    return text if len(shown_ones) == len(outcomes) else f"{text}\nThe best {MOST_ROWS} of {len(outcomes)} runs."


def summary(outcomes: Sequence[Outcome], *, place: Path | None, command: str, seconds: float, refused: int = 0) -> str:
    """The text at the end: counts, what isn't completed and why, with the command that repeats it, what comes next.

    Args:
        outcomes: Of the runs.
        place: The sweep's folder; None: a single run.
        command: Goes on with the sweep.
        seconds: That it took.
        refused: Combinations that can't be, beside the runs.
    """
    done = [outcome for outcome in outcomes if outcome.status == "completed"]
    earlier = sum(outcome.reused for outcome in done)
    lines = []
    if place is not None:
        lines.append(table(outcomes))
    elif done and not earlier:
        lines += filter(None, [tested(done[0])])
    if len(outcomes) > 1 or place is not None:
        extra = f" ({earlier} of them earlier)" if earlier else ""
        extra += f", {refused} more left out as impossible" if refused else ""
        lines.append(
            f"Sweep ended: {len(done)} of {amount(len(outcomes), 'run')} completed{extra}, {seconds / 60:.1f} minutes."
        )
    groups: dict[Any, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status in ("failed", "timeout", "interrupted"):
            groups.setdefault(_alike(outcome), []).append(outcome)
    for group in groups.values():
        if len(group) > 1:  # the command at the end runs them all
            lines.append(describe(group[0], who=f"{len(group)} runs ({_names(group)})"))
            continue
        again = "go on with it" if group[0].status == "interrupted" else "run it again"
        lines += [describe(group[0]), f"  {again}: {group[0].job.command}"]
    waiting = [outcome for outcome in outcomes if outcome.status in ("pending", "skipped")]
    if waiting:
        lines.append(f"Not run: {len(waiting)} ({_names(waiting)})")
    if place is not None and len(done) < len(outcomes):
        lines.append(f"Go on with what is not completed: {command}")
    lines += wandb_hint([outcome.job.result or outcome.job.folder for outcome in done if not outcome.reused], place)
    if place is not None and not all(value_at(outcome.job.source.values, refit.KEY) for outcome in done):
        lines.append(f"Compare the results: python -m sousa_bench.analyze {shlex.quote(shown(place))}")
    if any(outcome.job.source.values.get("weights") == "embedded" for outcome in done):
        lines.append(SMALL_NETWORKS)
    return "\n".join(lines)


def _names(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(outcome.job.name for outcome in outcomes[:3]) + (", …" if len(outcomes) > 3 else "")


def wandb_hint(folders: Sequence[Path], place: Path | None) -> list[str]:
    """The command that uploads the offline W&B runs of these results, all attempts of each, or nothing."""
    found: list[str] = []
    for folder in folders:
        facts: dict[str, Any] = record.read(folder).get("wandb") or {}
        if facts.get("mode") == "offline" and facts.get("folder"):
            found.append(f"{shlex.quote(shown((folder / facts['folder']).parent))}/offline-run-*")
    if not found:
        return []
    if len(found) > 1 and place is not None and all(folder.parent == place for folder in folders):
        return [f"Upload to Weights & Biases: wandb sync {shlex.quote(shown(place))}/*/wandb/offline-run-*"]
    return [f"Upload to Weights & Biases: wandb sync {' '.join(found)}"]


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    near = relative(Path.cwd(), path)
    return str(path) if near.startswith("../") else near
