"""An epoch's arithmetic in bfloat16 beside float32, and how near each comes to the machine's matrix products."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sousa_bench.benchmark.arithmetic import Setup
from sousa_bench.config.composing import composed

TYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


class Epoch:
    """The same epoch again and again: training steps, then the validation clips.

    Args:
        overrides: What to train.
        precision: ``32-true`` or ``bf16-mixed``.
    """

    def __init__(self, overrides: Sequence[str], precision: str) -> None:
        self.setup = Setup.of(composed([*overrides, f"trainer.precision={precision}"]))
        self.optimizer = self.setup.module.configure_optimizers()
        self.type = TYPES[precision]

    def compute(self) -> None:
        """Go through it once."""
        setup, module = self.setup, self.setup.module
        module.injection.train_mode()
        for batch in setup.batches(0):
            with setup.autocast:
                module.update(self.optimizer, module.training_inputs(batch), len(batch.members))
        setup.evaluate([module.inputs.plain("val", batch.index) for batch in setup.datamodule.val_dataloader()])

    def operations(self) -> int:
        """Floating-point operations of its matrix products, convolutions and attention, forward and backward."""
        module = self.setup.module
        micro_batch_size, module.micro_batch_size = module.micro_batch_size, 1  # plain attention takes much memory
        # The counter doesn't know the CPU's fused attention.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.compute()
        module.micro_batch_size = micro_batch_size
        return counter.get_total_flops()

    def peak(self) -> float:
        """Operations a second of square matrix products of this type: the most that the machine is seen to do."""
        size = 8192 if self.setup.device.type == "cuda" else 1536
        a, b = torch.rand(2, size, size, dtype=self.type, device=self.setup.device).unbind()
        return 2 * size**3 / min(self.setup.own_seconds(lambda: a @ b) for _ in range(4))


def precision(overrides: Sequence[str], *, repeats: int) -> dict[str, Any]:
    """Take turns: an epoch in float32, one in bfloat16, each beside matrix products of its type.

    Args:
        overrides: What to train.
        repeats: Turns; a pass of both sides that doesn't count comes first.

    Returns:
        Medians: ``float32_seconds`` and ``bfloat16_seconds`` of an epoch, their ``ratio`` within a turn, and
        ``float32_utilisation`` and ``bfloat16_utilisation``, the share of the matrix products' rate that an epoch's
        operations reach; ``operations`` of an epoch; ``clock`` and ``threads``.
    """
    sides = {"float32": Epoch(overrides, "32-true"), "bfloat16": Epoch(overrides, "bf16-mixed")}
    operations = sides["float32"].operations()
    sides["bfloat16"].compute()
    turns: list[dict[str, tuple[float, float]]] = []
    for _ in range(repeats):
        turns.append({name: (side.setup.own_seconds(side.compute), side.peak()) for name, side in sides.items()})
    found: dict[str, Any] = {"setup": " ".join(overrides), "operations": operations}
    for name in sides:
        found[f"{name}_seconds"] = statistics.median(turn[name][0] for turn in turns)
        found[f"{name}_peak"] = statistics.median(turn[name][1] for turn in turns)
        found[f"{name}_utilisation"] = statistics.median(operations / turn[name][0] / turn[name][1] for turn in turns)
    found["ratio"] = statistics.median(turn["float32"][0] / turn["bfloat16"][0] for turn in turns)
    gpu = sides["float32"].setup.device.type == "cuda"
    return found | {"clock": "wall" if gpu else "processor", "threads": torch.get_num_threads()}
