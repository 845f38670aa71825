"""``teacher``: the earlier run whose answers a student learns. Looked at without importing torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sousa_bench.config.init_from import adapter_folder, content
from sousa_bench.config.run_config import value_at
from sousa_bench.data.saved_task import saved_task
from sousa_bench.errors import ConfigError
from sousa_bench.models.weight_files import weights_file
from sousa_bench.peft.options import DESCRIPTION_FILE, plain, takes_no_steps, trains_all
from sousa_bench.results.result import RESULT_FILE, ResultError, read_result
from sousa_bench.system.files import file_hash
from sousa_bench.system.foreign import read_facts
from sousa_bench.system.number_checks import is_number, is_positive
from sousa_bench.task import Task

KEY = "teacher"
RUN = f"{KEY}.run"
FIELDS = ("run", "weight", "temperature")


def teacher_run(config: Mapping[str, Any]) -> str | None:
    """The folder of the run that a config learns from, or None."""
    place = value_at(config, RUN)
    return None if place is None else str(place)


def check(config: Mapping[str, Any]) -> None:
    """Hold a composed config, whose data have been identified, against the run that it learns from.

    Raises:
        ConfigError: An impossible value, a student that takes no steps, no completed run with trained weights, other
            classes, or a file of base weights that is another now.
        DataError: The classes of the student's data can't be told.
    """
    node = config.get(KEY)
    if node is None:  # a config of before
        return
    if not isinstance(node, Mapping):
        raise ConfigError(f"{KEY}={node}: give the folder of a completed run as {RUN}=FOLDER")
    if wrong := next((str(key) for key in node if key not in FIELDS), None):
        raise ConfigError(f"{KEY}.{wrong}: nothing reads it; there are {', '.join(f'{KEY}.{key}' for key in FIELDS)}")
    weight, temperature = node.get("weight"), node.get("temperature")
    if not (is_number(weight) and 0 < weight <= 1):
        raise ConfigError(f"{KEY}.weight={weight} can't be: it must be a share of the loss above 0 and at most 1")
    if not is_positive(temperature):
        raise ConfigError(f"{KEY}.temperature={temperature} can't be: it must be a number above 0")
    if (place := teacher_run(config)) is None:
        return
    if takes_no_steps(config["peft"]):
        raise ConfigError(
            f"{RUN}={place}: peft={value_at(config, 'peft.name')} takes no steps, so that it learns from no teacher; "
            "leave it out"
        )
    folder = adapter_folder(place, RUN)
    content(place, RUN)
    _check_status(folder.parent, place)
    try:
        then = read_facts(folder / DESCRIPTION_FILE, dict.fromkeys(("model", "peft", "weights"), dict), linked=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{RUN}={place}: {DESCRIPTION_FILE} can't be read ({error})") from error
    file = weights_file(then["model"])  # None: random, or at an address; a file that is gone is named by the run
    others = file is not None and file.is_file() and file_hash(file) != then["weights"].get("sha256")
    if others and not trains_all(then["peft"]):
        raise ConfigError(f"{RUN}={place}: was trained on other base weights than {file} holds now (another SHA-256)")
    theirs, ours = saved_task(then, folder / DESCRIPTION_FILE), _task_of(json.dumps(plain(config["data"]), default=str))
    if theirs.digest != ours.digest:
        raise ConfigError(f"{RUN}={place}: {_other_task(theirs, ours)}")


def _check_status(folder: Path, place: str) -> None:
    """Refuse a run that isn't completed; weights without a result are taken as they are."""
    if not (folder / RESULT_FILE).is_file():
        return
    try:
        status = read_result(folder)["status"]
    except ResultError as error:
        raise ConfigError(f"{RUN}={place}: {error}") from error
    if status != "completed":
        raise ConfigError(f"{RUN}={place}: this run is {status}, not completed; its own command goes on with it")


@functools.cache
def _task_of(node: str) -> Task:
    from sousa_bench.data import SousaData  # pandas: half a second of every command, and this is for students

    return SousaData(**{key: value for key, value in json.loads(node).items() if key != "_target_"}).task


def _other_task(theirs: Task, ours: Task) -> str:
    """In what two tasks differ."""
    if theirs.several != ours.several:
        kinds = [f"{'any number of labels' if task.several else 'one label'} a clip" for task in (theirs, ours)]
        return f"it was trained on {kinds[0]}, this run's data have {kinds[1]}"
    if len(theirs.classes) != len(ours.classes):
        return f"it knows {len(theirs.classes)} {theirs.nouns}, this run's data have {len(ours.classes)}"
    one, other = next(pair for pair in zip(theirs.classes, ours.classes, strict=True) if pair[0] != pair[1])
    return f"it knows other {theirs.nouns}, or the same in another order ({one} where this run's data have {other})"
