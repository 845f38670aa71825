"""Finding, reading, repeating, filtering: from folders to one table."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.analysis import collect, load
from sousa_bench.analysis.read import PARALLEL_FROM
from sousa_bench.analysis.table import FIXED_COLUMNS
from sousa_bench.analyze import main
from sousa_bench.errors import UserError
from sousa_bench.results.manifest import MAX_COMMAND, planned_jobs
from sousa_bench.results.result import write_json, write_result
from tests.analysis.synthetic import result, write_sweep


def put(folder: Path, config: dict | None = None, **more) -> Path:
    return write_result(folder, result({"model": "ast", **(config or {})}, **more)).parent


def test_a_row_a_run_with_the_fixed_columns_first(comparison: Path):
    table = load(comparison)
    assert len(table) == 24
    assert tuple(table.columns[: len(FIXED_COLUMNS)]) == FIXED_COLUMNS
    assert table["status"].eq("completed").all()
    assert set(table["augmentation"]) == {True, False}
    assert table["test_acc"].between(0.5, 1).all()


def test_a_date_folder_a_sweep_and_a_single_result_are_the_same_runs(comparison: Path):
    one = next(comparison.glob("*/result.json"))
    assert len(load(comparison.parents[1])) == len(load(comparison)) == 24
    assert len(load(one)) == 1
    assert len(load(comparison, comparison.parent)) == 24


def test_the_newest_completed_of_a_fingerprint_counts_and_the_others_are_named(tmp_path: Path):
    put(tmp_path / "old", when=datetime(2026, 1, 1), accuracy=0.5)
    put(tmp_path / "new", when=datetime(2026, 1, 3), accuracy=0.7)
    put(tmp_path / "later_failure", when=datetime(2026, 1, 9), status="failed")
    results = collect([tmp_path])
    assert results.table["test_acc"].tolist() == [0.7]
    assert sorted(Path(line.split(":")[0]).name for line in results.repeats) == ["later_failure", "old"]


def test_torn_foreign_and_newer_files_are_named_and_passed_over(tmp_path: Path):
    put(tmp_path / "good")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "result.json").write_text('{"status": "comp')
    write_json(tmp_path / "newer" / "result.json", {"schema_version": 99, "status": "completed", "config": {}})
    write_json(tmp_path / "odd" / "result.json", {"status": "half-way", "config": {}})
    write_json(tmp_path / "foreign.json", {"name": "package"})
    results = collect([tmp_path])
    assert len(results.table) == 1
    for name in ("torn", "newer", "odd", "foreign.json"):
        assert any(name in line for line in results.problems), name


def test_the_original_flat_files_are_read(tmp_path: Path):
    whole = result({"model": "htsat", "strategy": "ia3"})
    keys = ("experiment_id", "metrics", "efficiency", "status", "error", "timestamp", "git_commit")
    for number, accuracy in enumerate((0.8, 0.9)):
        old = {key: whole[key] for key in keys}
        old["experiment_id"] = f"htsat_ia3_aug_tiny_{number}"
        old["config"] = {
            key: whole["config"][key] for key in ("model", "strategy", "augmentation", "data", "max_epochs")
        }
        old["metrics"] = {**whole["metrics"], "test_acc": accuracy}
        write_json(tmp_path / f"{old['experiment_id']}.json", old)
    table = load(tmp_path)
    assert sorted(table["test_acc"]) == [0.8, 0.9]
    assert table["combination"].nunique() == 1


def test_a_manifest_leads_to_results_that_were_reused(tmp_path: Path):
    root = tmp_path / "multirun"
    earlier = put(root / "2026-01-31" / "run")
    sweep = root / "2026-02-01"
    put(sweep / "own", {"seed": 7})
    jobs = [
        {"index": 1, "fingerprint": "a", "overrides": ["seed=7"], "folder": "own", "status": "pending", "result": None},
        {
            "index": 2,
            "fingerprint": "b",
            "overrides": [],
            "folder": "../2026-01-31/run",
            "status": "reused",
            "result": "../2026-01-31/run/result.json",
        },
    ]
    write_json(sweep / "sweep.json", {"schema_version": 1, "name": "s", "jobs": jobs})
    assert sorted(load(sweep)["seed"]) == [7, 42]
    assert earlier.is_dir()


def test_a_manifest_must_not_leave_the_results_root(tmp_path: Path):
    outside = put(tmp_path / "elsewhere" / "run")
    sweep = tmp_path / "multirun" / "s"
    put(sweep / "own", {"seed": 7})
    targets = ["../../elsewhere/run/result.json", str(outside / "result.json"), "/etc/passwd", "\u0000", "own/../../.."]
    jobs = [{"index": i, "fingerprint": str(i), "folder": ".", "result": target} for i, target in enumerate(targets)]
    write_json(sweep / "sweep.json", {"schema_version": 1, "name": "s", "jobs": jobs})
    results = collect([sweep])
    assert results.table["seed"].tolist() == [7]
    assert sum("outside of" in line for line in results.problems) >= 4
    wider = collect([sweep], root=tmp_path)
    assert sorted(wider.table["seed"]) == [7, 42]


def manifest(sweep: Path, *targets: Path) -> None:
    jobs = [
        {"index": i, "fingerprint": str(i), "folder": ".", "status": "reused", "result": os.path.relpath(target, sweep)}
        for i, target in enumerate(targets)
    ]
    write_json(sweep / "sweep.json", {"schema_version": 1, "name": "s", "folder": "/", "jobs": jobs})


def test_results_reused_from_single_runs_are_found(tmp_path: Path):
    """The sweeper reuses what lies in ``multirun`` and in ``outputs`` beside it."""
    single = put(tmp_path / "outputs" / "run", {"seed": 1})
    far = put(tmp_path / "private" / "run", {"seed": 2})
    sweep = tmp_path / "multirun" / "s"
    manifest(sweep, single / "result.json", far / "result.json")
    results = collect([sweep])
    assert results.table["seed"].tolist() == [1]
    assert any("outside of" in line for line in results.problems)


@pytest.mark.parametrize("name", ["s", "2026-02-01/10-30-00"])
def test_results_reused_below_a_sweep_folder_of_another_name(tmp_path: Path, monkeypatch, name: str):
    """``hydra.sweep.dir=…/results``: its sweeps, and ``multirun`` and ``outputs`` of the current folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    sibling = put(tmp_path / "scratch" / "results" / "earlier" / "run", {"seed": 1})
    single = put(tmp_path / "project" / "outputs" / "run", {"seed": 2})
    far = put(tmp_path / "scratch" / "private" / "run", {"seed": 3})
    sweep = tmp_path / "scratch" / "results" / name
    manifest(sweep, *(folder / "result.json" for folder in (sibling, single, far)))
    results = collect([sweep])
    assert sorted(results.table["seed"]) == [1, 2]
    assert sum("outside of" in line for line in results.problems) == 1


