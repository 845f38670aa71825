"""Where the project's own files lie, in a clone and in a wheel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def conf_folder() -> Path:
    """The config groups: inside the package in a wheel, beside it in a clone."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def embedded_folder() -> Path:
    """The pretrained weights that the package ships."""
    return Path(__file__).resolve().parent / "embedded"


def embedded_file(model: str, checkpoint: str | None = None) -> Path:
    """The file that ``weights=embedded`` reads.

    Args:
        model: The model's name.
        checkpoint: A file of the same kind, or a folder of such files, as :mod:`sousa_bench.pretrain` writes them;
            None: what the package ships.
    """
    place = embedded_folder() if checkpoint is None else Path(checkpoint).expanduser()
    return place if place.is_file() else place / f"{model}.safetensors"


def weights_file(model: Mapping[str, Any]) -> Path | None:
    """Where the weights lie that a model's node names; None: random ones, or those of the model's own address.

    Args:
        model: The node, with ``name``, ``weights`` and ``checkpoint``. A published checkpoint may be an address (a hub
            id, a URL), of which there is no such file.
    """
    weights, checkpoint = model.get("weights"), model.get("checkpoint")
    if weights == "embedded":
        return embedded_file(str(model.get("name")), checkpoint)
    return Path(str(checkpoint)).expanduser() if checkpoint and weights != "random" else None


def embedded_missing(checkpoint: str, file: Path) -> str:
    """What to say where ``model.checkpoint`` leads ``weights=embedded`` to no file."""
    return (
        f"model.checkpoint={checkpoint}: there is no file {file}. With weights=embedded it is what "
        "python -m sousa_bench.pretrain wrote; a published checkpoint is read with weights=official."
    )
