"""What a sweep refused to run, and why: pairs that can't train together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sousa_bench.analysis.commands import of_its_sweep
from sousa_bench.analysis.study import Study
from sousa_bench.config.overrides import split
from sousa_bench.system.foreign import clean

MAX_WORDS = 200
MAX_REASON = 500
REPEATS = ("seed", "data.fold")


@dataclass(frozen=True)
class Refused:
    """A job that was refused.

    Attributes:
        model: The model's name; empty where the job doesn't say it.
        strategy: The PEFT method's, likewise.
        words: What was asked for, without seed and fold.
        reason: Why it was refused, as its manifest says.
    """

    model: str
    strategy: str
    words: str
    reason: str


def refused(study: Study) -> list[Refused]:
    """What the sweeps' manifests refused, each combination once; none that has a result all the same or is filtered."""
    results = study.results
    jobs = [job for job in results.planned if job.decision == "refused" and job.result not in results.unwanted]
    if not jobs:
        return []
    own = [results.overrides[row] for row in study.done.index]
    done = {frozenset(_asked(overrides)) for overrides in own if overrides}
    found: dict[str, Refused] = {}
    for job in jobs:
        asked = _asked(job.overrides)
        named = dict(map(split, asked))
        each = Refused(
            named.get("model", ""),
            named.get("peft", ""),
            " ".join(asked)[:MAX_WORDS],
            " ".join(clean(job.reason).split())[:MAX_REASON] or "no reason is given",
        )
        if frozenset(asked) not in done:
            found.setdefault(each.words, each)
    return list(found.values())


def _asked(overrides: Iterable[str]) -> list[str]:
    """What a run was asked for, without seed, fold and what belongs to its sweep alone."""
    return [clean(item) for item in overrides if (key := split(item)[0]) not in REPEATS and not of_its_sweep(key)]
