"""Completed runs on a few synthetic clips, and a package of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.config.instantiate import build
from sousa_bench.data.datamodule import Clips
from sousa_bench.export.__main__ import main
from sousa_bench.results.result import write_result
from sousa_bench.training.run import SAMPLE_RATES, run
from tests.trained import home

SMALL = [
    "data.synthetic.clips=60",
    "data.synthetic.split_players=[20,10,10]",
    "trainer.max_epochs=1",
    "trainer.batch_size=8",
    "trainer.progress=false",
    "logger=none",
]


@dataclass(frozen=True)
class Finished:
    """A completed run and its config."""

    folder: Path
    cfg: DictConfig

    def test_clips(self) -> list[np.ndarray]:
        """(samples,) int16 of each test clip, in the order of the predictions."""
        data = build(self.cfg.data)
        data.prepare(SAMPLE_RATES)
        rate = 16_000 if self.cfg.model.name in ("ast", "beats") else 32_000
        clips = Clips(data, "test", rate, self.cfg.data.quantum)
        return [np.array(clips.store.read(i)) for i in range(len(clips))]

    def predictions(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "predictions.parquet")


@pytest.fixture(scope="session")
def finish() -> Iterator[Callable[..., Finished]]:
    """Train a combination once, in whichever process wants it, and leave what the command would leave."""
    root = home() / "export"
    root.mkdir(exist_ok=True)
    patch = pytest.MonkeyPatch()
    patch.setenv("SOUSA_BENCH_CACHE", str(home() / "clips"))
    torch.set_num_threads(1)
    OmegaConf.register_new_resolver("sousa_run", lambda root: root, replace=True)
    OmegaConf.register_new_resolver("sousa_name", lambda: "run", replace=True)

    def make(model: str, peft: str, *overrides: str) -> Finished:
        name = "_".join((model, peft, *overrides)).replace("=", "").replace("/", "")
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            cfg = compose("config", overrides=[*SMALL, f"model={model}", f"peft={peft}", *overrides])
        folder = root / name
        with FileLock(root / f"{name}.lock"):
            if not (folder / "result.json").exists():
                train(folder, cfg, overrides)
        return Finished(folder, cfg)

    yield make
    patch.undo()


def train(folder: Path, cfg: DictConfig, overrides: tuple[str, ...]) -> None:
    config = {
        "model": cfg.model.name,
        "strategy": cfg.peft.name,
        "augmentation": True,
        "data": "synthetic",
        "max_epochs": 1,
        "seed": 42,
    }
    write_result(
        folder,
        {
            **run(cfg, folder),
            "experiment_id": folder.name,
            "config": config,
            "status": "completed",
            "error": None,
            "timestamp": "2026-02-01T10:30:00",
            "git_commit": "0" * 40,
            "command": "python -m sousa_bench.train " + " ".join(overrides),
            "resolved_config": OmegaConf.to_container(cfg, resolve=True),
        },
    )


@pytest.fixture(scope="session")
def finished(finish: Callable[..., Finished]) -> Finished:
    """The smallest network, with adapters and at 32 kHz."""
    return finish("efficientat", "lora")


@pytest.fixture(scope="session")
def package(finished: Finished) -> Path:
    folder = home() / "export" / "packages" / "package"
    with FileLock(home() / "export" / "package.lock"):
        assert folder.exists() or main([str(finished.folder), str(folder)]) == 0
    return folder
