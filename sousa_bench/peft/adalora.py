"""AdaLoRA (arXiv:2303.10512): its budget over the run's real number of steps, its regularisation, its state."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import peft
import torch
from torch import Tensor

from sousa_bench.errors import ConfigError

ALLOCATIONS = 20
_SCHEDULE = ("init_r", "target_r", "total_step", "tinit", "tfinal", "deltaT")
_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def schedule(fields: dict[str, Any], total_steps: int) -> dict[str, Any]:
    """Fill in ``total_step`` and turn fractions into steps.

    ``tinit`` and ``tfinal`` below 1 are fractions of the run, from 1 on they are optimizer steps. ``deltaT`` null
    allocates about twenty times. In a run too short for what was asked, the phases shrink so that the budget is still
    reached.

    Args:
        fields: What the config says for ``AdaLoraConfig``.
        total_steps: Optimizer steps of the whole run.

    Raises:
        ConfigError: ``target_r`` isn't below ``init_r``, or a phase is negative.
    """
    filled = dict(fields)
    init_r, target_r = filled.get("init_r", 12), filled.get("target_r", 8)
    if not 0 < target_r < init_r:
        raise ConfigError(f"peft.target_r={target_r}: must be above 0 and below peft.init_r={init_r}")
    total = max(int(total_steps), 2)
    # PEFT scores the triplets only before the last allocation, so that one must not be the first step.
    final = min(_steps("tfinal", filled.get("tfinal", 0), total), total - 2)
    init = min(_steps("tinit", filled.get("tinit", 0), total), total - final - 1)
    every = filled.get("deltaT") or max(1, (total - final - init) // ALLOCATIONS)
    return {**filled, "total_step": total, "tinit": init, "tfinal": final, "deltaT": int(every)}


def _steps(name: str, value: float, total: int) -> int:
    if value < 0:
        raise ConfigError(f"peft.{name}={value}: must be a fraction of the run below 1, or a number of steps")
    return round(value * total) if value < 1 else int(value)


class BudgetKeeper:
    """Drives AdaLoRA's rank allocation while a run goes on.

    Attributes:
        tuner: PEFT's AdaLoRA model.
        config: Its config, whose ``rank_pattern`` is the present allocation.
    """

    def __init__(self, tuner: peft.AdaLoraModel, config: peft.AdaLoraConfig) -> None:
        self.tuner = tuner
        self.config = config

    def extra_loss(self) -> Tensor | None:
        """``orth_reg_weight`` × the mean of ‖P Pᵀ - I‖_F over all P and Q; PEFT adds it to Hugging Face losses only."""
        if not self.config.orth_reg_weight:
            return None
        stacks: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for layer in self._layers():
            for matrix in (layer.lora_A["default"], layer.lora_B["default"].T):
                stacks[tuple(matrix.shape)].append(matrix)
        total: Tensor | None = None
        for matrices in stacks.values():
            stack = torch.stack(matrices).float()
            gram = stack @ stack.mT
            norms = torch.linalg.matrix_norm(gram - torch.eye(gram.shape[-1], device=gram.device)).sum()
            total = norms if total is None else total + norms
        assert total is not None
        return self.config.orth_reg_weight * total / sum(len(matrices) for matrices in stacks.values())

    def after_optimizer_step(self, step: int) -> None:
        """Score the triplets by their gradients and prune to the step's budget.

        Args:
            step: Optimizer steps done so far, this one included; gradients must still be there.
        """
        if self._allocates(step) and self._blind():
            self.tuner.rankallocator.update_ipt(self.tuner.model)
        else:
            self.tuner.update_and_allocate(step)

    def finish(self) -> None:
        """Cut the pruned triplets out of the matrices, as a saved adapter has it: the logits are then bit-identical."""
        if self.config.rank_pattern:
            self.tuner.resize_modules_by_rank_pattern(self.config.rank_pattern, "default")

    def ranks(self) -> dict[str, int]:
        """Module name inside the backbone → how many of its triplets are kept."""
        kept = {key.removesuffix(".default"): sum(mask) for key, mask in (self.config.rank_pattern or {}).items()}
        return {
            name: kept.get(f"{name}.lora_E", self.config.init_r)
            for name, module in self.tuner.model.named_modules()
            if isinstance(module, peft.tuners.adalora.AdaLoraLayer)
        }

    def budget_reached(self) -> bool:
        """Whether the total rank is down at ``target_r`` times the number of matrices."""
        return sum(self.ranks().values()) <= self.tuner.rankallocator.target_bgt

    def facts(self) -> dict[str, Any]:
        """Schedule and present ranks for the result."""
        ranks = self.ranks()
        return {
            **{key: getattr(self.config, key) for key in _SCHEDULE},
            "initial_rank": self.tuner.rankallocator.init_bgt,
            "target_rank": self.tuner.rankallocator.target_bgt,
            "final_rank": sum(ranks.values()),
            "budget_reached": self.budget_reached(),
            "rank_pattern": ranks,
        }

    def state_dict(self) -> dict[str, Any]:
        """What is beyond parameters: the smoothed scores and the allocation."""
        allocator = self.tuner.rankallocator
        averages = {name: {key: t.cpu() for key, t in getattr(allocator, name).items()} for name in _AVERAGES}
        return {**averages, "rank_pattern": self.config.rank_pattern}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        allocator = self.tuner.rankallocator
        device = next(self.tuner.parameters()).device
        for name in _AVERAGES:
            setattr(allocator, name, {key: tensor.to(device) for key, tensor in state[name].items()})
        self.config.rank_pattern = state["rank_pattern"]

    def _layers(self) -> list[Any]:
        return [m for m in self.tuner.model.modules() if isinstance(m, peft.tuners.adalora.AdaLoraLayer)]

    def _allocates(self, step: int) -> bool:
        last = int(self.config.total_step or 0) - self.config.tfinal
        return step == last or (step < last and self.tuner.rankallocator.budget_schedule(step)[1])

    def _blind(self) -> bool:
        """Before the first real update (a warm-up's rate of 0) all scores are 0, and PEFT would prune everything."""
        if self.config.rank_pattern:
            return False
        return not any(bool(layer.lora_E["default"].any()) for layer in self._layers())
