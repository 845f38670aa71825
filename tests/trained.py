"""Tiny runs that the real training command left, made once for whichever tests want them, in whichever process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from sousa_bench.results.result import read_result

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "model=ast",
    "peft=lora",
    "augmentation=off",
    "data.synthetic.clips=40",
    "data.synthetic.split_players=[20,10,10]",
    "trainer.max_epochs=1",
    "trainer.batch_size=4",
    "trainer.train_batches=2",
    "trainer.progress=false",
    "trainer.precision=32-true,bf16-mixed",
    "trainer.accelerator=cpu",
    "logger=none",
    "weights=random",
]


@dataclass(frozen=True)
class Trained:
    """A completed run.

    Attributes:
        home: The folder in which the commands were given; ``multirun/`` lies there.
        folder: The run's.
    """

    home: Path
    folder: Path

    @property
    def result(self) -> dict:
        return read_result(self.folder)

    def predictions(self) -> pd.DataFrame:
        """Of the run's own test, by sample_id."""
        return pd.read_parquet(self.folder / "predictions.parquet").set_index("sample_id")

    def audio(self) -> dict[str, Path]:
        """The files of the test clips, by sample_id."""
        [dataset] = [path for path in (self.home / "cache" / "synthetic").iterdir() if path.is_dir()]
        table = pd.read_parquet(dataset / "labels" / "samples.parquet").set_index("sample_id")
        return {name: dataset / table.loc[name, "audio_path"] for name in self.predictions().index}


def home() -> Path:
    """The folder that goes with the session; its cache is everyone's."""
    return Path(os.environ["SOUSA_BENCH_TEST_HOME"])


def command(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sousa_bench.NAME`` in that folder."""
    return subprocess.run(
        [sys.executable, "-m", f"sousa_bench.{name}", *words],
        cwd=home(),
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOUSA_BENCH_CACHE": str(home() / "cache")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def trained(precision: str = "32-true") -> Trained:
    """A run of one sweep over two precisions."""
    return sweep()[precision]


@functools.cache
def sweep() -> dict[str, Trained]:
    """Train with the real command, or find what another process has trained; by precision."""
    with FileLock(home() / "trained.lock"):
        done = command("train", "-m", "sweep=tiny", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [Trained(home(), file.parent) for file in (home() / "multirun" / "tiny").glob("*/result.json")]
    return {run.result["environment"]["precision"]: run for run in runs}
