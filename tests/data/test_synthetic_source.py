"""Synthetic data through the same loader as real data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from noise_data import data
from omegaconf import OmegaConf

from sousa_bench.data import fingerprint
from sousa_bench.errors import DataError
from sousa_bench.sweep.early_clips import write_early

RECIPE = {"clips": 40, "seed": 3, "domain": "target", "split_players": [4, 2, 2]}
NODE = {"name": "synthetic", "synthetic": RECIPE}


def test_written_once_and_read_like_real_data(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = data(None, **NODE)
    made.prepare([16_000, 32_000])
    facts = made.describe()
    assert facts["source"] == "synthetic"
    assert sum(facts["counts"].values()) == 40
    assert set(made.rows("train")["skill_tier"]) <= {"beginner", "intermediate", "advanced", "professional"}
    assert made.waveforms("train", 32_000).lengths.min() > 32_000
    from sousa_bench.data.synthetic import writer

    monkeypatch.setattr(writer, "write_dataset", lambda *_, **__: pytest.fail("written twice"))
    again = data(None, **NODE)
    again.prepare([16_000])
    assert again.test_fingerprint == made.test_fingerprint


def test_workers_reach_the_writer(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sousa_bench.data.synthetic import writer

    real, seen = writer.write_dataset, []
    monkeypatch.setattr(writer, "write_dataset", lambda *a, **k: (seen.append(k["workers"]), real(*a, **k)))
    data(None, **NODE, workers=1).prepare([16_000])
    assert seen == [1]


def test_the_fingerprint_needs_no_data(own_cache: Path) -> None:
    first = fingerprint(NODE)
    assert not (own_cache / "synthetic").exists()
    others = [
        NODE | {"synthetic": RECIPE | {"seed": 4}},
        NODE | {"synthetic": RECIPE | {"clips": 80}},
        NODE | {"fold": "1/3"},
        NODE | {"clips": {"train": 10}},
        NODE | {"tempo_min": 100},
    ]
    assert len({first, *map(fingerprint, others)}) == 6
    assert fingerprint(NODE | {"name": "other", "cache_dir": str(own_cache / "elsewhere")}) == first


@pytest.mark.slow
def test_two_processes_write_it_once(own_cache: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout); "
        f"from sousa_bench.data import SousaData; made = SousaData('synthetic', synthetic={RECIPE!r}); "
        "made.prepare([16000]); print(made.test_fingerprint)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("Writing 40 synthetic clips" in text for text in said) == 1
    assert sum("Decoding 40 clips" in text for text in said) == 1
    assert said[0].split()[-1] == said[1].split()[-1]


def test_an_interrupted_write_is_done_again(own_cache: Path) -> None:
    """A folder without its labels is not whole."""
    made = data(None, **NODE)
    made.prepare([16_000])
    (made.source.root / "labels" / "samples.parquet").unlink()
    again = data(None, **NODE)
    again.prepare([16_000])
    assert again.test_fingerprint == made.test_fingerprint


def test_the_first_pending_run_s_clips_are_written_while_the_server_imports(own_cache: Path) -> None:
    node = {"_target_": "sousa_bench.data.SousaData", **NODE}
    real = {"_target_": "sousa_bench.data.SousaData", "name": "tiny", "root": "/nowhere"}
    done, first, second = (
        Mock(decision=decision, config=OmegaConf.create({"data": node | {"synthetic": RECIPE | {"seed": seed}}}))
        for seed, decision in enumerate(("reused", "pending", "pending"))
    )
    writing = write_early([done, first, second])
    assert writing is not None
    writing.join(200)
    [folder] = (own_cache / "synthetic").glob("*/")
    assert "-s1-" in folder.name
    assert (folder / "labels" / "samples.parquet").is_file()
    assert write_early([done]) is None
    assert write_early([Mock(decision="pending", config=OmegaConf.create({"data": real}))]) is None


def test_what_an_early_write_can_t_do_is_left_to_the_run(own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "synthetic").write_text("in the way")
    node = {"_target_": "sousa_bench.data.SousaData", **NODE}
    writing = write_early([Mock(decision="pending", config=OmegaConf.create({"data": node}))])
    assert writing is not None
    writing.join(200)
    assert not writing.is_alive()
    with pytest.raises(DataError, match="can't be written"):
        data(None, **NODE).prepare([16_000])


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unforeseen_error_of_an_early_write_is_left_to_the_run(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sousa_bench.data.synthetic import writer

    tried = Mock(side_effect=RuntimeError("unforeseen"))
    monkeypatch.setattr(writer, "write_dataset", tried)
    node = {"_target_": "sousa_bench.data.SousaData", **NODE}
    writing = write_early([Mock(decision="pending", config=OmegaConf.create({"data": node}))])
    assert writing is not None
    writing.join(200)
    tried.assert_called_once()
