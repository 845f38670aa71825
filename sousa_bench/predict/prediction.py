"""The files that a command line names, the model's answer for each, and the table, JSON or CSV that people read."""

from __future__ import annotations

import argparse
import csv
import glob
import itertools
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousa_bench.analysis.tested_model import about_model
from sousa_bench.inference.answer import (
    LIKELY,
    NONE,
    SCHEMA_VERSION,
    STATUS_TEXT,
    TOP,
    Answer,
    class_texts,
    doubt,
    marked,
    percent,
    stretch_text,
)
from sousa_bench.results.finished import refuse_absent
from sousa_bench.system.files import is_there
from sousa_bench.system.foreign import clean
from sousa_bench.task import Task

if TYPE_CHECKING:
    from sousa_bench.inference.listener import Listener
    from sousa_bench.inference.predictor import Predictor

NAME_WIDTH = 44
MARGIN = "  "
SPELT = {True: "true", False: "false", None: None}
SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64")
)
"""What is taken from a folder; a file that is named itself is read whatever it is called."""


def predict(options: argparse.Namespace) -> int:
    """Answer for every file; the exit code is 1 where one failed.

    Args:
        options: The command line's, see :func:`sousa_bench.predict.__main__.parser`.

    Raises:
        UserError: The run can't be opened, or the windows can't be.
    """
    files, problems = find_files(options.files)
    if not files and not (options.json or options.csv):  # no model is loaded to say so
        return _print_table(_failed(problems, Task(())), Names(None, 0), options.top)
    if options.run is not None:
        refuse_absent(options.run)  # before the seconds that torch takes
    listener = _listener(options)
    task = listener.predictor.task
    answers = itertools.chain(_failed(problems, task), map(listener.answer, files))
    if options.json:
        document = _document(listener, answers, options.top)
        print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
        return int(any(answer["status"] == "error" for answer in document["files"]))
    if options.csv:
        return _print_csv(answers, task)
    names = replace(Names.of(files), class_width=max(len(task.display(name)) for name in task.classes))
    print(clean(f"{model_lines(listener.predictor)}\n{heading(names, options.top, task)}"), flush=True)
    return _print_table(answers, names, options.top)


def model_lines(predictor: Predictor) -> str:
    """Which model answers, what it is made of and how good it is, and when its answers are confident."""
    lines = [model_line(predictor), about_model(predictor.run, predictor.description, predictor.task)]
    unknown = "How sure its answers are is not known, so none is marked as doubtful."
    lines.append(unknown if predictor.confidence is None else marked(predictor.confidence))
    return "\n".join(lines)


def model_line(predictor: Predictor) -> str:
    """Which model answers, and where it is from."""
    chosen = f"\n{predictor.run.chosen.capitalize()}" if predictor.run and predictor.run.chosen else ""
    return f"Model: {predictor.name} ({predictor.place}){chosen}"


def _failed(problems: Mapping[str, str], task: Task) -> list[Answer]:
    return [Answer(word, "error", task, reason=problem) for word, problem in problems.items()]


def opened(options: argparse.Namespace) -> Predictor:
    """The model that a command line names: a run's, a package's, or one before any training."""
    # Imported here: torch takes seconds, which a misspelt file name should not cost.
    from sousa_bench.inference.predictor import Predictor, device_named

    device = device_named(options.device, options.threads)
    if options.model:
        return Predictor.untrained(options.model, device)
    return Predictor.open(options.run, metric=options.metric, device=device, checkpoint=options.checkpoint)


def _listener(options: argparse.Namespace) -> Listener:
    from sousa_bench.inference.listener import Listener, Windows

    predictor = opened(options)
    return Listener(predictor, Windows.of(predictor, options.window, options.hop, options.beginning))


def _document(listener: Listener, answers: Iterable[Answer], top: int | None) -> dict[str, Any]:
    predictor, windows = listener.predictor, listener.windows
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": predictor.name,
            "place": str(predictor.place),
            "sample_rate": predictor.sample_rate,
            "max_duration": predictor.max_duration,
            "labels": list(predictor.labels),
            "about": about_model(predictor.run, predictor.description, predictor.task),
            "confidence": None if predictor.confidence is None else asdict(predictor.confidence),
        },
        "settings": {"window": windows.size, "hop": windows.hop, "beginning": windows.beginning, "top": top or TOP},
        "files": [answer.record(top) for answer in answers],
    }


def _print_table(answers: Iterable[Answer], names: Names, top: int | None) -> int:
    code = 0
    for answer in answers:
        if answer.status == "error":
            code = 1
            print(clean(f"error: {answer.file} {answer.reason}"), file=sys.stderr, flush=True)
        else:
            print(clean("\n".join(lines(answer, names, top))), flush=True)
    return code


