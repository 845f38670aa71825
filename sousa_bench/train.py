"""The training command: ``python -m sousa_bench.train [-m] [key=value …]``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sousa_bench.paths import conf_folder
from sousa_bench.sweep import command, completed_folders, execute


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _job(cfg: DictConfig) -> float | None:
    return execute(cfg)


def main() -> None:
    """Entry point: Hydra composes, the sweep package supervises, the exit code tells the outcome."""
    code, _ = train()
    sys.exit(code)


def train() -> tuple[int, list[Path]]:
    """Do what ``sys.argv`` asks for.

    Returns:
        The exit code of the command, and the folders of its completed runs, of those too that an earlier one completed.
    """
    for name in ("httpx", "httpx2"):  # the hub's client would tell of each request
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.argv[1:] = in_order(sys.argv[1:])
    code = command(_job)
    return code, completed_folders()


def in_order(words: list[str]) -> list[str]:
    """The arguments with ``-m`` first, since Hydra takes no flag behind an override.

    Raises:
        SystemExit: ``-m`` together with ``--cfg``, which shows the config of one run.
    """
    several = [word for word in words if word in ("-m", "--multirun")]
    if several and any(word in ("-c", "--cfg") or word.startswith("--cfg=") for word in words):
        print("Error: --cfg shows the config of one run: leave out -m and give each key one value", file=sys.stderr)
        raise SystemExit(2)
    return [*several[:1], *(word for word in words if word not in several)]


if __name__ == "__main__":
    main()
