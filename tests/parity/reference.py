"""The folder of golden data, which its README.md explains: weights rebuilt by their rules, and comparisons."""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from sousa_bench.models.base import AudioModel

REPOSITORY = Path(__file__).resolve().parents[2]
LOGITS = 2e-5  # Relative: logits, embeddings, intermediates
HALF = 1e-3  # Relative: arrays stored in half precision
FEATURES = 5e-4  # Largest absolute difference of normalised filter banks
DECIBELS = 2e-3  # The same for HTS-AT's log-mel


def folder() -> Path:
    """``SOUSA_BENCH_PARITY``, else ``../shared/parity`` beside the repository; skips the test where there is none."""
    path = Path(os.environ.get("SOUSA_BENCH_PARITY") or REPOSITORY.parent / "shared" / "parity")
    if not (path / "README.md").is_file() and not any(path.glob("*/golden.npz")):
        pytest.skip(f"no golden data in {path}: set SOUSA_BENCH_PARITY to the folder that holds ast, htsat, …")
    return path


def golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of a model's ``golden.npz``."""
    with np.load(folder() / name / "golden.npz") as arrays:
        return dict(arrays)


def table(name: str, file: str = "keys.json") -> dict:
    """A key table, with ``keys`` and ``seed_prefix``."""
    return json.loads((folder() / name / file).read_text())


Architecture = Callable[[str, tuple[int, ...]], Tensor]


def rebuild(name: str, architecture: Architecture | None = None, file: str = "keys.json") -> dict[str, Tensor]:
    """The official checkpoint's tensors, from the rules of ``keys.json``, each checked by its CRC-32.

    Args:
        name: Model folder.
        architecture: (key, shape) → tensor for entries that the architecture defines.
        file: Which key table.
    """
    keys = table(name, file)
    return rebuild_keys(keys, keys["keys"], architecture)


def rebuild_keys(
    keys: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], architecture: Architecture | None = None
) -> dict[str, Tensor]:
    """The tensors of some entries of a key table; as :func:`rebuild`."""
    state: dict[str, Tensor] = {}
    for entry in entries:
        key, shape = entry["key"], tuple(entry["shape"])
        if entry["rule"] == "random":
            seed = zlib.crc32((keys["seed_prefix"] + key).encode())
            values = entry["offset"] + entry["scale"] * np.random.default_rng(seed).standard_normal(shape)
            values = np.abs(values) if entry["abs"] else values
            state[key] = torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(shape))
        elif entry["rule"] == "tied":
            state[key] = state[entry["tied_to"]].clone()
        else:
            assert architecture is not None, f"{key}: no value given"
            state[key] = architecture(key, shape)
        assert str(state[key].dtype) == f"torch.{entry['dtype']}", key
        assert tuple(state[key].shape) == shape, key
        if "crc32" in entry:
            found = zlib.crc32(state[key].contiguous().numpy().tobytes())
            assert f"{found:08x}" == entry["crc32"], f"{key}: rebuilt with another CRC-32"
    return state


def model(name: str, checkpoint: Path, num_classes: int | None = None, **changes: object) -> AudioModel:
    """The model as ``conf/model/NAME.yaml`` builds it from a checkpoint file, with the file's own head."""
    node = OmegaConf.load(REPOSITORY / "conf" / "model" / f"{name}.yaml")
    config = OmegaConf.create({"seed": 0, "weights": "official", "model": node})
    config.model = OmegaConf.merge(config.model, {"checkpoint": str(checkpoint), **changes})
    return instantiate(config.model, num_classes=num_classes, _convert_="all").eval()


def relative(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    """L2 norm of the difference over the L2 norm of the expected value, in float64."""
    wanted = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(actual, dtype=np.float64) - wanted) / np.linalg.norm(wanted))


def assert_relative(actual: Tensor, expected: Tensor | np.ndarray, tolerance: float, what: str) -> None:
    """Shapes equal, relative error within the tolerance."""
    assert tuple(actual.shape) == tuple(expected.shape), f"{what}: {tuple(actual.shape)}, not {tuple(expected.shape)}"
    error = relative(actual, expected)
    assert error <= tolerance, f"{what}: relative error {error:.2e} > {tolerance:.0e}"


def assert_logits(model: AudioModel, features: Tensor, arrays: Mapping[str, np.ndarray]) -> None:
    """Hold the logits of the first golden clip's features against the golden ones."""
    assert_relative(model.backbone(features[:1]), arrays["logits"][:1], LOGITS, "logits")


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float, what: str) -> None:
    """Shapes equal, largest absolute difference within the tolerance."""
    assert tuple(actual.shape) == expected.shape, f"{what}: shape {tuple(actual.shape)}, golden {expected.shape}"
    error = float(np.abs(np.asarray(actual, dtype=np.float64) - expected).max())
    assert error <= tolerance, f"{what}: largest difference {error:.2e} > {tolerance:.0e}"


def probe(value: Tensor, size: int) -> Tensor:
    """Each clip's flattened values at the README's indices."""
    flat = value.flatten(1)
    index = np.unique(np.floor(np.linspace(0, flat.shape[1] - 1, size)).astype(np.int64))
    return flat[:, index]


@dataclass
class Intermediates:
    """What modules put out during one forward pass, by the golden names.

    Attributes:
        values: Name → (clip, …) in the golden layout.
    """

    values: dict[str, Tensor] = field(default_factory=dict)

    def watch(self, name: str, module: nn.Module, layout: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """Keep this module's output under a golden name."""

        def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            value = output[0] if isinstance(output, tuple) else output
            self.values[name] = layout(value.detach()).clone()

        module.register_forward_hook(keep)

    def compare(self, arrays: Mapping[str, np.ndarray], prefix: str = "", tolerance: float = LOGITS) -> None:
        """Check every intermediate that the golden file holds: shape, statistics and probes."""
        names = [str(name) for name in arrays[f"{prefix}mid_names"]]
        missing = sorted(set(names) - set(self.values))
        assert not missing, f"never computed: {', '.join(missing)}"
        for name in names:
            value, label = self.values[name], f"{prefix}mid_{name}"
            assert list(value.shape) == arrays[f"{label}_shape"].tolist(), label
            golden_probe = arrays[f"{label}_probe"]
            assert_relative(probe(value, 64), golden_probe, tolerance, label)
            flat = value.flatten(1).double()
            found = torch.stack((flat.mean(1), flat.std(1, correction=0), flat.amin(1), flat.amax(1)), dim=1)
            scale = arrays[f"{label}_stats"][:, 1:2]
            assert_close(found / torch.from_numpy(scale), arrays[f"{label}_stats"] / scale, 1e-3, f"{label} statistics")


def watched_beats(backbone: nn.Module) -> Intermediates:
    """Hooks on BEATs' network, which OpenBEATs has too."""
    seen = Intermediates()
    seen.watch("patch_embedding_conv", backbone.patch_embedding)
    seen.watch("layer_norm_of_patches", backbone.layer_norm)
    seen.watch("post_extract_proj", backbone.post_extract_proj)
    seen.watch("pos_conv", backbone.encoder.pos_conv)
    seen.watch("encoder_layer_norm", backbone.encoder.layer_norm)
    for index, layer in enumerate(backbone.encoder.layers):
        seen.watch(f"layer_{index:02d}", layer)
    return seen
