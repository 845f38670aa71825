"""What an official checkpoint file is, told by its keys and shapes: whose model's, and which variant. No torch.

So a sweep knows it before anything starts, and a variant that was not given follows from the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sousa_bench.models.checkpoint_contents import Contents, broken, contents
from sousa_bench.models.efficientat_channels import embedding_size
from sousa_bench.models.weight_files import FOLDER_FILES, checkpoint_file, default_variant, is_ours, no_checkpoint
from sousa_bench.system.foreign import read_json

Numbers = Mapping[str, Any]
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
"""What stands beside the weights in a folder of the hub's layout."""

_CLAP = "audio_model.audio_encoder."
_AST_TOKEN = re.compile(r"(audio_spectrogram_transformer\.embeddings|(module\.)?v)\.cls_token")
_AST_BLOCK = re.compile(r"(?:audio_spectrogram_transformer\.encoder\.layer|(?:module\.)?v\.blocks)\.(\d+)\.")
_AST_POSITIONS = re.compile(r".*\.(position_embeddings|pos_embed)")
_EAT_PATCHES = re.compile(r"(model\.)?(modality_encoders\.IMAGE\.)?local_encoder\.proj\.weight")
_OPENBEATS_LAYER = re.compile(r"(?:encoder\.)?encoder\.layers\.(\d+)\.")
_TIMM_BLOCK = re.compile(r"(?:encoder\.|model\.)?blocks\.(\d+)\.")
_WAVE_PROJECTION = re.compile(r"(?:(?:hubert|wavlm)\.)?feature_projection\.projection\.weight")
_WAVE_BLOCK = re.compile(r"(?:(?:hubert|wavlm)\.)?encoder\.layers\.(\d+)\.")
_WHISPER = r"(?:model\.)?(?:encoder\.)?"
_SPEECH = ("hubert", "wavlm", "whisper")
_SAID = {
    CONFIG: {"num_attention_heads": "heads", "encoder_attention_heads": "heads"},
    PREPROCESSOR: {"do_normalize": "normalize"},
}
_SAME_SHAPES = {
    re.compile(r"mn\d+_im(_pytorch)?\.pt"): "holds ImageNet's weights, whose head names no sounds",
    re.compile(r"mn10_as_(hop|mels)_\d+_mAP_\d+\.pt"): "was trained with another front end than model=efficientat has",
}
"""Names of EfficientAT's files that no key and no shape tells from those that fit (its release v0.0.1)."""
_TIME = "time_pos_embed"
_DASHENG_PATCH = [64, 4]
_SPECIAL_TOKENS = 2
_PATCH = 16


@dataclass(frozen=True)
class OfficialFile:
    """What a file shows of itself.

    Attributes:
        model: Name of the model, as in ``conf/model``.
        shows: Numbers that a variant must have for the file to fit.
    """

    model: str
    shows: Numbers

    def differing(self, variant: Numbers) -> dict[str, tuple[Any, Any]]:
        """Each number in which a variant is not what the file shows: the file's, and the variant's."""
        own = dict(variant)
        with suppress(ArithmeticError, KeyError, TypeError, ValueError):  # whose numbers are refused where it is built
            own |= _DERIVED.get(self.model, _nothing)(variant)
        return {key: (value, own[key]) for key, value in self.shows.items() if key in own and own[key] != value}

    def fitting(self, variants: Mapping[str, Numbers]) -> list[str]:
        """The names of the variants that it fits, best first: ``official``, then in their order."""
        fitting = [name for name, numbers in variants.items() if not self.differing(numbers)]
        return sorted(fitting, key=lambda name: name != default_variant("official"))

    def objection(self, what: str, variant: str | None, variants: Mapping[str, Numbers]) -> str | None:
        """Why the file is none of a variant, with the way out; None where it is one.

        Args:
            what: The file, as the message names it.
            variant: The variant that was asked for; None: whichever it is.
            variants: The numbers of all variants.
        """
        fitting = self.fitting(variants)
        if variant in fitting or (variant is None and fitting):
            return None
        held = variant or default_variant("official")
        differing = self.differing(variants.get(held, {}))
        facts = ", ".join(f"{key}={value}" for key, (value, _) in differing.items())
        theirs = ", ".join(str(own) for _, own in differing.values())
        text = (
            f"{what} has {facts}, where model.variant={held} has {theirs}"
            if differing
            else f"{what}: no file of {held}"
        )
        if fitting:
            return f"{text}: leave model.variant out, or give model.variant={fitting[0]}, which this file is."
        return f"{text}, and fits none of {', '.join(variants)}: give another file."


def recognise(found: Contents) -> OfficialFile | None:
    """Whose file it is; None for one that is nobody's here, or has other keys than were published."""
    looks = (_ast, _htsat, _openbeats, _beats, _efficientat, _ced, _passt, _eat, _hubert, _whisper)
    return next(filter(None, (look(found) for look in looks)), None)


