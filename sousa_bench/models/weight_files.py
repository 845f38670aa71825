"""Which file a model's weights come from, and what is said of those that the package ships. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sousa_bench.errors import ConfigError

WEIGHTS = ("official", "random", "embedded", "further")
PACKED = ("embedded", "further")
"""Those that :mod:`sousa_bench.pretrain` packed: what began at random weights, and at a published checkpoint."""
FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
HUB_ID = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?")
"""``owner/name``, or ``hf://owner/name/file@revision`` for one file of it."""

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights in a folder laid out like a repository of the hub; the first that is there counts."""
SMALL_NETWORKS = (
    "weights=embedded are small networks that sousa_bench.pretrain made: what runs from them show of methods holds for "
    "these networks. The published ones: weights=official"
)
"""What the screen, a result and the report say of them."""


def trained_further(published: Mapping[str, Any]) -> str:
    """What a result says of ``weights=further``.

    Args:
        published: The origin, hash and licence of the checkpoint that they began at.
    """
    return (
        f"The published checkpoint {published['origin']} (SHA-256 {published['sha256']}, licence "
        f"{published['license'] or 'not known'}), all of whose weights sousa_bench.pretrain trained further."
    )


def is_ours(model: Mapping[str, Any]) -> bool:
    """Whether a model's node is one of this package's, not a user's."""
    return str(model.get("_target_")).startswith("sousa_bench.models.")


def embedded_folder() -> Path:
    """The pretrained weights that the package ships."""
    return Path(__file__).resolve().parent / "embedded"


def embedded_file(model: str, checkpoint: str | None = None) -> Path:
    """The file that ``weights=embedded`` and ``weights=further`` read.

    Args:
        model: The model's name.
        checkpoint: A file of the same kind, or a folder of such files, as :mod:`sousa_bench.pretrain` writes them;
            None: what the package ships.
    """
    place = embedded_folder() if checkpoint is None else Path(checkpoint).expanduser()
    return place if place.is_file() else place / f"{model}.safetensors"


def checkpoint_file(checkpoint: str) -> Path:
    """The file that a published ``model.checkpoint`` leads to on this machine, ``file://`` before it or not.

    Returns:
        Of a folder the weights in it; the path as it stands where there are none, or where it is an address.
    """
    path = Path(checkpoint.removeprefix("file://")).expanduser()
    return next((path / name for name in FOLDER_FILES if (path / name).is_file()), path)


def no_checkpoint(address: str) -> str | None:
    """What to say where a published ``model.checkpoint`` leads to no file; None where it does, or is elsewhere."""
    path = checkpoint_file(address)
    if address.startswith(("http://", "https://")) or path.is_file():
        return None
    if path.is_dir():
        names = " nor ".join(FOLDER_FILES)
        return f"model.checkpoint={address}: the folder holds no {names}; give the file itself."
    looks_local = path.is_absolute() or (path.suffix in FILE_SUFFIXES and not address.startswith("hf://"))
    if HUB_ID.fullmatch(address) is not None and not looks_local:
        return None
    return (
        f"model.checkpoint={address}: there is no such file. Give the path of the official checkpoint, its URL, or a "
        "hub id (owner/name or hf://owner/name/file); without model.checkpoint it is the published one."
    )


def weights_file(model: Mapping[str, Any]) -> Path | None:
    """Where the weights lie that a model's node names; None: random ones, or those of the model's own address.

    Args:
        model: The node, with ``name``, ``weights`` and ``checkpoint``. A published checkpoint may be an address (a hub
            id, a URL), of which there is no such file.
    """
    weights, checkpoint = model.get("weights"), model.get("checkpoint")
    if weights in PACKED:
        return embedded_file(str(model.get("name")), checkpoint)
    return checkpoint_file(str(checkpoint)) if checkpoint and weights != "random" else None


def default_variant(weights: str) -> str:
    """The variant that ``model.variant=null`` means, unless an official file tells another."""
    return "official" if weights == "official" else "tiny"


