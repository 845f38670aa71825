"""Dasheng (Dinkel et al. 2024, arXiv:2406.06992): CED's front end and network, patches of 64 mel bins × 4 frames."""

from __future__ import annotations

import torch
from torch import Tensor

from sousa_bench.models.ced import Ced, CedBackbone, Shape
from sousa_bench.models.ced_frontend import HOP, CedFrontend
from sousa_bench.models.published import PUBLISHED


class DashengFrontend(CedFrontend):
    """CED's, with the mask of the authors' package: a token of 40 ms counts when it lies inside the clip whole."""

    def own_frames(self, lengths: Tensor) -> Tensor:
        """The frames of as many whole tokens as a clip has, at least one's."""
        return (lengths // (HOP * self.least)).clamp(min=1) * self.least


class DashengBackbone(CedBackbone):
    """CED's network, in which tokens of padding are masked and the last piece of a long clip is short."""

    pad_last = False

    def token_mask(self, padding_mask: Tensor | None) -> Tensor | None:
        """A token is padding when its first frame is."""
        if padding_mask is None:
            return None
        # By places rather than by a step, whose size the export to ONNX can't prove where the length is free.
        tokens = padding_mask.shape[1] // self.patch_frames
        return padding_mask[:, torch.arange(tokens, device=padding_mask.device) * self.patch_frames]


class Dasheng(Ced):
    """Dasheng in all published sizes, with or without AudioSet's head; ``conf/model/dasheng.yaml``."""

    source = PUBLISHED["dasheng"].source

    def frontend(self, numbers: Shape) -> DashengFrontend:
        """See :class:`Family`."""
        return DashengFrontend(numbers.bins, numbers.patch[1])

    def backbone(self, numbers: Shape, num_classes: int) -> DashengBackbone:
        """See :class:`Family`."""
        return DashengBackbone(numbers, num_classes)


build = Dasheng().build
