"""The data of a run, from what the config says to waveforms."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sousa_bench.data import SPLITS
from sousa_bench.data.cache import ClipCache, Kept, Progress
from sousa_bench.data.cache_folder import cache_root
from sousa_bench.data.chunks import WaveformStore
from sousa_bench.data.data_warnings import (
    absent_classes,
    classes_held,
    shared_groups,
    short_classes,
    without_split,
)
from sousa_bench.data.rudiments import TASK
from sousa_bench.data.saved_task import is_sousa
from sousa_bench.data.sources.find_source import find_source
from sousa_bench.data.sources.labelled import Reading
from sousa_bench.data.sources.source import COLUMNS, Source
from sousa_bench.data.sources.synthetic_source import recipe, synthetic_source
from sousa_bench.data.splitting import split_labelled
from sousa_bench.data.subset import (
    NAME_FILTERS,
    Filters,
    also_trained,
    choose,
    choose_per_class,
    fold_splits,
    name_list,
    parse_fold,
    refuse_empty,
    refuse_unlabelled,
    resplit,
)
from sousa_bench.data.values import check_keys, check_values, plain
from sousa_bench.errors import DataError
from sousa_bench.task import Task

log = logging.getLogger("sousa_bench.data")

_CHOICE = ("clips", "filters", "fold", "resplit", "subset_seed", "max_duration", "quantum")
"""What besides the recipe decides which synthetic clips a run sees, and how."""


@dataclass(eq=False, repr=False)
class SousaData:
    """What `conf/data/*.yaml` describes; those files and `docs/data.md` say what each key means.

    Nothing is read, and no value judged, before it is needed: `prepare` finds the clips and decodes those that
    aren't decoded yet.

    Args:
        name: The choice's name.
        clips: Most clips of each split; a split without a number: all.
        per_class: Most training clips of each class; None or `all`: all.
        root: Folder of the dataset; None: the variable `SOUSA_ROOT`, else the hub.
        layout: Class that reads the folder, `module.Class`; None: the layout is recognised.
        table: File with the labels; None: found by its name.
        columns: The table's own names of columns, where they are not recognised; false: not used.
        group_pattern: Regular expression whose first bracket finds a clip's group in its file's name; a bracket with a
            name, `(?P<bird>…)`, comes before it and says what the groups are called.
        classes: The classes in their order; None: those that there are.
        hub_id: Dataset on the hub, for when there is no folder.
        revision: Branch, tag or commit of it.
        shards: `fewest` or `all`: whether a subset of the hub's layout is drawn from as few files as will do.
        synthetic: Parameters of our own generator; None: real data.
        max_duration: Seconds of a clip that are used.
        windows: What is heard of a longer clip: None, its beginning; `all` or a number, see `docs/training.md`.
        quantum: Seconds; clips are padded to a whole number of these.
        soundfont: Filter, a name or several.
        augmentation_preset: Filter, a name or several.
        skill_tier: Filter, a name or several.
        tempo_min: Filter, beats per minute.
        tempo_max: Filter, beats per minute.
        fold: `k/n`: cross-validation, by the folds that are given, else by group.
        resplit: New splits by group.
        refit: `val`: the validation clips are trained on, too; `all`: these and the test clips.
        subset_seed: Which clips a subset takes, and which splits are made where none are given.
        on_bad_clip: `error` or `skip`.
        cache_dir: Folder of the caches; None: the variable `SOUSA_BENCH_CACHE`, else the user's cache folder.
        cache_limit_gb: Most that the decoded clips of all datasets may take.
        workers: Threads that decode, and processes that write synthetic clips; None: one for each usable core.
    """

    name: str
    _: KW_ONLY
    clips: dict[str, int | None] = field(default_factory=dict)
    root: str | None = None
    layout: str | None = None
    table: str | None = None
    columns: Mapping[str, str | bool | None] = field(default_factory=dict)
    group_pattern: str | None = None
    classes: Sequence[str] | None = None
    hub_id: str | None = None
    revision: str | None = None
    shards: str = "fewest"
    synthetic: Mapping[str, Any] | None = None
    max_duration: float = 5.0
    windows: int | str | None = None
    quantum: float = 0.5
    soundfont: str | Sequence[str] | None = None
    augmentation_preset: str | Sequence[str] | None = None
    skill_tier: str | Sequence[str] | None = None
    tempo_min: float | None = None
    tempo_max: float | None = None
    fold: str | None = None
    resplit: bool = False
    refit: str | None = None
    subset_seed: int = 0
    per_class: int | str | None = None
    on_bad_clip: str = "error"
    cache_dir: str | None = None
    cache_limit_gb: float | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        self.clips = plain(self.clips or {})
        self.columns = self.columns or {}
        for key in ("synthetic", "columns", "classes", *NAME_FILTERS):
            setattr(self, key, plain(getattr(self, key)))
        self._rates: tuple[int, ...] = ()
        self._skipped: dict[str, str] = {}
        self._used = pd.DataFrame()
        self._progress: Progress | None = None

    # What is chosen: cheap, decodes nothing

    def check(self) -> None:
        """Judge every value by itself.

        Raises:
            ConfigError: One can't be; the message names the key.
        """
        check_values(self)

    @cached_property
    def cache_root(self) -> Path:
        """The folder of all caches."""
        return cache_root(self.cache_dir)

    @cached_property
    def source(self) -> Source:
        """The dataset."""
        self.check()
        if self.synthetic is not None:
            return synthetic_source(self.synthetic, self.cache_root, self._progress, self.workers)
        return find_source(self.root, self.hub_id, self.revision, self.cache_root, self.layout, self.reading)

    @property
    def reading(self) -> Reading:
        """How labels are to be read that are not SOUSA's."""
        columns = {key: name for key, name in self.columns.items() if name is not None}
        classes = None if self.classes is None else tuple(map(str, self.classes))
        return Reading(self.table, columns, self.group_pattern, classes)

    @property
    def task(self) -> Task:
        """What is asked of a clip; told without writing synthetic ones."""
        return self.source.task if self.synthetic is None else TASK

    @cached_property
    def filters(self) -> Filters:
        """Those of the config.

        Raises:
            ConfigError: A name that can't be one.
        """
        return Filters(
            **{key: name_list(key, getattr(self, key)) for key in NAME_FILTERS},
            tempo_min=self.tempo_min,
            tempo_max=self.tempo_max,
        )

    @cached_property
    def _split_up(self) -> tuple[pd.DataFrame, str]:
        """All clips of data of any task in splits, and where these come from."""
        table = self.source.table()
        return split_labelled(table, self.task, parse_fold(self.fold), self.resplit, self.subset_seed)

    @cached_property
    def understood(self) -> dict[str, str]:
        """What was taken for what; empty for SOUSA, whose layouts leave nothing to guess."""
        return {**self.source.understood, "split": self._split_up[1]} if self.source.makes_splits else {}

    def _everything(self) -> pd.DataFrame:
        """All clips of the dataset, in the splits that are asked for."""
        if self.source.makes_splits:
            return self._split_up[0]
        everything = self.source.table()
        if (fold := parse_fold(self.fold)) is not None:
            return fold_splits(everything, *fold)
        return resplit(everything) if self.resplit else everything

    @cached_property
    def _available(self) -> pd.DataFrame:
        """All clips that filters and splits leave."""
        everything = self._everything()
        if self.fold is None and not self.resplit:
            if not everything["split"].isin(SPLITS).any():
                raise DataError(f"{self.source.place} names no splits: data.resplit=true makes them by player.")
            way_out = f"data.resplit=true makes new splits by {self.task.group}, data.fold=1/5 cross-validates."
            refuse_empty(everything, way_out)
        passed = self.filters.apply(everything)
        set_filters = ", ".join(f"data.{name}" for name in self.filters.active())
        refuse_empty(passed, f"Loosen the filters ({set_filters}), or split anew with data.resplit=true.")
        return passed

    @cached_property
    def _chosen(self) -> pd.DataFrame:
        """The subset, by split and sample_id, before bad clips are skipped."""
        by_shard = self.shards == "fewest" and self._available["shard"].iloc[0] != ""
        parts = []
        for split in SPLITS:
            available = self._available[self._available["split"] == split]
            part = choose(available, self.clips.get(split), self.subset_seed, by_shard)
            if split == "train":
                part = choose_per_class(part, self._most_per_class, self.subset_seed, by_shard)
            parts.append(part.sort_values("sample_id", kind="stable"))
        chosen = pd.concat(parts, ignore_index=True)
        if self.refit is None:
            return chosen
        joined = chosen.assign(split=chosen["split"].map(self._role))
        return joined.sort_values(["split", "sample_id"], kind="stable", ignore_index=True)

    def _role(self, split: str) -> str:
        """The split that the clips of one of the dataset's count for."""
        return "train" if split in also_trained(self.refit) else split

    @property
    def _most_per_class(self) -> int | None:
        return None if self.per_class in (None, "all") else int(str(self.per_class))

    def chosen(self) -> pd.DataFrame:
        """The clips with ``sample_id``, ``label``, ``class``, ``group`` and ``split``, before any is decoded."""
        return self._chosen

    def absent(self) -> list[str]:
        """Names of the chosen clips' files that are not there."""
        return self.source.names(self._chosen[self._sizes < 0])

    @cached_property
    def _sizes(self) -> np.ndarray:
        return self.source.sizes(self._chosen)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of what is trained, validated and tested on: clips, labels, splits, sizes, `max_duration`, grid.

        The same wherever the data lie and whatever the choice is called; nothing is decoded for it. Synthetic data
        count by their recipe and by what is chosen from them, so that they need not be written to be told apart.
        """
        if self.synthetic is not None:
            self.check()
            content = {**recipe(self.synthetic), **{f"choice {key}": str(getattr(self, key)) for key in _CHOICE}}
            if self._most_per_class is not None:
                content["choice per_class"] = str(self._most_per_class)
            if self.windows is not None:
                content["choice windows"] = str(self.windows)
            if self.refit is not None:
                content["choice refit"] = self.refit
            text = "\n".join(f"{key}={content[key]}" for key in sorted(content))
            return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
        if not is_sousa(self.task):
            self._refuse_absent()
            self._refuse_unlabelled(self._chosen)
        grid = f"{float(self.max_duration)} {float(self.quantum)}"
        grid += "" if self.windows is None else f" {self.windows} windows"
        return _digest(self._chosen, self._sizes, f"{grid} {self.source.sample(self._chosen)}{self._asked}")

    @property
    def _of_a_curve(self) -> bool:
        """Whether a key is set that runs may differ in and still be compared."""
        return self._most_per_class is not None or self.windows is not None

    @cached_property
    def base_fingerprint(self) -> str:
        """The `fingerprint` of the same data without `per_class` and `windows`: runs that share it are compared."""
        base = copy.copy(self)
        for name in ("_chosen", "_sizes", "fingerprint"):
            base.__dict__.pop(name, None)
        base.per_class = base.windows = None
        return base.fingerprint

    @property
    def _asked(self) -> str:
        """What the classes are; nothing for SOUSA's, whose numbers mean the same since the first results."""
        return "" if is_sousa(self.task) else f" {self.task.digest}"

    @cached_property
    def test_fingerprint(self) -> str:
        """Hex digest of the test clips and their labels: two runs with the same one can be compared clip by clip."""
        return self._split_digest("test")

    def _split_digest(self, *splits: str) -> str:
        rows = self._chosen["split"].isin(splits).to_numpy()
        chosen = self._chosen[rows]
        return _digest(chosen, self._sizes[rows], f"{self.source.sample(chosen)}{self._asked}")

    # What is decoded

    def prepare(self, sample_rates: Sequence[int], progress: Progress | None = None) -> None:
        """Find, choose and decode the clips; quick where that was done before. Another call adds its sample rates.

        Args:
            sample_rates: Hz, those that `waveforms` will be asked for.
            progress: Called now and then with (clips done, clips to do), for writing synthetic data, then for decoding.

        Raises:
            DataError: The data can't be had, are malformed, or don't fit the disk.
            ConfigError: A value of the config can't be.
        """
        self._progress = progress
        rates = sorted({int(rate) for rate in sample_rates})
        self._tell_shortfall()
        self._refuse_absent()
        self._refuse_unlabelled(self._chosen)
        bad = self._cache.fill(self._chosen, rates, progress)
        if self.on_bad_clip == "error":
            self._refuse(bad)
        self._skip(bad)
        self._refuse_unlabelled(self._used)
        self._rates = tuple(sorted({*self._rates, *rates}))

    @cached_property
    def _cache(self) -> ClipCache:
        return ClipCache(
            self.cache_root,
            self.source,
            float(self.max_duration),
            self.cache_limit_gb,
            self.workers,
            whole=self.windows is not None,
        )

    def _tell_shortfall(self) -> None:
        found = self._chosen["split"].value_counts()
        less = [
            f"{split} {found.get(split, 0):,} of {count:,}"
            for split, count in self.clips.items()
            if count is not None and found.get(split, 0) < count
            if self._role(split) == split and (split != "train" or self._most_per_class is None)
        ]
        if less:
            log.info("data=%s asks for more clips than there are: %s", self.name, ", ".join(less))

    def _refuse_absent(self) -> None:
        if self.on_bad_clip == "error":
            self._refuse({int(i): "is missing" for i in np.flatnonzero(self._sizes < 0)})

    def _refuse_unlabelled(self, clips: pd.DataFrame) -> None:
        """What chooses epochs and what is tested must have labels."""
        for split in ("val", "test") if self.task.several else ():
            way_out = f"Label some, draw more (data.clips.{split}), or split anew with data.resplit=true."
            refuse_unlabelled(clips[clips["split"] == split], split, way_out)

    def _refuse(self, bad: Mapping[int, str]) -> None:
        if not bad:
            return
        files = self.source.names(self._chosen.iloc[list(bad)])
        listed = [
            self.source.missing(name) if reason == "is missing" else f"{name} {reason}"
            for name, reason in zip(files[:5], bad.values(), strict=False)
        ]
        more = f"; and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        clips = "A clip" if len(bad) == 1 else f"{len(bad):,} clips"
        raise DataError(
            f"{clips} of {self.source.place} can't be used: {'; '.join(listed)}{more}. Restore the audio from where "
            "the dataset came from, or leave such clips out with data.on_bad_clip=skip (the result then counts them)."
        )

    def _skip(self, bad: Mapping[int, str]) -> None:
        files = self.source.names(self._chosen.iloc[list(bad)])
        self._skipped = dict(zip(files, bad.values(), strict=True))
        self._used = self._chosen.drop(index=list(bad)).reset_index(drop=True) if bad else self._chosen
        if bad:
            log.warning("%s", self._skipped_warning())
            splits = [split for split in SPLITS if self._role(split) == split]
            refuse_empty(self._used, f"Its clips can't be used: {files[0]} {bad[min(bad)]}.", splits)

    def _skipped_warning(self) -> str:
        first = "; ".join(f"{name} {reason}" for name, reason in list(self._skipped.items())[:3])
        more = ", …" if len(self._skipped) > 3 else ""
        return f"{len(self._skipped):,} of {len(self._chosen):,} clips skipped (data.on_bad_clip=skip): {first}{more}"

    # What a run reads

    def _split(self, split: str) -> pd.DataFrame:
        if split not in SPLITS:
            raise ValueError(f"split is one of {SPLITS}, not {split!r}")
        return self._used[self._used["split"] == split]

    def rows(self, split: str) -> pd.DataFrame:
        """One row a clip, ordered by sample_id.

        Columns: sample_id, label (class number), class, group, skill_tier, tempo_bpm (NaN where unknown),
        soundfont, augmentation_preset ("unknown" where the dataset doesn't tell).
        """
        return self._split(split)[list(COLUMNS)].reset_index(drop=True)

    def waveforms(self, split: str, sample_rate: int) -> WaveformStore:
        """The clips of `rows(split)` in the same order, as views of the cache; with `windows` to their end.

        Raises:
            DataError: `prepare` was not asked for this sample rate, or the cache is gone.
        """
        return self._cache.store(self._split(split), sample_rate)

    def kept(self, split: str) -> Kept:
        """Where to keep what networks make of the clips of `rows(split)`."""
        return self._cache.kept(self._split(split))

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results must know; empty for sound data. Complete after `prepare`."""
        used = {split: self._split(split) for split in SPLITS}
        task = self.task
        found = [*self.source.warnings, *without_split(self._available, task)]
        held = {split: clips for split, clips in used.items() if len(clips)}  # a refit leaves no validation clips
        found += [*shared_groups(used, task), *absent_classes(held, task)]
        found += short_classes(used["train"], task, self._most_per_class)
        return [*found, self._skipped_warning()] if self._skipped else found

    def describe(self) -> dict[str, Any]:
        """Facts about the data for the result file, as of the last `prepare`. Everything in it is JSON."""
        used = {split: self._split(split) for split in SPLITS}

        def counts(table: pd.DataFrame) -> dict[str, int]:
            return {split: int((table["split"] == split).sum()) for split in SPLITS}

        return {
            "name": self.name,
            "source": self.source.layout,
            **({"understood": self.understood} if self.understood else {}),
            "place": self.source.place,
            "fingerprint": self.fingerprint,
            "test_fingerprint": self.test_fingerprint,
            **({"base_fingerprint": self.base_fingerprint} if self._of_a_curve else {}),
            "asked": {split: self.clips.get(split) for split in SPLITS},
            "available": counts(self._available),
            "found": counts(self._chosen),
            "counts": {split: len(used[split]) for split in SPLITS},
            self.task.groups_key: {split: int(used[split]["group"].nunique()) for split in SPLITS},
            f"distinct_{self.task.groups_key}": int(self._used["group"].nunique()),  # one may be in several splits
            "classes": {split: len(classes_held(used[split], self.task)) for split in SPLITS},
            "skipped": {"count": len(self._skipped), "clips": dict(list(self._skipped.items())[:100])},
            "filters": self.filters.active(),
            "fold": self.fold,
            "resplit": self.resplit,
            "max_duration": float(self.max_duration),
            "cache": {
                "folder": str(self._cache.folder),
                "bytes": self._cache.size(),
                "sample_rates": list(self._rates),
            },
        }


def fingerprint(data_cfg: Mapping[str, Any]) -> str:
    """The `SousaData.fingerprint` of a config node; reads tables and file sizes, decodes nothing, imports no torch.

    Args:
        data_cfg: A composed `data` node.

    Raises:
        ConfigError: An unknown key or an impossible value.
        DataError: The data can't be had or are malformed.
    """
    values = {str(key): plain(value) for key, value in data_cfg.items() if key != "_target_"}
    check_keys("data", values, list(inspect.signature(SousaData).parameters))
    data = SousaData(**values)
    found = data.fingerprint
    if data.synthetic is None and (understood := dict(data.understood)):
        split = understood.pop("split")
        _tell(f"Understood: {'; '.join(f'{key}: {value}' for key, value in understood.items())}")
        _tell(f"Splits: {split}")
    return found


@functools.cache
def _tell(text: str) -> None:
    """Log what was understood once, for however many runs it holds."""
    log.info("%s", text)


def _digest(clips: pd.DataFrame, sizes: np.ndarray, more: str) -> str:
    columns = [clips[name].tolist() for name in ("split", *(name for name in COLUMNS if name != "class"))]
    lines = sorted("\t".join(map(str, row)) for row in zip(*columns, sizes.tolist(), strict=True))
    made = hashlib.blake2b(digest_size=32)
    for line in lines:
        made.update(f"{line}\n".encode())
    made.update(more.encode())
    return made.hexdigest()
