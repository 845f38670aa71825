"""CED (Dinkel et al. 2023, arXiv:2308.11957): its network and its official files; Dasheng's are like it.

Written from facts and papers; CED's original code is under GPL-3.0 and no source of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.models.base import TokenGrid
from sousa_bench.models.beats_network import mean_over_tokens
from sousa_bench.models.ced_frontend import CedFrontend
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.vit import FactorisedPositions, Patches, Size, VisionTransformer, VitFamily

START_MEAN, START_VARIANCE = -20.0, 400.0
"""Of the decibels of sounds, roughly: what a random start normalises by."""


@dataclass(frozen=True)
class Shape(Size):
    """The numbers of a variant (``conf/model/ced.yaml``, ``conf/model/dasheng.yaml``).

    Attributes:
        bins: Mel bins.
        patch: Mel bins and frames of a patch; patches don't overlap.
        frames: Frames that go through at once, for which there are positions; of more, pieces of this length do.
        checkpoint: Address of the variant's official file, or None.
    """

    bins: int
    patch: Sequence[int]
    frames: int
    checkpoint: str | None = None


class CedBackbone(VisionTransformer):
    """BatchNorm over the mel bins, patches, positions for rows and columns, blocks, the mean over the tokens, the head.

    Args:
        shape: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    pad_last: ClassVar[bool] = True
    """Whether the last piece of a clip above ``frames`` is filled up to that length."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(shape, num_classes)
        self.rows, self.frames = shape.bins // shape.patch[0], shape.frames
        self.patch_frames = shape.patch[1]
        self.init_bn = nn.BatchNorm2d(shape.bins, momentum=0.01)
        self.patches = Patches(shape.dim, (shape.patch[0], shape.patch[1]))
        self.positions = FactorisedPositions(shape.dim, self.rows, shape.frames // shape.patch[1])
        nn.init.constant_(self.init_bn.running_mean, START_MEAN)  # type: ignore[arg-type]
        nn.init.constant_(self.init_bn.running_var, START_VARIANCE)  # type: ignore[arg-type]
        self.initialise()

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`."""
        return TokenGrid(self.rows)

    def normalised(self, features: Tensor) -> Tensor:
        """Decibels (batch, frames, bins) → the same by the bins' statistics."""
        return self.init_bn(features.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)

    def embed(self, features: Tensor) -> Tensor:
        """See :class:`VisionTransformer`; the tokens are frequency-major."""
        return self.tokens(self.normalised(features))

    def tokens(self, normalised: Tensor) -> Tensor:
        """Normalised features of at most ``frames`` frames → tokens with their positions."""
        return self.positions(self.patches(normalised)).flatten(2).transpose(1, 2)

    def pooled(self, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        """The mean over the tokens; see :class:`VisionTransformer`."""
        return mean_over_tokens(tokens, token_mask)

    def divisible(self, frames: int) -> bool:
        """Longer inputs go through in several pieces."""
        return frames <= self.frames

    def embedding(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """See :class:`VisionTransformer`.

        Above ``frames`` the normalised features are cut into pieces of that length, each at positions from the first
        on, and the mean is over the tokens of all. The last piece is filled with zeros, which are attended to, where
        ``pad_last`` says so.
        """
        frames = features.shape[1]
        if self.divisible(frames):
            return super().embedding(features, padding_mask)
        x, mask = self.normalised(features), self.token_mask(padding_mask)
        end = frames if self.pad_last else frames - self.patch_frames + 1  # What is less than a patch is left out.
        tokens: list[Tensor] = []
        for start in range(0, end, self.frames):
            piece = x[:, start : start + self.frames]
            if self.pad_last:
                piece = F.pad(piece, (0, 0, 0, self.frames - piece.shape[1]))
            embedded, done = self.tokens(piece), sum(part.shape[1] for part in tokens)
            own = None if mask is None else mask[:, done : done + embedded.shape[1]]
            tokens.append(self.encode(embedded, own))
        return self.pooled(torch.cat(tokens, dim=1), mask)


class Ced(VitFamily):
    """CED in all published sizes; ``conf/model/ced.yaml``."""

    numbers = Shape
    source = PUBLISHED["ced"].source
    names = (
        (r"^encoder\.", ""),
        (r"^init_bn\.1\.", "init_bn."),
        (r"^patch_embed\.proj\.", "patches.projection."),
        (r"^time_pos_embed$", "positions.time"),
        (r"^freq_pos_embed$", "positions.frequency"),
        (r"^outputlayer\.0\.", "classifier.layernorm."),
        (r"^outputlayer\.1\.", "classifier.dense."),
    )
    unused = r"front_end\..*"
    """The original file's window and mel bank, which the front end computes."""

    def frontend(self, numbers: Shape) -> CedFrontend:
        """See :class:`Family`."""
        return CedFrontend(numbers.bins, numbers.patch[1])

    def backbone(self, numbers: Shape, num_classes: int) -> CedBackbone:
        """See :class:`Family`."""
        return CedBackbone(numbers, num_classes)


build = Ced().build
