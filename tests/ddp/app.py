"""The stand-in command whose runs take several processes; a fault strikes one rank (``+task.rank=1``)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from sousa_bench.config import conf_folder
from sousa_bench.results.result import Recorder
from sousa_bench.sweep import command_line, execute
from tests.sweep import standin

os.environ["SOUSA_CONF"] = str(conf_folder())
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "GROUP_RANK")


@hydra.main(version_base="1.3", config_path=str(Path(standin.__file__).parent / "conf"), config_name="config")
def job(cfg: DictConfig) -> float | None:
    return execute(cfg)


def run(cfg: DictConfig, folder: Path, recorder: Recorder) -> dict[str, Any]:
    rank = int(os.environ.get("RANK", "0"))
    own = folder if rank == 0 else folder / f"rank{rank}"  # the stand-in keeps its state apart; a real run doesn't
    print({name: os.environ.get(name) for name in VARIABLES}, flush=True)
    if cfg.task.get("rank", rank) != rank:
        cfg.task.fault = None
    return standin.run(cfg, own, replace(recorder, folder=own, quiet=False))


if __name__ == "__main__":
    command_line(job, target="tests.ddp.app.run", modules=["tests.sweep.standin", "hydra.core.utils"])