@pytest.mark.parametrize("where", ["config", "resolved_config"])
def test_a_key_of_numbers_and_words_can_be_written(tmp_path: Path, where: str):
    for number, value in enumerate(("auto", 8, None, True)):
        made = result({}, fingerprint=str(number))
        target = made["config"] if where == "config" else made["resolved_config"]["trainer"]
        target["trainer.micro_batch_size" if where == "config" else "micro_batch_size"] = value
        write_result(tmp_path / "runs" / str(number), made)
    assert main([str(tmp_path / "runs"), "--no-plots", "--output-dir", str(tmp_path / "out")]) == 0
    written = pd.read_parquet(tmp_path / "out" / "comparison_table.parquet")["trainer.micro_batch_size"]
    assert sorted(written.dropna()) == ["8", "auto", "true"]


def test_links_are_not_followed(tmp_path: Path):
    outside = put(tmp_path / "outside" / "run")
    put(tmp_path / "runs" / "own", {"seed": 7})
    (tmp_path / "runs" / "linked").symlink_to(outside)
    (tmp_path / "runs" / "file").mkdir()
    (tmp_path / "runs" / "file" / "result.json").symlink_to(outside / "result.json")
    put(tmp_path / "runs" / "file" / "below", {"seed": 8})
    results = collect([tmp_path / "runs"])
    assert sorted(results.table["seed"]) == [7, 8]
    assert sum("a link, not followed" in line for line in results.problems) == 2


