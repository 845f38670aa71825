"""A finished run on its own and on other clips: same clips, same numbers; a result that the analysis keeps apart."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from sousa_bench.analysis import collect, compare
from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.errors import UserError
from sousa_bench.evaluate.__main__ import main
from sousa_bench.results.finished import FinishedRun, finished_run, finished_runs, ranked
from sousa_bench.results.result import missing_fields
from sousa_bench.training.evaluated_clips import data_node
from tests.trained import ROOT, Trained, command, home, trained

SAMPLE = Path(os.environ.get("SOUSA_SAMPLE", ROOT.parent / "shared" / "sousa_sample"))


def dataset(finished: Trained) -> Path:
    """The synthetic clips, as a folder that anyone could have."""
    return next(iter(finished.audio().values())).parents[2]


@pytest.fixture
def recordings(finished: Trained, tmp_path: Path) -> Path:
    """Six labelled recordings of one's own: a folder with a table, all of them in the test split."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = []
    own = finished.predictions()
    for name, path in list(finished.audio().items())[:6]:
        shutil.copy(path, folder / path.name)
        rows.append(
            {
                "sample_id": f"mine_{name}",
                "player": "me",
                "rudiment_slug": own.loc[name, "rudiment"],
                "split": "test",
                "audio_path": path.name,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_the_same_clips_give_the_runs_own_numbers(finished: Trained, evaluate, tmp_path: Path):
    result = evaluate(finished)
    own = finished.result
    assert result["metrics"] == own["metrics"]
    assert result["per_class"] == own["per_class"]
    assert result["data"]["test_fingerprint"] == own["data"]["test_fingerprint"]
    assert result["evaluation"]["own_test"] == {
        "same_clips": True,
        "test_acc": own["metrics"]["test_acc"],
        "changed": 0,
    }
    now = pd.read_parquet(tmp_path / "evaluated" / "predictions.parquet").set_index("sample_id")
    then = finished.predictions()
    assert np.array_equal(np.stack(now["logits"].to_list()), np.stack(then["logits"].loc[now.index].to_list()))


@pytest.mark.slow
def test_a_run_in_bfloat16_is_evaluated_so_and_says_where_it_is_not(evaluate, tmp_path: Path):
    finished = trained("bf16-mixed")
    same = evaluate(finished)
    assert same["environment"]["precision"] == "bf16-mixed"
    assert same["metrics"]["test_loss"] == finished.result["metrics"]["test_loss"]
    other = evaluate(finished, "--precision", "32-true", folder=tmp_path / "other")
    assert other["metrics"]["test_loss"] != same["metrics"]["test_loss"]
    assert other["metrics"]["test_loss"] == pytest.approx(same["metrics"]["test_loss"], abs=0.05)
    assert other["fingerprint"] != same["fingerprint"]
    assert any("bf16-mixed on the cpu, this in 32-true" in message for message in other["warnings"])


@pytest.mark.slow
def test_the_result_is_one_of_its_own(finished: Trained, evaluate, tmp_path: Path):
    result = evaluate(finished)
    own = finished.result
    assert missing_fields(result) == []
    assert result["evaluated_run"] == own["experiment_id"]
    assert result["network"] == own["network"]
    assert result["evaluation"]["run_fingerprint"] == own["fingerprint"]
    assert result["fingerprint"] != own["fingerprint"]
    assert result["fingerprint"] == evaluate(finished, folder=tmp_path / "again")["fingerprint"]
    assert result["fingerprint"] != evaluate(finished, "--split", "val", folder=tmp_path / "val")["fingerprint"]
    interval = result["evaluation"]["accuracy_interval"]
    assert interval["players"] == own["data"]["players"]["test"] >= 8
    assert 0 <= interval["low"] <= result["metrics"]["test_acc"] <= interval["high"] <= 1
    # Where runs are looked for, it is none.
    with pytest.raises(UserError, match="is an evaluation of"):
        finished_run(tmp_path / "evaluated")
    with pytest.raises(UserError, match="no completed run"):
        finished_runs([tmp_path])


@pytest.mark.slow
def test_the_analysis_keeps_run_and_evaluations_apart(finished: Trained, recordings: Path, evaluate, tmp_path: Path):
    place = tmp_path / "results"
    evaluate(finished, folder=place / "own")
    evaluate(finished, "--split", "val", folder=place / "val")
    evaluate(finished, "data=tiny", f"data.root={recordings}", folder=place / "mine")
    study = compare(collect([finished.folder, place]))
    assert len(study.table) == 4
    assert study.table["cohort"].nunique() == 4
    assert study.combinations["runs"].tolist() == [1] * 4
    assert study.combinations["combination"].nunique() == 4
    assert not len(study.pairs)
    assert not study.results.problems
    [row] = study.table.index[study.table["folder"] == str(place / "own")]
    low = collect([place / "own"])
    assert compare(low).table["test_acc_low"].iloc[0] == pytest.approx(study.table["test_acc_low"].loc[row])


def test_two_runs_on_the_same_new_clips_are_compared(recordings: Path, evaluate, tmp_path: Path):
    words = ("data=tiny", f"data.root={recordings}", "--precision", "32-true")
    one = evaluate(trained(), *words, folder=tmp_path / "a")
    other = evaluate(trained("bf16-mixed"), *words, folder=tmp_path / "b")
    assert one["data"]["fingerprint"] == other["data"]["fingerprint"]
    assert one["fingerprint"] != other["fingerprint"]
    table = collect([tmp_path / "a", tmp_path / "b"]).table
    assert table["cohort"].nunique() == 1
    assert table["combination"].nunique() == 2  # they were trained in different precision


def test_data_with_a_test_split_alone(finished: Trained, recordings: Path, evaluate, capsys, tmp_path: Path):
    result = evaluate(finished, "data=tiny", f"data.root={recordings}")
    assert result["data"]["counts"] == {"train": 0, "val": 0, "test": 6}
    assert result["config"]["data"] == "tiny"
    assert result["config"]["trained_on"] == "synthetic"
    assert result["evaluation"]["accuracy_interval"]["low"] is None
    assert "no interval" in capsys.readouterr().out
    then, now = finished.predictions(), pd.read_parquet(tmp_path / "evaluated" / "predictions.parquet")
    for row in now.itertuples():
        assert row.predicted == then.loc[row.sample_id.removeprefix("mine_"), "predicted"]


@pytest.mark.slow
def test_the_runs_own_clips_of_other_splits_are_named_as_met_before(finished: Trained, evaluate, tmp_path: Path):
    train = evaluate(finished, "--split", "train")
    assert train["evaluation"]["met_before"]["train"]["clips"] == train["data"]["counts"]["train"] > 0
    assert any("was trained on" in message for message in train["warnings"])
    whole = evaluate(finished, "--split", "all", folder=tmp_path / "all")
    assert sum(whole["data"]["counts"].values()) == 40
    assert whole["evaluation"]["met_before"]["val"]["clips"] == finished.result["data"]["counts"]["val"]
    # The same clips by another path are recognised too.
    copy = evaluate(finished, "data=tiny", f"data.root={dataset(finished)}", "--split", "train", folder=tmp_path / "c")
    assert copy["evaluation"]["met_before"] == train["evaluation"]["met_before"]


def test_all_clips_of_a_dataset_without_splits_are_evaluated_however_many_a_choice_tests(
    finished: Trained, recordings: Path, evaluate, tmp_path: Path
):
    table = pd.read_csv(recordings / "metadata.csv").drop(columns="split")
    table.to_csv(recordings / "metadata.csv", index=False)
    few = ("data=tiny", f"data.root={recordings}", "data.clips.test=2")
    assert evaluate(finished, *few, "--split", "all")["data"]["counts"]["test"] == 6
    table.assign(split="test").to_csv(recordings / "metadata.csv", index=False)
    assert evaluate(finished, *few, "--split", "all", folder=tmp_path / "named")["data"]["counts"]["test"] == 2


def test_other_sounds_of_the_same_names_are_not_called_the_runs_own(
    finished: Trained, evaluate, capsys, tmp_path: Path
):
    noisy = tmp_path / "noisy"
    shutil.copytree(dataset(finished), noisy)
    for path in noisy.rglob("*.flac"):
        samples, rate = sf.read(path)
        sf.write(path, samples + np.random.default_rng(0).normal(0, 0.1, len(samples)), rate)
    own_test = evaluate(finished, "data=tiny", f"data.root={noisy}")["evaluation"]["own_test"]
    assert own_test["same_clips"] is None
    assert own_test["test_acc"] == finished.result["metrics"]["test_acc"]
    assert "The run's own test, on clips of the same names and in other files, gave " in capsys.readouterr().out


def test_the_best_run_by_a_metric_of_which_less_is_better(tmp_path: Path):
    facts = {"well": {"val_ece": 0.02, "val_mine": 1.0}, "badly": {"val_ece": 0.4, "val_mine": 2.0}}
    runs = [FinishedRun(tmp_path / name, {"metrics": {"val_acc": 0.5, **values}}) for name, values in facts.items()]
    for declared, metric, best in (
        ({}, "val_ece", "well"),
        ({}, "val_mine", "badly"),
        ({"mine": {"better": "lower"}}, "val_mine", "well"),
    ):
        for run in runs:
            run.result["declared_metrics"] = declared
        assert ranked(runs, metric)[0].name == best, (declared, metric)


def test_base_weights_that_have_moved_are_asked_for(finished: Trained, evaluate, capsys, tmp_path: Path):
    copied = tmp_path / "copy" / finished.folder.name
    shutil.copytree(finished.folder, copied)
    file = copied / "adapter" / "sousa.json"
    facts = json.loads(file.read_text())
    facts["model"] |= {"weights": "official", "checkpoint": "gone.pt", "variant": None}
    file.write_text(json.dumps(facts))
    evaluate(replace(finished, folder=copied), code=1)
    error = capsys.readouterr().err
    assert "model.checkpoint=gone.pt: there is no such file" in error
    assert error.endswith("If the run's base weights lie elsewhere now: --checkpoint FILE.\n")


def test_the_length_grid_is_the_one_that_was_asked_for(finished: Trained, evaluate, tmp_path: Path):
    short = "data.max_duration=3.2"  # the clips are longer, and each is padded: to 3.5 s, or to 6
    own = evaluate(finished, short, folder=tmp_path / "own")
    other = evaluate(finished, short, "data.quantum=3.0", folder=tmp_path / "other")
    assert other["resolved_config"]["data"]["quantum"] == 3.0
    one, two = (pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("own", "other"))
    assert one["sample_id"].tolist() == two["sample_id"].tolist()
    assert not np.array_equal(np.stack(one["logits"].to_list()), np.stack(two["logits"].to_list()))
    assert other["metrics"]["test_loss"] != own["metrics"]["test_loss"]


def test_the_runs_own_test_without_its_predictions(finished: Trained, evaluate, capsys, tmp_path: Path):
    copy = tmp_path / "copy" / finished.folder.name
    shutil.copytree(finished.folder, copy)
    (copy / "predictions.parquet").unlink()
    run = replace(finished, folder=copy)
    accuracy = finished.result["metrics"]["test_acc"]
    same = evaluate(run)["evaluation"]["own_test"]
    assert same == {"same_clips": True, "test_acc": accuracy, "changed": None}
    assert "are the clips of the run's own test" in (told := capsys.readouterr().out)
    assert "can't be compared" in told
    assert evaluate(run, "--split", "val")["evaluation"]["own_test"] == {"same_clips": False}
    assert "on other clips" in capsys.readouterr().out
    result = finished.result
    del result["data"]["test_fingerprint"]
    (copy / "result.json").write_text(json.dumps(result))
    assert evaluate(run)["evaluation"]["own_test"] == {"same_clips": None}
    assert "can't be told" in (told := capsys.readouterr().out)
    assert "on other clips" not in told


def test_what_is_written(finished: Trained, evaluate, tmp_path: Path):
    result = evaluate(finished)
    folder = tmp_path / "evaluated"
    table = pd.read_csv(folder / "per_class.csv")
    assert sorted(table["rudiment"]) == sorted(RUDIMENTS)
    assert table["family"].drop_duplicates().tolist() == ["rolls", "diddles", "flams", "drags"]
    assert table["clips"].sum() == result["data"]["counts"]["test"]
    frame = pd.read_parquet(folder / "predictions.parquet")
    mistaken = frame[frame["label"] != frame["predicted"]].groupby(["label", "predicted"]).size()
    row = table[table["taken_for_clips"] > 0].iloc[0]
    pair = (RUDIMENTS.index(row["rudiment"]), RUDIMENTS.index(row["taken_for"]))
    assert mistaken[pair] == row["taken_for_clips"]
    page = (folder / "confusion.html").read_text()
    assert "Swiss Army triplet" in page
    assert "cdn.plot.ly" not in re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert not (folder / "confusion.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["model=htsat"], 2, "overrides of the data alone"),
        (["datta=tiny"], 2, "did you mean data=tiny?"),
        (["data=tinny"], 2, "Did you mean data=tiny"),
        (["data=tiny,mini"], 2, "one value"),
        (["data.rooot=x"], 2, "Did you mean data.root"),
        (["data=tiny", "data.root=/no/such/place"], 1, "there is no such folder"),
        (["data.quantum=0"], 2, "data.quantum=0"),
        (["data.skill_tier=master"], 1, "data.skill_tier=master"),
    ],
)
def test_wrong_overrides(words, code, message, finished: Trained, evaluate, capsys):
    evaluate(finished, *words, code=code)
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="rudiment_slug"), "no column was recognised as the labels"),
        (lambda t: t.assign(rudiment_slug=[None, *t["rudiment_slug"][1:]]), "1 of 6 clips have no rudiment_slug"),
        (lambda t: t.assign(rudiment_slug="moonwalk"), "Unknown rudiment 'moonwalk'"),
    ],
)
def test_clips_without_labels(change, message, finished: Trained, recordings: Path, evaluate, capsys):
    table = pd.read_csv(recordings / "metadata.csv")
    change(table).to_csv(recordings / "metadata.csv", index=False)
    evaluate(finished, "data=tiny", f"data.root={recordings}", code=1)
    told = capsys.readouterr().err
    assert message in told
    assert "sousa_bench.predict" in told


