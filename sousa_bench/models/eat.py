"""EAT (Chen et al. 2024, arXiv:2401.03497) and SSLAM (arXiv:2506.12222), one network under two sets of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.errors import WeightsError
from sousa_bench.models.ast import AstFrontend
from sousa_bench.models.base import TokenGrid
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.vit import FixedPositions, Patches, Size, VisionTransformer, VitFamily
from sousa_bench.models.weights import Loaded

MEAN, STD = -4.268, 4.569
PATCH = 16
FORMULA = 1e-3
"""Most that a position in a file may differ from the formula's: it was computed in other precisions."""


@dataclass(frozen=True)
class Shape(Size):
    """The numbers of a variant (``conf/model/eat.yaml``).

    Attributes:
        bins: Mel bins.
        frames: Frames of an official input.
        checkpoint: Address of the variant's official file, or None.
    """

    bins: int
    frames: int
    checkpoint: str | None = None


class EatFrontend(AstFrontend):
    """AST's with another mean and deviation, filled up to whole patches."""

    def __init__(self, bins: int, frames: int) -> None:
        super().__init__(bins, frames)
        self.mean, self.divisor = MEAN, 2 * STD
        self.silence = float((torch.zeros(1) - self.mean) / self.divisor)

    @property
    def pad_value(self) -> float:  # type: ignore[override]
        """Zero rows, appended before normalising: to the bit, since padding is told by it."""
        return self.silence

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features; see :class:`AstFrontend`. With ``lengths`` their number is the next multiple of 16."""
        x, mask = super().forward(waveform, lengths)
        return F.pad(x, (0, 0, 0, -x.shape[1] % PATCH), value=self.pad_value), mask


class EatBackbone(VisionTransformer):
    """Patches, positions, a LayerNorm, post-norm blocks, the class token, the head.

    Args:
        shape: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    longest = 768
    """Columns of time in the official table of positions."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, num_classes, post_norm=True)
        self.patches = Patches(shape.dim, (PATCH, PATCH))
        self.rows = shape.bins // PATCH
        self.positions = FixedPositions(shape.dim, self.rows, self.longest)
        self.pre_norm = nn.LayerNorm(shape.dim, eps=1e-6)
        self.initialise()

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`."""
        return TokenGrid(self.rows, special=1, time_major=True)

    def embed(self, features: Tensor) -> Tensor:
        """See :class:`VisionTransformer`; the class token comes first, then the patches, time-major."""
        return self.pre_norm(self.positions(self.patches(features)))

    def divisible(self, frames: int) -> bool:
        """Of longer inputs the first 123 s are heard."""
        return frames <= self.longest * PATCH

    def pooled(self, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        """The class token; see :class:`VisionTransformer`."""
        return tokens[:, 0]


class Eat(VitFamily):
    """EAT and SSLAM, pretrained or fine-tuned; ``conf/model/eat.yaml``."""

    numbers = Shape
    source = PUBLISHED["eat"].source
    names = (
        (r"^(model\.)?modality_encoders\.IMAGE\.local_encoder\.", "model.local_encoder."),
        (r"^(model\.)?modality_encoders\.IMAGE\.(extra_tokens|fixed_positional_encoder)", r"model.\2"),
        (r"^(model\.)?modality_encoders\.IMAGE\.context_encoder\.norm\.", "model.pre_norm."),
        (r"^model\.", ""),  # above: fairseq's names → the hub's; from here on the hub's → this network's
        (r"^extra_tokens$", "positions.class_token"),
        (r"^local_encoder\.proj\.", "patches.projection."),
        (r"^fc_norm\.", "classifier.layernorm."),
        (r"^head\.", "classifier.dense."),
    )
    unused = (
        r".*fixed_positional_encoder\.positions"  # Follows from a formula; held against it below
        r"|(model\.)?modality_encoders\.IMAGE\.decoder\..*|_ema"  # Of the pretraining alone
    )

    def frontend(self, numbers: Shape) -> EatFrontend:
        """See :class:`Family`."""
        return EatFrontend(numbers.bins, numbers.frames)

    def backbone(self, numbers: Shape, num_classes: int) -> EatBackbone:
        """See :class:`Family`."""
        return EatBackbone(numbers, num_classes)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the hub's file or the authors' own, whose patches have time as rows."""
        own = super().rename(state)
        if (kernel := own.get("patches.projection.weight")) is not None:
            own["patches.projection.weight"] = kernel.transpose(2, 3)
        return own

    def check_file(self, loaded: Loaded, variant: str, variants: Mapping[str, Any]) -> Shape:
        """Hold the file's table of positions against the formula.

        Raises:
            WeightsError: It is missing, or another table.
        """
        shape: Shape = variants[variant]
        found = next((v for k, v in loaded.state.items() if k.endswith("fixed_positional_encoder.positions")), None)
        own = FixedPositions(shape.dim, shape.bins // PATCH, EatBackbone.longest).table(EatBackbone.longest)
        own = own.flatten(0, 1)[None]
        if found is None or found.shape != own.shape or (found.float() - own).abs().max() > FORMULA:
            raise WeightsError(
                f"{loaded.info.origin} is no checkpoint of model=eat model.variant={variant}: its table of positions "
                "(fixed_positional_encoder.positions) is missing or another one."
            )
        return shape


build = Eat().build
