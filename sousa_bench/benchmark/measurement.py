"""One measurement in a process of its own, with the allocator and the threads of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sousa_bench.errors import UserError
from sousa_bench.sweep.forkserver import ENVIRONMENT
from sousa_bench.sweep.resources import Slot, slots
from sousa_bench.system.python import python_environment

MARK = "sousa_benchmark "


def ask(function: str, overrides: Sequence[str], slot: Slot | None = None, **options: Any) -> dict[str, Any]:
    """Measure in a fresh process, which imports no more than the measurement needs.

    Args:
        function: ``module.name`` in this package.
        overrides: What to measure.
        slot: Its share of the machine; None: all of it.
        options: Keyword arguments of the measurement.

    Raises:
        UserError: It failed; with its last lines.
    """
    slot = slot or slots(1)[0]
    done = subprocess.run(
        [sys.executable, "-m", "sousa_bench.benchmark.measurement"],
        input=json.dumps({"function": function, "overrides": list(overrides), "options": options}),
        env=python_environment(**(ENVIRONMENT | slot.environment)),
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"benchmark {function} of {' '.join(overrides)} failed: " + "\n".join(said[-5:]))
    return json.loads(lines[-1].removeprefix(MARK))


def main() -> None:
    """Entry point of the process."""
    order = json.loads(sys.stdin.read())
    module, _, name = order["function"].rpartition(".")
    try:
        measured = getattr(import_module(f"sousa_bench.benchmark.{module}"), name)(
            order["overrides"], **order["options"]
        )
    except UserError as error:
        sys.exit(str(error))
    print(MARK + json.dumps(measured))


if __name__ == "__main__":
    main()
