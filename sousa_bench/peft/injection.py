"""What a method did to a model, and everything that training, testing, resuming and saving ask of it afterwards."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sousa_bench.errors import PeftError
from sousa_bench.models.base import AudioModel, inside
from sousa_bench.peft.adalora import BudgetKeeper
from sousa_bench.peft.added_tuner import AddedPeftConfig
from sousa_bench.peft.nearest_neighbours import NearestNeighbours
from sousa_bench.peft.options import LocalConfig, Options, keeps_features
from sousa_bench.task import Task

WRAPPED = "base_model.model."
COPY = re.compile(r"\.modules_to_save\.[^.]+")
"""How PEFT names the trained copy of a module, behind the module's own name."""
SCALES = ("ia3_l", "lora_E", "lora_magnitude_vector")
"""What PEFT stores with further dimensions of one and is a vector: a factor for each channel, or for each rank."""
_PATTERN_KEY = "rank_pattern/"
MERGE_TOLERANCE = 1e-3
"""Of the difference between merged and unmerged logits, relative to the largest logit, in float32 on a CPU."""
LOOSE_MERGE_TOLERANCE = 2e-2
"""The same in half precision, and on a GPU, where convolutions round to TF32."""


@dataclass(eq=False)
class Injection:
    """A model prepared for a method by :func:`sousa_bench.peft.inject`.

    Attributes:
        model: The model, whose ``backbone`` is now a ``peft.PeftModel`` where the method is PEFT's.
        options: Our options of the method.
        config: The method's config object, with exact module names.
        node: The resolved ``conf/peft`` node.
        blocks: The blocks that ``peft.layers`` selected, or None for all.
        targets: Names, inside the original backbone, of the adapted modules (empty for full, head and bitfit).
        groups: The entries of ``peft.targets`` that apply to this model.
        notes: What PEFT said while it wrapped the backbone, such as a block size that it adjusted.
        parameters: Counts: ``backbone`` (as it was, without the head), ``adapter`` (added by the method), ``head``,
            ``total`` and ``trainable``.
        warnings: What a reader of the result must know.
        merged_max_error: Largest difference of logits in :meth:`check_merge`; None before it, or where nothing merges.
        merged_relative_error: The same, divided by the largest absolute logit.
        chosen_size: What ``peft.budget`` asked for, and the size that came nearest; None where it asked for nothing.
        fitted: What a method without steps found (``sousa_bench.training.fit_without_steps``), by its name.
    """

    model: AudioModel
    options: Options
    config: peft.PeftConfig | LocalConfig
    node: dict[str, Any]
    blocks: list[str] | None = None
    targets: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    merged_max_error: float | None = None
    merged_relative_error: float | None = None
    chosen_size: dict[str, Any] | None = None
    fitted: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._merge_warning: str | None = None
        self._budget: BudgetKeeper | None = None
        if isinstance(self.config, peft.AdaLoraConfig):
            self._budget = BudgetKeeper(self.model.backbone.base_model, self.config)  # type: ignore[arg-type]

    @property
    def is_peft(self) -> bool:
        """Whether the method is PEFT's, so that its own format is saved."""
        return not isinstance(self.config, LocalConfig)

    @property
    def head_name(self) -> str:
        """Dotted name, inside the present (maybe wrapped) backbone, of the module that makes the logits."""
        return (WRAPPED if self.is_peft else "") + self.model.head_name

    @property
    def trained_head_name(self) -> str:
        """The same of the copy that trains, where PEFT made one."""
        return f"{self.head_name}.modules_to_save" if self.is_peft else self.head_name

    def head_parameters(self) -> list[nn.Parameter]:
        """What has the head's learning rate: the last layer that no published weights fill, or a whole kept head."""
        places = self.model.fresh or (self.model.head_name,)
        return [
            parameter
            for name, parameter in self.model.backbone.named_parameters()
            if parameter.requires_grad and inside(COPY.sub("", name.removeprefix(WRAPPED)), places)
        ]

    def decaying_parameters(self) -> list[nn.Parameter]:
        """What weight decay is for: trainable matrices and kernels, those with one row or one column among them.

        Not vectors, whatever the dimensions of one that they are stored with: biases, norms, scales such as IA3's,
        whose neutral value is 1 and not 0, and single tokens.
        """
        backbone = self.model.backbone
        method = None if isinstance(self.config, LocalConfig) else self.config.peft_type
        prefix = PEFT_TYPE_TO_PREFIX_MAPPING[method] if method else None  # type: ignore[index]

        def is_matrix(name: str, parameter: nn.Parameter) -> bool:
            if parameter.ndim < 2 or parameter.numel() > max(parameter.shape):
                return parameter.ndim > 1
            owner, _, own_name = name.rpartition(".")
            if isinstance(backbone.get_submodule(owner), nn.Linear | _ConvNd | nn.Embedding):
                return own_name == "weight"
            of_method = [part for part in name.split(".") if prefix and part.startswith(prefix)]
            return bool(of_method) and not set(of_method) & set(SCALES)

        named = backbone.named_parameters()
        return [parameter for name, parameter in named if parameter.requires_grad and is_matrix(name, parameter)]

    @property
    def block_names(self) -> list[str] | None:
        """``blocks``, as names inside the present (maybe wrapped) backbone."""
        prefix = WRAPPED if self.is_peft else ""
        return None if self.blocks is None else [prefix + name for name in self.blocks]

    def extra_loss(self) -> Tensor | None:
        """What the method adds to the loss (AdaLoRA's orthogonal regularisation), a scalar, or None."""
        return self._budget.extra_loss() if self._budget else None

    def after_optimizer_step(self, step: int) -> None:
        """Call after each real optimizer step, before the gradients are cleared.

        Args:
            step: Optimizer steps done so far in the whole run, this one included (the first is 1).
        """
        if self._budget:
            self._budget.after_optimizer_step(step)

    def train_mode(self) -> None:
        """Put the model into training mode, but not what is frozen in behaviour as well as in weights.

        BatchNorm with ``batch_norm=frozen`` keeps its statistics. With ``peft=head``, and outside the
        blocks that ``peft.layers`` selects, dropout and stochastic depth are off too: that part is a fixed function of
        the input. Elsewhere the trunk's own dropout stays on, as in the official training.
        """
        self.model.train()
        backbone = self.model.backbone
        if keeps_features(self.config) or self.blocks is not None:
            backbone.eval()
            backbone.get_submodule(self.head_name).train()
            for name in self.block_names or []:
                if not keeps_features(self.config):
                    backbone.get_submodule(name).train()
        for module in backbone.modules():
            if isinstance(module, _BatchNorm) and not self._trains_statistics(module):
                module.eval()

    def facts(self) -> dict[str, Any]:
        """What the result records about the method."""
        facts: dict[str, Any] = {
            "method": getattr(self.config, "method", type(self.config).__name__),
            "targets": self.groups,
            "target_modules": len(self.targets),
            "layers": self.options.layers,
            "blocks": self.blocks,
            "batch_norm": self.options.batch_norm,
            "merged_max_error": self.merged_max_error,
            "merged_relative_error": self.merged_relative_error,
            "notes": self.notes,
        }
        if self._budget:
            facts["adalora"] = self._budget.facts()
        if self.chosen_size:
            facts["budget"] = self.chosen_size
        return facts | self.fitted

    def final_warnings(self) -> list[str]:
        """Warnings that can only be known once the tested weights are in place, and :meth:`check_merge` was called."""
        warnings = [self._merge_warning] if self._merge_warning else []
        if self._budget and not self._budget.budget_reached():
            facts = self._budget.facts()
            warnings.append(
                f"AdaLoRA's tested weights hold {facts['final_rank']} ranks, not the budget's {facts['target_rank']}: "
                f"the tested epoch came before step {facts['total_step'] - facts['tfinal']} of {facts['total_step']}"
            )
        return warnings

    def finish(self) -> None:
        """Call once training is over and the weights to be tested are in place, before testing and saving.

        AdaLoRA's pruned matrices shrink to their ranks, so that the reloaded adapter gives the very same logits.
        """
        if self._budget:
            self._budget.finish()

    def trainable_state(self) -> dict[str, Tensor]:
        """A CPU copy of what training changes: trainable parameters, trained BatchNorm statistics, AdaLoRA's mask."""
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.changing().items()}
        if self._budget:
            for name, mask in (self._budget.config.rank_pattern or {}).items():
                state[_PATTERN_KEY + name] = torch.tensor(mask, dtype=torch.bool)
        return state

    def load_trainable_state(self, state: Mapping[str, Tensor]) -> None:
        """Put :meth:`trainable_state` back.

        Raises:
            PeftError: The state is of another method or model.
        """
        own = self.changing()
        given = {name for name in state if not name.startswith(_PATTERN_KEY)}
        if given != own.keys():
            different = sorted(given ^ own.keys())
            raise PeftError(f"the trained state doesn't fit peft={self.options.name}: {different[0]} and others differ")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])
        if self._budget:
            masks = {k.removeprefix(_PATTERN_KEY): m.tolist() for k, m in state.items() if k.startswith(_PATTERN_KEY)}
            self._budget.config.rank_pattern = masks or None

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs beyond the model's own ``state_dict`` (tensors and plain values only)."""
        return {"adalora": self._budget.state_dict()} if self._budget else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        if self._budget:
            self._budget.load_state_dict(state["adalora"])

    def merged(self) -> nn.Module:
        """See :func:`merged`."""
        return merged(self.model.backbone)

    @torch.no_grad()
    def check_merge(self, features: Tensor | None = None, padding_mask: Tensor | None = None) -> float | None:
        """Compare the logits of the merged and the unmerged backbone, and keep the difference for the facts.

        A difference above :data:`MERGE_TOLERANCE` of the largest logit becomes a warning of the run, whose own numbers
        are those of the unmerged network and stand.

        Args:
            features: (batch, frames, bins) from the model's frontend; None: those of two seconds of noise.
            padding_mask: (batch, frames) or None.

        Returns:
            The largest absolute difference, or None where nothing merges (full, head and bitfit train the weights
            themselves; some methods add modules that stay).
        """
        if not self.is_peft:
            return None
        backbone = self.model.backbone
        if features is None:
            features, padding_mask = self._noise()
        modes = {module: module.training for module in backbone.modules()}
        backbone.eval()
        plain = backbone(features, padding_mask)
        for module, mode in modes.items():
            module.training = mode
        try:
            difference = self.merged()(features, padding_mask) - plain
        except NotImplementedError:
            return None
        self.merged_max_error = float(difference.abs().max())
        self.merged_relative_error = self.merged_max_error / max(float(plain.abs().max()), 1e-12)
        exact = plain.dtype == torch.float32 and plain.device.type == "cpu"
        tolerance = MERGE_TOLERANCE if exact else LOOSE_MERGE_TOLERANCE
        self._merge_warning = None
        if not self.merged_relative_error <= tolerance:  # NaN too
            self._merge_warning = (
                f"peft={self.options.name} on model={self.model.name}: merged into the weights, the network gives "
                f"other logits, by {self.merged_relative_error:.1e} of the largest (tolerance {tolerance:.0e}): "
                "use it unmerged"
            )
        return self.merged_max_error

    def save(self, folder: Path, cfg: Mapping[str, Any], task: Task) -> Path:
        """Save what was trained and what rebuilds the model; see :func:`sousa_bench.peft.adapter.save`."""
        from sousa_bench.peft.adapter import save

        return save(self, folder, cfg, task)

    def _noise(self) -> tuple[Tensor, Tensor | None]:
        length = 2 * self.model.sample_rate
        waveform = 0.1 * torch.randn(1, length, generator=torch.Generator().manual_seed(0))
        device = next(self.model.backbone.parameters()).device
        return self.model.features(waveform.to(device), torch.tensor([length], device=device))

    def _trains_statistics(self, module: _BatchNorm) -> bool:
        return self.options.batch_norm == "train" and any(p.requires_grad for p in module.parameters())

    def changing(self) -> dict[str, Tensor]:
        """What training changes, not copied: trainable parameters and trained BatchNorm statistics.

        Where nearest neighbours vote, what they are: nothing else has changed.
        """
        backbone = self.model.backbone
        if isinstance(backbone, NearestNeighbours):
            return backbone.memory()
        tensors: dict[str, Tensor] = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
        for name, module in backbone.named_modules():
            if isinstance(module, _BatchNorm) and self._trains_statistics(module):
                tensors |= {f"{name}.{key}": buffer for key, buffer in module.named_buffers(recurse=False)}
        return tensors