def test_clips_without_splits_are_all_evaluated(finished: Trained, recordings: Path, evaluate, capsys):
    table = pd.read_csv(recordings / "metadata.csv")
    table.drop(columns="split").to_csv(recordings / "metadata.csv", index=False)
    words = ("data=tiny", f"data.root={recordings}")
    evaluate(finished, *words, code=1)
    assert "--split all" in capsys.readouterr().err
    assert evaluate(finished, *words, "--split", "all")["data"]["counts"]["test"] == 6


def test_a_runs_result_is_never_overwritten(finished: Trained, evaluate, capsys):
    before = (finished.folder / "result.json").read_bytes()
    evaluate(finished, folder=finished.folder, code=1)
    assert "holds the result of a run" in capsys.readouterr().err
    assert (finished.folder / "result.json").read_bytes() == before


def test_real_clips(finished: Trained, evaluate):
    if not SAMPLE.is_dir():
        pytest.skip(f"needs the sample data in {SAMPLE} (SOUSA_SAMPLE)")
    result = evaluate(finished, "data=tiny", f"data.root={SAMPLE / 'hub'}")
    assert result["data"]["counts"]["test"] == 10
    assert result["evaluation"]["met_before"]["train"] == {"clips": 0, "players": 0}
    assert any("classes have no clip" in message for message in result["warnings"])


