"""What all runs share, said once: data, epochs, weights, commit, device, versions; and the command of each sweep."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sousa_bench.analysis.combinations import is_trial
from sousa_bench.analysis.commands import given_command
from sousa_bench.analysis.factors import augmentation_words, shown
from sousa_bench.analysis.report.blocks import Block, Command, Details, Facts, Text
from sousa_bench.analysis.study import Study
from sousa_bench.system.text_table import amount

VERSIONS = ("python", "torch", "transformers", "peft", "pytorch_lightning", "sousa_bench")
MOST_VALUES = 4
"""Different values of a fact that are named with their numbers of runs; of more only how many there are."""


def shared_facts(study: Study) -> list[Block]:
    """The facts, and the commands of the sweeps where they can be pasted."""
    commands = list(_commands(study))
    facts = {name: said for name, said in _facts(study) if said}
    blocks: list[Block] = [Facts(facts)] if facts else []
    if commands:
        lines = [block for name, line in commands for block in (Text([name]), Command([line]))]
        blocks.append(Details("Commands of these sweeps" if len(commands) > 1 else "Command of this sweep", lines))
    return blocks


def _facts(study: Study) -> Iterator[tuple[str, str]]:
    table = study.done if len(study.done) else study.table
    yield "data", _data(table)
    yield "test clips", _test_clips(study)
    yield "epochs", _same(table, "max_epochs", "at most {}")
    for key in ("model", "strategy"):
        yield key, _same(table, key)
    if table["augmentation"].nunique(dropna=False) == 1:
        yield "augmentation", augmentation_words(table["augmentation"].iloc[0])
    yield "seed", _same(table, "seed")
    yield "weights", _same(table, "weights.kind")
    yield "file of weights", _same(table, "weights.origin")
    yield "commit", _counted(table["git_commit"].map(_short_commit))
    yield "device", _named(table, "environment.device")
    yield "precision", _named(table, "environment.precision")
    yield "versions", ", ".join(f"{key} {said}" for key in VERSIONS if (said := _named(table, f"environment.{key}")))
    if len(table) and all(is_trial(study.results, int(row)) for row in table.index):
        yield "limits", "a trial: few batches only"


def _same(table: pd.DataFrame, key: str, form: str = "{}") -> str:
    """A value that all runs share; empty where they differ or don't say it."""
    if key not in table or table[key].nunique(dropna=False) != 1 or pd.isna(table[key].iloc[0]):
        return ""
    return form.format(shown(table[key].iloc[0]))


def _named(table: pd.DataFrame, key: str) -> str:
    return _counted(table[key]) if key in table else ""


def _counted(column: pd.Series) -> str:
    """The value of all, or each value with its number of runs, and in how many none is recorded; empty if in all."""
    count = column.dropna().astype(str).value_counts()
    said = {str(value): int(number) for value, number in count.items()}
    if not said:
        return ""
    if len(said) > MOST_VALUES:
        said = {f"{len(said)} different ones": sum(said.values())}
    if absent := int(column.isna().sum()):
        said["not recorded"] = absent
    if len(said) == 1:
        return next(iter(said))
    return ", ".join(f"{value} ({amount(number, 'run')})" for value, number in said.items())


def _short_commit(value: object) -> object:
    if not isinstance(value, str):
        return value
    commit, dirty, _ = value.partition("-dirty")
    return commit[:12] + dirty


def _data(table: pd.DataFrame) -> str:
    parts = [_same(table, "data")]
    said = pd.Series([_same(table, f"data.counts.{split}") for split in ("train", "val", "test")])
    counts = pd.to_numeric(said, errors="coerce").astype(float)
    if np.isfinite(counts).all():
        train, val, test = (f"{count:,.0f}" for count in counts)
        parts.append(f"{train} clips to train, {val} to validate, {test} to test")
    if mark := _same(table, "data.fingerprint"):
        parts.append(f"fingerprint {mark[:8]}")
    return ", ".join(part for part in parts if part)


def _test_clips(study: Study) -> str:
    """How many clips and groups, where all runs were tested on the same."""
    if len(study.shared_clips) != 1:
        return ""
    clips = study.shared_clips[0].clips
    return study.task.extent(f"{len(clips.label):,}", len(clips.players))


def _commands(study: Study) -> Iterator[tuple[str, str]]:
    """Each sweep with the command that it was started with."""
    given = {job.sweep: job.command for job in study.results.planned if job.command}
    for name, text in given.items():
        yield name, given_command(text)
