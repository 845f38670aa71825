"""Whether a run has met the evaluated clips, or their groups, before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sousa_bench.config import distillation, init_from
from sousa_bench.data.subset import also_trained
from sousa_bench.errors import UserError
from sousa_bench.results.finished import FinishedRun
from sousa_bench.results.result import read_result
from sousa_bench.task import Task, counted
from sousa_bench.training.evaluated_clips import SplitData

CLIP = ["sample_id", "group"]
ROLES = {"train": "was trained on", "val": "was validated on"}
COMES_FROM = {
    init_from.KEY: "the {split} split is not new to the weights: a run that they come from",
    distillation.RUN: "the {split} split is not new to the teacher: it, or a run that it comes from,",
}


def met_before(run: FinishedRun, data: SplitData) -> tuple[dict[str, Any], list[str]]:
    """Count what the run, and those whose weights it went on from or that taught it, have met of the evaluated clips.

    Args:
        run: Its training and validation clips are found by its own config; none is decoded.
        data: The evaluated clips.

    Returns:
        ``clips`` and ``players`` (or ``groups``) by split, for the result, and a sentence for each that is not zero.
    """
    clips = data.chosen()
    try:
        nodes = [run.config["data"], *_ancestors(run.config, run.folder)]
        counts = {split: _shared(clips, split, nodes, data.task) for split in ROLES}
    except UserError as error:
        return {}, [f"whether the run has met these clips before can't be told: {error}"]
    return counts, _sentences(
        counts,
        clips,
        data.task,
        "the run" if len(nodes) == 1 else "the run, or one that it goes on from or learns from,",
    )


def inherited(config: Mapping[str, Any]) -> list[str]:
    """What a run's first weights and its teacher have met of its validation and test clips, in sentences.

    That an earlier run was validated on the same clips is no fault, and not named.

    Args:
        config: The run's whole resolved config.
    """
    return [sentence for key in COMES_FROM for sentence in _inherited_by(key, config)]


def _inherited_by(key: str, config: Mapping[str, Any]) -> list[str]:
    try:
        nodes = [node for node in _ancestors(config, Path.cwd(), [key]) if node != config["data"]]
        if not nodes:
            return []
        made = []
        for split, roles in (("val", ("train",)), ("test", ("train", "val"))):
            if split in also_trained(config["data"].get("refit")):
                continue
            data = SplitData.of(split, config["data"])
            clips = data.chosen()
            counts = {role: _shared(clips, role, nodes, data.task) for role in roles}
            made += _sentences(counts, clips, data.task, f"{key}: {COMES_FROM[key].format(split=split)}")
    except UserError as error:
        return [f"{key}: whether it has met the clips of val and test can't be told: {error}"]
    return made


def _ancestors(config: Mapping[str, Any], folder: Path, keys: Iterable[str] = COMES_FROM) -> list[dict[str, Any]]:
    """The data of the runs that a config goes on from or learns from, the nearest first.

    Args:
        config: A run's.
        folder: From it or a folder above it the path to an earlier run counts, where it doesn't from here.
        keys: Which of its own keys count; of the earlier runs all do.

    Raises:
        UserError: One is gone, or says nothing of its data.
    """
    nodes: list[dict[str, Any]] = []
    seen: set[Path] = set()
    waiting = [(place, folder) for place in _places(config, keys)]
    while waiting:
        place, folder = waiting.pop(0)
        paths = [base / Path(place).expanduser() for base in (Path.cwd(), folder, *folder.parents)]
        weights = init_from.adapter_folder(next((path for path in paths if path.exists()), place)).resolve()
        folder = weights if (weights / "result.json").is_file() else weights.parent
        config = read_result(folder).get("resolved_config") or {}
        if "data" not in config:
            raise UserError(f"{folder}: its result doesn't say its data")
        if folder not in seen:
            seen.add(folder)
            nodes.append(dict(config["data"]))
            waiting += [(earlier, folder) for earlier in _places(config)]
    return nodes


def _places(config: Mapping[str, Any], keys: Iterable[str] = COMES_FROM) -> list[str]:
    """Where the runs lie that a plain config names under some keys."""
    named = {init_from.KEY: config.get(init_from.KEY), distillation.RUN: distillation.teacher_run(config)}
    return [str(named[key]) for key in keys if named[key]]


def _shared(clips: pd.DataFrame, split: str, nodes: list[dict[str, Any]], task: Task) -> dict[str, int]:
    """How many of ``clips``, and of their groups, stand in a split of some data."""
    held = [node for node in nodes if split not in also_trained(node.get("refit"))]
    if not held:
        return {"clips": 0, task.groups_key: 0}
    earlier = pd.concat([SplitData.of(split, node).chosen()[CLIP] for node in held]).drop_duplicates()
    return {
        "clips": len(clips.merge(earlier, on=CLIP)),
        task.groups_key: int(clips.loc[clips["group"].isin(earlier["group"]), "group"].nunique()),
    }


def _sentences(counts: Mapping[str, Any], clips: pd.DataFrame, task: Task, who: str) -> list[str]:
    made = []
    for split, found in counts.items():
        role = ROLES[split]
        if found["clips"]:
            what, new = f"{found['clips']:,} of these {len(clips):,} clips", "ones"
        elif task.grouped and (known := found[task.groups_key]):
            what, new = f"other clips of {known} of these {counted(clips['group'].nunique(), task.group)}", task.groups
        else:
            continue
        made.append(f"{who} {role} {what}: the metrics don't show how it does on new {new}")
    return made
