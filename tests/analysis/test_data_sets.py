"""Several data sets in one verdict: against published numbers, independent computations and known truths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.stats.data_sets import data_set_verdicts
from sousa_bench.analysis.stats.mean_ranks import mean_ranks, signed_rank
from sousa_bench.analyze import main
from tests.analysis.synthetic import Truth, write_sweep
from tests.cases import check_each

NAMES = ("studio", "stage", "school", "street", "club")
SMALL = {"models": ("ast", "beats"), "strategies": ("lora", "ia3"), "players": 12, "per_player": 20}


def write_data_sets(root: Path, names: tuple[str, ...], **more: object) -> Path:
    """The same eight methods on each data set, one harder than the other; lora beats ia3 by far."""
    for number, name in enumerate(names):
        truth = Truth(base=1.2 - 0.4 * number, strategy={"lora": 0.9, "ia3": -0.9})
        write_sweep(root / name, data=name, seed=number, truth=truth, **{**SMALL, **more})  # type: ignore[arg-type]
    return root


def report_of(root: Path) -> str:
    main([str(root), "--no-plots", "--output-dir", str(root.parent / "report")])
    return (root.parent / "report" / "summary_report.md").read_text()


def test_autorank_s_published_example_has_the_same_ranks():
    """The example of autorank's README (Herbold 2020, JOSS 5, 2173), whose numbers are drawn with a fixed seed."""
    random = np.random.RandomState(42)
    populations = [random.normal(mean, 0.3, 50).clip(0, 1) for mean in (0.2, 0.3, 0.5, 0.8, 0.85, 0.9)]
    found = mean_ranks(np.array(populations))
    assert list(found.mean.round(2)) == [5.40, 4.71, 3.95, 2.47, 2.29, 2.18]
    assert found.p == pytest.approx(2.3412212612346733e-28, rel=1e-6)
    assert found.critical == pytest.approx(1.0662484349869374, rel=1e-4)
    assert found.groups == ["c", "bc", "b", "a", "a", "a"]


def test_signed_ranks_agree_with_baycomp():
    """Probabilities that baycomp 1.0.3 gives for these differences, with a region of one point."""
    differences = np.array([0.031, 0.012, -0.004, 0.025, 0.0085, 0.017, -0.012, 0.002])
    found = signed_rank(differences, 0.01)
    assert [found.better, found.equal, found.worse] == pytest.approx([0.4504, 0.5494, 0.0002], abs=0.01)
    assert found.greater == pytest.approx(0.9685, abs=0.01)


def test_the_least_number_of_data_sets_is_enough_and_one_fewer_is_not():
    def check(methods: int) -> None:
        needed = mean_ranks(np.random.default_rng(0).random((methods, 2))).needed
        for count in (needed - 1, needed):
            place = np.arange(methods)[:, None]
            found = mean_ranks(place * (1 + np.arange(count)))  # the same order everywhere: no ranks differ by more
            assert (not set(found.groups[0]) & set(found.groups[-1])) == (count == needed), count

    check_each((2, 3, 6, 24), check)


@pytest.mark.slow
def test_equal_methods_are_seldom_told_apart():
    rng = np.random.default_rng(1)

    def check(methods: int, data_sets: int) -> None:
        studies = [mean_ranks(rng.random((methods, data_sets))) for _ in range(300)]
        wrong = np.mean([len({letter for own in found.groups for letter in own}) > 1 for found in studies])
        assert wrong <= 0.08

    check_each([(2, 4), (2, 8), (3, 3), (6, 3), (6, 10)], check)


@pytest.mark.slow
def test_three_data_sets_through_the_command_line(tmp_path: Path):
    text = report_of(write_data_sets(tmp_path / "multirun", NAMES[:3]))
    section = text.split("## Over 3 data sets")[1].split("\n## ")[0]
    assert "Over 3 data sets (school; stage; studio) the best mean rank of 8 methods is" in text.split("## Overview")[0]
    assert "of two equal methods, one leads on all 3 in 25% of cases" in section
    assert "of these trained models only: school; stage; studio." in section
    table = pd.read_csv(tmp_path / "report" / "comparison_table.csv")
    keys = ["model", "strategy", "augmentation"]
    places = table.groupby("data")["test_acc"].rank(ascending=False)
    mean = places.groupby([table[key] for key in keys]).mean()
    for (model, strategy, augmentation), rank in mean.items():
        words = f"{model} + {strategy} ({'with' if augmentation else 'no'} aug)"
        line = next(line for line in section.splitlines() if line.startswith(f"| {words}"))
        assert float(line.split("|")[2]) == pytest.approx(rank, abs=0.006)
    rows = pd.read_csv(tmp_path / "report" / "data_sets.csv")
    assert len(rows) == 7 * 4
    assert rows[rows["data_set"] == "all"]["greater"].isna().all(), "three data sets say nothing of a next one"
    for row in rows[rows["data_set"] != "all"].to_dict("records"):
        assert row["greater"] == pytest.approx(resampled(table, row), abs=0.06)
        assert row["better"] + row["equal"] + row["worse"] == pytest.approx(1)


