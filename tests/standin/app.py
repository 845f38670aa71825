"""A command like ``sousa_bench.train`` whose runs are stand-ins."""

from __future__ import annotations

import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sousa_bench.config import conf_folder
from sousa_bench.sweep import command_line, execute

os.environ["SOUSA_CONF"] = str(conf_folder())  # the launcher, sweeper and output choices are the real ones


CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(cfg: DictConfig) -> float | None:
    return execute(cfg)


if __name__ == "__main__":
    modules = ["tests.standin.training", "hydra.core.utils"]
    command_line(job, target="tests.standin.training.run", modules=modules, conf=CONF)
