"""Cross-validation by player: one line a combination, pooled by player, against known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.polynomial.hermite_e import hermegauss

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.limitations import warned_runs
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.report.conclusion import answer
from sousa_bench.analysis.stats.augmentation_effect import augmentation_impact
from sousa_bench.analysis.stats.folds import fold_order, missing_folds, read_fold
from sousa_bench.analysis.stats.intervals import accuracy_interval, difference_interval
from sousa_bench.analyze import main
from tests.analysis.summary import summary
from tests.analysis.synthetic import write_folds

SIDES = ("first", "second")
THREE = (("ast", "lora", True), ("ast", "lora", False), ("beats", "ia3", True))


def study_of(folder: Path) -> Study:
    return compare(collect([folder]))


def right_by_player(study: Study, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Right clips, averaged over the seeds of a fold, and clips, of each player: straight from the files."""
    parts = []
    for row in rows:
        table = pq.read_table(Path(study.table.at[row, "folder"]) / "predictions.parquet").to_pandas()
        parts.append(table.assign(right=table["label"] == table["predicted"]))
    frame = pd.concat(parts).groupby(["player", "sample_id"])["right"].mean().groupby("player").agg(["sum", "count"])
    return frame["sum"].to_numpy(float), frame["count"].to_numpy(float)


@pytest.mark.parametrize(
    ("text", "fold"), [("2/5", (2, 5)), (" 10 / 10 ", (10, 10)), ("0/5", None), ("6/5", None), ("x", None), (1, None)]
)
def test_folds_are_read(text: object, fold: tuple[int, int] | None):
    assert read_fold(text) == fold


def test_folds_are_ordered_by_number():
    assert sorted(["10/10", "2/10", "1/3"], key=fold_order) == ["1/3", "2/10", "10/10"]


@pytest.mark.slow
def test_folds_and_seeds_end_in_one_line_with_an_interval_over_all_players(tmp_path: Path):
    study = study_of(write_folds(tmp_path, THREE, seeds=(1, 2, 3)))
    frame = study.combinations.set_index("combination")
    assert len(frame) == 3
    assert study.results.factors == []
    assert study.cohorts == {}
    for name, row in frame.iterrows():
        assert (row["runs"], row["folds"], row["of_folds"], row["seeds"]) == (15, 5, 5, 3)
        assert (row["clips"], row["players"], row["missing"], row["note"]) == (400, 20, "", "")
        runs = study.table.loc[row["rows"]]
        by_fold = runs.groupby("data.fold")["test_acc"]
        assert row["test_acc"] == pytest.approx(by_fold.mean().mean())
        assert row["acc_std"] == pytest.approx(by_fold.mean().std(ddof=1))
        assert row["seed_std"] == pytest.approx(np.sqrt(by_fold.var(ddof=1).mean()))
        totals, sizes = right_by_player(study, row["rows"])
        luck = (
            study.luck["A"].of([study.combinations.index[study.combinations["combination"] == name][0]], [15]).cautious
        )
        wanted = accuracy_interval(totals[None], sizes, luck)
        assert row["pooled_acc"] == pytest.approx(totals.sum() / sizes.sum())
        assert row["acc_high"] == pytest.approx(wanted.high[0])
        if row["leader"]:  # its lower end allows for its having been chosen
            assert row["acc_low"] < wanted.low[0]
        else:
            assert row["acc_low"] == pytest.approx(wanted.low[0])
    assert not any("same clips" in note for note in study.notes)
    assert any("heard once, by a model that had not learnt from that player" in note for note in study.notes)


def test_two_combinations_are_paired_on_the_pooled_clips(tmp_path: Path):
    study = study_of(write_folds(tmp_path, THREE, seeds=(1, 2)))
    assert len(study.pairs) == 3
    frame = study.combinations.set_index("combination")
    for pair in study.pairs.to_dict("records"):
        assert (pair["folds"], pair["clips"], pair["players"]) == (5, 400, 20)
        one, size = right_by_player(study, frame.loc[pair["first"], "rows"])
        two, _ = right_by_player(study, frame.loc[pair["second"], "rows"])
        assert pair["difference"] == pytest.approx((one - two).sum() / 400)
        rows = [study.combinations.index[study.combinations["combination"] == pair[side]][0] for side in SIDES]
        luck = study.luck["A"].of(rows, [10, 10]).of(np.array([[1.0, -1.0]]))
        wanted = difference_interval((one - two)[None], size, luck)
        assert [pair[key] for key in ("low", "high", "p")] == pytest.approx([*wanted.low, *wanted.high, *wanted.p])
        models = difference_interval((one - two)[None], size)
        assert [pair[key] for key in ("models_low", "models_high")] == pytest.approx([*models.low, *models.high])


