"""Full fine-tuning, linear probe and BitFit: methods that add no parameter, so that PEFT has no class for them."""

from __future__ import annotations

from dataclasses import dataclass

from sousa_bench.errors import ConfigError
from sousa_bench.models.base import AudioModel
from sousa_bench.peft.options import Options
from sousa_bench.peft.targets import batch_norms, inside, selected_blocks

TRAINS = ("all", "head", "bias")


@dataclass
class LocalConfig:
    """Train parameters that the model already has.

    Attributes:
        trains: ``all`` (full fine-tuning), ``head`` (linear probe) or ``bias`` (BitFit, arXiv:2106.10199: every bias).
            The head trains in all three.
    """

    trains: str = "all"

    def __post_init__(self) -> None:
        if self.trains not in TRAINS:
            raise ConfigError(f"peft.trains={self.trains}: must be one of {', '.join(TRAINS)}")


def mark_trainable(model: AudioModel, config: LocalConfig, options: Options) -> None:
    """Set ``requires_grad`` on the backbone's parameters as ``config`` and ``options`` say."""
    blocks = selected_blocks(model, options.layers)
    norms = batch_norms(model.backbone)
    for name, parameter in model.backbone.named_parameters():
        chosen = blocks is None or inside(name, blocks)
        owner, _, kind = name.rpartition(".")
        if inside(name, [model.head_name]):
            trains = True
        elif owner in norms and options.batch_norm == "train":
            trains = chosen
        elif config.trains == "bias":
            trains = chosen and kind.endswith("bias") and parameter.ndim == 1
        elif owner in norms:
            trains = False
        else:
            trains = chosen and config.trains == "all"
        parameter.requires_grad_(trains)


def is_linear_probe(config: object) -> bool:
    """Whether nothing but the head trains."""
    return isinstance(config, LocalConfig) and config.trains == "head"
