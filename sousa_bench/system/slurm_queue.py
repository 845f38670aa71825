"""What Slurm's own commands say about jobs; nothing here needs an accounting database."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

SECONDS = 30


@dataclass(frozen=True)
class Place:
    """A job's place in the queue.

    Attributes:
        state: Slurm's word: ``PENDING``, ``RUNNING``, ``COMPLETING``, ….
        reason: Why it waits.
    """

    state: str
    reason: str = ""


def queue_places(job_ids: Iterable[str]) -> dict[str, Place] | None:
    """Which of the jobs Slurm has in its queue, by id (``12_3`` in an array); None when it doesn't answer."""
    whole = sorted({job_id.partition("_")[0] for job_id in job_ids})
    if not whole:
        return {}
    answer = ask_slurm("squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--jobs={','.join(whole)}")
    if answer is None:
        return None
    if answer.returncode:
        return {} if "Invalid job id" in answer.stderr else None
    found = {}
    for line in answer.stdout.splitlines():
        job_id, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        found[job_id] = Place(state, reason)
    return found


def job_details(job_id: str) -> dict[str, str]:
    """What the controller still knows about a job, by ``scontrol``'s names; empty when it has forgotten it."""
    answer = ask_slurm("scontrol", "show", "job", "--oneliner", job_id)
    if answer is None or answer.returncode:
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", answer.stdout.splitlines()[0] if answer.stdout else ""))


def ask_slurm(*words: str) -> subprocess.CompletedProcess[str] | None:
    """Run one of Slurm's commands; None when it is missing or the controller doesn't answer."""
    if shutil.which(words[0]) is None:
        return None
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "SLURM_TIME_FORMAT": "standard"}
        )
    except (OSError, subprocess.SubprocessError):
        return None
