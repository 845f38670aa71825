"""The figures of a search: which folder is one, the best so far, what the score follows, every trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sousa_bench.analysis import collect, compare, plots
from sousa_bench.results.manifest import STUDY_FILE
from sousa_bench.results.result import write_json
from tests.analysis.synthetic import result, write_result

TRIALS = [(8, 0.01, "all"), (4, 0.002, "last"), (32, 0.1, "all"), (16, 0.03, "last"), (64, 0.005, "all")]
"""Rank, learning rate, layers; the accuracy rises with the rank alone."""


def write_search(folder: Path) -> Path:
    """A search of ``TRIALS``, in folders whose order is not that of the trials."""
    for number, (rank, rate, layers) in enumerate(TRIALS, start=1):
        extra = {"peft.r": rank, "peft.learning_rate": rate, "peft.layers": layers}
        made = result({}, accuracy=0.3 + rank / 100, extra=extra)
        made["sweep"] |= {"index": number, "name": "search"}
        made["metrics"]["val_acc"] = 0.3 + rank / 100
        write_result(folder / f"run{9 - number}", made)
    (folder / STUDY_FILE).touch()
    return folder


def test_best_so_far_importance_and_every_trial(tmp_path: Path):
    study = compare(collect([write_search(tmp_path)]))
    best = plots.best_so_far(study)
    line, trials = best.data
    assert list(line.y) == pytest.approx([0.38, 0.38, 0.62, 0.62, 0.94])
    assert list(trials.y) == pytest.approx([0.38, 0.34, 0.62, 0.46, 0.94])
    assert [study.table.at[row, "sweep.index"] for row in trials.customdata] == [1, 2, 3, 4, 5]
    assert trials.text[2].startswith("trial 3: ")
    (bars,) = plots.search_importance(study).data
    shares = dict(zip(bars.x, bars.y, strict=True))
    assert bars.x[0] == "peft.r"
    assert shares["peft.r"] == pytest.approx(1)
    assert shares["peft.learning_rate"] == pytest.approx(0.4)  # ranks 3 1 5 4 2 against 2 1 4 3 5
    assert 0.5 < shares["peft.layers"] < 0.7  # ranks 2, 4 and 5 against 1 and 3
    every = plots.search_trials(study)
    assert len(every.data) == len(TRIALS)
    highest = every.data[-1]  # drawn last, over the others
    place = dict(zip(highest.x, highest.y, strict=True))
    assert place["peft.r"] == 1
    assert place["val acc"] == 1
    ends = [(mark.x, mark.y, mark.text) for mark in every.layout.annotations if mark.x == "peft.learning_rate"]
    assert ends == [("peft.learning_rate", 1, "0.1"), ("peft.learning_rate", 0, "0.002")]
    assert set(highest.customdata) == {trials.customdata[4]}


def test_a_folder_without_a_study_is_no_search(tmp_path: Path):
    folder = write_search(tmp_path)
    (folder / STUDY_FILE).unlink()
    study = compare(collect([folder]))
    assert plots.best_so_far(study) is plots.search_importance(study) is plots.search_trials(study) is None
    assert not any(plot.group == "The search" for plot in plots.all_plots(study, page=True))


def test_trials_without_a_number_are_left_out_and_text_is_read_as_one(tmp_path: Path):
    folder = write_search(tmp_path)
    for run, index in {"run8": "first", "run7": "2", "run4": [5]}.items():
        file = folder / run / "result.json"
        made = json.loads(file.read_text())
        made["sweep"]["index"] = index
        write_json(file, made)
    study = compare(collect([folder]))
    _, trials = plots.best_so_far(study).data
    assert list(trials.x) == [2, 3, 4, 5]
    assert [text.split(":")[0] for text in trials.text] == ["trial 2", "trial 3", "trial 4", "trial 5"]
    assert len(plots.search_trials(study).data) == 4
