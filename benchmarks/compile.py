"""Does torch.compile pay? Its warm-up, and what a training step gains, on this machine.

    python benchmarks/compile.py model=efficientat
    python benchmarks/compile.py model=beats model.variant=official weights=random data.synthetic.clips=40

The words are overrides of the training config. Prints seconds of an epoch's training steps as they are and compiled,
the extra seconds of the first compiled epoch, and after how many epochs a run would have them back.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config.composing import composed

EPOCHS = 3


@dataclass(frozen=True)
class Compiled:
    """Seconds of an epoch's training steps, as they are and compiled.

    Attributes:
        steps: How many they are.
        eager: As they are.
        steady: Compiled.
        warm_up: What the first compiled epoch takes longer.
    """

    steps: int
    eager: float
    steady: float
    warm_up: float


def compiled(words: Sequence[str]) -> Compiled:
    """Measure a run's training steps, without augmentation.

    Args:
        words: Its overrides.
    """
    setup = Setup.of(composed(["augmentation=off", *words]))
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
    steady = statistics.median(epoch() for _ in range(EPOCHS))
    return Compiled(len(ready), eager, steady, first - steady)


def main() -> None:
    """Entry point."""
    found = compiled(sys.argv[1:])
    gain = found.eager - found.steady
    after = f"pays after {found.warm_up / gain:.0f} epochs" if gain > 0 else "never pays"
    print(
        f"{' '.join(sys.argv[1:])}: {found.steps} steps {found.eager:.2f} s, compiled {found.steady:.2f} s "
        f"({found.eager / found.steady:.2f} times as fast), warm-up {found.warm_up:.1f} s: {after}"
    )


if __name__ == "__main__":
    main()