def test_a_sweep_named_through_a_link_has_each_result_once(tmp_path: Path):
    run = put(tmp_path / "disk" / "multirun" / "s" / "run")
    manifest(run.parent, run / "result.json")
    (tmp_path / "multirun").symlink_to(tmp_path / "disk" / "multirun")
    results = collect([tmp_path / "multirun" / "s"])
    assert results.table["folder"].tolist() == [str(tmp_path / "multirun" / "s" / "run")]
    assert not results.repeats
    assert not results.problems


def test_a_factor_of_its_own(ranks: Path):
    results = collect([ranks])
    assert results.factors == ["peft.r"]
    assert results.table["combination"].nunique() == 12
    assert set(results.table["peft.r"]) == {4, 8, 16}


def reused(folder: Path, own: dict, peft: dict) -> None:
    """A result whose ``config`` holds what varied in its own sweep, and whose resolved config holds everything."""
    made = result(own, fingerprint=folder.name)
    made["resolved_config"]["peft"] |= peft
    write_result(folder, made)


def test_a_reused_result_has_the_values_of_its_resolved_config(tmp_path: Path):
    reused(tmp_path / "base", {}, {"r": 8})
    reused(tmp_path / "rank4", {"peft.r": 4}, {"r": 4})
    results = collect([tmp_path])
    assert results.factors == ["peft.r"]
    assert sorted(results.table["peft.r"]) == [4, 8]
    assert sorted(label.split(", ")[1] for label in results.table["combination"]) == ["peft.r=4", "peft.r=8"]
    assert load(tmp_path, filters={"peft.r": 8})["fingerprint"].tolist() == ["base"]


def test_what_varied_in_the_sweep_that_a_result_was_reused_from_is_no_factor(tmp_path: Path):
    reused(tmp_path / "first", {"peft.r": 8}, {"r": 8, "init_lora_weights": True})
    reused(tmp_path / "second", {"peft.init_lora_weights": "pissa"}, {"r": 8, "init_lora_weights": "pissa"})
    results = collect([tmp_path])
    assert results.factors == ["peft.init_lora_weights"]
    assert set(results.table["peft.init_lora_weights"]) == {"true", "pissa"}


def test_results_of_the_original_schema_keep_the_values_of_their_config(tmp_path: Path):
    reused(tmp_path / "new", {}, {"r": 8})
    for rank in (4, 8):
        put(tmp_path / f"old{rank}", extra={"peft.r": rank}, fingerprint=f"old{rank}", resolved_config=None)
    results = collect([tmp_path])
    assert results.factors == ["peft.r"]
    assert sorted(results.table["peft.r"]) == [4, 8, 8]


def test_a_factor_that_only_the_resolved_config_names(tmp_path: Path):
    for number, size in enumerate((16, 32)):
        made = result({"seed": 42}, fingerprint=str(number))
        made["resolved_config"]["trainer"]["batch_size"] = size
        write_result(tmp_path / str(number), made)
    results = collect([tmp_path])
    assert results.factors == ["trainer.batch_size"]
    assert sorted(results.table["trainer.batch_size"]) == [16, 32]


def test_what_follows_from_another_choice_or_has_no_outcome_is_no_factor(tmp_path: Path):
    for number, (rate, root) in enumerate(((0.1, "/a"), (0.1, "/b"))):
        made = result({"seed": number}, fingerprint=str(number))
        made["resolved_config"]["peft"]["learning_rate"] = rate
        made["resolved_config"]["data"]["root"] = root
        made["resolved_config"]["logger"] = {"name": str(number)}
        write_result(tmp_path / str(number), made)
    assert collect([tmp_path]).factors == []
    assert collect([tmp_path]).table["combination"].nunique() == 1


