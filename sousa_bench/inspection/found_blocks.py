"""What was found, as blocks: printed, or a part of the page."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sousa_bench.analysis.columns import Column
from sousa_bench.analysis.report.blocks import Block, Command, Details, Heading, Items, Table, Text
from sousa_bench.analysis.report.what_it_takes import TO_FIND, needs
from sousa_bench.task import Task, counted

WIDTH = 120


def found_blocks(found: Mapping[str, Any]) -> list[Block]:
    """The facts in the order in which they are told.

    Args:
        found: From ``data_facts.facts``, with the next ``command``.
    """
    task = Task.from_dict(found["task"], "the data")
    notes = [f"warning: {message}" for message in found["warnings"]]
    notes += [f"error: {message}" for message in found["refused"]]
    return [
        Heading("What the data hold", short="Data"),
        Text([f"data={found['name']}: {found['place']}"]),
        *([Items([f"  {key}: {value}" for key, value in found["understood"].items()])] if found["understood"] else []),
        Table(_split_columns(task, found), found["splits"]),
        *([Items(notes, notes=True)] if notes else []),
        Details("Clips of each class", [Table(_class_columns(task), found["classes"])]),
        *(_sounds(found["sounds"], found["windows"]) if found["sounds"] else []),
        Heading("What a test could find", short="Test"),
        *(_reach(found, task) if found["finds"] else [Text([found["why_no_test"]])]),
        *([] if found["refused"] else _next(found)),
    ]


def printed(blocks: Sequence[Block]) -> str:
    """Blocks as text for a terminal; headings and what is folded up on the page are left out."""
    parts: list[str] = []
    for block in blocks:
        match block:
            case Text(lines):
                parts += ["", *(part for line in lines for part in _wrapped(str(line)))]
            case Items(lines):
                parts += map(str, lines)
            case Table():
                parts += ["", *("  " + "  ".join(row).rstrip() for row in block.aligned(lambda text: text))]
            case Command(lines):
                parts += [f"  {line}" for line in lines]
    return "\n".join(parts[1:])


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)


def _sounds(sounds: Mapping[str, Any], windows: int | str | None) -> list[Block]:
    rates = [f"{int(rate):,} Hz ({count:,})" for rate, count in sounds["sample_rates"].items()]
    channels = [f"{number} ({count:,})" for number, count in sounds["channels"].items()]
    said = [f"{sounds['heard']:,} clips could be heard, {sounds['seconds']:,.0f} s in all."]
    if sounds["lengths"]:
        low, middle, high = sounds["lengths"]
        said.append(f"They last {low:g} to {high:g} s, {middle:g} s in the middle.")
    if sounds["longer"]:
        heard = (
            "their beginnings are heard (data.windows=all hears them whole)"
            if windows is None
            else f"they are heard by data.windows={windows}"
        )
        said.append(f"{sounds['longer']:,} are longer than data.max_duration={sounds['max_duration']:g}: {heard}.")
    said += [f"Sample rates: {', '.join(rates)}.", f"Channels: {', '.join(channels)}."] if rates else []
    return [Heading("How they sound", short="Sounds"), Text([" ".join(said)]), *_details(sounds)]


def _details(sounds: Mapping[str, Any]) -> list[Block]:
    """The clips that something is to be said of, as far as they are listed."""
    bad = [row for kind in sounds["bad"].values() for row in kind["clips"]]
    clipped = [{"clip": name} for name in sounds["clipped"]["clips"]]
    again = [group for found in sounds["duplicates"]["across"].values() for group in found["sounds"]]
    again += [group for group in sounds["duplicates"]["within"]["sounds"] if group not in again]
    rows = [{"sound": number} | row for number, group in enumerate(again, 1) for row in group]
    clip, sound = Column("clip", "clip", text=True), Column("sound", "sound", ".0f")
    told = {
        "Clips that can't be used": ([clip, Column("reason", "what is wrong", text=True)], bad),
        "Clipped": ([clip], clipped),
        "The same sound more than once": (
            [sound, clip, Column("split", "split", text=True), Column("class", "class", text=True)],
            rows,
        ),
    }
    return [Details(title, [Table(columns, rows)]) for title, (columns, rows) in told.items() if rows]


def _reach(found: Mapping[str, Any], task: Task) -> list[Block]:
    assumed = found["assumed"]
    differ = f"from {task.group} to {task.group}" + (" and clip to clip" if task.grouped else "")
    return [
        Text(
            [
                f"What a test on these clips could find with power {found['power']:g}. Nothing is trained yet, so this "
                f"assumes that trainings of one method differ by {assumed['luck_points']:g} points, and methods "
                f"{differ} as on data=synthetic (docs/data.md).",
                f"In brackets: among all pairs of {assumed['methods']} methods.",
            ]
        ),
        Table(_find_columns(), found["finds"]),
        Table(_need_columns(found, task), found["needs"]),
    ]


def _next(found: Mapping[str, Any]) -> list[Block]:
    why = "With one seed a verdict is on the trained models alone. So ask for three:"
    folds = f", in folds that test every {found['task']['group']}" if found["next_folds"] else ""
    return [
        Heading("The next command", short="Next"),
        Text([why if found["finds"] else f"To train on these data{folds}:"]),
        Command([found["command"]]),
    ]


def _split_columns(task: Task, found: Mapping[str, Any]) -> list[Column]:
    columns = [Column("split", "split", text=True), Column("clips", "clips", ",.0f")]
    if found["sounds"]:
        columns.append(Column("seconds", "seconds", ",.0f"))
    if task.grouped:
        columns.append(Column("players", task.groups, ",.0f"))
    columns.append(Column("classes", "classes", ".0f"))
    if task.grouped:
        columns.append(Column("clips_a_player", f"clips a {task.group}", _range("clips_a_player")))
    return [*columns, Column("clips_a_class", "clips a class", _range("clips_a_class"))]


def _range(key: str) -> Callable[[Mapping[Any, Any]], str]:
    return lambda row: "{} to {}".format(*row[key])


def _class_columns(task: Task) -> list[Column]:
    return [Column("name", task.noun, text=True), *(Column(key, key, ",.0f") for key in ("train", "val", "test"))]


def _find_columns() -> list[Column]:
    return [
        Column("contrast", "difference of", text=True),
        Column("seeds", "seeds", ".0f"),
        Column("error", "standard error", ".2f", divide=0.01, unit=" points"),
        Column("least", "found", lambda row: f"{100 * row['least']:.1f} ({100 * row['least_all']:.1f}) points"),
        Column("about", "about", text=True),
    ]


def _need_columns(found: Mapping[str, Any], task: Task) -> list[Column]:
    columns = [
        Column("contrast", "difference of", text=True),
        TO_FIND,
        Column("seeds", "seeds", lambda row: needs(row, "seeds")),
        Column("players", f"{task.groups}, with 3 seeds", lambda row: needs(row, "players")),
    ]
    if found["folds"]:
        label = f"seeds a fold, {found['folds']} folds with {counted(found['everyone'], task.group)}"
        columns.append(Column("seeds_in_folds", label, lambda row: needs(row, "seeds_in_folds")))
    return columns
