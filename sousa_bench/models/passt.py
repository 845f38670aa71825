"""PaSST (Koutini et al., Interspeech 2022, arXiv:2110.05069): EfficientAT's front end before a vision transformer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sousa_bench.errors import ConfigError
from sousa_bench.models.base import TokenGrid
from sousa_bench.models.efficientat import EfficientATFrontend
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.vit import FactorisedPositions, Patches, Size, VisionTransformer, VitFamily, first_columns

PATCH = 16


@dataclass(frozen=True)
class Shape(Size):
    """The numbers of a variant (``conf/model/passt.yaml``).

    Attributes:
        stride: Mel bins, and frames, between patches of 16.
        frames: Frames that there are positions for; of more the first are heard.
        patchout_frequency: Rows of patches left out of each training step.
        patchout_time: Columns of patches left out of each training step.
        checkpoint: Address of the variant's official file, or None.
    """

    stride: int
    frames: int
    patchout_frequency: int = 0
    patchout_time: int = 0
    checkpoint: str | None = None

    def patches(self, length: int) -> int:
        """Patches along an axis of so many bins or frames."""
        return (length - PATCH) // self.stride + 1


class PasstPositions(FactorisedPositions):
    """Positions of rows and columns, structured patchout in training, and two tokens in front with positions of theirs.

    Args:
        shape: Numbers of the variant.
    """

    def __init__(self, shape: Shape) -> None:
        rows = shape.patches(EfficientATFrontend.bins)
        super().__init__(shape.dim, rows, shape.patches(shape.frames))
        self.patchout = {2: shape.patchout_frequency, 3: shape.patchout_time}
        self.class_token = nn.Parameter(torch.randn(1, 1, shape.dim))
        self.distillation_token = nn.Parameter(torch.randn(1, 1, shape.dim))
        self.special = nn.Parameter(torch.zeros(1, 2, shape.dim))

    def forward(self, grid: Tensor) -> Tensor:
        """Grid (batch, dim, rows, columns) → tokens (batch, 2 + rows * columns, dim), frequency-major."""
        grid = super().forward(first_columns(grid, self.columns))
        if self.training:
            for axis, left_out in self.patchout.items():
                grid = _thinned(grid, axis, left_out)
        special = torch.cat((self.class_token, self.distillation_token), dim=1) + self.special
        tokens = grid.flatten(2).transpose(1, 2)
        return torch.cat((special.expand(grid.shape[0], -1, -1).to(tokens.dtype), tokens), dim=1)


def _thinned(grid: Tensor, axis: int, left_out: int) -> Tensor:
    """The grid without so many random places of an axis; one place stays at least."""
    if not left_out:
        return grid
    size = grid.shape[axis]
    kept = torch.randperm(size)[: max(size - left_out, 1)].sort().values
    return grid.index_select(axis, kept.to(grid.device))


class PasstBackbone(VisionTransformer):
    """Overlapping patches, positions, blocks, the mean of the class and the distillation token, the head.

    Args:
        shape: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.patch_count = shape.patches
        self.patches = Patches(shape.dim, (PATCH, PATCH), (shape.stride, shape.stride))
        self.positions = PasstPositions(shape)
        self.initialise()

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`.

        Raises:
            ConfigError: Patchout leaves out rows, so that in training there are fewer than in a test.
        """
        if self.positions.patchout[2]:
            raise ConfigError("model.patchout_frequency leaves out rows of frequency; give model.patchout_frequency=0")
        return TokenGrid(self.positions.frequency.shape[2], special=2)

    def embed(self, features: Tensor) -> Tensor:
        """See :class:`VisionTransformer`."""
        return self.positions(self.patches(features))

    def divisible(self, frames: int) -> bool:
        """Of longer inputs the first frames are heard, as in the authors' repository."""
        return self.patch_count(frames) <= self.positions.columns

    def pooled(self, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        """The mean of the first two tokens; see :class:`VisionTransformer`."""
        return (tokens[:, 0] + tokens[:, 1]) / 2


class Passt(VitFamily):
    """PaSST with all strides; ``conf/model/passt.yaml``."""

    numbers = Shape
    source = PUBLISHED["passt"].source
    names = (
        (r"^cls_token$", "positions.class_token"),
        (r"^dist_token$", "positions.distillation_token"),
        (r"^new_pos_embed$", "positions.special"),
        (r"^freq_new_pos_embed$", "positions.frequency"),
        (r"^time_new_pos_embed$", "positions.time"),
        (r"^patch_embed\.proj\.", "patches.projection."),
        (r"^head\.0\.", "classifier.layernorm."),
        (r"^head\.1\.", "classifier.dense."),
    )
    unused = r"head_dist\.(weight|bias)"
    """In the official file; the authors' code calls it nowhere."""

    def frontend(self, numbers: Shape) -> EfficientATFrontend:
        """See :class:`Family`."""
        return EfficientATFrontend()

    def backbone(self, numbers: Shape, num_classes: int) -> PasstBackbone:
        """See :class:`Family`."""
        return PasstBackbone(numbers, num_classes)


build = Passt().build