def test_folds_trained_once_show_the_luck_and_the_verdict_is_about_methods(tmp_path: Path):
    study = study_of(write_folds(tmp_path, THREE))
    assert (study.luck["A"].source, study.luck["A"].dof) == ("folds", 8)
    assert set(study.pairs["about"]) == {"methods"}
    assert "8 degrees of freedom between folds and combinations" in " ".join(answer(study))
    alone = study_of(write_folds(tmp_path / "alone", THREE, folds=1))
    assert alone.luck["A"].dof == 0
    assert "of these trained models only" in answer(alone)[0]


def test_known_answer_of_unequal_folds(tmp_path: Path):
    """Seven players over three folds: fold means 1, 0.5, 0; the mean over folds is not the pooled share."""
    right = {1: 1.0, 2: 0.5, 3: 0.0}

    def answer(number, fold, seed, clips):
        return np.arange(len(clips.label)) % 10 < 10 * right[fold]

    study = study_of(write_folds(tmp_path, THREE[:1], folds=3, players=7, per_player=10, right=answer))
    row = study.combinations.iloc[0]
    assert row["test_acc"] == pytest.approx(0.5)
    assert row["acc_std"] == pytest.approx(0.5)
    assert row["pooled_acc"] == pytest.approx((3 * 1 + 2 * 0.5) / 7)
    assert row["players"] == 7
    assert row["note"].startswith("no interval: 7 players")


