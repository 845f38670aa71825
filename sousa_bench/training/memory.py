"""How many clips go through the network at a time: halved when memory runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sousa_bench.errors import out_of_memory
from sousa_bench.system.gpus import shares_gpu
from sousa_bench.training import hardware

if TYPE_CHECKING:
    from sousa_bench.config.settings import TrainerSettings


class MemoryUse:
    """Sizes of a run's passes, and the most memory that it has taken.

    Attributes:
        micro_batch_size: Clips of one forward and backward pass.
        eval_batch_size: Clips of one batch of validation and test.

    Args:
        settings: Where the sizes begin.
        accelerator: ``gpu`` or ``cpu``.
    """

    def __init__(self, settings: TrainerSettings, accelerator: str) -> None:
        self.micro_batch_size = settings.micro_batch_size or settings.batch_size
        self.eval_batch_size = settings.eval_batch_size
        self._devices = settings.devices
        self._accelerator = accelerator
        self._earlier_peak = 0

    @property
    def peak(self) -> int:
        """Bytes: the most at a time, earlier attempts included."""
        return max(self._earlier_peak, hardware.peak_memory(self._accelerator))

    def take_over(self, peak: int, micro_batch_size: int) -> None:
        """Continue from what an earlier attempt found."""
        self._earlier_peak = peak
        self.micro_batch_size = min(self.micro_batch_size, micro_batch_size)

    def can_shrink(self, error: Exception) -> bool:
        """Whether ``error`` says that memory ran out, and smaller passes may help."""
        if not out_of_memory(error) or self.micro_batch_size == self.eval_batch_size == 1:
            return False
        if shares_gpu():  # the sweep lets it go on beside fewer runs, which changes no bit of it
            return False
        if self._devices > 1:  # the other processes wait for this one: all end
            error.add_note(
                "over several devices the micro-batch is not halved: "
                f"trainer.micro_batch_size={self.micro_batch_size // 2}"
            )
            return False
        return True

    def shrink(self) -> None:
        """Halve both sizes; call it once the network is released."""
        self._earlier_peak = self.peak
        self.micro_batch_size = max(1, self.micro_batch_size // 2)
        self.eval_batch_size = max(1, self.eval_batch_size // 2)
        if self._accelerator == "gpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
