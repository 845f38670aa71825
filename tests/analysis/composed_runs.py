"""Folders of results whose runs the real sweeper planned from the real configs; only what they found is made up."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.config.composing import compose, remember_files
from sousa_bench.results.result import PREDICTIONS_FILE
from sousa_bench.sweep import record
from sousa_bench.sweep.job import Job
from sousa_bench.sweep.sweep import plan_sweep
from tests.analysis.synthetic import Clips, result, write_predictions

SHORT = ("data=synthetic", "data.synthetic.clips=60", "data.synthetic.split_players=[2,2,8]")
"""Data that are identified at once."""
CLIPS = Clips.make(players=8, per_player=5)


@contextmanager
def config_loader() -> Iterator[ConfigLoader]:
    """Hydra's, on the real configs, each of which is read once."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        remember_files(loader)
        yield loader


def jobs_of(words: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of ``python -m sousa_bench.train WORDS``, by the real sweeper."""
    words = [word for word in words if word != "-m"]
    with config_loader() as loader:
        master = loader.load_configuration("config", list(words), run_mode=RunMode.MULTIRUN)
        sweeper: Any = Plugins.instance()._instantiate(master.hydra.sweeper)
        sweeper.config, sweeper.hydra_context = master, HydraContext(config_loader=loader, callbacks=None)
        return [list(job) for job in sweeper._jobs(list(master.hydra.overrides.task))]


def configs_of(words: Sequence[str]) -> list[DictConfig]:
    """The composed config of each job of a command."""
    jobs = jobs_of(words)
    with config_loader() as loader:
        master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
        return [compose(loader, master, job) for job in jobs]


def words_of(command: str) -> list[str]:
    """A printed training command's words, as its shell takes them."""
    start = ["python", "-m", "sousa_bench.train"]
    words = shlex.split(command)
    assert words[:3] == start, command
    return words[3:]


def run_sweep(
    root: Path,
    name: str,
    words: Sequence[str],
    became: Callable[[int, DictConfig], str | None] = lambda *_: "completed",
) -> Path:
    """Plan a sweep with the real sweeper and write what its runs would.

    Args:
        root: The folder ``multirun``.
        name: The sweep's.
        words: Of its command.
        became: The status of a run by its number; None: it never started.
    """
    jobs = jobs_of([*words, f"sweep={name}"])
    with config_loader() as loader:
        master = loader.load_configuration("config", [f"hydra.sweep.dir={root}"], run_mode=RunMode.MULTIRUN)
        sweep = plan_sweep(loader, master, jobs)
    for job in sweep.jobs:
        if job.decision == "pending" and (status := became(job.index)) is not None:
            _write(job, status)
    sweep.record(ended=True)
    return sweep.folder


def _write(job: Job, status: str) -> None:
    """A run's record; its accuracy follows from what it was asked for."""
    config = record.flat_config(job)
    record.begin(job)
    if status == "running":
        return
    outcome = OmegaConf.to_container(record.task_config(job.config), resolve=True)
    assert isinstance(outcome, dict)
    draw = int(hashlib.sha256(json.dumps([outcome["model"], outcome["peft"]], default=str).encode()).hexdigest(), 16)
    rng = np.random.default_rng([draw % 2**32, int(config["seed"])])
    hit = rng.random(len(CLIPS.label)) < 0.5 + 0.3 * (draw % 1000) / 1000
    made = result(config, accuracy=float(hit.mean()), status=status)
    data = {key: value for key, value in outcome["data"].items() if key != "fold"}
    name = hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
    fold = outcome["data"].get("fold")
    found = {"source": data.get("source", "synthetic"), "fingerprint": name + str(fold), "counts": {"test": len(hit)}}
    found |= {"test_fingerprint": f"{name}{fold}"} | ({"fold": fold} if fold else {})
    weights = {"kind": outcome["weights"], "sha256": None, "origin": "file"}
    blocks = {key: made[key] for key in ("metrics", "efficiency", "history", "parameters")}
    record.finish(
        job, status, {**blocks, "data": found, "weights": weights, "files": made["files"]}, error=made["error"]
    )
    if status == "completed":
        clips = Clips.make(players=8, per_player=5)
        if fold:  # each has players of its own
            clips.player = np.array([f"{player} of {fold}" for player in clips.player])
        write_predictions(job.folder / PREDICTIONS_FILE, clips, np.where(hit, CLIPS.label, (CLIPS.label + 1) % 40))
