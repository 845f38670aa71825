"""From what the user gave to a source."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sousa_bench.data.sources.generator_folder import LABELS, GeneratorFolder
from sousa_bench.data.sources.hub import HubRepository
from sousa_bench.data.sources.metadata_csv import MetadataCsv
from sousa_bench.data.sources.parquet_shards import HubFolder
from sousa_bench.data.sources.source import Source, near_names
from sousa_bench.errors import DataError

ROOT_VARIABLE = "SOUSA_ROOT"


def find_source(root: str | os.PathLike[str] | None, hub_id: str | None, revision: str | None, cache: Path) -> Source:
    """The dataset in a folder, or else on the hub.

    Args:
        root: `data.root`; None: the variable `SOUSA_ROOT`; where that is unset too, the hub.
        hub_id: Dataset on the Hugging Face hub, `owner/name`.
        revision: Its branch, tag or commit.
        cache: Where a list of the hub's clips may be kept.

    Raises:
        DataError: There is no such folder, or it holds none of the layouts.
    """
    said = "data.root" if root else ROOT_VARIABLE
    root = root or os.environ.get(ROOT_VARIABLE)
    if not root:
        if not hub_id:
            raise DataError(f"No data: give data.root=FOLDER, set {ROOT_VARIABLE}, or use data=synthetic.")
        return HubRepository(hub_id, revision or "main", cache)
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise DataError(_no_folder(said, root, folder))
    for layout in (GeneratorFolder, MetadataCsv):
        if layout.fits(folder):
            return layout(folder)
    if HubFolder.fits(folder):
        return HubFolder(folder, cache)
    raise DataError(_no_layout(said, folder))


def _no_folder(said: str, root: str | os.PathLike[str], folder: Path) -> str:
    if folder.is_file():
        return f"{said}={root} is a file; give the folder that holds the dataset."
    parent = next(path for path in folder.parents if path.is_dir())
    missing = folder.relative_to(parent).parts[0]
    near = near_names(parent, missing)
    hint = f" In {parent} there is: {', '.join(near)}." if near else f" {parent} exists, {missing!r} in it does not."
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(root)):
        hint += f" If it is a dataset on the hub: data.root=null data.hub_id={root} (with {ROOT_VARIABLE} unset)."
    return f"{said}={root}: there is no such folder.{hint}"


def _no_layout(said: str, folder: Path) -> str:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    inside = f"it holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "it is empty"
    deeper = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir() and (GeneratorFolder.fits(path) or MetadataCsv.fits(path) or HubFolder.fits(path))
    ]
    hint = f" Did you mean {folder / deeper[0]}?" if deeper else ""
    return (
        f"{said}={folder} holds no layout of SOUSA. Looked for {LABELS} (the generator's folder), metadata.csv (the "
        f"older layout), and train-*.parquet with an 'audio' column, also one or two folders down (the hub's); "
        f"{inside}.{hint}"
    )
