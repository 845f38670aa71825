"""The training command: ``python -m sousa_bench.train [-m] [key=value …]``."""

from __future__ import annotations

import logging
import sys

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from sousa_bench.config import conf_folder
from sousa_bench.sweep import command, execute
from sousa_bench.system.arguments import VERSION


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _job(cfg: DictConfig) -> float | None:
    return execute(cfg)


def main() -> None:
    """Entry point: Hydra composes, the sweep package supervises, the exit code tells the outcome."""
    sys.exit(train())


def train() -> int:
    """Do what ``sys.argv`` asks for; the exit code, see :func:`sousa_bench.sweep.command`."""
    for name in ("httpx", "httpx2"):  # the hub's client would tell of each request
        logging.getLogger(name).setLevel(logging.WARNING)
    if "--version" in sys.argv[1:]:  # Hydra would tell its own
        print(VERSION)
        return 0
    sys.argv[1:] = in_order(sys.argv[1:])
    return command(_job)


def in_order(words: list[str]) -> list[str]:
    """The arguments with ``-m`` first, since Hydra takes no flag behind an override.

    Raises:
        SystemExit: ``-m`` together with ``--cfg``, which shows the config of one run; an override with dashes.
    """
    flags = list(get_args_parser()._option_string_actions)
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("-") and equals and not any(flag.startswith(name) for flag in flags):
            key = name.lstrip("-")
            print(f"Error: {word}: write {key}={value}, without dashes", file=sys.stderr)
            raise SystemExit(2)
        if name.startswith("--") and not any(flag.startswith(name) for flag in flags):
            print(f"Error: {word}: there is no such flag; write key=value to change the config", file=sys.stderr)
            raise SystemExit(2)
    several = [word for word in words if word in ("-m", "--multirun")]
    if several and any(word in ("-c", "--cfg") or word.startswith("--cfg=") for word in words):
        print("Error: --cfg shows the config of one run: leave out -m and give each key one value", file=sys.stderr)
        raise SystemExit(2)
    return [*several[:1], *(word for word in words if word not in several)]


if __name__ == "__main__":
    main()
