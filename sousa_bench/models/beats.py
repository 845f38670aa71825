"""BEATs (Chen et al. 2022, arXiv 2212.09058): its front end and its official files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from sousa_bench.errors import DataError, WeightsError
from sousa_bench.models import audioset
from sousa_bench.models.base import Frontend
from sousa_bench.models.beats_network import BINS, BeatsBackbone, BeatsConfig
from sousa_bench.models.family import Family
from sousa_bench.models.fbank import LOG_FLOOR, KaldiFbank, band_centres
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.weights import Loaded

# microsoft/unilm beats/BEATs.py, preprocess(): mean and standard deviation over the pre-training data.
MEAN, STD = 15.41663, 6.55582
WAVEFORM_SCALE = 32768.0


class BeatsFrontend(Frontend):
    """Filter bank with 128 bins at 100 frames a second, povey window, normalised by ``(x - mean) / (2 std)``.

    Args:
        min_frames: Fewest frames that the backbone can take: one row of patches.
        mean: Of the pre-training data's filter bank.
        deviation: Its standard deviation.
    """

    sample_rate = 16000
    bins = BINS

    def __init__(self, min_frames: int = 16, mean: float = MEAN, deviation: float = STD) -> None:
        super().__init__()
        self.min_frames = min_frames
        self.fbank = KaldiFbank("povey", self.sample_rate, self.bins, scale=WAVEFORM_SCALE)
        self.mean, self.divisor = mean, 2 * deviation
        self.pad_value = (math.log(LOG_FLOOR) - self.mean) / self.divisor

    def centres(self) -> Tensor:
        """As :meth:`sousa_bench.models.base.Frontend.centres`."""
        return band_centres(self.fbank.bank, self.sample_rate)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features and, with ``lengths``, the frame mask of the official ``forward_padding_mask``.

        Frames that begin after a clip's end hold ``pad_value``, since the padding is zeros.

        Args:
            waveform: (batch, samples) float32 in -1..1, padded with zeros at the end.
            lengths: (batch,) int64 true sample counts, at least 1, or None when every clip fills its row.

        Returns:
            Features (batch, 1 + (samples - 400) // 160, 128) float32, and the mask (batch, frames) bool with True on
            padding, or None without ``lengths``.

        Raises:
            DataError: The rows are too short for one patch.
        """
        features = (self.fbank(waveform) - self.mean) / self.divisor
        frames = features.shape[1]
        if frames < self.min_frames:
            raise DataError(
                f"BEATs needs clips of at least {self.min_frames} frames (0.175 s); these have {frames} "
                f"({waveform.shape[1]} samples at {self.sample_rate} Hz): leave them out or pad them with silence."
            )
        if lengths is None:
            return features, None
        # Officially the sample mask is cut evenly into one chunk per frame, and a frame is padding when its whole
        # chunk is: when its first sample is.
        chunk = waveform.shape[1] // frames
        first_sample = torch.arange(frames, device=waveform.device) * chunk
        return features, first_sample >= lengths.to(waveform.device)[:, None]


# What the network here has built in; a file that says otherwise is another model.
BUILT_IN: dict[str, Any] = {
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_bias": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "activation_fn": "gelu",
}
_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "dropout_input", "predictor_dropout")
_POSITIONS = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
    "bias": "bias",
}
_POSITION_TABLE = ".self_attn.relative_attention_bias.weight"


class Beats(Family):
    """BEATs, pretrained or fine-tuned; ``conf/model/beats.yaml``."""

    numbers = BeatsConfig
    source = PUBLISHED["beats"].source

    def frontend(self, numbers: BeatsConfig) -> BeatsFrontend:
        """See :class:`Family`."""
        return BeatsFrontend(numbers.input_patch_size)

    def backbone(self, numbers: BeatsConfig, num_classes: int) -> BeatsBackbone:
        """See :class:`Family`."""
        return BeatsBackbone(numbers, num_classes)

    def check_file(self, loaded: Loaded, variant: str, variants: Mapping[str, Any]) -> BeatsConfig:
        """The variant's numbers with the file's dropout rates.

        Two fields of the file are recipes of the official training and are not followed: ``encoder_layerdrop`` and
        ``layer_wise_gradient_decay_ratio`` (see docs/models.md).

        Raises:
            WeightsError: There is no ``cfg``, it describes another network, or a layer has a relative-position table
                of its own.
        """
        expected: BeatsConfig = variants[variant]
        cfg = loaded.extra.get("cfg")
        if not isinstance(cfg, Mapping):
            raise WeightsError(
                f"{loaded.path} is no BEATs checkpoint: it must hold 'cfg' beside 'model', as the official files do."
            )
        wanted = {k: v for k, v in asdict(expected).items() if k not in _DROPOUTS} | BUILT_IN
        differing = [f"{k}={cfg.get(k)!r} (here {value!r})" for k, value in wanted.items() if cfg.get(k) != value]
        if differing:
            raise WeightsError(
                f"{loaded.path} is another network than this model.variant: its cfg has {', '.join(differing)}. "
                "Use the checkpoint of this variant, or another model.variant."
            )
        keys = [f"encoder.layers.{layer}{_POSITION_TABLE}" for layer in range(expected.encoder_layers)]
        problems = [f"missing {key}" for key in keys if key not in loaded.state] or [
            f"{key} differs from layer 0's"
            for key in keys[1:]
            if not torch.equal(loaded.state[key], loaded.state[keys[0]])
        ]
        if problems:
            raise WeightsError(f"The weights of {loaded.info.origin} don't fit this model: {', '.join(problems)}.")
        rates: dict[str, Any] = {key: float(cfg[key]) for key in _DROPOUTS if cfg.get(key) is not None}
        return replace(expected, **rates)

    def head_classes(self, loaded: Loaded, count: int) -> tuple[str, ...]:
        """As ``label_dict`` lists them: a fine-tuned file has an order of its own."""
        return audioset.listed(loaded.extra.get("label_dict"), count)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of an official file, whose layers hold copies of one relative-position table."""
        shared = state[f"encoder.layers.0{_POSITION_TABLE}"]
        own = {key: value for key, value in state.items() if not key.endswith(_POSITION_TABLE)}
        for suffix, key in _POSITIONS.items():
            if (value := own.pop(f"encoder.pos_conv.0.{suffix}", None)) is not None:
                own[f"encoder.pos_conv.conv.{key}"] = value
        return {**own, "encoder.relative_attention_bias.table.weight": shared}


build = Beats().build