@pytest.mark.parametrize(("rates", "factors"), [((0.1, 0.2, 0.2), []), ((0.1, 0.2, 0.3), ["peft.learning_rate"])])
def test_what_follows_from_the_kind_of_weights_is_no_factor(tmp_path: Path, rates: tuple, factors: list[str]):
    for seed, (kind, rate) in enumerate(zip(("embedded", "official", "official"), rates, strict=True)):
        made = result({"seed": seed}, fingerprint=str(seed), weights={"kind": kind, "origin": "", "sha256": None})
        made["resolved_config"]["weights"] = kind
        made["resolved_config"]["peft"]["learning_rate"] = rate
        write_result(tmp_path / str(seed), made)
    results = collect([tmp_path])
    assert sorted(results.factors) == sorted([*factors, "weights"])
    assert results.table["combination"].nunique() == 2 + len(factors)


def test_keys_that_the_fingerprint_leaves_out_are_no_factors(tmp_path: Path):
    from sousa_bench.config.fingerprint import IRRELEVANT

    for number in range(2):
        made = result({"seed": 1}, fingerprint=str(number))
        made["config"] |= {key: str(number) for key in IRRELEVANT}
        write_result(tmp_path / str(number), made)
    assert collect([tmp_path]).factors == []


def test_results_of_before_and_after_a_module_moved_are_of_one_setting(tmp_path: Path):
    for seed in (1, 2, 3, 4):
        made = result({"seed": seed}, fingerprint=str(seed))
        resolved = made["resolved_config"]
        resolved["trainer"]["_target_"] = f"sousa_bench.{'config.' if seed > 2 else ''}settings.TrainerSettings"
        resolved["augmentation"] = {"_target_": f"sousa_bench.{'data.' if seed > 2 else ''}augmentation.Augmentation"}
        if seed > 2:
            resolved["data"]["layout"], resolved["metrics"] = None, {}
        write_result(tmp_path / str(seed), made)
    results = collect([tmp_path])
    assert results.factors == []
    assert results.table["combination"].nunique() == 1


def test_keys_in_step_are_one_factor(tmp_path: Path):
    for number, rank in enumerate((4, 8)):
        put(tmp_path / str(number), extra={"peft.r": rank, "peft.lora_alpha": 2 * rank})
    assert collect([tmp_path]).factors == ["peft.r"]


@pytest.mark.parametrize(
    ("blocks", "config", "what"),
    [
        ({"data": {"fingerprint": "x" * 64, "test_fingerprint": "e" * 64}}, {}, "data fingerprint"),
        ({"data": {"fingerprint": "d" * 64, "test_fingerprint": "x" * 64}}, {}, "test clips"),
        ({"weights": {"kind": "random", "origin": "", "sha256": None}}, {}, "weights"),
        ({}, {"max_epochs": 5}, "epochs"),
    ],
)
def test_runs_that_must_not_be_compared_are_different_cohorts(tmp_path: Path, blocks: dict, config: dict, what: str):
    from sousa_bench.analysis import compare

    put(tmp_path / "a", {"strategy": "lora"}, accuracy=0.8)
    put(tmp_path / "b", {"strategy": "ia3", **config}, accuracy=0.9, **blocks)
    study = compare(collect([tmp_path]))
    assert sorted(study.table["cohort"]) == ["A", "B"]
    assert what in study.cohorts["A"]
    assert study.pairs.empty
    assert any("not compared" in note and what in note for note in study.notes)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"model": ["ast", "htsat"]}, 12),
        ({"strategy": "lora"}, 8),
        ({"peft": "lora"}, 8),
        ({"augmentation": True}, 12),
        ({"augmentation": "off"}, 12),
        ({"trainer.max_epochs": 20}, 24),
        ({"trainer.batch_size": "16.0"}, 24),
        ({"model": "ast", "strategy": ["lora", "ia3"], "augmentation": "false"}, 2),
    ],
)
def test_filters(comparison: Path, filters: dict, count: int):
    assert len(load(comparison, filters=filters)) == count


