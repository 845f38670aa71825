"""Runs in this process on a few synthetic clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.config.composing import remember_files
from tests.trained import home

SMALL = [
    "weights=random",
    "data.synthetic.clips=40",
    "data.synthetic.split_players=[20,10,20]",
    "trainer.max_epochs=3",
    "trainer.batch_size=4",
    "trainer.progress=false",
    "logger=none",
]


@pytest.fixture
def config(monkeypatch):
    """Compose the real config with overrides, cut down to seconds; the cache of clips is one for all tests."""
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(home() / "clips"))
    torch.set_num_threads(1)
    OmegaConf.register_new_resolver("sousa_run", lambda root: root, replace=True)
    OmegaConf.register_new_resolver("sousa_name", lambda: "run", replace=True)

    def build(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            remember_files(GlobalHydra.instance().config_loader())
            return compose("config", overrides=[*SMALL, *overrides])

    return build


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run's folder."""
    return tmp_path / "run"