def unknown_variant(model: Mapping[str, Any]) -> str | None:
    """What to say where a model's node asks for a variant that isn't among its ``variants``; None where it is."""
    variant, variants = model.get("variant"), model.get("variants")
    if variant is None or not isinstance(variants, Mapping) or variant in variants:
        return None
    near = " or ".join(get_close_matches(str(variant), map(str, variants)))
    hint = f"did you mean {near}? There are" if near else "choose one of"
    return f"model.variant={variant} is unknown; {hint}: {', '.join(map(str, variants))}"


def packed_missing(weights: str, checkpoint: str, file: Path) -> str:
    """What to say where ``model.checkpoint`` leads ``weights=embedded`` or ``weights=further`` to no file."""
    return (
        f"model.checkpoint={checkpoint}: there is no file {file}. With weights={weights} it is what "
        "python -m sousa_bench.pretrain wrote; a published checkpoint is read with weights=official."
    )


def not_packed(weights: str, checkpoint: str, file: Path) -> str:
    """What to say where ``weights=embedded`` or ``weights=further`` is to read another file than one of its own."""
    return (
        f"model.checkpoint={checkpoint}: {file} is no file of sousa_bench.pretrain, which weights={weights} reads; "
        "give weights=official for a published checkpoint."
    )


def embedded_not_shipped(name: str) -> str:
    """What to say where ``weights=embedded`` is asked for a model that has none in the package."""
    shipped = ", ".join(sorted(path.stem for path in embedded_folder().glob("*.safetensors"))) or "none"
    return (
        f"weights=embedded: this version ships no embedded weights for model={name} (shipped: {shipped}). Use "
        "weights=random, weights=official (model.checkpoint=FILE or the published one), or weights=embedded with "
        "model.checkpoint=FILE of python -m sousa_bench.pretrain"
    )


def official_without_address(name: str, variant: str) -> str:
    """What to say where ``weights=official`` is asked for a variant whose file no program can fetch by itself."""
    return (
        f"no official weights of model={name} model.variant={variant} are fetched by themselves: give "
        "model.checkpoint=FILE or hf://OWNER/NAME/FILE (docs/models.md says where it is), use another model.variant "
        "that has some, or weights=random"
    )


def against_kind(name: str, weights: str, kinds: Sequence[str]) -> str | None:
    """Why a model can't start from the weights that were asked for; None where there are such.

    Args:
        name: The model's name.
        weights: What was asked for.
        kinds: The kinds of weights that there are for it.
    """
    if weights in kinds or weights not in WEIGHTS:
        return None
    return f"there are no {weights} weights of model={name}: give weights={' or weights='.join(kinds)}"


def check_kind(weights: str) -> None:
    """Refuse an unknown ``weights``.

    Raises:
        ConfigError: With the choices.
    """
    if weights not in WEIGHTS:
        near = get_close_matches(weights, WEIGHTS, n=1)
        hint = f" Did you mean weights={near[0]}?" if near else ""
        raise ConfigError(f"weights={weights}: there is no such choice.{hint} Choices: {', '.join(WEIGHTS)}")


def check_weights(weights: str, checkpoint: str | None) -> None:
    """Refuse an unknown ``weights``, a ``model.checkpoint`` that nothing would read, and the lack of one.

    Raises:
        ConfigError: With the choices, or with the switch that is missing.
    """
    check_kind(weights)
    if checkpoint is None and weights == "further":
        raise ConfigError(
            "weights=further: give model.checkpoint=FOLDER, where python -m sousa_bench.pretrain weights=official put "
            "what it made of a published checkpoint; the package ships none."
        )
    if checkpoint is not None and weights == "random":
        raise ConfigError(
            f"model.checkpoint={checkpoint} would not be read with weights=random: "
            "add weights=official for a published checkpoint, weights=embedded or weights=further for what "
            "sousa_bench.pretrain wrote, or leave model.checkpoint out."
        )
