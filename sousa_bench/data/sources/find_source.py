"""The list of layouts, and from what the user gave to a dataset in one of them."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from sousa_bench.data.rudiments import INDEX
from sousa_bench.data.sources.ast_json import AstJson
from sousa_bench.data.sources.audio_files import is_audio, is_table
from sousa_bench.data.sources.class_folders import ClassFolders
from sousa_bench.data.sources.generator_folder import GeneratorFolder
from sousa_bench.data.sources.hub import HubRepository
from sousa_bench.data.sources.known_sets import Esc50, Fsd50k, SpeechCommands, UrbanSound8K
from sousa_bench.data.sources.labelled import Reading
from sousa_bench.data.sources.labelled_folder import LabelledFolder
from sousa_bench.data.sources.metadata_csv import MetadataCsv
from sousa_bench.data.sources.parquet_shards import HubFolder
from sousa_bench.data.sources.source import Source, near_names
from sousa_bench.data.sources.table_folder import TableFolder
from sousa_bench.errors import ConfigError, DataError


class FolderLayout(Protocol):
    """A class of sources that each read one folder."""

    layout: str
    labels: str

    def fits(self, root: Path) -> bool:
        """Whether `root` is in this layout."""

    def __call__(self, root: Path, cache: Path) -> Source:
        """The dataset in `root`."""


LAYOUTS: tuple[FolderLayout, ...] = (
    *(GeneratorFolder, MetadataCsv, HubFolder),
    *(Esc50, UrbanSound8K, SpeechCommands, Fsd50k, AstJson),
    *(TableFolder, ClassFolders),
)
"""Every layout of a folder, in the order in which a folder is tried."""

ROOT_VARIABLE = "SOUSA_ROOT"
SOUSA_HUB_ID = "zkeown/sousa"


def find_source(
    root: str | os.PathLike[str] | None,
    hub_id: str | None,
    revision: str | None,
    cache: Path,
    layout: str | None = None,
    reading: Reading | None = None,
) -> Source:
    """The dataset in a folder, or else on the hub.

    Args:
        root: `data.root`; None: the variable `SOUSA_ROOT`, unless `hub_id` names other data than SOUSA; where that is
            unset too, the hub.
        hub_id: Dataset on the Hugging Face hub, `owner/name`.
        revision: Its branch, tag or commit.
        cache: Where a list of the hub's clips may be kept.
        layout: A layout of the user's own, `module.Class`; None: one of `LAYOUTS`.
        reading: What the config says about how labels that are not SOUSA's are to be read.

    Raises:
        ConfigError: There is no such layout, or a key is given that the layout doesn't know.
        DataError: There is no such folder, or it holds none of the layouts.
    """
    said = "data.root" if root else ROOT_VARIABLE
    root = root or _known_root(hub_id)
    reading = reading or Reading()
    layouts = LAYOUTS if layout is None else (_own_layout(layout),)
    if not root:
        if layout is not None:
            raise DataError(f"data.layout={layout} reads a folder: give data.root=FOLDER or set {ROOT_VARIABLE}.")
        if not hub_id:
            raise DataError(f"No data: give data.root=FOLDER, set {ROOT_VARIABLE}, or use data=synthetic.")
        return HubRepository(hub_id, revision or "main", cache, reading)
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise DataError(_no_folder(said, root, folder))
    if reading.table and layout is None:
        return TableFolder(folder, cache, reading)
    fitting = _fitting(folder, layouts)
    if fitting is None:
        raise DataError(_no_layout(said, folder, layouts, layout))
    if isinstance(fitting, type) and issubclass(fitting, LabelledFolder | HubFolder):
        return fitting(folder, cache, reading)
    if given := reading.given():
        raise ConfigError(
            f"{given[0]} is for data of any task, and {folder} holds {fitting.layout}, SOUSA's: leave it out."
        )
    return fitting(folder, cache)


def holds_rudiments(
    root: str | None,
    hub_id: str | None,
    layout: str | None,
    table: str | None,
    columns: Mapping[str, str | bool],
) -> bool:
    """Whether these keys of a config's `data` lead to rudiments: SOUSA's clips, or classes that have its names.

    Args:
        root: `data.root`. Where no such folder is, `hub_id` decides alone.
        hub_id: `data.hub_id`. It decides, too, of shards as the hub has them, which may be anyone's.
        layout: `data.layout`: of a layout of the user's own nothing is known.
        table: `data.table`.
        columns: `data.columns`.
    """
    root = root or _known_root(hub_id)
    named = hub_id == SOUSA_HUB_ID
    if not root or not (folder := Path(root).expanduser().absolute()).is_dir():
        return named
    if layout:
        return False
    try:
        found = TableFolder if table else _fitting(folder, LAYOUTS)
        if found is ClassFolders:
            return ClassFolders.holds_only(folder, INDEX)
        if found is TableFolder:
            return TableFolder(folder, reading=Reading(table, columns)).holds_only(INDEX)
    except (ConfigError, DataError, OSError, TypeError, ValueError):  # which the run tells
        return False
    return found in (GeneratorFolder, MetadataCsv) or (named and found is HubFolder)


def _fitting(folder: Path, layouts: Sequence[FolderLayout]) -> FolderLayout | None:
    return next((layout for layout in layouts if layout.fits(folder)), None)


def _known_root(hub_id: str | None) -> str | None:
    """SOUSA's folder by the environment, where no other data are named."""
    return os.environ.get(ROOT_VARIABLE) if hub_id in (None, SOUSA_HUB_ID) else None


