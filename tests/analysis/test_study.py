"""The study end to end: intervals, seeds, the set that can't be told from the best, refused comparisons."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.answer import answer
from sousa_bench.analysis.comparisons import pair_of
from sousa_bench.analysis.summary import summary
from sousa_bench.errors import UserError
from tests.analysis.synthetic import Truth, result, write_result, write_sweep


def test_every_run_has_an_interval_clips_and_players(comparison_study: Study):
    table = comparison_study.table
    assert ((table["test_acc_low"] < table["test_acc"]) & (table["test_acc"] < table["test_acc_high"])).all()
    assert set(table["test_clips"]) == {1140}
    assert set(table["test_players"]) == {19}


def test_all_pairs_are_one_family(comparison_study: Study):
    pairs = comparison_study.pairs
    assert len(pairs) == 276
    assert (pairs["p_holm"] >= pairs["p"]).all()
    assert ((pairs["low"] <= pairs["difference"]) & (pairs["difference"] <= pairs["high"])).all()
    assert set(pairs["clips"]) == {1140}


def test_the_set_of_the_best_holds_the_truly_best(comparison_study: Study):
    best = comparison_study.combinations[comparison_study.combinations["best_set"]]
    assert "beats + lora (with aug)" in set(best["combination"])
    assert not best["combination"].str.contains("efficientat").any()
    assert "can't be told from it" in " ".join(answer(comparison_study))


def test_a_pair_turned_round(comparison_study: Study):
    first, second = comparison_study.pairs.loc[0, ["first", "second"]]
    there = pair_of(comparison_study.pairs, first, second)
    back = pair_of(comparison_study.pairs, second, first)
    assert there is not None
    assert back is not None
    assert back["difference"] == -there["difference"]
    assert (back["low"], back["high"]) == (-there["high"], -there["low"])
    assert back["only_first"] == there["only_second"]


def test_seeds_are_averaged_and_their_spread_stands_apart(seeded_study: Study):
    frame = seeded_study.combinations
    assert len(frame) == 8
    assert set(frame["runs"]) == set(frame["seeds"]) == {3}
    row = frame.iloc[0]
    mine = seeded_study.table.loc[row["rows"], "test_acc"]
    assert row["test_acc"] == pytest.approx(mine.mean())
    assert row["acc_std"] == pytest.approx(mine.std(ddof=1))
    assert row["acc_error"] != pytest.approx(row["acc_std"])


def test_effects_of_the_balanced_matrix(comparison_study: Study):
    table = comparison_study.effects["A"].table.set_index("effect")
    assert table.loc[["model", "strategy", "augmentation"], "clear"].all()
    assert len(table) == 7


def test_an_unfinished_matrix_is_not_decomposed(unfinished: Path):
    study = compare(collect([unfinished]))
    assert "not balanced" in study.effects["A"].word


def test_few_players_get_no_interval_but_a_word_and_the_reach_of_the_test(tmp_path: Path):
    study = compare(collect([write_sweep(tmp_path / "multirun", models=("ast", "beats"), players=5)]))
    assert study.table["test_acc_low"].isna().all()
    assert any("5 players, and below 8" in note for note in study.notes)
    assert any("no sign-flip p value can be below 0.062" in note for note in study.notes)
    assert not study.pairs["clear"].any()


def test_without_predictions_nothing_is_tested_and_it_says_why(tmp_path: Path):
    study = compare(collect([write_sweep(tmp_path / "multirun", models=("ast",), predictions=False)]))
    assert study.pairs.empty
    assert any("no predictions" in note for note in study.notes)
    assert "by chance" in " ".join(answer(study))


def test_runs_on_other_clips_are_not_compared(comparison: Path, tmp_path: Path):
    folder = tmp_path / "multirun"
    shutil.copytree(comparison, folder)
    changed = sorted(folder.glob("*/predictions.parquet"))[0]
    table = pq.read_table(changed)
    pq.write_table(table.slice(0, 600), changed)
    study = compare(collect([folder]))
    assert len(study.clip_sets) == 2
    assert len(study.pairs) == 23 * 22 // 2
    assert any("same clips" in note for note in study.notes)
    assert any("its predictions give" in line for line in study.results.problems)


def test_the_order_of_the_clips_does_not_matter(comparison: Path, comparison_study: Study, tmp_path: Path):
    folder = tmp_path / "multirun"
    shutil.copytree(comparison, folder)
    rng = np.random.default_rng(1)
    for path in folder.glob("*/predictions.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.take(rng.permutation(table.num_rows)), path)
    shuffled = compare(collect([folder]))
    assert len(shuffled.clip_sets) == 1
    assert shuffled.pairs["p"].tolist() == comparison_study.pairs["p"].tolist()


def test_equal_combinations_are_not_told_apart(tmp_path: Path):
    same = Truth(model={}, strategy={}, augmentation=0.0, seed=0.0)
    study = compare(collect([write_sweep(tmp_path / "multirun", truth=same)]))
    assert not study.pairs["clear"].any()
    assert study.combinations["best_set"].all()


def test_a_large_family_is_cut_by_validation_and_says_so(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", extra={"peft.r": (4, 8)}, per_player=20)
    study = compare(collect([folder]))
    assert len(study.combinations) == 48
    assert len(study.pairs) == 40 * 39 // 2
    assert any("40 best by validation accuracy" in note for note in study.notes)


def test_another_metric_ranks(comparison: Path):
    study = compare(collect([comparison]), "test_loss")
    assert study.combinations["test_loss"].is_monotonic_increasing
    with pytest.raises(UserError, match=r"--metric accuracy: no such metric; there are .*test_acc"):
        compare(collect([comparison]), "accuracy")


def test_unfinished_runs_that_do_not_know_their_data_yet_are_no_cohort_of_their_own(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", models=("ast",), statuses={1: "running", 2: "failed"})
    for path in folder.glob("*/result.json"):
        content = json.loads(path.read_text())
        if content["status"] != "completed":
            del content["data"], content["weights"]
            path.write_text(json.dumps(content))
    study = compare(collect([folder]))
    assert set(study.table["cohort"]) == {"A"}
    assert study.cohorts == {}


def test_warnings_of_runs_are_said(tmp_path: Path):
    write_result(tmp_path / "run", result({}, warnings=["test accuracy 0.0250 is not above chance"]))
    study = compare(collect([tmp_path]))
    assert any("1 of 1 runs carry warnings" in note and "not above chance" in note for note in study.notes)
    assert "not above chance" in summary(study).split("## Warnings of the runs")[1]
