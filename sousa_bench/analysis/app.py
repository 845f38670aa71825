"""The analysis from start to end: read, compare, write, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sousa_bench.analysis.console import render
from sousa_bench.analysis.files import write_frame, write_tables
from sousa_bench.analysis.study import Study, compare
from sousa_bench.analysis.table import Filter, collect
from sousa_bench.errors import UserError


def analyze(options: argparse.Namespace) -> Study:
    """Run the analysis that the command line ``options`` ask for.

    Raises:
        UserError: Nothing was found, nothing is left, or nothing can be written.
    """
    folders = options.folders or [Path("multirun")]
    output = options.output_dir or (folders[0] if folders[0].is_dir() else folders[0].parent) / "analysis"
    results = collect(folders, filters(options), options.results_root, skip=[output])
    study = compare(results, options.metric)
    write_tables(study.table, output)
    if len(study.pairs):
        write_frame(study.pairs, output / "comparisons.csv")
    print(render(study, options.format))
    for problem in results.problems[:10]:
        print(f"passed over: {problem}", file=sys.stderr)
    return study


def filters(options: argparse.Namespace) -> list[Filter]:
    """The filters of the command line as keys and accepted values.

    Raises:
        UserError: ``--filter`` without ``KEY=VALUE``.
    """
    made: list[Filter] = []
    for key, name in (("model", "models"), ("strategy", "strategies"), ("status", "status")):
        if values := getattr(options, f"filter_{name}"):
            made.append((key, [part for value in values for part in value.split(",")]))
    if options.filter_augmentation:
        made.append(("augmentation", [options.filter_augmentation]))
    for text in options.filter:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UserError(f"--filter {text}: write KEY=VALUE, such as --filter peft.r=8")
        made.append((key.strip(), [part.strip() for part in value.split(",")]))
    return made
