"""The clips that a run is evaluated on: its own data or others, one split or all clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from sousa_bench.config.composing import composed
from sousa_bench.config.config_errors import explained
from sousa_bench.config.overrides import with_quotes
from sousa_bench.data import SPLITS, SousaData
from sousa_bench.data.data_warnings import absent_classes
from sousa_bench.data.subset import refuse_unlabelled
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.results.finished import FinishedRun

ALL = "all"
PREPROCESSING = ("max_duration", "windows", "quantum")
"""Keys of the data that belong to the model: it was trained on clips cut and padded so."""
OTHER_SOUNDS = {"data.root", "data.hub_id"}


class SplitData(SousaData):
    """One split of a dataset, or all of it. Nothing else is decoded, and the other splits may be empty.

    Args:
        split: ``train``, ``val``, ``test`` or ``all`` (clips without a split among them).
        values: See :class:`SousaData`.
    """

    def __init__(self, split: str, **values: Any) -> None:
        super().__init__(**values)
        self.split = split
        self.clips = {name: count for name, count in self.clips.items() if split in (self._role(name), ALL)}

    @classmethod
    def of(cls, split: str, node: Mapping[str, Any]) -> SplitData:
        """The data of a composed ``data`` node.

        Raises:
            ConfigError: A key that data don't have.
        """
        values = {str(key): value for key, value in node.items() if key != "_target_"}
        try:
            return cls(split, **values)
        except TypeError as error:
            raise ConfigError(f"data: {str(error).rpartition('() ')[2]}") from error

    @cached_property
    def _available(self) -> pd.DataFrame:
        if self.split != ALL and self._role(self.split) != self.split:
            raise DataError(
                f"The {self.split} clips of {self.source.place} were trained on (data.refit={self.refit}): "
                "data=NAME evaluates on others."
            )
        everything = self._everything()
        counts = everything["split"].value_counts()
        if self.split == ALL:
            named = everything["split"].isin(SPLITS)
            wanted = everything.assign(split=everything["split"].where(named, "test"))
            if not named.all():  # how many clips a choice of data tests says nothing of those
                self.clips.pop("test", None)
        else:
            wanted = everything[everything["split"].map(self._role) == self.split]
        if not len(wanted):
            there = ", ".join(f"{name} {counts[name]:,}" for name in SPLITS if name in counts) or "none in any split"
            raise DataError(
                f"{self.source.place} has no clip in its {self.split} split ({there}): choose another with --split, or "
                "take all clips with --split all."
            )
        passed = self.filters.apply(wanted)
        if not len(passed):
            raise DataError(
                f"No clip passes the filters: {', '.join(f'data.{name}' for name in self.filters.active())}."
            )
        return passed

    def _skip(self, bad: Mapping[int, str]) -> None:
        try:
            super()._skip(bad)
        except DataError:  # an empty split; here only this one must hold clips
            if not len(self._used):
                raise

    def _refuse_unlabelled(self, clips: pd.DataFrame) -> None:
        if self.task.several:
            evaluated = clips if self.split == ALL else clips[clips["split"] == self.split]
            refuse_unlabelled(evaluated, self.split, "Label some, or choose another split with --split.")

    def _split(self, split: str) -> pd.DataFrame:
        if split == ALL:
            return self._used.sort_values("sample_id", kind="stable")
        return super()._split(split)

    @cached_property
    def test_fingerprint(self) -> str:
        """Hex digest of the chosen clips and their labels; of the test split the one that a run's result holds."""
        return self._split_digest(*(SPLITS if self.split == ALL else (self.split,)))

    @property
    def warnings(self) -> list[str]:
        """What a reader of the metrics must know of these clips."""
        found = [*self.source.warnings, *absent_classes({"evaluated": self._split(self.split)}, self.task)]
        return [*found, self._skipped_warning()] if self._skipped else found


def data_node(run: FinishedRun, overrides: Sequence[str], config_folder: Path | None = None) -> dict[str, Any]:
    """What the evaluated data are.

    Args:
        run: Its own data count where ``overrides`` choose no others.
        overrides: ``data=NAME`` takes that choice of ``conf/data``, ``data.KEY=VALUE`` changes a key of it or of the
            run's own.
        config_folder: Another folder with a ``data`` group, as the training's ``--config-dir``.

    Returns:
        A ``data`` node; clips are cut and padded as in the run's training unless an override says otherwise.

    Raises:
        ConfigError: Something else than the data is overridden, or it can't be composed.
    """
    own = dict(run.config["data"])
    if own.get("cache_dir") and not (Path(str(own["cache_dir"])).expanduser() / "clips").is_dir():
        own["cache_dir"] = None  # a result from elsewhere doesn't choose where this command makes folders
    overrides = with_quotes(overrides)
    with explained():
        items = OverridesParser.create().parse_overrides(overrides)
        for item in items:
            _check(item)
        named = {item.key_or_group for item in items}
        if "data" in named:
            own = {key: own[key] for key in PREPROCESSING if key in own and f"data.{key}" not in named}
            cfg = composed(overrides, config_folder)
        else:
            if own.get("refit") and named & OTHER_SOUNDS:
                own["refit"] = None  # which says what became of the run's own
            cfg = OmegaConf.create({"data": own})
            OmegaConf.set_struct(cfg, True)
            for item in items:
                OmegaConf.update(cfg, item.key_or_group, item.value(), merge=True, force_add=item.is_add())
        node = OmegaConf.to_container(cfg.data, resolve=True)
    assert isinstance(node, dict), "the data group is a mapping"
    return {str(key): value for key, value in node.items()} | (own if "data" in named else {})


def _check(item: Override) -> None:
    group, dot, key = item.key_or_group.partition(".")
    if group != "data":
        value = str(item.input_line).partition("=")[2]
        near = f"; did you mean data{dot}{key}={value}?" if get_close_matches(group, ["data"]) else ""
        raise ConfigError(
            f"{item.input_line}: an evaluation takes overrides of the data alone (data=NAME, data.KEY=VALUE); model, "
            f"method and training are the run's{near}"
        )
    if item.is_sweep_override():
        raise ConfigError(f"{item.input_line}: an evaluation takes one value; give the command once for each")