def test_a_missing_fold_is_said_and_its_command_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_folds(tmp_path / "multirun", THREE, missing=((2, 3),), chance={"lora": 0.9, "ia3": 0.6})
    assert main([str(folder), "--no-images", "--output-dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    said = "beats + ia3 (with aug): no completed run of fold 3/5; its numbers are over 4 of 5 folds."
    assert f"note: {said}\n" in printed.err
    assert "(4 of 5)" in printed.out
    report = (tmp_path / "out" / "summary_report.md").read_text()
    assert said in report
    assert "| 4 of 5 |" in report.split("## Cross-validation")[1]
    assert said in (tmp_path / "out" / "report.html").read_text()
    written = pd.read_csv(tmp_path / "out" / "combinations.csv").set_index("combination")
    assert written["missing"].fillna("").to_dict() == {
        "ast + lora (with aug)": "",
        "ast + lora (no aug)": "",
        "beats + ia3 (with aug)": "3/5",
    }
    study = study_of(folder)
    across = study.pairs[study.pairs["clips"] == 320]
    assert len(across) == 2
    assert set(across["folds"]) == {4}
    assert set(across["players"]) == {16}
    one, two = (right_by_player(study, study.combinations["rows"].iloc[n])[0] for n in (0, 2))
    assert len(one) == 20
    assert len(two) == 16
    assert "not balanced" in study.effects["A"].reason


def test_effects_are_over_the_folds_that_all_have(tmp_path: Path):
    study = study_of(write_folds(tmp_path, THREE[:2], missing=((1, 3),)))
    assert list(study.effects) == ["A"]
    assert study.effects["A"].table["players"].tolist() == [16]


def test_the_missing_fold_of_a_flat_folder_becomes_a_command(tmp_path: Path):
    folder = write_folds(tmp_path, THREE[:1], seeds=(1, 2), missing=((0, 4),))
    (folder / "sweep.json").unlink()
    steps = {step.title: step.commands for step in next_steps(study_of(folder), 3)}
    (command,) = steps["Finish the cross-validations"]
    assert "data.fold=4/5" in command
    assert "seed=1,2" in command
    assert "data.fold=1/5,2/5,3/5,4/5,5/5" in steps["The best one on more data, with more epochs"][0]


def test_seeds_that_a_fold_lacks_are_named():
    runs = pd.DataFrame({"data.fold": ["1/3", "1/3", "2/3", "3/3", "3/3"], "seed": [1, 2, 1, 1, 2]})
    assert missing_folds(runs) == ["2/3 seed 2"]
    assert missing_folds(runs.iloc[2:]) == ["1/3", "2/3 seed 2"]


def test_a_fold_with_fewer_seeds_weighs_no_less(tmp_path: Path):
    folder = write_folds(tmp_path, THREE[:2], seeds=(1, 2, 3), right=lambda n, fold, seed, clips: np.full(80, seed < 3))
    study = study_of(folder)
    row = study.table[(study.table["data.fold"] == "1/5") & (study.table["seed"] == 3) & study.table["augmentation"]]
    (Path(row["path"].iloc[0])).unlink()
    study = study_of(folder)
    frame = study.combinations.set_index("augmentation")
    assert frame.loc[True, "test_acc"] == pytest.approx((1 + 4 * 2 / 3) / 5)
    assert frame.loc[True, "pooled_acc"] == pytest.approx((1 + 4 * 2 / 3) / 5)
    assert frame.loc[True, "missing"] == "1/5 seed 3"
    (pair,) = augmentation_impact(study).table.to_dict("records")
    assert pair["difference"] == 0
    assert pair["repeats"] == "14; left out: 1 without"


def test_augmentation_is_paired_over_the_seeds_that_both_have(tmp_path: Path):
    """Seed 3, which only one side has, would make the difference 1/3."""
    folder = write_folds(
        tmp_path, THREE[:2], seeds=(1, 2, 3), right=lambda n, fold, seed, clips: np.full(80, seed == 3)
    )
    study = study_of(folder)
    for path in study.table.loc[(study.table["seed"] == 3) & ~study.table["augmentation"].astype(bool), "path"]:
        Path(path).unlink()
    impact = augmentation_impact(study_of(folder))
    (pair,) = impact.table.to_dict("records")
    assert pair["difference"] == 0
    assert pair["repeats"] == "10; left out: 5 with"
    assert len(pair["with_rows"]) == len(pair["without_rows"]) == 10
    assert pair["clips"] == 400


def test_sides_without_a_common_seed_are_not_paired(tmp_path: Path):
    folder = write_folds(tmp_path, THREE[:2], seeds=(1, 2))
    table = study_of(folder).table
    for seed, augmentation in ((1, True), (2, False)):
        for path in table.loc[(table["seed"] == seed) & (table["augmentation"] == augmentation), "path"]:
            Path(path).unlink()
    study = study_of(folder)
    impact = augmentation_impact(study)
    assert impact.table.empty
    assert "no seed (and fold) was run both with and without: ast + lora" in impact.reason
    assert "no seed (and fold)" in summary(study)


def test_another_dataset_under_the_same_folds_is_not_pooled(tmp_path: Path):
    for name, number in (("one", 0), ("two", 1)):
        folder = write_folds(tmp_path / name, (THREE[number * 2],), folds=3)
        for path in folder.glob("*/result.json"):
            content = json.loads(path.read_text())
            content["data"]["fingerprint"] += name
            path.write_text(json.dumps(content))
    study = study_of(tmp_path)
    assert sorted(study.cohorts) == ["A", "B"]
    assert study.combinations["folds"].tolist() == [3, 3]
    assert study.pairs.empty


def test_the_same_combination_on_two_datasets_is_not_pooled(tmp_path: Path):
    folder = write_folds(tmp_path, THREE[:1], folds=3, seeds=(1, 2))
    for path in folder.glob("*/result.json"):
        content = json.loads(path.read_text())
        if content["config"]["seed"] == 2 and content["config"]["data.fold"] == "1/3":
            content["data"]["test_fingerprint"] = "other"
            path.write_text(json.dumps(content))
    study = study_of(folder)
    assert study.combinations["folds"].max() == 1
    assert len(study.cohorts) == 4


def test_folds_stand_beside_runs_without_and_with_another_number(tmp_path: Path):
    write_folds(tmp_path / "three", THREE[:1], folds=3)
    write_folds(tmp_path / "five", THREE[:1], folds=5)
    study = study_of(tmp_path)
    assert sorted(study.combinations["folds"]) == [3, 5]
    assert study.cohorts == {"A": "folds 5", "B": "folds 3"}


def population_accuracy(logit: float, spread: float) -> float:
    points, weights = hermegauss(80)
    return float((weights / weights.sum() / (1 + np.exp(-(logit + spread * points)))).sum())


@pytest.mark.parametrize("players", [10, 20, 40])
def test_coverage_of_the_pooled_interval(players: int):
    """Players differ; five folds, each with a model of its own: with little luck of training it covers as it should."""
    rng = np.random.default_rng([12, players])
    talent, luck, simulations = 0.7, 0.05, 1000
    fold = np.arange(players) % 5
    logits = 1.4 + rng.normal(0, talent, (simulations, players)) + rng.normal(0, luck, (simulations, 5))[:, fold]
    totals = rng.binomial(40, 1 / (1 + np.exp(-logits))).astype(float)
    interval = accuracy_interval(totals, np.full(players, 40.0))
    truth = population_accuracy(1.4, np.hypot(talent, luck))
    assert 0.93 <= ((interval.low <= truth) & (truth <= interval.high)).mean() <= 0.97


def test_what_each_fold_of_one_group_says_is_said_once(tmp_path: Path):
    """Other warnings of these runs stay, and so does the same of a run that is no fold."""
    folder = write_folds(tmp_path, THREE[:1], seeds=(1,))
    for number, file in enumerate(sorted(folder.rglob("result.json"))):
        result = json.loads(file.read_text())
        own = f"all 8 test clips are by one player: whether the test accuracy 0.{number} is more than luck can't be "
        result["warnings"] = [own + "told for others", *(["one, two"] if number == 1 else [])]
        file.write_text(json.dumps(result))
    study = study_of(folder)
    [said] = [note for note in study.notes if "by one player" in note]
    assert "only by all together" in said
    assert list(warned_runs(study)["warnings"]) == ["one, two"]
    single = study_of(next(folder.rglob("result.json")).parent)
    assert warned_runs(single)["warnings"].str.contains("by one player").all()