def test_a_package_is_refused(tmp_path: Path, capsys):
    (tmp_path / "config.json").write_text('{"sousa_bench_package": 1}')
    assert main([str(tmp_path)]) == 1
    assert "give the run's folder" in capsys.readouterr().err


def test_a_result_without_a_field_that_is_taken_over_is_refused_before_the_work(
    finished: Trained, capsys, tmp_path: Path
):
    copied = tmp_path / finished.folder.name
    shutil.copytree(finished.folder, copied)
    result = finished.result
    del result["config"]["strategy"], result["efficiency"]["total_params"], result["metrics"]["test_acc"]
    (copied / "result.json").write_text(json.dumps(result))
    assert main([str(copied)]) == 1
    assert "result.json: lacks config.strategy, efficiency.total_params, which" in capsys.readouterr().err
    result["metrics"]["temperature"] = [[None, False]]
    (copied / "result.json").write_text(json.dumps(result))
    assert main([str(copied)]) == 1
    assert "metrics.temperature can't be [[None, False]]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.browser
def test_the_command_writes_beside_the_results(finished: Trained):
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        pytest.skip("no Chromium or Chrome on this machine")
    done = command("evaluate", str(finished.folder), "--threads", "1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    [folder] = (home() / "outputs" / "evaluate").iterdir()
    assert folder.name.startswith(f"{finished.folder.name}_on_synthetic_test_")
    image = (folder / "confusion.png").read_bytes()
    assert image[:4] == b"\x89PNG"
    assert len(image) > 50_000
    assert "each with the same prediction" in done.stdout


def test_a_result_from_elsewhere_chooses_no_folder(finished: Trained, tmp_path: Path):
    foreign = replace(finished_run(finished.folder), result=copy.deepcopy(finished.result))
    foreign.result["resolved_config"]["data"]["cache_dir"] = str(tmp_path / "theirs")
    assert data_node(foreign, [])["cache_dir"] is None
    assert data_node(foreign, [f"data.cache_dir={tmp_path}/mine"])["cache_dir"] == f"{tmp_path}/mine"
    (tmp_path / "theirs" / "clips").mkdir(parents=True)
    assert data_node(foreign, [])["cache_dir"] == str(tmp_path / "theirs")


def test_a_data_name_leads_nowhere_else(finished: Trained, evaluate, capsys):
    evaluate(finished, "data.name=../../x", code=2)
    assert "data.name=../../x can't be: it must be one part of a path" in capsys.readouterr().err