def variant_told(model: Mapping[str, Any]) -> str | None:
    """The variant that a model's node leaves open and its checkpoint file tells; None where there is no such thing.

    Args:
        model: The node, as in ``conf/model``.
    """
    found = None if model.get("variant") is not None else _own_file(model)
    if found is None or not _is_of(model, found):
        return None
    return next(iter(found.fitting(_variants(model))), None)


def objection_to(model: Mapping[str, Any]) -> str | None:
    """Why a model can't start from the checkpoint file that its node names, with the way out; None where it may.

    Args:
        model: The node, as in ``conf/model``.
    """
    if not _asks_for_file(model):
        return None
    what = f"model.checkpoint={model['checkpoint']}"
    if reason := no_checkpoint(str(model["checkpoint"])):
        return reason
    path = checkpoint_file(str(model["checkpoint"]))
    if path.is_file() and (problem := broken(path)):
        return f"{what} {problem}. Download it again."
    theirs = _SAME_SHAPES.items() if model.get("name") == "efficientat" else ()
    if why := next((why for name, why in theirs if name.fullmatch(path.name)), None):
        return f"{what} {why}; give one of those that docs/models.md lists."
    found = _own_file(model)
    if found is None:
        return None
    if not _is_of(model, found):
        return (
            f"{what} is a checkpoint of {found.model}, and this is model={model.get('name')}: give "
            f"model={found.model}, or another file."
        )
    variants, variant = _variants(model), model.get("variant")
    return found.objection(what, variant, variants) if variant is None or variant in variants else None


def _own_file(model: Mapping[str, Any]) -> OfficialFile | None:
    """What the local checkpoint of one of this package's models is."""
    if not _asks_for_file(model):
        return None
    path = checkpoint_file(str(model["checkpoint"]))
    found = contents(path) if path.is_file() else None
    file = None if found is None else recognise(found)
    if file is None or file.model not in _SPEECH:
        return file
    return replace(file, shows={**file.shows, **_beside(path)})


def _asks_for_file(model: Mapping[str, Any]) -> bool:
    """Whether one of this package's models is to start from a published checkpoint that its node names."""
    return is_ours(model) and model.get("weights") == "official" and bool(model.get("checkpoint"))


def _beside(path: Path) -> dict[str, Any]:
    """What is said of a speech model's file in its folder, and no shape shows."""
    said: dict[str, Any] = {}
    for name, keys in _SAID.items() if path.name in FOLDER_FILES else ():
        with suppress(OSError, ValueError, TypeError):  # who loads it says what is wrong
            content = dict(read_json(path.parent / name, linked=True))
            said |= {number: content[key] for key, number in keys.items() if key in content}
    return said


def _is_of(model: Mapping[str, Any], found: OfficialFile) -> bool:
    return model.get("_target_") == f"sousa_bench.models.{found.model}.build"


