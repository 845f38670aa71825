"""OpenBEATs (Bharadwaj et al. 2025, arXiv:2507.14129): BEATs' network with another padding rule and other files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sousa_bench.errors import WeightsError
from sousa_bench.models.beats import BUILT_IN, MEAN, STD, Beats, BeatsFrontend
from sousa_bench.models.beats_network import BeatsBackbone, BeatsConfig
from sousa_bench.models.published import PUBLISHED
from sousa_bench.models.weights import Loaded

SHORTEST = 3200
"""Samples; a shorter clip is repeated until it is longer."""
STATISTICS = {"fbank_mean": MEAN, "fbank_std": STD}


@dataclass(frozen=True)
class OpenBeatsConfig(BeatsConfig):
    """Numbers of a variant: the network's, under the names of the official ``cfg``, and the front end's.

    Attributes:
        fbank_mean: Subtracted from the filter bank; None: BEATs'.
        fbank_std: Half of what it is divided by then; None: BEATs'.
    """

    fbank_mean: float | None = None
    fbank_std: float | None = None


class OpenBeatsFrontend(BeatsFrontend):
    """BEATs' filter bank, of clips repeated to 0.2 s, and a mask that is True on every frame that touches padding."""

    def __init__(self, numbers: OpenBeatsConfig) -> None:
        mean = MEAN if numbers.fbank_mean is None else numbers.fbank_mean
        super().__init__(numbers.input_patch_size, mean, STD if numbers.fbank_std is None else numbers.fbank_std)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute features; see :class:`BeatsFrontend`. Of a clip the first 16 frames are never padding."""
        if lengths is None:
            samples = waveform.shape[1]
            if 0 < samples < SHORTEST:
                waveform = waveform.repeat(1, SHORTEST // samples + 1)
            return super().forward(waveform)
        waveform, own = _repeated(waveform, lengths.to(waveform.device).clamp(min=1))
        features, _ = super().forward(waveform)
        frames = torch.maximum(self.fbank.frames(own), torch.full_like(own, self.min_frames))
        return features, torch.arange(features.shape[1], device=waveform.device) >= frames[:, None]


def _repeated(waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Clips of under 0.2 s repeated in their rows, and the lengths of all then."""
    own = torch.where(lengths < SHORTEST, lengths * (torch.full_like(lengths, SHORTEST) // lengths + 1), lengths)
    waveform = F.pad(waveform, (0, max(0, 2 * SHORTEST - waveform.shape[1])))
    place = torch.arange(waveform.shape[1], device=waveform.device)
    filled = waveform.gather(1, place % lengths[:, None])
    return filled.masked_fill(place >= own[:, None], 0.0), own


class OpenBeatsBackbone(BeatsBackbone):
    """BEATs' network, where all tokens of a column of patches but the first are padding when any of its frames is."""

    def token_mask(self, padding_mask: Tensor, tokens: int) -> Tensor:
        """See :class:`BeatsBackbone`; padding is at the end, so that a column's last frame tells."""
        side = self.config.input_patch_size
        columns = padding_mask.shape[1] // side
        place = torch.arange(columns, device=padding_mask.device)
        last = padding_mask[:, place * side + side - 1] & (place > 0)  # a time stretch may leave less than one
        return last[:, :, None].expand(-1, -1, BeatsFrontend.bins // side).flatten(1)


_LEFT_OUT: dict[str, Any] = {  # What the official code takes where a cfg does not say it
    **vars(OpenBeatsConfig()),
    "max_distance": 1280,
    **BUILT_IN,
    **dict.fromkeys(("deep_norm", "relative_position_embedding", "gru_rel_pos"), False),
}


class OpenBeats(Beats):
    """OpenBEATs, pretrained or fine-tuned with ESPnet; ``conf/model/openbeats.yaml``."""

    numbers = OpenBeatsConfig
    source = PUBLISHED["openbeats"].source

    def frontend(self, numbers: BeatsConfig) -> OpenBeatsFrontend:
        """See :class:`Family`."""
        assert isinstance(numbers, OpenBeatsConfig)
        return OpenBeatsFrontend(numbers)

    def backbone(self, numbers: BeatsConfig, num_classes: int) -> OpenBeatsBackbone:
        """See :class:`Family`."""
        return OpenBeatsBackbone(numbers, num_classes)

    def check_file(self, loaded: Loaded, variant: str, variants: Mapping[str, Any]) -> OpenBeatsConfig:
        """As BEATs'; a file of ESPnet's has no ``cfg``, and is what its shapes say.

        Raises:
            WeightsError: The ``cfg`` describes another network or other features, or a layer has a relative-position
                table of its own.
        """
        expected: OpenBeatsConfig = variants[variant]
        cfg = loaded.extra.get("cfg", {**vars(expected), **BUILT_IN})
        if isinstance(cfg, Mapping):
            _check_statistics(loaded.info.origin, expected, cfg)
            own = {key: getattr(expected, key) for key in STATISTICS}
            cfg = {**_LEFT_OUT, **cfg, **own}
        told = super().check_file(replace(loaded, state=_bare(loaded.state), extra={"cfg": cfg}), variant, variants)
        assert isinstance(told, OpenBeatsConfig)
        return told

    def head_classes(self, loaded: Loaded, count: int) -> tuple[str, ...]:
        """Not known: ESPnet lists them in another file."""
        return ()

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the authors' file or ESPnet's."""
        return super().rename(_bare(state))


def _check_statistics(origin: str, numbers: OpenBeatsConfig, cfg: Mapping[str, Any]) -> None:
    """Refuse a ``cfg`` with a mean or deviation of its own, unless the config says which counts.

    The authors' package reads them there, ESPnet does not; and what a run's config lacks, its package would lack.
    """
    other = {key: cfg[key] for key, own in STATISTICS.items() if cfg.get(key) not in (None, own)}
    if other and any(getattr(numbers, key) is None for key in other):
        words = [" ".join(f"model.{key}={value}" for key, value in given.items()) for given in (other, STATISTICS)]
        raise WeightsError(
            f"{origin} has {', '.join(f'{key}={value}' for key, value in other.items())} in its cfg, which the "
            f"openbeats package reads and ESPnet does not: add {words[0]}, or as ESPnet {words[1]}."
        )


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEATs' keys: without ESPnet's prefix and the two frozen kernels of ones that make the official padding mask."""
    prefix = "encoder." if any(key.startswith("encoder.encoder.") for key in state) else ""
    bare = {re.sub(r"^decoder\.linear_out\.", "predictor.", key.removeprefix(prefix)): v for key, v in state.items()}
    return {key: v for key, v in bare.items() if key not in ("patch_embedding_pad.weight", "raw2fbank_pad.weight")}


build = OpenBeats().build
