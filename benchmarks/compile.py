"""Does torch.compile pay? Its warm-up, and what a training step gains, on this machine.

    python benchmarks/compile.py model=efficientat
    python benchmarks/compile.py model=beats model.variant=official weights=random data.synthetic.clips=40

The words are overrides of the training config. Prints seconds of an epoch's training steps as they are and compiled,
the extra seconds of the first compiled epoch, and after how many epochs a run would have them back.
"""

from __future__ import annotations

import statistics
import sys

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config.composing import composed

EPOCHS = 3


def main() -> None:
    """Entry point."""
    setup = Setup.of(composed(["augmentation=off", *sys.argv[1:]]))
    module, optimizer = setup.module, setup.module.configure_optimizers()
    module.injection.train_mode()
    batches = setup.batches(0)
    ready = [module.training_inputs(batch) for batch in batches]

    def steps() -> None:
        for batch, inputs in zip(batches, ready, strict=True):
            with setup.autocast:
                module.update(optimizer, inputs, len(batch.members))

    def epoch() -> float:
        return setup.seconds(steps)

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
