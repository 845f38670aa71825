"""The training command: ``python -m sousa_bench.train [-m] [key=value …]``."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from sousa_bench.paths import conf_folder
from sousa_bench.sweep import command_line, execute


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _job(cfg: DictConfig) -> float | None:
    return execute(cfg)


def main() -> None:
    """Entry point: Hydra composes, the sweep package supervises, the exit code tells the outcome."""
    command_line(_job)


if __name__ == "__main__":
    main()
