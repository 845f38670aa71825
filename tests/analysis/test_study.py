"""The study end to end: intervals, seeds, the set that can't be told from the best, refused comparisons."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.clip_sets import ClipSet, read_predictions
from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.report.conclusion import answer, others_in_words
from sousa_bench.analysis.report.verdict_line import verdicts
from sousa_bench.analysis.stats.comparisons import (
    COLUMNS,
    Measured,
    against_best,
    join,
    pair_of,
    pair_table,
)
from sousa_bench.analysis.stats.training_luck import TrainingLuck
from sousa_bench.analyze import main
from sousa_bench.data.rudiments import TASK
from sousa_bench.errors import UserError
from sousa_bench.task import Task
from tests.analysis.summary import summary
from tests.analysis.synthetic import Truth, result, write_result, write_sweep


def test_every_run_has_an_interval_clips_and_players(comparison_study: Study):
    table = comparison_study.table
    assert ((table["test_acc_low"] < table["test_acc"]) & (table["test_acc"] < table["test_acc_high"])).all()
    assert set(table["test_clips"]) == {1140}
    assert set(table["test_players"]) == {19}


def test_all_pairs_are_one_family(comparison_study: Study):
    pairs = comparison_study.pairs
    assert len(pairs) == 276
    assert (pairs["p_adjusted"] >= pairs["p"] - 0.005).all()
    assert ((pairs["low"] <= pairs["difference"]) & (pairs["difference"] <= pairs["high"])).all()
    assert set(pairs["clips"]) == {1140}


def test_the_set_of_the_best_holds_the_truly_best(comparison_study: Study):
    best = comparison_study.combinations[comparison_study.combinations["best_set"]]
    assert "beats + lora (with aug)" in set(best["combination"])
    assert not best["combination"].str.contains("efficientat").any()
    assert "can't be told from it" in " ".join(answer(comparison_study))


def test_a_pair_turned_round(comparison_study: Study):
    first, second = comparison_study.pairs.loc[0, ["first", "second"]]
    there = pair_of(comparison_study.pairs, "A", first, second)
    back = pair_of(comparison_study.pairs, "A", second, first)
    assert there is not None
    assert back is not None
    assert back["difference"] == -there["difference"]
    assert (back["low"], back["high"]) == (-there["high"], -there["low"])
    for key in ("only", "seeds"):
        assert (back[f"{key}_first"], back[f"{key}_second"]) == (there[f"{key}_second"], there[f"{key}_first"])


def test_seeds_are_averaged_and_their_spread_stands_apart(seeded_study: Study):
    frame = seeded_study.combinations
    assert len(frame) == 8
    assert set(frame["runs"]) == set(frame["seeds"]) == {3}
    row = frame.iloc[0]
    mine = seeded_study.table.loc[row["rows"], "test_acc"]
    assert row["test_acc"] == pytest.approx(mine.mean())
    assert row["acc_std"] == pytest.approx(mine.std(ddof=1))
    assert row["acc_error"] != pytest.approx(row["acc_std"])


@pytest.mark.parametrize(
    ("number", "tested", "words"),
    [(2, 3, "2 of 3 others"), (3, 3, "All 3 others"), (2, 2, "Both others"), (1, 1, "The other one")],
)
def test_how_many_others_in_words(number: int, tested: int, words: str):
    assert others_in_words(number, tested) == words


def test_effects_of_the_balanced_matrix(comparison_study: Study):
    table = comparison_study.effects["A"].table.set_index("effect")
    assert table.loc[["model", "strategy", "augmentation"], "clear"].all()
    assert len(table) == 7


def test_an_unfinished_matrix_is_not_decomposed(unfinished: Path):
    study = compare(collect([unfinished]))
    assert "not balanced" in study.effects["A"].reason


def test_few_players_get_no_interval_nor_test_but_a_word(tmp_path: Path):
    study = compare(collect([write_sweep(tmp_path / "multirun", models=("ast", "beats"), players=5)]))
    assert study.table["test_acc_low"].isna().all()
    assert any("5 players, and below 8" in note for note in study.notes)
    assert study.pairs[["low", "p", "p_adjusted", "simultaneous_low"]].isna().all(axis=None)
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


def test_what_is_clear_has_a_simultaneous_interval_without_zero(comparison_study: Study, seeded_study: Study):
    for pairs in (comparison_study.pairs, seeded_study.pairs):
        without = (pairs["simultaneous_low"] > 0) | (pairs["simultaneous_high"] < 0)
        assert pairs["clear"].tolist() == without.tolist() == (pairs["p_adjusted"] <= 0.05).tolist()
        alone = (pairs["low"] > 0) | (pairs["high"] < 0)
        assert (pairs["p"] < 0.05).tolist() == alone.tolist()


def test_with_one_seed_the_first_sentence_is_about_these_trained_models(comparison_study: Study):
    first, *_, last = answer(comparison_study)
    assert first.startswith("The highest test accuracy of these trained models only is that of beats + lora")
    assert last.startswith("Nothing shows how another training would fall out")
    pairs = comparison_study.pairs
    assert set(pairs["about"]) == {"these trained models"}
    assert pairs["low"].tolist() == pairs["models_low"].tolist()
    assert "About these trained models. The family is all 276 pairs" in summary(comparison_study)
    assert set(comparison_study.effects["A"].table["about"]) == {"these trained models"}


def test_with_seeds_the_verdict_is_about_methods_and_the_models_have_a_line(seeded_study: Study):
    said = answer(seeded_study)
    assert said[0].startswith("The highest test accuracy is that of")
    found = r"differ by \d\.\d\d points, as a standard deviation \(16 degrees of freedom between seeds\)"
    assert re.search(found, str(said))
    assert re.fullmatch(r"Of the trained models at hand alone: it is clearly better than \d of 7 others\.", said[-1])
    pairs = seeded_study.pairs
    assert set(pairs["about"]) == {"methods"}
    assert (pairs["high"] - pairs["low"] >= pairs["models_high"] - pairs["models_low"] - 0.002).all()
    assert set(seeded_study.effects["A"].table["about"]) == {"methods"}


def test_the_first_by_validation_is_named_with_its_interval(comparison: Path, tmp_path: Path):
    shutil.copytree(comparison, tmp_path / "multirun")
    chosen = next((tmp_path / "multirun").glob("ast_lora_on_*"))
    for path in (tmp_path / "multirun").glob("*/result.json"):
        content = json.loads(path.read_text())
        content["metrics"]["val_acc"] = 0.9 if path.parent == chosen else 0.8
        path.write_text(json.dumps(content))
    study = compare(collect([tmp_path]))
    frame = study.combinations.set_index("combination")
    assert frame["leader"].to_dict() == dict.fromkeys(frame.index, "") | {
        frame["test_acc"].idxmax(): "test",
        "ast + lora (with aug)": "validation",
    }
    [sentence] = [line for line in answer(study) if "By validation" in line]
    assert "test clips had no part in, the first is ast + lora (with aug): 0." in sentence
    assert "95 % interval" in sentence


def test_as_good_within_a_margin(comparison: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Within a hundredth of a point no other is shown to be as good; within thirty points all but the worst are."""
    for margin, words in ((0.01, ""), (30, "As good within 30 points at 95 % confidence: ")):
        arguments = [str(comparison), "--margin", str(margin), "--no-plots", "--output-dir", str(tmp_path)]
        assert main(arguments) == 0
        text = (tmp_path / "summary_report.md").read_text()
        assert ("As good within" in text) == bool(words)
        assert words in text
    for wrong in ("0", "-1", "101"):
        with pytest.raises(SystemExit):
            main([str(comparison), "--margin", wrong])
        assert "no number of percentage points from 0.01 to 100" in capsys.readouterr().err


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
    with pytest.raises(UserError, match=r"--metric accuracy: no such metric; did you mean .*test_acc"):
        compare(collect([comparison]), "accuracy")
    with pytest.raises(UserError, match=r"no such metric; did you mean test_f1_macro.*\? Any"):
        compare(collect([comparison]), "test_f1_marco")


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
    assert any("1 of 1 run carries warnings" in note and "not above chance" in note for note in study.notes)
    assert "not above chance" in summary(study).split("## Warnings of the runs")[1]


