"""One measurement in a process of its own, with the allocator and the threads of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from sousa_bench.errors import UserError
from sousa_bench.sweep.forkserver import ENVIRONMENT
from sousa_bench.sweep.resources import Slot, slots
from sousa_bench.system.python import python_environment

MARK = "sousa_benchmark "


def ask(kind: str, overrides: Sequence[str], slot: Slot | None = None, **options: Any) -> dict[str, Any]:
    """Measure in a fresh process.

    Args:
        kind: See :func:`answer`.
        overrides: What to measure.
        slot: Its share of the machine; None: all of it.
        options: Keyword arguments of the measurement.

    Raises:
        UserError: It failed; with its last lines.
    """
    slot = slot or slots(1)[0]
    done = subprocess.run(
        [sys.executable, "-m", "sousa_bench.benchmark.measurement"],
        input=json.dumps({"kind": kind, "overrides": list(overrides), "options": options, "cpus": slot.cpus}),
        env=python_environment(**(ENVIRONMENT | slot.environment)),
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"benchmark {kind} of {' '.join(overrides)} failed: " + "\n".join(told[-5:]))
    return json.loads(lines[-1].removeprefix(MARK))


def answer(kind: str, overrides: Sequence[str], **options: Any) -> dict[str, Any]:
    """Do one measurement in this process; imports are done by kind, so that none pays for another's.

    Args:
        kind: ``overhead``, ``naive``, ``inference``, ``cache``, ``compute``, ``warm`` or ``naive_run``.
        overrides: Of the config.
        options: Keyword arguments of the measurement.
    """
    if kind == "overhead":
        from sousa_bench.benchmark.overhead import overhead

        return overhead(overrides, **options).as_dict()
    if kind == "naive":
        from sousa_bench.benchmark.naive import naive

        return naive(overrides, **options).as_dict()
    if kind == "naive_run":
        from sousa_bench.benchmark.naive import naive_run

        naive_run(overrides)
        return {}
    if kind == "inference":
        from sousa_bench.benchmark.latency import inference

        return inference(overrides, **options).as_dict()
    if kind == "cache":
        from sousa_bench.benchmark.cache_rate import cache

        return cache(overrides, **options)
    from sousa_bench.config.composing import composed

    cfg = composed(overrides)
    if kind == "warm":
        from sousa_bench.config.instantiate import build
        from sousa_bench.training.run import SAMPLE_RATES

        build(cfg.data).prepare(SAMPLE_RATES)
        return {}
    from sousa_bench.benchmark.compute import bare
    from sousa_bench.benchmark.setup import Setup

    measured = bare(Setup.of(cfg))
    return {"epochs": measured.epochs, "test": measured.test}


def main() -> None:
    """Entry point of the process."""
    order = json.loads(sys.stdin.read())
    if order["cpus"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cpus"])
    try:
        measured = answer(order["kind"], order["overrides"], **order["options"])
    except UserError as error:
        sys.exit(str(error))
    print(MARK + json.dumps(measured))


if __name__ == "__main__":
    main()