def _own_layout(name: str) -> FolderLayout:
    module, _, attribute = str(name).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"data.layout={name} can't be imported ({error}): it is a class in a module that Python finds, such as "
            "my_layouts.MyLayout in a folder that PYTHONPATH names."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Source) and hasattr(found, "fits")):
        raise ConfigError(f"data.layout={name} can't be: it must be a class derived from FolderSource.")
    if missing := sorted(getattr(found, "__abstractmethods__", ())) or [
        key for key in ("layout", "labels") if not hasattr(found, key)
    ]:
        raise ConfigError(f"data.layout={name} can't be: it lacks {', '.join(missing)}.")
    return cast(FolderLayout, found)


def _no_folder(said: str, root: str | os.PathLike[str], folder: Path) -> str:
    if folder.is_file():
        return f"{said}={root} is a file; give the folder that holds the dataset."
    parent = next(path for path in folder.parents if path.is_dir())
    missing = folder.relative_to(parent).parts[0]
    near = near_names(parent, missing)
    hint = f" In {parent} there is: {', '.join(near)}." if near else f" {parent} exists, {missing!r} in it does not."
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(root)):
        hint += f" If it is a dataset on the hub: data.root=null data.hub_id={root}."
    return f"{said}={root}: there is no such folder.{hint}"


def _no_layout(said: str, folder: Path, layouts: tuple[FolderLayout, ...], own: str | None) -> str:
    names = sorted(path.name for path in folder.iterdir())
    inside = f"it holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "it is empty"
    deeper = [path for path in sorted(folder.iterdir()) if path.is_dir() and any(each.fits(path) for each in layouts)]
    hint = f" Did you mean {deeper[0]}?" if deeper else ""
    looked_for = ", ".join(layout.labels for layout in layouts)
    if tables := [name for name in names if is_table(name)]:
        hint += f" If {tables[0]} holds the labels: data.table={tables[0]}."
    elif any(map(is_audio, names)):
        hint += " Sounds by themselves need folders called by their class, or a metadata.csv with file_name and label."
    what = "no layout that is known" if own is None else f"nothing that data.layout={own} reads"
    return f"{said}={folder} holds {what}. Looked for {looked_for}; {inside}.{hint}"
