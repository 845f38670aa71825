"""One run with a thread on every core, or a run a core with one thread each? What further threads give a single run.

    python -m benchmarks.threads peft=lora augmentation=off weights=random data.synthetic.clips=80 model=ast,efficientat

The words are overrides of the training config, with several models. In turns, an epoch's arithmetic (training steps,
then the validation clips) with one thread and with one a core. What counts is the main thread's own processor time,
without the system's: it takes part in all that is shared out, and does the rest alone. As threads that wait sleep here,
other work on the machine lengthens it less than wall time, by the caches that it empties meanwhile.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "passive"  # before torch: a thread that waits takes no processor time

import resource
import statistics
import sys

import torch

from sousa_bench.benchmark.precision import Epoch
from sousa_bench.system.cores import usable_cores

TURNS = 3


def own_seconds(epoch: Epoch, threads: int) -> float:
    """Processor seconds that the main thread computes in an epoch (Linux)."""
    torch.set_num_threads(threads)
    started = resource.getrusage(resource.RUSAGE_THREAD).ru_utime
    epoch.compute()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_utime - started


def main() -> None:
    """Entry point."""
    [models] = [word for word in sys.argv[1:] if word.startswith("model=")]
    rest, cores = [word for word in sys.argv[1:] if word != models], usable_cores()
    for model in models.removeprefix("model=").split(","):
        epoch = Epoch([f"model={model}", *rest], "32-true")
        own_seconds(epoch, cores)  # fills what is kept
        turns = [(own_seconds(epoch, 1), own_seconds(epoch, cores)) for _ in range(TURNS)]
        gain = statistics.median(one / many for one, many in turns)
        one, many = (statistics.median(side) for side in zip(*turns, strict=True))
        print(f"{model}: {one:.2f} s with 1 thread, {many:.2f} s with {cores}: {gain:.2f} times as fast")


if __name__ == "__main__":
    main()
