"""The present command line: older spellings that it may use, and commands that repeat what stands in it."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sousa_bench.config.overrides import split

CONFIG_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")


def spell_augmentation(argv: list[str]) -> None:
    """Let ``augmentation=true|false``, the older runner's spelling, mean ``on|off``."""
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if key == "augmentation" and equals:
            argv[place] = f"{key}=" + ",".join(
                {"true": "on", "false": "off"}.get(choice.strip().lower(), choice) for choice in value.split(",")
            )


def spell_search(argv: list[str]) -> None:
    """Let ``search=lora``, or ``+search=lora``, be enough: a space of a search goes to the sweeper that searches."""
    asked = [place for place, word in enumerate(argv) if word.lstrip("+").startswith("search=")]
    for place in asked:
        argv[place] = argv[place].lstrip("+")
    if any(argv[place] != "search=null" for place in asked) and not any(w.startswith("hydra/sweeper=") for w in argv):
        argv.insert(asked[-1] + 1, "hydra/sweeper=optuna")  # beside it, since Hydra takes none behind a flag


def hydra_overrides() -> list[str]:
    """Overrides of the present command that tell Hydra where runs go and how they are launched.

    What belongs to the sweeper is left out: it says which runs there are, and a run's own command names one.
    """
    words = [word for word in sys.argv[1:] if word.startswith(("hydra.", "hydra/"))]
    return [word for word in words if not word.startswith(("hydra.sweeper", "hydra/sweeper"))]


def config_flags() -> list[str]:
    """Flags of the present command that choose where configs come from."""
    found, words = [], iter(sys.argv[1:])
    for word in words:
        if word.partition("=")[0] in CONFIG_FLAGS:
            found.append(word)
            if "=" not in word:
                found.append(next(words, ""))
    return found


def config_folders() -> list[Path]:
    """The folder of the user's own choices, ``--config-dir``, where there is one."""
    words = [part for flag in config_flags() for part in flag.split("=", 1)]
    return [Path(value) for flag, value in itertools.pairwise(words) if flag in ("--config-dir", "-cd")]


def run_command(overrides: Sequence[str], sweep: str | None) -> str:
    """The shell command that does one run of a sweep again, in that sweep's folder (None: as a single run)."""
    not_again = ("sweep", "force", "resume", "hydra.sweep.subdir")
    words = ["-m", f"sweep={sweep}"] if sweep is not None else []
    words += [override for override in overrides if split(override)[0] not in not_again]
    return shlex.join(["python", "-m", "sousa_bench.train", *config_flags(), *words])


def resume_command(name: str) -> str:
    """The command that goes on with the sweep of that name."""
    words = [word for word in sys.argv[1:] if word.partition("=")[0] not in ("sweep", "resume", "force")]
    if "-m" not in words and "--multirun" not in words:
        words.insert(0, "-m")
    return shlex.join(["python", "-m", "sousa_bench.train", *words, f"sweep={name}"])
