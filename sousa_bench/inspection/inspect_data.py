"""The command ``python -m sousa_bench.data``: its options, and the training that it names as the next."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.config.overrides import quoted
from sousa_bench.errors import ConfigError
from sousa_bench.system.arguments import command_parser, exit_code, number, positive


def parser() -> argparse.ArgumentParser:
    """The command line; importing it costs nothing but argparse."""
    made = command_parser(
        "sousa_bench.data",
        description="What the data of a run hold (clips, classes, groups such as players or speakers of each split; of "
        "a folder DIR also its sounds), and what difference between two methods a test on them could find, before any "
        "training.",
        epilog="Overrides of the data as in training: data=NAME, data.KEY=VALUE. Exit code 1: a training would be "
        "refused, or tested on what it learnt from.",
    )
    made.add_argument(
        "overrides", nargs="*", metavar="DIR | data…=…",
        help="a folder, which stands for data=folder data.root=DIR, and overrides of the data",
    )  # fmt: skip
    made.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with data choices of your own (DIR/data/)")
    made.add_argument(
        "--listen", action=argparse.BooleanOptionalAction,
        help="decode every clip: what is silent, clipped, damaged, or there twice (with a folder DIR: yes, else no)",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="the same facts as JSON")
    made.add_argument("--page", type=Path, metavar="FILE.html", help="the same as one page, with sounds to listen to")
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
        from sousa_bench.data.saved_task import is_sousa
        from sousa_bench.inspection.data_facts import as_json, data_of, facts
        from sousa_bench.inspection.found_blocks import found_blocks, printed
        from sousa_bench.inspection.listening import heard_clips
        from sousa_bench.inspection.next_training import next_training

        logging.basicConfig(format="%(message)s")
        logging.getLogger("sousa_bench").setLevel(logging.INFO)
        folder, overrides = _folder(options.overrides)
        data = data_of(overrides, options.config_dir)
        clips = heard_clips(data) if (folder if options.listen is None else options.listen) else data.chosen()
        found = facts(data, clips, options.luck / 100, options.methods)
        fold, folds, sousa = data.fold, found["next_folds"], is_sousa(data.task)
        found["command"] = next_training(overrides, options.config_dir, fold, folds, sousa)
        if options.page is not None:
            from sousa_bench.inspection.data_page import write_page

            write_page(options.page, data, clips, found_blocks(found))
        print(json.dumps(as_json(found), indent=2) if options.json else printed(found_blocks(found)))
        return 1 if found["refused"] else 0

    return exit_code(work, refused=lambda error: 2 if isinstance(error, ConfigError) else 1)


def _folder(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether a folder is among the words, and the overrides that they stand for."""
    folders = [word for word in words if "=" not in word or Path(word).is_dir()]
    overrides = [word for word in words if word not in folders]
    if len(folders) > 1:
        raise ConfigError(f"{' and '.join(folders)}: this command inspects one folder; give it once for each.")
    for folder in folders:
        root = folder if "/" in folder else f"./{folder}"
        named = any(word.startswith("data=") for word in overrides)
        overrides = [*([] if named else ["data=folder"]), f"data.root={quoted(root)}", *overrides]
    return bool(folders), overrides
