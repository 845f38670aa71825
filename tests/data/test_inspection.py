"""The command ``python -m sousa_bench.data``: what it says of data, and before any training of a test on them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from sousa_bench.analysis.stats.sample_size import CONTRASTS, Design
from sousa_bench.config.composing import composed
from sousa_bench.inspection.inspect_data import main
from tests.cases import check_each

SMALL = ("data.synthetic.clips=80", "data.synthetic.split_players=[10,2,10]", "data.workers=1")


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_splits_and_what_a_test_on_them_finds(capsys: pytest.CaptureFixture[str], own_cache: Path):
    found = facts(capsys, *SMALL)
    assert [row["players"] for row in found["splits"]] == [10, 2, 10]
    assert sum(row["clips"] for row in found["splits"]) == 80
    assert found["everyone"] == 22
    assert not list(own_cache.glob("clips/*")), "nothing is decoded"
    least = {(row["contrast"], row["seeds"]): row["least"] for row in found["finds"]}
    for name in {name for name, _ in least}:
        assert least[name, 3] > least[name, 5]
    about = {row["seeds"]: row["about"] for row in found["finds"]}
    assert about == {1: "these trained models", 3: "methods", 5: "methods"}
    assert all(row["least_all"] >= row["least"] for row in found["finds"])
    [row] = [
        row for row in found["needs"] if row["contrast"] == "two methods of one model" and row["difference"] > 0.04
    ]
    assert row["players"] > 10
    lucky = facts(capsys, *SMALL, "--luck", "0")
    assert all(a["error"] < b["error"] for a, b in zip(lucky["finds"], found["finds"], strict=True) if a["seeds"] > 1)


def test_a_fold_is_described_and_the_next_command_composes(capsys: pytest.CaptureFixture[str]):
    words = ["data.synthetic.clips=80", "data.synthetic.split_players=[12,2,10]", "data.fold=2/3", "data.workers=1"]
    assert [row["players"] for row in facts(capsys, *words)["splits"]] == [8, 8, 8]
    assert main(words) == 0
    [command] = [line for line in capsys.readouterr().out.splitlines() if "sousa_bench.train" in line]
    given = shlex.split(command)
    assert given[:5] == ["python", "-m", "sousa_bench.train", "-m", "experiment=comparison"]
    assert "seed=1,2,3" in given
    assert "data.fold=1/3,2/3,3/3" in given
    assert composed([word for word in given[5:] if "," not in word or "[" in word]).data.synthetic.clips == 80


def test_real_layouts_and_few_players(capsys: pytest.CaptureFixture[str], generator: Path):
    words = ["data=tiny", f"data.root={generator}"]
    assert facts(capsys, *words)["splits"][0]["classes"] > 1
    next(generator.rglob("*.flac")).unlink()
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "error: 1 of the clips' files are missing" in said


def test_what_can_not_be_is_one_message(capsys: pytest.CaptureFixture[str]):
    def check(word: str, message: str, code: int) -> None:
        assert main([word]) == code
        assert message in capsys.readouterr().err

    check_each(
        [
            ("model=ast", "the data alone", 2),
            ("data.fold=1/5,2/5", "one value", 2),
            ("data.fold=6/5", "data.fold=6/5", 2),
            ("data=nope", "there is no such choice", 2),
        ],
        check,
    )


def test_the_expected_error_is_that_of_simulated_clips():
    """Players of 2 to 14 clips, three seeds: the error that the components say is that of drawn differences."""
    rng = np.random.default_rng(0)
    sizes, seeds, luck = rng.integers(2, 15, 30), 3, 0.01
    contrast = CONTRASTS[1]
    owner = np.repeat(np.arange(30), sizes)
    clips, studies = len(owner), 4000
    taste = rng.normal(0, contrast.player**0.5, (studies, 30)) @ (sizes / clips)
    clip = rng.normal(0, (contrast.clip / clips) ** 0.5, studies)
    both = rng.normal(0, (contrast.both / clips / seeds) ** 0.5, studies)
    training = rng.normal(0, luck * (2 / seeds) ** 0.5, studies)
    said = contrast.components([int(size) for size in sizes], luck).error(Design(30, seeds))
    assert said == pytest.approx(float((taste + clip + both + training).std()), rel=0.05)
