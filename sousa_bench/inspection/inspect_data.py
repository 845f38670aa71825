"""The command ``python -m sousa_bench.data``: its words, and what it prints."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousa_bench.errors import ConfigError
from sousa_bench.system.arguments import exit_code, number, positive

if TYPE_CHECKING:
    from sousa_bench.analysis.report.blocks import Table

TRAIN = "python -m sousa_bench.train -m experiment=comparison"


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = argparse.ArgumentParser(
        prog="python -m sousa_bench.data",
        description="What the data of a run hold (clips, players, classes of each split), and what difference between "
        "two methods a test on them could find, before any training. Decodes nothing.",
        epilog="Overrides of the data as in training: data=NAME, data.KEY=VALUE. Exit code 1: a training would be "
        "refused.",
    )
    made.add_argument("overrides", nargs="*", metavar="data…=…", help="the data, such as data=tiny data.root=FOLDER")
    made.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with data choices of your own (DIR/data/)")
    made.add_argument("--json", action="store_true", help="the same facts as JSON")
    assumed = made.add_argument_group("what is assumed")
    assumed.add_argument(
        "--luck", type=number(0, 99.9, "number of points"), default=0.7, metavar="POINTS",
        help="standard deviation between trainings of one method (0.7)",
    )  # fmt: skip
    assumed.add_argument(
        "--methods", type=positive, default=24, metavar="N", help="methods that are compared with one another (24)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 with one message, or 2 for a config that can't be."""
    options = parser().parse_intermixed_args(arguments)

    def work() -> int:
        from sousa_bench.inspection.data_facts import facts

        logging.basicConfig(format="%(message)s")
        logging.getLogger("sousa_bench").setLevel(logging.INFO)
        found = facts(options.overrides, options.config_dir, options.luck / 100, options.methods)
        print(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found, options.overrides)))
        return 1 if found["refused"] else 0

    return exit_code(work, refused=lambda error: 2 if isinstance(error, ConfigError) else 1)


def _lines(found: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    from sousa_bench.analysis.report.blocks import Table

    lines = [f"data={found['name']}: {found['place']}", "", *_printed(Table(_split_columns(), found["splits"]))]
    lines += [f"warning: {message}" for message in found["warnings"]]
    lines += [f"error: {message}" for message in found["refused"]]
    if not found["finds"]:
        return [*lines, "", found["why_no_test"]]
    assumed = found["assumed"]
    lines += [
        "",
        f"What a test on these clips could find with power {found['power']:g}. Nothing is trained yet, so this assumes",
        f"that trainings of one method differ by {assumed['luck_points']:g} points, and methods from player to player",
        "and clip to clip as on data=synthetic (docs/data.md).",
        f"In brackets: among all pairs of {assumed['methods']} methods.",
        "",
        *_printed(Table(_find_columns(), found["finds"])),
        "",
        *_printed(Table(_need_columns(found), found["needs"])),
        "",
        "With one seed a verdict is on the trained models alone. So ask for three:",
        f"  {TRAIN} seed=1,2,3 {shlex.join(_all_folds(overrides, found['fold']))}".rstrip(),
    ]
    return lines


def _all_folds(overrides: Sequence[str], fold: str | None) -> list[str]:
    """The overrides, with every fold in place of one: only all of them test every player."""
    if fold is None:
        return list(overrides)
    count = int(fold.rpartition("/")[2])
    every = ",".join(f"{number}/{count}" for number in range(1, count + 1))
    return [f"{key}={every}" if (key := word.partition("=")[0]) == "data.fold" else word for word in overrides]


def _printed(table: Table) -> list[str]:
    return ["  " + "  ".join(row).rstrip() for row in table.aligned(lambda text: text)]


def _split_columns() -> list[Any]:
    from sousa_bench.analysis.columns import Column

    return [
        Column("split", "split", text=True),
        Column("clips", "clips", ",.0f"),
        Column("players", "players", ",.0f"),
        Column("classes", "classes", ".0f"),
        Column("clips_a_player", "clips a player", lambda row: "{} to {}".format(*row["clips_a_player"])),
        Column("clips_a_class", "clips a class", lambda row: "{} to {}".format(*row["clips_a_class"])),
    ]


def _find_columns() -> list[Any]:
    from sousa_bench.analysis.columns import Column

    return [
        Column("contrast", "difference of", text=True),
        Column("seeds", "seeds", ".0f"),
        Column("error", "standard error", ".2f", divide=0.01, unit=" points"),
        Column("least", "found", lambda row: f"{100 * row['least']:.1f} ({100 * row['least_all']:.1f}) points"),
        Column("about", "about", text=True),
    ]


def _need_columns(found: Mapping[str, Any]) -> list[Any]:
    from sousa_bench.analysis.columns import Column
    from sousa_bench.analysis.report.what_it_takes import TO_FIND, needs

    columns = [
        Column("contrast", "difference of", text=True),
        TO_FIND,
        Column("seeds", "seeds", lambda row: needs(row, "seeds")),
        Column("players", "players, with 3 seeds", lambda row: needs(row, "players")),
    ]
    if found["folds"]:
        label = f"seeds a fold, {found['folds']} folds with {found['everyone']} players"
        columns.append(Column("seeds_in_folds", label, lambda row: needs(row, "seeds_in_folds")))
    return columns