def resampled(table: pd.DataFrame, row: dict) -> float:
    """Share of draws of the players, with replacement, in which the first method recognises more clips."""
    sides = []
    for method in (row["first"], row["second"]):
        own = table[(table["data"] == row["data_set"]) & table["combination"].str.startswith(method)]
        clips = pd.read_parquet(Path(own["folder"].iloc[0]) / "predictions.parquet")
        sides.append((clips["label"] == clips["predicted"]).groupby(clips["player"]).mean().to_numpy())
    gain = sides[0] - sides[1]
    means = gain[np.random.default_rng(0).integers(0, len(gain), (4000, len(gain)))].mean(axis=1)
    return float((means > 0).mean() + (means == 0).mean() / 2)


@pytest.mark.slow
def test_five_data_sets_speak_of_a_next_one(tmp_path: Path):
    text = report_of(write_data_sets(tmp_path / "multirun", NAMES, models=("ast",), seeds=(1, 2)))
    assert "next: P better" in text
    assert "of these trained models only" not in text
    over = pd.read_csv(tmp_path / "report" / "data_sets.csv").query("data_set == 'all'")
    assert (over[over["second"].str.contains("ia3")]["better"] > 0.99).all()
    assert over[["better", "equal", "worse"]].sum(axis=1).to_numpy() == pytest.approx(1)


@pytest.mark.slow
def test_what_counts_as_a_data_set(tmp_path: Path):
    root = write_data_sets(tmp_path / "multirun", NAMES[:3], predictions=False)
    more = {**SMALL, "predictions": False}
    write_sweep(root / "same clips", data="studio", max_epochs=5, **{**more, "models": ("ast",)})
    write_sweep(root / "other methods", data="hall", **{**more, "models": ("htsat", "efficientat")})
    write_sweep(root / "trial", data="street", extra={"trainer.train_batches": (3,)}, **more)
    write_sweep(root / "part", data="club", **{**more, "models": ("ast",)})
    (found,) = data_set_verdicts(compare(collect([root])))
    assert sorted(found.names.values()) == ["club", "school", "stage", "studio"]
    assert list(map(len, (found.accuracy, found.lacking, found.repeated))) == [4, 4, 1]
    assert found.apart == ["hall"]
    assert found.chances["greater"].isna().all(), "without predictions there is no standard error"


@pytest.mark.slow
def test_players_of_one_name_in_several_data_sets_are_named(tmp_path: Path):
    root = write_data_sets(tmp_path / "multirun", NAMES[:2])
    (found,) = data_set_verdicts(compare(collect([root])))
    assert found.same_players == []
    for file in (root / "stage").rglob("predictions.parquet"):
        table = pd.read_parquet(file)
        table.assign(player=table["player"].str.replace("stage", "studio")).to_parquet(file)
    assert "12 players occur in more than one of them by name (such as studio_player_000)" in report_of(root)


@pytest.mark.slow
def test_one_data_set_or_two_kinds_of_weights_give_no_verdict(tmp_path: Path):
    root = write_sweep(tmp_path / "multirun", data="studio", **SMALL).parent
    assert "Over " not in report_of(root)
    write_sweep(tmp_path / "multirun" / "stage", data="stage", **SMALL)
    for file in (tmp_path / "multirun" / "stage").rglob("result.json"):
        file.write_text(file.read_text().replace('"official"', '"random"'))
    study = compare(collect([tmp_path / "multirun"]))
    assert len(study.cohorts) == 2
    assert data_set_verdicts(study) == []
    assert not (tmp_path / "report" / "data_sets.csv").exists()
