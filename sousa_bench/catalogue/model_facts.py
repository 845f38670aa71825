"""What is known of each model and variant without building it. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.models.checkpoint_contents import contents
from sousa_bench.models.download import on_disk
from sousa_bench.models.packed_file import facts_in
from sousa_bench.models.published import EMBEDDED, NOTHING, PUBLISHED, Published, sizes
from sousa_bench.models.weight_files import embedded_file

BYTES_OF_A_NUMBER = 4  # published files hold float32
TINY = "tiny"


def model_facts() -> list[dict[str, Any]]:
    """Each model of ``conf/model`` with its variants, those of the comparison first.

    Returns:
        A model's ``model``, ``architecture``, ``paper`` and ``variants``; of each of these ``variant``,
        ``sample_rate``, ``parameters``, ``multiply_adds``, ``weights`` (the kind that it starts from at best),
        ``pretraining``, ``licence``, ``checkpoint`` (address), ``bytes`` (of its file; reckoned where the file isn't
        here), ``on_disk`` (``package``, ``hub cache`` or ``cache``) and ``path``.
    """
    nodes = [model_node(file.stem) for file in (conf_folder() / "model").glob("*.yaml")]
    nodes.sort(key=lambda node: list(PUBLISHED).index(node["name"]))
    return [_facts(node) for node in nodes]


def model_node(name: str) -> dict[str, Any]:
    """The resolved node of ``conf/model/NAME.yaml``, with random weights."""
    file = OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")
    whole = OmegaConf.create({"seed": 0, "weights": "random", "model": file})
    made: Any = OmegaConf.to_container(whole.model, resolve=True)
    return made


def _facts(node: dict[str, Any]) -> dict[str, Any]:
    name = node["name"]
    published = PUBLISHED[name]
    return {
        "model": name,
        "architecture": published.architecture,
        "paper": published.paper,
        "variants": [_variant(name, published, *item) for item in node["variants"].items()],
    }


def _variant(name: str, published: Published, variant: str, numbers: dict[str, Any]) -> dict[str, Any]:
    size = sizes()[name, variant]
    facts = {
        "variant": variant,
        "sample_rate": size.sample_rate,
        "parameters": size.parameters,
        "multiply_adds": size.multiply_adds,
        "weights": "random",
        "pretraining": NOTHING,
        **dict.fromkeys(("licence", "checkpoint", "bytes", "on_disk", "path")),
    }
    if variant == TINY:
        file = embedded_file(name)
        if file.is_file():
            licence = _licence(file)
            facts |= {"weights": "embedded", "pretraining": EMBEDDED, "licence": licence, **_file(file, "package")}
        return facts
    address = published.address(variant, numbers)
    facts |= {
        "weights": "official",
        "pretraining": published.pretraining(variant),
        "licence": published.licence(variant),
        "checkpoint": address,
        "bytes": BYTES_OF_A_NUMBER * size.parameters,
    }
    if address and (kept := on_disk(address)) is not None:
        facts |= _file(kept, "cache" if address.startswith("http") else "hub cache")
    return facts


def _licence(embedded: Path) -> str | None:
    """Of an embedded file, which says it itself."""
    found = contents(embedded)
    licence: str | None = None if found is None else facts_in(found.extra)["license"]
    return licence


def _file(path: Path, place: str) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "on_disk": place, "path": str(path)}
