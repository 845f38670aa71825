"""HTS-AT, the Hierarchical Token-Semantic Audio Transformer (Chen et al., ICASSP 2022, arXiv:2202.00874).

The AudioSet model of RetroCirce/HTS-Audio-Transformer, and the audio encoder of CLAP (Wu et al., 2023,
arXiv:2211.06687), which has the same architecture, other weights and a front end at 48 kHz.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.errors import DataError, WeightsError
from sousa_bench.models.base import Divisible, State, TokenGrid
from sousa_bench.models.family import Family, initialise_encoder, initialise_head, renamed
from sousa_bench.models.htsat_frontend import HtsatFrontend
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.swin import Swin, SwinBlock, SwinShape
from sousa_bench.models.weights import Loaded


@dataclass(frozen=True)
class Shape(SwinShape):
    """The numbers of a variant (``conf/model/htsat.yaml``): the trunk's, and those of :class:`HtsatFrontend`."""

    bins: int
    sample_rate: int
    hop: int
    low_freq: float
    high_freq: float
    length_mode: str

    @property
    def pieces(self) -> int:
        """Pieces that the spectrogram is cut into, stacked along frequency in the image."""
        return self.image // self.bins

    @property
    def frames(self) -> int:
        """Frames of the spectrogram that fills the image."""
        return self.image * self.pieces


