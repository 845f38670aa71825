"""What the families of speech models share: files of transformers', and what a folder on the hub says beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from sousa_bench.errors import WeightsError, first_line
from sousa_bench.models.family import Family, renamed
from sousa_bench.models.official_file import CONFIG, PREPROCESSOR
from sousa_bench.models.weight_files import FOLDER_FILES
from sousa_bench.models.weights import Loaded
from sousa_bench.system.foreign import read_json


class SpeechFamily(Family):
    """A family whose official files are transformers', and say what they are in a ``config.json`` beside them.

    Attributes:
        names: Patterns and replacements: an official key → the backbone's, without ``trunk.`` in front.
        unused: Pattern of whole keys that nothing here reads: decoders, heads, what pretraining alone needs.
        network: The fields of ``config.json`` that decide what the network computes.
    """

    last_layer = "dense"
    names: ClassVar[tuple[tuple[str, str], ...]]
    unused: ClassVar[str]
    network: ClassVar[Sequence[str]]

    def config(self, numbers: Any) -> PreTrainedConfig:
        """A variant's numbers as transformers' config."""
        raise NotImplementedError

    def preprocessor(self, numbers: Any) -> Mapping[str, Any]:
        """What ``preprocessor_config.json`` must say for a variant's front end to be the official one."""
        raise NotImplementedError

    def seen(self, loaded: Loaded, shape: Any, outputs: int | None = None) -> str | None:
        """Not known of a file that was trained for something else since: it has a head for that."""
        other = any(re.match(r"(lm_head|classifier|projector)\.", key) for key in loaded.state)
        return None if other else super().seen(loaded, shape, outputs)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of an official file; it has no head for clips, whose parts but the last layer start neutral."""
        own = {f"trunk.{key}": tensor for key, tensor in renamed(state, self.names, self.unused).items()}
        layers = {key.split("layers.")[1].split(".")[0] for key in own if ".layers." in key}
        norm = next((tensor for key, tensor in own.items() if key.endswith("layers.0.final_layer_norm.weight")), None)
        if norm is None:
            return own
        return own | {
            "classifier.layer_weights": torch.zeros(len(layers) + 1),
            "classifier.layernorm.weight": torch.ones_like(norm),
            "classifier.layernorm.bias": torch.zeros_like(norm),
        }

    def check_file(self, loaded: Loaded, variant: str, variants: Mapping[str, Any]) -> Any:
        """Hold what stands beside the file, in a folder of the hub's layout, against a variant.

        Raises:
            WeightsError: It describes another network or another front end.
        """
        numbers, config = variants[variant], self.config(variants[variant])
        ours = {key: value for key, value in _fields(config).items() if key in ("model_type", *self.network)}
        for name, wanted in ((CONFIG, ours), (PREPROCESSOR, self.preprocessor(numbers))):
            path = loaded.path.parent / name
            if loaded.path.name not in FOLDER_FILES or not path.is_file():
                continue
            try:
                found = dict(read_json(path, linked=True))
                if name == CONFIG and found.get("model_type") == config.model_type:
                    found = _fields(type(config).from_dict(found))  # what it leaves out is transformers' default
            except Exception as error:  # transformers checks a config's values, each in its own way
                raise WeightsError(f"{path} can't be read ({first_line(error)}); copy it again.") from error
            differing = [f"{k}={found[k]!r} (here {v!r})" for k, v in wanted.items() if k in found and found[k] != v]
            if differing:
                raise WeightsError(
                    f"{path} describes another model than model={config.model_type} model.variant={variant}: it has "
                    f"{', '.join(differing)}. Give another model.variant, or its numbers (model.variants.{variant}.…)."
                )
        return numbers


def _fields(config: PreTrainedConfig) -> dict[str, Any]:
    """A config as its file has it."""
    return dict(json.loads(config.to_json_string(use_diff=False)))