def _variants(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The variants' numbers, with those that the node gives in their place."""
    own: Mapping[str, Numbers] = model.get("variants") or {}
    given = {key: value for key, value in model.items() if value is not None}
    return {name: {**numbers, **{key: given[key] for key in numbers if key in given}} for name, numbers in own.items()}


def _ast(found: Contents) -> OfficialFile | None:
    [token, positions] = [_shape(found, pattern) for pattern in (_AST_TOKEN, _AST_POSITIONS)]
    if token is None:
        return None
    patches = {} if positions is None else {"patches": positions[1] - _SPECIAL_TOKENS}
    return OfficialFile("ast", {"dim": token[-1], "layers": _blocks(found, _AST_BLOCK), **patches})


def _htsat(found: Contents) -> OfficialFile | None:
    clap = any(key.startswith(_CLAP) for key in found.shapes)
    if not clap and not any(key.startswith("sed_model.") for key in found.shapes):
        return None
    prefix = _CLAP if clap else "sed_model."
    patch = found.shapes.get(f"{prefix}patch_embed.proj.weight")
    dim = {} if patch is None else {"dim": patch[0]}
    return OfficialFile("htsat", {"sample_rate": 48000 if clap else 32000, **dim})


def _beats(found: Contents) -> OfficialFile | None:
    cfg = found.extra.get("cfg")
    if not isinstance(cfg, Mapping) or "post_extract_proj.weight" not in found.shapes:
        return None
    return OfficialFile("beats", {str(key): value for key, value in cfg.items()})


def _openbeats(found: Contents) -> OfficialFile | None:
    """BEATs' network under ESPnet's prefix, with the kernels of its padding mask, or with its pretraining's numbers."""
    cfg, marks = found.extra.get("cfg"), ("encoder.post_extract_proj.weight", "raw2fbank_pad.weight")
    if not any(key in found.shapes for key in marks) and not (
        isinstance(cfg, Mapping) and "codebook_vocab_size" in cfg
    ):
        return None
    projection = _shape(found, re.compile(r"(encoder\.)?post_extract_proj\.weight"))
    width = {} if projection is None else {"encoder_embed_dim": projection[0]}
    return OfficialFile("openbeats", {**width, "encoder_layers": _blocks(found, _OPENBEATS_LAYER)})


def _efficientat(found: Contents) -> OfficialFile | None:
    layer = found.shapes.get("classifier.2.weight")
    if layer is None or "features.0.0.weight" not in found.shapes:
        return None
    return OfficialFile("efficientat", {"embedding_channels": layer[1]})


def _ced(found: Contents) -> OfficialFile | None:
    """CED's or Dasheng's, which are one network with other patches."""
    positions, kernel = (
        _shape(found, re.compile(rf"(encoder\.)?{key}")) for key in (_TIME, r"patch_embed\.proj\.weight")
    )
    if positions is None or kernel is None:
        return None
    patch = list(kernel[2:])
    facts = {"dim": kernel[0], "layers": _blocks(found), "patch": patch, "columns": positions[-1]}
    return OfficialFile("dasheng" if patch == _DASHENG_PATCH else "ced", facts)


def _passt(found: Contents) -> OfficialFile | None:
    columns, rows = (_shape(found, re.compile(f"{axis}_new_pos_embed")) for axis in ("time", "freq"))
    if columns is None or rows is None:
        return None
    facts = {"dim": columns[1], "layers": _blocks(found), "rows": rows[2], "columns": columns[3]}
    return OfficialFile("passt", facts)


def _eat(found: Contents) -> OfficialFile | None:
    kernel = _shape(found, _EAT_PATCHES)
    return None if kernel is None else OfficialFile("eat", {"dim": kernel[0], "layers": _blocks(found)})


def _hubert(found: Contents) -> OfficialFile | None:
    """HuBERT's, or WavLM's, which has relative positions."""
    projection = _shape(found, _WAVE_PROJECTION)
    if projection is None:
        return None
    large, conv_bias = (
        any(key.endswith(f"conv_layers.{part}") for key in found.shapes)
        for part in ("1.layer_norm.weight", "1.conv.bias")
    )
    facts = {"dim": projection[0], "layers": _blocks(found, _WAVE_BLOCK), "channels": projection[1]}
    gated = any(key.endswith(".gru_rel_pos_const") for key in found.shapes)
    return OfficialFile("wavlm" if gated else "hubert", {**facts, "large": large, "conv_bias": conv_bias})


def _whisper(found: Contents) -> OfficialFile | None:
    positions, kernel = (_shape(found, re.compile(rf"{_WHISPER}{key}\.weight")) for key in ("embed_positions", "conv1"))
    if positions is None or kernel is None:
        return None
    layers = _blocks(found, re.compile(rf"{_WHISPER}layers\.(\d+)\."))
    return OfficialFile("whisper", {"dim": kernel[0], "layers": layers, "bins": kernel[1], "tokens": positions[0]})


def _blocks(found: Contents, name: re.Pattern[str] = _TIMM_BLOCK) -> int:
    """Blocks, by timm's names where no others are given."""
    return len({match[1] for key in found.shapes if (match := name.match(key))})


def _shape(found: Contents, pattern: re.Pattern[str]) -> tuple[int, ...] | None:
    keys: Iterable[str] = filter(pattern.fullmatch, found.shapes)
    return next((found.shapes[key] for key in keys), None)


def _patches(numbers: Numbers) -> dict[str, int]:
    rows = (numbers["bins"] - _PATCH) // numbers["frequency_stride"] + 1
    columns = (numbers["frames"] - _PATCH) // numbers["time_stride"] + 1
    return {"patches": rows * columns}


def _embedding_channels(numbers: Numbers) -> dict[str, int]:
    return {"embedding_channels": embedding_size(float(numbers["width"]))}


def _columns(numbers: Numbers) -> dict[str, int]:
    return {"columns": numbers["frames"] // numbers["patch"][1]}


def _grid(numbers: Numbers) -> dict[str, int]:
    return {axis: (n - _PATCH) // numbers["stride"] + 1 for axis, n in (("rows", 128), ("columns", numbers["frames"]))}


def _nothing(numbers: Numbers) -> dict[str, int]:
    return {}


_DERIVED: Mapping[str, Callable[[Numbers], dict[str, int]]] = {
    "ast": _patches,
    "efficientat": _embedding_channels,
    "ced": _columns,
    "dasheng": _columns,
    "passt": _grid,
}
"""What a file shows of a variant in place of the numbers that ``conf/model`` gives."""
