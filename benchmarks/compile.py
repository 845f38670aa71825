"""Does torch.compile pay? Its warm-up, and what a training step gains, on this machine.

    python benchmarks/compile.py model=efficientat
    python benchmarks/compile.py model=beats model.variant=official weights=random data.synthetic.clips=40

The words are overrides of the training config. Prints seconds of an epoch's training steps as they are and compiled,
the extra seconds of the first compiled epoch, and after how many epochs a run would have them back.
"""

from __future__ import annotations

import statistics
import sys
import time

from sousa_bench.benchmark.compute import train_step
from sousa_bench.benchmark.setup import Setup
from sousa_bench.config.composing import composed

EPOCHS = 3


def main() -> None:
    """Entry point."""
    setup = Setup.of(composed(["augmentation=off", *sys.argv[1:]]))
    module, optimizer = setup.module, setup.optimizer()
    module.injection.train_mode()
    ready = [module.training_inputs(batch) for batch in setup.batches(0)]

    def epoch() -> float:
        setup.synchronize()
        started = time.perf_counter()
        for batch in ready:
            train_step(setup, optimizer, batch)
        setup.synchronize()
        return time.perf_counter() - started

    epoch()
    eager = statistics.median(epoch() for _ in range(EPOCHS))
    module.inputs.compile(True)
    first = epoch()
    compiled = statistics.median(epoch() for _ in range(EPOCHS))
    gain = eager - compiled
    after = f"pays after {(first - compiled) / gain:.0f} epochs" if gain > 0 else "never pays"
    print(
        f"{' '.join(sys.argv[1:])}: {len(ready)} steps {eager:.2f} s, compiled {compiled:.2f} s "
        f"({eager / compiled:.2f} times as fast), warm-up {first - compiled:.1f} s: {after}"
    )


if __name__ == "__main__":
    main()