def test_a_warning_that_many_runs_share_is_said_once(tmp_path: Path):
    for seed in (1, 2, 3):
        write_result(tmp_path / f"run{seed}", result({"seed": seed}, warnings=["nothing says what belongs together"]))
    write_result(tmp_path / "run4", result({"seed": 4}, warnings=["another"]))
    section = summary(compare(collect([tmp_path]))).split("## Warnings of the runs")[1]
    assert section.count("nothing says") == 1
    assert "and 2 more: nothing says what belongs together" in section
    assert "and 3 more" not in section
    assert section.count("another") == 1


def chance_runs(folder: Path, *warned: bool) -> Study:
    """One completed run for each of ``warned``, with the warnings that the trainer itself gives."""
    from sousa_bench.results.predictions import outcome_warnings

    logits, labels, players = np.tile(np.eye(40), (2, 1)), (np.arange(80) + 1) % 40, np.arange(80) % 8
    words = outcome_warnings(logits, labels, TASK, players, partial=False, random_weights=True)
    for number, item in enumerate(warned):
        write_result(folder / str(number), result({"seed": number}, accuracy=0.0, warnings=words if item else []))
    return compare(collect([folder]))


def test_that_nothing_was_learnt_is_said_first(tmp_path: Path):
    said = verdicts(chance_runs(tmp_path / "all", True, True))
    assert said[0] == "None of the 2 completed runs is above chance: nothing was learnt, so what follows ranks luck."
    assert verdicts(chance_runs(tmp_path / "one", True))[0].startswith("The only completed run is not above chance")
    assert "chance" not in "".join(verdicts(chance_runs(tmp_path / "some", True, False))[0])