def _print_csv(answers: Iterable[Answer], task: Task) -> int:
    """A line a file and class that it is said to hold; a file without one has one line, which says why."""
    code = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "status", task.noun, "name", "probability", "seconds", "reason", "confident"])
    for answer in answers:
        code = max(code, int(answer.status == "error"))
        seconds = None if answer.seconds is None else round(answer.seconds, 3)
        for item in answer.accepted or [{}]:
            said = (item.get(key) for key in (task.noun, "name", "probability"))
            cells = (str(answer.file), answer.status, *said, seconds, answer.reason, SPELT[item.get("confident")])
            writer.writerow([clean(cell) if isinstance(cell, str) else cell for cell in cells])
        sys.stdout.flush()
    return code


def find_files(words: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """The files that some words name, each once, in the order of the words.

    Args:
        words: Files, folders (searched to the bottom, hidden files left out), or patterns (``**`` for any depth).

    Returns:
        The files, and what is wrong with a word that names none.
    """
    files: dict[Path, None] = {}
    problems: dict[str, str] = {}
    for word in words:
        path = Path(word)
        if is_there(path) and path.is_dir():
            found = _inside(path)
            problem = "is a folder without audio files"
        elif is_there(path) or not glob.has_magic(word):
            found = [path] if is_there(path) else []
            problem = "is missing: there is no such file or folder"
        else:
            found = [Path(name) for name in sorted(glob.glob(word, recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern
            found = [file for name in found for file in (_inside(name) if name.is_dir() else [name])]
            problem = "is a pattern that no file matches"
        if not found:
            problems[word] = problem
        files |= dict.fromkeys(found)
    return list(files), problems


def _inside(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


@dataclass(frozen=True)
class Names:
    """How files are called in the table.

    Attributes:
        folder: What all of them lie in, and no line repeats; None for a single file.
        width: Of the column.
        class_width: Of the column of the classes.
    """

    folder: Path | None
    width: int
    class_width: int = 0

    @classmethod
    def of(cls, files: Sequence[Path]) -> Names:
        """Short names for some files."""
        folder = Path(os.path.commonpath([file.absolute().parent for file in files])) if len(files) > 1 else None
        folder = None if folder == Path("/") else folder  # names that no command could take
        width = max(len(cls(folder, 0).name(file)) for file in files)
        return cls(folder, min(width, NAME_WIDTH))

    def name(self, file: Path | str) -> str:
        """A file's name in its line."""
        return str(file if self.folder is None else Path(file).absolute().relative_to(self.folder))


def heading(names: Names, top: int | None, task: Task) -> str:
    """The table's first line, and where the files lie."""
    others = f"{MARGIN}then" if top != 1 else ""
    place = "" if names.folder is None else f"Files: {names.folder}\n"
    columns = f"{task.noun:{names.class_width}}{MARGIN}probability{others}"
    if task.several:
        columns = f"{task.nouns} of a probability above {percent(LIKELY)}"
    return f"{place}\n{'file':{names.width}}{MARGIN}{columns}"


def lines(answer: Answer, names: Names, top: int | None) -> list[str]:
    """An answer's lines; of a file that failed there is none here."""
    name, width = names.name(answer.file), names.width
    made = [] if len(name) <= width else [name]
    name = name if len(name) <= width else ""
    best = answer.best(top)
    if answer.status == NONE:
        made.append(f"{name:{width}}{MARGIN}{STATUS_TEXT[NONE]} (most probable: {class_texts(best)})")
    elif not best:
        made.append(f"{name:{width}}{MARGIN}{STATUS_TEXT[answer.status]} ({answer.reason})")
    elif answer.task.several:
        said = answer.accepted
        others = class_texts(best[len(said) :]) if top else ""
        made.append(f"{name:{width}}{MARGIN}{class_texts(said)}{'; then ' if others else ''}{others}")
    else:
        others = class_texts(best[1:])
        [named] = answer.accepted
        first = f"{named['name']:{names.class_width}}{MARGIN}{percent(named['probability']) + doubt(named):>11}"
        made.append(f"{name:{width}}{MARGIN}{first}{MARGIN}{others}".rstrip())
    stretches = (stretch_text(part, answer.task) for part in answer.record(top)["timeline"])
    made += [f"{MARGIN}{place:>21}{MARGIN}{text}" for place, text in stretches]
    return made + [f"{MARGIN}({note})" for note in answer.notes]
