"""What does a training step of each tiny variant cost beside AST's?

    OMP_NUM_THREADS=1 python -m benchmarks.training_steps

Every model takes the first steps of a default run's epoch (its batches, the front end and LoRA included), one model
after another, turn by turn. The figures are processor seconds, so that what else the machine does counts less, and the
ratios are those of one turn each, of which the median is taken.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.catalogue.model_facts import model_facts
from sousa_bench.config.composing import composed

AGAINST = "ast"


def steps(model: str, augmentation: str, most: int) -> Callable[[], float]:
    """A function that takes a few training steps of a model and says the processor seconds of one."""
    words = [f"model={model}", "peft=lora", "weights=random", f"augmentation={augmentation}"]
    setup = Setup.of(composed(words))
    module, optimizer, batches = setup.module, setup.module.configure_optimizers(), setup.batches(0)[:most]

    def run() -> float:
        module.injection.train_mode()
        began = time.process_time()
        for batch in batches:
            with setup.autocast:
                module.update(optimizer, module.training_inputs(batch), len(batch.members))
        return (time.process_time() - began) / len(batches)

    return run


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [model["model"] for model in model_facts() if model["model"] != "cnn"]
    parser.add_argument("models", nargs="*", default=names, metavar="MODEL", help="these beside AST (all)")
    parser.add_argument("--augmentation", nargs="+", default=["off", "on"], choices=("on", "off"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each model in a turn")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for augmentation in options.augmentation:
        runs = {name: steps(name, augmentation, options.steps) for name in dict.fromkeys([AGAINST, *options.models])}
        for run in runs.values():
            run()  # the first is slower
        turns = [{name: run() for name, run in runs.items()} for _ in range(options.turns)]
        for name in runs:
            step = statistics.median(turn[name] for turn in turns)
            ratio = statistics.median(turn[name] / turn[AGAINST] for turn in turns)
            print(f"{name}, augmentation={augmentation}: {step:.3f} s a step, {ratio:.2f} of {AGAINST}'s", flush=True)


if __name__ == "__main__":
    main()