class HtsatBackbone(Divisible):
    """BatchNorm over the mel bins, fold to a square image, Swin, token-semantic convolution, mean over time.

    Args:
        shape: Numbers of the variant.
        num_classes: Outputs of the head.
    """

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.shape = shape
        self.bn0 = nn.BatchNorm2d(shape.bins)
        self.trunk = Swin(shape)
        self.tscam_conv = nn.Conv2d(shape.width, num_classes, (shape.side // shape.pieces, 3), padding=(0, 1))
        initialise_encoder(self.trunk)
        initialise_head(self.tscam_conv)

    def enable_gradient_checkpointing(self) -> None:
        """Compute each block's activations again in the backward pass instead of keeping them."""
        self.trunk.checkpointing = True

    def token_grid(self, block: str) -> TokenGrid:
        """See :class:`sousa_bench.models.base.TokenGrid`: the map is folded as the image is."""
        swin = self.get_submodule(block)
        assert isinstance(swin, SwinBlock)
        return TokenGrid(swin.side // self.shape.pieces, pieces=self.shape.pieces)

    def image(self, features: Tensor) -> Tensor:
        """Log-mel features (batch, frames <= 1024, bins) in dB → image (batch, 1, 256, 256).

        Image row = piece * bins + bin, column = frame within the piece.
        """
        x = self.bn0(features.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        if x.shape[1] < self.shape.frames:
            size = (self.shape.frames, self.shape.bins)
            x = F.interpolate(x[:, None], size, mode="bicubic", align_corners=True)[:, 0]
        pieces = x.unflatten(1, (self.shape.pieces, -1))
        return pieces.transpose(2, 3).reshape(-1, 1, self.shape.image, self.shape.image)

    def tokens(self, features: Tensor) -> Tensor:
        """Normed tokens (batch, side, side, width) of features of at most 1024 frames."""
        return self.trunk(self.image(features))

    def framewise(self, features: Tensor) -> Tensor:
        """Logits over time (batch, steps, classes) of features of at most 1024 frames; 32 steps for 1024 frames."""
        return self._framewise(self._timewise(self.tokens(features)))

    def _framewise(self, x: Tensor) -> Tensor:
        return self.tscam_conv(x).squeeze(2).transpose(1, 2)

    def _timewise(self, x: Tensor) -> Tensor:
        """Tokens (batch, side, side, width) → the map (batch, width, rows, steps) that the head takes."""
        rows = x.shape[1] // self.shape.pieces
        # The map's rows are pieces of time, each of a few frequency rows: put time into one axis again.
        return x.unflatten(1, (self.shape.pieces, rows)).permute(0, 4, 2, 1, 3).flatten(3)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (batch, frames, bins) in dB → logits (batch, classes); there is no padding to mask.

        Of more frames than the image holds, overlapping crops of half the input go through, and their logits are
        averaged, as the authors do.

        Raises:
            DataError: A crop is too long as well.
        """
        frames = features.shape[1]
        if frames <= self.shape.frames:
            return self.framewise(features).mean(1)
        crop, step = (frames - 1) // 2, (frames - 1) // 4
        if crop > self.shape.frames:
            raise DataError(f"HTS-AT takes at most {2 * self.shape.frames + 2} frames (20 s), not {frames}.")
        crops = [features[:, start : start + crop] for start in range(0, frames - crop - 1, step)]
        return torch.stack([self.framewise(each).mean(1) for each in crops]).mean(0)

    def divisible(self, frames: int) -> bool:
        """Longer inputs go through in several crops."""
        return frames <= self.shape.frames

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        if place is None:
            return (self._timewise(self.tokens(features)),)
        return (self.trunk.until(*_stage_and_block(place), self.image(features)),)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        (x,) = state
        assert x is not None
        if place is not None:
            x = self._timewise(self.trunk.onward(*_stage_and_block(place), x))
        return self._framewise(x).mean(1)


def _stage_and_block(place: str) -> tuple[int, int]:
    """``trunk.layers.1.blocks.0`` → (1, 0)."""
    stage, block = re.findall(r"\d+", place)
    return int(stage), int(block)


_AUDIOSET = (  # RetroCirce's names under this backbone's
    (r"^sed_model\.", ""),
    (r"^(patch_embed|layers|norm)\.", r"trunk.\1."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.", ".attention."),
)
_CLAP = (
    (r"^audio_model\.audio_encoder\.", "trunk."),
    (r"^trunk\.batch_norm\.", "bn0."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.query\.", ".attention.q_proj."),
    (r"\.attention\.self\.key\.", ".attention.k_proj."),
    (r"\.attention\.self\.value\.", ".attention.v_proj."),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
_UNUSED = (
    r"sed_model\.(spectrogram_extractor|logmel_extractor)\..*"  # The front end computes them
    r"|sed_model\.head\.(weight|bias)"  # In the official file, called by no official code
    r"|.*\.(relative_position_index|attn_mask)"  # Follow from the window; float in averaged files
    r"|(text_model|text_projection|audio_projection)\..*|logit_scale_[at]"  # CLAP's other half
)


class Htsat(Family):
    """HTS-AT with AudioSet's or CLAP's weights; ``conf/model/htsat.yaml``."""

    numbers = Shape
    # The AudioSet files lie on a drive that no program can fetch from; CLAP's are on the hub.
    source = PUBLISHED["htsat"].source

    def frontend(self, numbers: Shape) -> HtsatFrontend:
        """See :class:`Family`."""
        return HtsatFrontend(numbers)

    def backbone(self, numbers: Shape, num_classes: int) -> HtsatBackbone:
        """See :class:`Family`."""
        return HtsatBackbone(numbers, num_classes)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of an AudioSet or CLAP file."""
        return renamed(state, _CLAP if is_clap(state) else _AUDIOSET, _UNUSED)

    def check_file(self, loaded: Loaded, variant: str, variants: Mapping[str, Any]) -> Shape:
        """Refuse an AudioSet file whose weights were trained on another spectrogram.

        Raises:
            WeightsError: It has another mel bank.
        """
        bank, own = loaded.state.get("sed_model.logmel_extractor.melW"), self.frontend(variants[variant]).logmel.bank
        if bank is not None and (
            bank.shape != own.shape or not torch.allclose(bank.float(), own, atol=1e-5, rtol=1e-3)
        ):
            raise WeightsError(
                f"{loaded.info.origin} was trained on another mel bank than that of model.variant={variant}."
            )
        return variants[variant]


def is_clap(state: Mapping[str, Tensor]) -> bool:
    """Whether a file is CLAP's (transformers' names) and not an AudioSet checkpoint."""
    return any(key.startswith("audio_model.audio_encoder.") for key in state)


build = Htsat().build
