"""Official BEATs files, ``{'cfg': …, 'model': …}``: their config and their keys, checked and renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from sousa_bench.errors import ConfigError, WeightsError
from sousa_bench.models.beats_network import BeatsConfig
from sousa_bench.models.weights import CheckpointSource, Loaded

# The authors publish through share links, which no program can follow. This is the self-supervised iter3+ model in a
# public copy, pinned to a commit and to the SHA-256 that the authors' own file has.
SOURCE = CheckpointSource(
    url=(
        "https://huggingface.co/datasets/Bencr/beats-checkpoints/resolve/082fb1849d55bef1ee52ee8d8910b3adc69d4bc8/"
        "BEATs_iter3_plus_AS2M.pt#sha256=d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34"
    ),
    license="MIT",
)

# What the network here has built in; a file that says otherwise is another model.
_BUILT_IN: dict[str, Any] = {
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


def config_of(loaded: Loaded, expected: BeatsConfig) -> BeatsConfig:
    """The network's numbers as the file's ``cfg`` states them: those of the variant, with the file's dropout rates.

    Two fields are recipes of the official training and are not followed: ``encoder_layerdrop`` and
    ``layer_wise_gradient_decay_ratio`` (see docs/models.md).

    Raises:
        WeightsError: There is no ``cfg``, or it describes another network than ``expected``.
    """
    cfg = loaded.extra.get("cfg")
    if not isinstance(cfg, Mapping):
        raise WeightsError(
            f"{loaded.path} is no BEATs checkpoint: it must hold 'cfg' beside 'model', as the official files do."
        )
    wanted = {k: v for k, v in asdict(expected).items() if k not in _DROPOUTS} | _BUILT_IN
    differing = [f"{key}={cfg.get(key)!r} (here {value!r})" for key, value in wanted.items() if cfg.get(key) != value]
    if differing:
        raise WeightsError(
            f"{loaded.path} is another network than this model.variant: its cfg has {', '.join(differing)}. "
            "Use the checkpoint of this variant, or another model.variant."
        )
    rates: dict[str, Any] = {key: float(cfg[key]) for key in _DROPOUTS if cfg.get(key) is not None}
    return replace(expected, **rates)


def own_keys(loaded: Loaded, layers: int) -> dict[str, Tensor]:
    """The file's tensors under the keys of :class:`BeatsBackbone`; keys that it doesn't know stay as they are.

    Raises:
        WeightsError: A layer's copy of the shared relative-position table is missing or differs from the first.
    """
    state = dict(loaded.state)
    for suffix, own in _POSITIONS.items():
        if (value := state.pop(f"encoder.pos_conv.0.{suffix}", None)) is not None:
            state[f"encoder.pos_conv.conv.{own}"] = value
    keys = [f"encoder.layers.{i}.self_attn.relative_attention_bias.weight" for i in range(layers)]
    missing = [key for key in keys if key not in state]
    if missing:
        raise WeightsError(f"The weights of {loaded.info.origin} don't fit this model: missing {', '.join(missing)}.")
    first, *copies = (state.pop(key) for key in keys)
    for key, copy in zip(keys[1:], copies, strict=True):
        if not torch.equal(copy, first):
            raise WeightsError(
                f"The weights of {loaded.info.origin} don't fit this model: {key} differs from layer 0's."
            )
    return state | {"encoder.relative_attention_bias.table.weight": first}


def config_from(numbers: Mapping[str, Any]) -> BeatsConfig:
    """Numbers of a variant in the config → :class:`BeatsConfig`.

    Raises:
        ConfigError: A field that BEATs doesn't have.
    """
    unknown = set(numbers) - {field.name for field in fields(BeatsConfig)}
    if unknown:
        raise ConfigError(f"model.variants has {', '.join(sorted(unknown))}, which BEATs doesn't know.")
    return BeatsConfig(**numbers)
