"""Completed runs on a few synthetic clips, and a package of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.config.instantiate import build
from sousa_bench.data.datamodule import Clips
from sousa_bench.export.__main__ import main
from sousa_bench.results.result import write_result
from sousa_bench.training.run import SAMPLE_RATES, run

SMALL = [
    "data.synthetic.clips=60",
    "data.synthetic.split_players=[20,10,10]",
    "trainer.max_epochs=1",
    "trainer.batch_size=8",
    "trainer.progress=false",
    "logger=none",
]
MADE: dict[str, Finished] = {}
"""What was trained already in this session, whichever folder's tests wanted it."""


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
def finish(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Finished]]:
    """Train a combination in this process, and leave what the command would leave."""
    root = tmp_path_factory.mktemp("export")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOUSA_BENCH_CACHE", str(root / "cache"))
    torch.set_num_threads(1)
    OmegaConf.register_new_resolver("sousa_run", lambda root: root, replace=True)
    OmegaConf.register_new_resolver("sousa_name", lambda: "run", replace=True)

    def make(model: str, peft: str, *overrides: str) -> Finished:
        name = "_".join((model, peft, *overrides)).replace("=", "").replace("/", "")
        if name not in MADE:
            with initialize_config_dir(str(conf_folder()), version_base="1.3"):
                cfg = compose("config", overrides=[*SMALL, f"model={model}", f"peft={peft}", *overrides])
            folder = root / name
            config = {
                "model": model,
                "strategy": peft,
                "augmentation": True,
                "data": "synthetic",
                "max_epochs": 1,
                "seed": 42,
            }
            write_result(
                folder,
                {
                    **run(cfg, folder),
                    "experiment_id": name,
                    "config": config,
                    "status": "completed",
                    "error": None,
                    "timestamp": "2026-02-01T10:30:00",
                    "git_commit": "0" * 40,
                    "command": "python -m sousa_bench.train " + " ".join(overrides),
                    "resolved_config": OmegaConf.to_container(cfg, resolve=True),
                },
            )
            MADE[name] = Finished(folder, cfg)
        return MADE[name]

    yield make
    patch.undo()


@pytest.fixture(scope="session")
def finished(finish: Callable[..., Finished]) -> Finished:
    """The smallest network, with adapters and at 32 kHz."""
    return finish("efficientat", "lora")


@pytest.fixture(scope="session")
def package(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "made" / "package"
    assert main([str(finished.folder), str(folder)]) == 0
    return folder
