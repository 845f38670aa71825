"""The analysis from start to end: read, compare, write, print; and again while runs arrive."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path

from sousa_bench.analysis.flatten import read_row
from sousa_bench.analysis.report.blocks import Options
from sousa_bench.analysis.report.clip_sounds import ClipSounds, clip_sounds
from sousa_bench.analysis.report.markdown import markdown
from sousa_bench.analysis.report.printed import answer_lines, render, wrapped
from sousa_bench.analysis.report.sections import counts, find_section, report
from sousa_bench.analysis.study import Study, compare
from sousa_bench.analysis.table import Filter, collect
from sousa_bench.analysis.table_files import write_tables, write_text
from sousa_bench.errors import UserError
from sousa_bench.results.result import DEAD, ResultError
from sousa_bench.results.scan import ROOT_NAMES, NothingYetError, latest_place, scan, snapshot, sweep_folders
from sousa_bench.system.text_table import amount, redraw

MAX_SAID = 4
ROOT = Path(ROOT_NAMES[0])
ANALYZE = "python -m sousa_bench.analyze"


def analyze(options: argparse.Namespace) -> Study:
    """Run the analysis that the command line ``options`` ask for, PNG files included.

    Raises:
        UserError: Nothing was found, nothing is left, or nothing can be written.
    """
    if not options.folders:
        options.folders = [latest_place()]
        if not any(options.folders[0].glob("*")):
            raise UserError(
                f"nothing has been trained yet: {ROOT}/ and {ROOT_NAMES[1]}/ hold no run; begin with "
                "python -m sousa_bench.train -m model=ast,htsat peft=lora,ia3, or name a folder with results"
            )
        if (more := sum(1 for _ in sweep_folders(ROOT)) - 1) > 0:
            others = f"another sweep lies below {ROOT}" if more == 1 else f"{more} other sweeps lie below {ROOT}"
            said = f"{options.folders[0]} is the latest; {others}, and all go into: {ANALYZE} {ROOT}"
            print(wrapped(said), file=sys.stderr)
    return _once(options, images=not (options.no_plots or options.no_images))


def watch(options: argparse.Namespace) -> None:
    """Write table and page anew whenever a result changes or a run dies, until nothing more will come.

    Raises:
        UserError: As ``analyze``, except that what is not there yet is waited for while it can still come.
    """
    seen: object = None
    study: Study | None = None
    named = list(options.folders)
    while True:
        if study is None:
            options.folders = named or [latest_place()]
        now = snapshot(options.folders)
        try:
            if now != seen or (study and _died(study)):
                seen, study = now, None
                study = _once(options, refresh=options.interval)
        except NothingYetError as error:
            print(f"waiting: {error}", file=sys.stderr)
        if study and study.results.over():
            if left := len(study.results.waiting()):
                print(f"the process of the sweep is gone; {amount(left, 'planned run')} never started", file=sys.stderr)
            analyze(options)
            return
        if study is None:
            if _over(options):
                analyze(options)  # says what is missing
                return
            _refuse_dead(options)
        try:
            time.sleep(options.interval)
        except KeyboardInterrupt:
            if study:
                _once(options)
            raise


def _over(options: argparse.Namespace) -> bool:
    """Whether there are runs, whatever the filters want, and nothing more will come."""
    try:
        return collect(options.folders, (), options.results_root, skip=[_output(options)]).over()
    except NothingYetError:
        return False


def _refuse_dead(options: argparse.Namespace) -> None:
    """A sweep that is gone before its first result leaves nothing to wait for.

    Raises:
        UserError: Manifests plan runs, none has a result, and no process of theirs lives.
    """
    folders = [folder for folder in options.folders if folder.exists()]
    found = scan(folders, options.results_root, skip=[_output(options)])
    jobs = [job for job in found.planned if job.decision not in ("refused", "skipped")]
    if found.files or not found.planned or any(job.may_start() for job in jobs):
        return
    names = ", ".join(dict.fromkeys(job.sweep for job in found.planned))
    if not jobs:
        raise UserError(
            f"sweep {names}: none of its {len(found.planned)} runs can be started: {found.planned[0].reason}"
        )
    raise UserError(
        f"sweep {names}: its process is gone before the first result, and {amount(len(jobs), 'planned run')} never "
        "started; start it again with the same command, it goes on where it was"
    )


def _died(study: Study) -> bool:
    """Whether a run that went on has lost its process since, which changes no file."""
    for path in study.table.loc[study.table["status"] == "running", "path"]:
        with suppress(ResultError):
            if read_row(Path(path)).fields["status"] == DEAD:
                return True
    return False


def _once(options: argparse.Namespace, refresh: float = 0, images: bool = False) -> Study:
    """Everything, the PNG files where ``images`` are wanted; ``refresh`` makes the page load itself again."""
    output = _output(options)
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"--data {options.data}: there is no such folder; name the one that holds the clips")
    own = [find_section(name) for name in options.section]
    results = collect(options.folders, filters(options), options.results_root, skip=[output])
    study = compare(results, options.metric, options.margin / 100)
    write_tables(study, output)
    sounds = ClipSounds() if options.no_plots else clip_sounds(study, options.data)
    blocks = report(study, Options(options.top, options.min_accuracy, not options.no_plots, sounds), own)
    write_text(output / "summary_report.md", markdown("Summary of the comparison", blocks))
    if not options.no_plots:
        from sousa_bench.analysis.report.html_page import page

        title = f"{options.folders[0].resolve().name} · sousa_bench report"
        write_text(output / "report.html", page(study, blocks, title, refresh))
    text = render(study, options.format)
    redraw(text) if options.watch else print(text, flush=True)
    if images:
        _images(study, output)
    for problem in sounds.problems:
        print(wrapped(f"--data {options.data}: no sound from there: {problem}"), file=sys.stderr)
    _say(study, output, "summary_report.md" if options.no_plots else "report.html")
    return study


def _images(study: Study, output: Path) -> None:
    from sousa_bench.analysis.plots import all_plots
    from sousa_bench.analysis.report.images import write_images

    if word := write_images(list(all_plots(study, page=False)), output / "plots"):
        print(word, file=sys.stderr)


def _say(study: Study, output: Path, report: str) -> None:
    """On the error stream, since a script reads the other: what was passed over, notes, the answer, the report."""
    summary = output / "summary_report.md"
    for title, lines in (
        ("passed over", study.results.problems),
        ("does not count", study.results.repeats),
        ("note", study.notes),
    ):
        for line in lines[:MAX_SAID]:
            print(wrapped(f"{title}: {line}"), file=sys.stderr)
        if len(lines) > MAX_SAID:
            print(f"{title}: … and {len(lines) - MAX_SAID} more, in {summary}", file=sys.stderr)
    number = ", ".join(f"{value} {key}" for key, value in counts(study.results).items() if value)
    print(f"{answer_lines(study)}\n{number}. Report: {output / report}", file=sys.stderr)


def _output(options: argparse.Namespace) -> Path:
    first: Path = options.folders[0]
    return options.output_dir or (first if first.is_dir() else first.parent) / "analysis"


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