def merged(backbone: nn.Module) -> nn.Module:
    """A copy of a backbone in evaluation mode with the adapter merged into its weights: no PEFT module is left.

    Raises:
        NotImplementedError: The method doesn't merge.
    """
    backbone = _with_trained_modules(backbone)
    return backbone.merge_and_unload() if isinstance(backbone, peft.PeftModel) else backbone


def finished(backbone: nn.Module) -> tuple[nn.Module, dict[str, Any] | None]:
    """A network as it can be handed on, in evaluation mode: a copy without PEFT's wrapper.

    Returns:
        The network, the adapter merged; where its modules can't be merged they stand among the network's own, and what
        :func:`sousa_bench.peft.added_tuner.insert` must know of them, else None.

    Raises:
        NotImplementedError: The method doesn't merge, and what it adds is not ours.
    """
    config = backbone.peft_config["default"] if isinstance(backbone, peft.PeftModel) else None
    try:
        return merged(backbone), None
    except NotImplementedError:
        if not isinstance(config, AddedPeftConfig):
            raise
    added = {"method": config.method, "options": config.options, "places": config.places}
    return _with_trained_modules(backbone).get_base_model(), added  # type: ignore[operator]


def _with_trained_modules(backbone: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which trained copies stand in the place of what PEFT keeps beside them."""
    backbone = copy.deepcopy(backbone).eval()
    for name, module in list(backbone.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # PEFT's own unloading takes them for single layers
            backbone.set_submodule(name, module.modules_to_save["default"])
    return backbone
