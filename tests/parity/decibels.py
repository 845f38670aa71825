"""What the tests of CED and Dasheng share: one front end, one network."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from sousa_bench.models import ced_frontend
from sousa_bench.models.base import AudioModel
from sousa_bench.models.ced import CedBackbone
from sousa_bench.models.ced_frontend import CedFrontend

from . import reference
from .patching import WRONG_BLOCKS, Wrong

TOLERANCE = 1e-2  # Largest absolute difference in decibels, of single values


def forward(model: AudioModel, arrays: Mapping[str, np.ndarray], prefix: str = "") -> SimpleNamespace:
    """One forward pass of the golden clips with everything that it computed on the way."""
    backbone, seen = model.backbone, reference.Intermediates()
    seen.watch("init_bn", backbone.init_bn, lambda x: x.squeeze(-1)[:, None])
    seen.watch("patch_embed", backbone.patches)
    for index, layer in enumerate(backbone.layers):
        seen.watch(f"layer_{index:02d}", layer)
    seen.watch("norm", backbone.norm)
    features, mask = model.features(torch.from_numpy(arrays["waveform"]))
    embedded = backbone.embed(features)
    seen.values["tokens_with_positions"] = embedded
    tokens = backbone.encode(embedded)
    shape = arrays[f"{prefix}mid_init_bn_shape"].tolist()
    seen.values["init_bn"] = seen.values["init_bn"].reshape(len(tokens), *shape[1:])
    values = reference.Intermediates(dict(seen.values))
    return SimpleNamespace(model=model, prefix=prefix, features=features, mask=mask, tokens=tokens, seen=values)


def resized(arrays: Mapping[str, np.ndarray], samples: str) -> Tensor:
    """The golden clips repeated and cut to the number of samples that an array says."""
    return torch.from_numpy(np.stack([np.resize(clip, int(arrays[samples])) for clip in arrays["waveform"]]))


def assert_features(features: Tensor, arrays: Mapping[str, np.ndarray], prefix: str) -> None:
    """Features (clip, frames, bins) against a shape and 512 values of each clip."""
    own = features.transpose(1, 2)
    assert list(own.shape) == arrays[f"{prefix}features_shape"].tolist()
    reference.assert_close(reference.probe(own, 512), arrays[f"{prefix}features_probe"], TOLERANCE, f"{prefix}features")


def assert_joint(model: AudioModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Both clips under one floor are the official joint call; the model's own features are not."""
    features, _ = model.features(torch.from_numpy(arrays["waveform"]))
    alone = torch.cat([model.features(clip[None])[0] for clip in torch.from_numpy(arrays["waveform"])])
    assert torch.equal(features, alone)
    joint = torch.maximum(features, features.max() - ced_frontend.TOP_DB)
    probe = reference.probe(joint.transpose(1, 2), 512)
    reference.assert_close(probe, arrays["joint_features_probe"], TOLERANCE, "joint features")
    logits = model.backbone(joint)
    reference.assert_relative(logits, arrays["joint_logits"], reference.LOGITS, "joint logits")
    assert reference.relative(arrays["joint_logits"], arrays["logits"]) > 10 * reference.LOGITS


def original_state(name: str, frontend: CedFrontend, file: str = "keys_original.json") -> dict[str, Tensor]:
    """The same values under the keys of an original file, its own window and mel bank included."""
    state = reference.rebuild(name, lambda _, shape: torch.zeros(shape, dtype=torch.int64))
    fixed = {"spectrogram.window": frontend.logmel.window, "mel_scale.fb": frontend.logmel.bank}
    original = {}
    for entry in reference.table(name, file)["keys"]:
        key = entry["key"]
        if entry.get("same_as"):
            original[key] = state[entry["same_as"]].clone()
        else:
            [original[key]] = [value for suffix, value in fixed.items() if key.endswith(suffix)]
        assert list(original[key].shape) == entry["shape"], key
    return original


WRONG_NETWORKS: dict[str, Callable[[CedBackbone], Wrong]] = {
    **WRONG_BLOCKS,
    "LayerNorm eps of the blocks": lambda b: ([n for x in b.layers for n in (x.norm1, x.norm2)], "eps", 1e-5),
    "LayerNorm eps of the head": lambda b: ([b.classifier.layernorm], "eps", 1e-6),
    "BatchNorm eps": lambda b: ([b.init_bn], "eps", 1e-1),
}
WRONG_FRONTENDS: dict[str, Callable[[CedFrontend], Wrong]] = {
    "symmetric Hann": lambda f: ([f.logmel], "window", torch.hann_window(512, periodic=False)),
    "Slaney mel": lambda f: ([f.logmel], "bank", _bank(None, "slaney")),
    "area norm": lambda f: ([f.logmel], "bank", _bank("slaney", "htk")),
    "floor of 80 dB": lambda f: ([ced_frontend], "TOP_DB", 80.0),
}


def _bank(norm: str | None, scale: str) -> nn.Parameter | Tensor:
    return melscale_fbanks(257, 0.0, 8000.0, 64, 16000, norm=norm, mel_scale=scale)