def test_nothing_found_and_nothing_left(comparison: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no result file found"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"nothing left.*model=resnet.*ast, beats"):
        load(comparison, filters={"model": "resnet"})
    with pytest.raises(UserError, match=r"no run has a config key 'peft.rank'"):
        load(comparison, filters={"peft.rank": 8})


def test_a_sweep_that_has_not_started_says_so(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", missing=tuple(range(24)))
    with pytest.raises(UserError, match="plans 24 runs and none has started"):
        load(folder)


def test_many_files_are_read_by_several_processes_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = result({})
    for number in range(60):
        write_result(
            tmp_path / str(number), {**made, "fingerprint": str(number)} | ({"extra": 1} if number > 40 else {})
        )
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "result.json").write_text("{")
    alone = collect([tmp_path])
    monkeypatch.setattr("sousa_bench.analysis.read.PARALLEL_FROM", 10)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    together = collect([tmp_path])
    assert PARALLEL_FROM > 60
    pd.testing.assert_frame_equal(alone.table, together.table)
    assert alone.problems == together.problems
    assert alone.resolved == together.resolved


def test_a_running_run_shows_its_progress(unfinished: Path):
    table = load(unfinished)
    assert table.loc[table["status"] == "running", "progress.epoch"].tolist() == [3, 3]


def test_the_output_folder_is_not_read(comparison: Path, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(comparison, folder)
    (folder / "mine").mkdir()
    (folder / "mine" / "ranking.json").write_text(json.dumps({"ranking": []}))
    assert collect([folder], skip=[folder / "mine"]).problems == []


def test_a_failed_run_whose_seed_is_no_number_is_written(tmp_path: Path):
    """``seed=4z``: the record holds a text where the other runs hold a number."""
    for seed in (4, 5, "4z"):
        status = "failed" if seed == "4z" else "completed"
        made = result({"seed": seed, "model.seed": seed}, status=status, fingerprint=str(seed))
        made["resolved_config"]["model"]["seed"] = seed
        write_result(tmp_path / "runs" / str(seed), made)
    assert main([str(tmp_path / "runs"), "--no-plots", "--output-dir", str(tmp_path / "out")]) == 0
    assert len(pd.read_parquet(tmp_path / "out" / "comparison_table.parquet")) == 3
    assert load(tmp_path / "runs")["combination"].nunique() == 1


def test_failed_runs_do_not_shape_the_comparison(tmp_path: Path):
    """After a sweep with ``weights=oficial`` and five epochs the good runs are labelled as before."""
    from sousa_bench.analysis import compare
    from sousa_bench.analysis.next_steps import next_steps

    for number, (strategy, kind) in enumerate([("lora", "random"), ("ia3", "random"), ("lora", "oficial")]):
        failed = kind == "oficial"
        made = result(
            {"strategy": strategy, "max_epochs": 6 if failed else 5}, status="failed" if failed else "completed"
        )
        made |= {"fingerprint": str(number), "weights": {"kind": None if failed else kind}}
        made["resolved_config"] |= {"weights": kind}
        made["resolved_config"]["model"] |= {"weights": kind, "seed": 42}
        write_result(tmp_path / str(number), made)
    results = collect([tmp_path])
    study = compare(results)
    assert results.factors == []
    assert set(study.combinations["combination"]) == {"ast + lora (with aug)", "ast + ia3 (with aug)"}
    assert study.cohorts == {}
    assert set(study.table["cohort"]) == {"A", "–"}
    assert not any("oficial" in command for step in next_steps(study, 3) for command in step.commands)


def test_a_key_filled_in_from_the_top_level_is_no_factor_beside_it(tmp_path: Path):
    for number, (weights, seed) in enumerate([("random", 1), ("official", 1), ("official", 2)]):
        made = result({"seed": seed}, fingerprint=str(number))
        made["resolved_config"] |= {"weights": weights, "seed": seed}
        made["resolved_config"]["model"] |= {"weights": weights, "seed": seed}
        write_result(tmp_path / str(number), made)
    assert collect([tmp_path]).factors == ["weights"]


def test_planned_jobs_are_counted_under_filters(tmp_path: Path):
    """Only jobs that the filters want and that no run stands for, one that the filters dropped among these."""
    folder = write_sweep(
        tmp_path / "multirun", ("ast",), ("lora",), (True,), extra={"peft.r": (4, 8, 16)}, missing=(2,)
    )
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    twins = [job | {"folder": f"elsewhere{number}"} for number, job in enumerate(jobs[:2])]
    plain = {"fingerprint": "plain", "folder": "plain", "overrides": ["model=beats", "peft=lora"], "status": "pending"}
    write_json(folder / "sweep.json", {"schema_version": 1, "name": "s", "jobs": [*twins, jobs[2], plain]})
    assert len(collect([folder]).waiting()) == 2
    assert collect([folder], [("peft.r", ["8"])]).waiting() == []
    assert [job.index for job in collect([folder], [("peft.r", ["8", "16"])]).waiting()] == [3]
    assert collect([folder], [("status", ["completed"])]).waiting() == []
    write_result(folder / "usual", result({}, overrides=["model=ast"]))
    assert len(collect([folder], [("augmentation", ["true"])]).waiting()) == 2


def test_a_sweep_of_a_huge_command_is_read_in_no_time(tmp_path: Path):
    """What all jobs share is cut, then cleaned, and once: cleaned whole for each job, it would take minutes."""
    jobs = [{"fingerprint": str(number), "folder": "one"} for number in range(200)]
    write_json(tmp_path / "sweep.json", {"name": "s", "command": "é" * 3_000_000, "jobs": jobs})
    start = time.process_time()
    planned, _ = planned_jobs(tmp_path / "sweep.json", [tmp_path])
    assert {job.command for job in planned} == {"é" * (MAX_COMMAND + 1)}
    assert len(planned) == 200
    assert time.process_time() - start < 5


def test_a_metric_that_results_declare_stands_in_every_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Lower is better here, so the lower accuracy ranks first; a declaration that can't be used does no harm."""
    said = {"calibration": {"label": "Calibration error", "format": ".3f", "better": "lower"}}
    said["odd"] = {"label": "<b>", "format": "99999999f", "better": 3}
    for number, (model, error) in enumerate((("ast", 0.25), ("beats", 0.125))):
        made = result({"model": model}, accuracy=0.8 - number / 10, declared_metrics=said)
        made["metrics"] |= {"val_calibration": error / 2, "test_calibration": error, "test_odd": 0.5}
        write_result(tmp_path / "runs" / model, made)
    out = tmp_path / "out"
    command = [str(tmp_path / "runs"), "--metric", "test_calibration", "--no-images", "--output-dir", str(out)]
    assert main(command) == 0
    *_, head, _, first, second = capsys.readouterr().out.splitlines()
    assert "test calibration error" in head
    assert ("beats" in first, "0.125" in first) == (True, True)
    assert ("ast" in second, "0.250" in second) == (True, True)
    assert pd.read_csv(out / "comparison_table.csv")["val_calibration"].tolist() == [0.125, 0.0625]
    assert pd.read_csv(out / "combinations.csv")["test_calibration"].tolist() == [0.125, 0.25]
    text = (out / "summary_report.md").read_text()
    assert "| test calibration error |" in text.split("## Overview")[0]
    best = text.split("### By test calibration error")[1].split("###")[0]
    assert "1. **beats + lora** (with aug): 0.125, Acc=0.7000" in best
    assert "By test &lt;b&gt;" in text
    page = (out / "report.html").read_text()
    assert '"key":"test_calibration","title":"test calibration error"' in page
    assert '"ascending":true' in page
    assert "<h3>By test &lt;b&gt;</h3>" in page


def test_an_id_that_is_no_text_is_shown_as_one(tmp_path: Path) -> None:
    for number, odd in enumerate((-1, False)):
        (tmp_path / str(number)).mkdir()
        content = {**result({"seed": number}), "experiment_id": odd}
        write_json(tmp_path / str(number) / "result.json", content)
    assert sorted(collect([tmp_path]).table["experiment_id"]) == ["-1", "unnamed"]


def test_half_a_character_is_written_as_it_was(tmp_path: Path) -> None:
    content = {"é": "a\ud800b"}
    write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == content