def test_means_of_seeds_are_equal_where_their_counts_are():
    """Thirds have no exact value: summed as whole numbers, combinations of as many right clips are equal to the bit."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"combination": ["a", "b"], "cohort": "A"})
    player = np.repeat(np.arange(8), 11)
    clips = ClipSet(TASK, np.arange(88), np.zeros(88, int), player, [str(number) for number in range(8)], {})
    for _ in range(20):
        hits = rng.integers(0, 4, 88)
        mixed = np.concatenate([rng.permutation(hits[player == number]) for number in range(8)])
        group = [Measured(number, row, row > 0, 3, 3, 3.0) for number, row in enumerate((hits, mixed))]
        pair = pair_table(frame, clips, group, np.array([[0, 1]]), TrainingLuck()).iloc[0]
        assert (pair["difference"], pair["p"], pair["p_adjusted"], pair["clear"]) == (0.0, 1.0, 1.0, False)


@pytest.fixture
def two_weights(tmp_path: Path) -> Study:
    """The same four combinations from two kinds of weights: cohorts whose combinations have the same names."""
    for kind, seed in (("official", 1), ("random", 5)):
        folder = write_sweep(tmp_path / kind, models=("ast",), strategies=("lora", "ia3"), per_player=20, seed=seed)
        for path in folder.glob("*/result.json"):
            content = json.loads(path.read_text())
            content["weights"]["kind"] = kind
            content["fingerprint"] += kind
            path.write_text(json.dumps(content))
    return compare(collect([tmp_path]))


def changed(folder: Path, change: Callable[[dict], None]) -> Path:
    for path in folder.glob("*/result.json"):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    return folder


def test_runs_from_two_files_of_weights_are_no_seeds_of_one_combination(tmp_path: Path):
    for name, seed in (("first", 1), ("second", 5)):
        folder = write_sweep(tmp_path / name, models=("ast",), strategies=("lora",), per_player=20, seed=seed)

        def other_file(content: dict, name: str = name) -> None:
            content["weights"] |= {"kind": "embedded", "sha256": name.ljust(64, "0")}
            content["fingerprint"] += name

        changed(folder, other_file)
    study = compare(collect([tmp_path]))
    assert sorted(study.combinations["combination"]) == [
        f"ast + lora ({aug} aug), weights {name}" for aug in ("no", "with") for name in ("first000", "second00")
    ]
    assert set(study.combinations["runs"]) == {1}
    assert any("different weights files" in note for note in study.notes)
    for path in tmp_path.rglob("result.json"):
        changed(path.parents[1], lambda content: content["weights"].pop("kind", None))
    study = compare(collect([tmp_path]))  # a file is a file, whatever kind it is
    assert set(study.combinations["runs"]) == {1}
    assert any("different weights files" in note for note in study.notes)
    for path in tmp_path.rglob("result.json"):
        changed(path.parents[1], lambda content: content["weights"].update(kind="random"))
    study = compare(collect([tmp_path]))  # each seed has its own random weights
    assert set(study.combinations["runs"]) == {2}
    assert not any("different weights files" in note for note in study.notes)


def test_a_commit_with_changes_of_ones_own_is_said_to_have_them(tmp_path: Path):
    write_result(tmp_path / "run", result({}, git_commit="0123456789abcdef-dirty"))
    assert "**commit**: 0123456789ab-dirty" in summary(compare(collect([tmp_path])))


def test_a_checkpoint_is_one_choice_however_the_path_to_it_was_written(tmp_path: Path):
    def study(*files: tuple[str, str | None]) -> Study:
        place = tmp_path / str(len(files))
        for seed, (path, sha) in enumerate(files):
            made = result({"seed": seed}, weights={"kind": "official", "origin": "mn.pt", "sha256": sha})
            made["resolved_config"]["model"]["checkpoint"] = path
            made["status"] = "completed" if sha else "failed"
            write_result(place / f"run{seed}", made)
        return compare(collect([place]))

    one = study(("a/mn.pt", "1" * 64), ("mn.pt", "1" * 64), ("/there/mn.pt", None))
    assert set(one.table["combination"]) == {"ast + lora (with aug)"}  # the failed one belongs to it too
    two = study(("a/mn.pt", "1" * 64), ("mn.pt", "1" * 64), ("b/mn.pt", "2" * 64), ("a/mn.pt", "1" * 64))
    assert dict(zip(two.combinations["combination"], two.combinations["runs"], strict=True)) == {
        "ast + lora (with aug), weights 11111111": 3,
        "ast + lora (with aug), weights 22222222": 1,
    }


def test_what_embedded_weights_found_goes_on_from_the_published_weights(tmp_path: Path):
    def commands(model_name: str = "ast", **config: object) -> str:
        place = tmp_path / f"{model_name}{len(config)}"
        folder = write_sweep(place, models=(model_name,), strategies=("lora",), per_player=20)
        changed(folder, lambda content: content["resolved_config"].update(weights="embedded", **config))
        [step] = [step for step in next_steps(compare(collect([folder])), 3) if "more data" in step.title]
        return " ".join(step.commands)

    assert "weights=official" in commands()
    assert "weights=official" not in commands(model={"name": "ast", "checkpoint": "mine"})
    assert "weights=official" not in commands("openbeats")  # no program can fetch them


def test_pretraining_is_no_candidate_for_more(tmp_path: Path):
    folder = write_sweep(tmp_path, models=("ast", "beats"), strategies=("full",), augmentations=(True,), per_player=20)
    changed(folder, lambda content: content.update(overrides=[*content["overrides"], "experiment=pretraining"]))
    titles = [step.title for step in next_steps(compare(collect([folder])), 3)]
    assert not [title for title in titles if "more data" in title or "seeds" in title]


def test_baselines_of_an_earlier_version_stay_without_augmentation(tmp_path: Path):
    """Its experiment=baselines took augmentation away by itself, so that its runs' overrides don't say it."""
    folder = write_sweep(tmp_path, models=("ast",), strategies=("full", "head"), augmentations=(False,), per_player=20)

    def earlier(content: dict[str, Any]) -> None:
        words = [word for word in content["overrides"] if not word.startswith("augmentation")]
        content.update(overrides=[*words, "experiment=baselines"])

    changed(folder, earlier)
    study = compare(collect([folder]))
    commands = [line for step in next_steps(study, 3) for line in step.commands]
    training = [line for line in commands if "sousa_bench.train" in line and "peft=" in line]
    assert training
    assert all("augmentation=off" in line and "experiment" not in line for line in training)
    assert "augmentation=off" in retry_command(study, 0).split()


def test_each_cohort_says_its_own_lead(two_weights: Study):
    assert sorted(two_weights.cohorts) == ["A", "B"]
    said = answer(two_weights)
    text = summary(two_weights)
    leads = []
    for cohort in "AB":
        rows = two_weights.combinations[two_weights.combinations["cohort"] == cohort].sort_values("test_acc")
        second, leader = rows["combination"].iloc[-2:]
        lead = 100 * (rows["test_acc"].iloc[-1] - rows["test_acc"].iloc[-2])
        mine = said[next(n for n, line in enumerate(said) if line.startswith(f"Cohort {cohort}")) :]
        assert f"Its lead over the next, {second}, is {lead:+.2f} points" in next(s for s in mine if "Its lead" in s)
        table = text.split(f"against the next (cohort {cohort})")[1].split("##")[0]
        assert f"{lead:+.2f} points" in next(line for line in table.splitlines() if line.startswith(f"| {second} "))
        assert leader != second
        leads.append(lead)
    assert leads[0] != pytest.approx(leads[1], abs=0.01)


def test_two_combinations_on_several_clip_sets_count_once_on_the_largest():
    def part(second: str, p_value: float, clips: int) -> dict[str, object]:
        row = dict.fromkeys(COLUMNS) | {"cohort": "A", "first": "x", "second": second, "clips": clips}
        return row | {"p_adjusted": p_value}

    tables = ([part("y", 0.03, 900), part("z", 0.04, 900)], [part("y", 0.5, 90), part("w", 0.06, 80)])
    pairs = join([pd.DataFrame(rows) for rows in tables])
    assert pairs[["second", "clips"]].to_numpy().tolist() == [["y", 900], ["z", 900], ["w", 80]]
    assert against_best(pairs, "A", "y") == {"x": 0.03}


def test_seeds_behind_the_effect_of_augmentation_are_said(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", models=("ast",), strategies=("lora",), seeds=(1, 2, 3))
    shutil.rmtree(next(folder.glob("ast_lora_off_small_s3_*")))
    text = summary(compare(collect([folder])))
    assert "over the seeds and folds that both have" in text
    assert re.search(r"\| ast \+ lora +\|.*\| +2; left out: 1 with \| +1,140/19 \|", text)


def test_one_run_has_no_spread_and_groups_say_clips_and_players(tmp_path: Path):
    text = summary(compare(collect([write_sweep(tmp_path, models=("ast",), strategies=("lora",))])))
    assert "(2 runs); 1,140 clips, 19 players each" in text
    assert re.search(r"With augmentation\*\*: Avg Acc=0\.\d{4} \(1 run\); 1,140 clips, 19 players each", text)
    write_result(tmp_path / "other", result({"model": "beats"}, files={}))
    text = summary(compare(collect([tmp_path])))
    assert re.search(r"\*\*beats\*\*: Avg Acc=0\.8000 ± -, Best=0\.8000 \(1 run\); no predictions", text)


def test_players_and_clips_named_like_missing_values(tmp_path: Path) -> None:
    """``NA`` and the like are names: the same tables as under any other."""
    names = ["NA", "NaN", "None", "nan", "null"]
    tables = []
    for place in ("plain", "odd"):
        folder = write_sweep(tmp_path / place, models=("ast", "beats"), strategies=("lora",), players=5)
        for path in folder.rglob("predictions.parquet") if place == "odd" else ():
            frame = pd.read_parquet(path)
            frame["player"] = [names[int(player[-1])] for player in frame["player"]]
            frame["soundfont"] = "NA"
            frame.loc[frame.index[:5], "sample_id"] = names
            frame.to_parquet(path)
        assert main([str(folder), "--no-images", "--output-dir", str(tmp_path / "analysis")]) == 0
        tables.append([(tmp_path / "analysis" / f"{name}.csv").read_text() for name in ("combinations", "comparisons")])
    assert tables[0] == tables[1]
    assert ",5," in tables[1][0]


def test_long_names_that_differ_at_their_end_are_different(tmp_path):
    start, count = "site/" * 60, 12
    groups = [f"{start}{number // 3}" for number in range(count)]
    table = pd.DataFrame({"sample_id": [f"{start}{number:02d}" for number in range(count)], "group": groups})
    table.assign(label=0, predicted=0).to_parquet(tmp_path / "predictions.parquet")
    runs = pd.DataFrame({"folder": [str(tmp_path)], "files.predictions": ["predictions.parquet"]})
    [clips], problems = read_predictions(runs, [Task(("owl", "wren"), group="site")], [0])
    assert not problems
    assert len(set(clips.sample_id)) == count
    assert list(clips.sizes) == [3.0] * 4
    assert len(set(clips.players)) == 4
    assert max(map(len, clips.players)) <= 200
