"""Build a model from its own YAML file, as Hydra does, and clips for it."""

from pathlib import Path

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sousa_bench.models.base import AudioModel

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"


def build(
    name: str, num_classes: int | None = 40, weights: str = "random", seed: int = 1, **changes: object
) -> AudioModel:
    """``conf/model/NAME.yaml`` with these changes; raises what the model's own code raised."""
    config = OmegaConf.create({"seed": seed, "weights": weights, "model": OmegaConf.load(CONF / f"{name}.yaml")})
    config.model = OmegaConf.merge(config.model, changes)
    try:
        return instantiate(config.model, num_classes=num_classes, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None


def clips(*seconds: float, rate: int = 16000) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise bursts of these lengths, padded with silence to the longest."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([round(s * rate) for s in seconds])
    waveform = torch.randn(len(seconds), int(lengths.max()), generator=generator) * 0.1
    return waveform * (torch.arange(waveform.shape[1]) < lengths[:, None]), lengths
