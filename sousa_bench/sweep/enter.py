"""Entry of the processes that are started as new interpreters: ``python -m sousa_bench.sweep.enter serve|run FD…``."""

from __future__ import annotations

import pickle
import sys


def main() -> None:
    """Be the fork server on the socket FD, or do the run whose order stands on stdin."""
    kind, *numbers = sys.argv[1:]
    if kind == "serve":
        from sousa_bench.sweep.forkserver import main as serve

        serve(int(numbers[0]))
    else:
        path, order = pickle.load(sys.stdin.buffer)
        sys.path[:] = path
        from sousa_bench.sweep.child import live

        live(order, *map(int, numbers))


if __name__ == "__main__":
    main()
