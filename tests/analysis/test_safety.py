"""Hostile result files: HTML and script in any text, paths that leave the folder, huge and broken values."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sousa_bench.analysis import collect, compare, load, tested_model
from sousa_bench.analysis.combinations import MEANS
from sousa_bench.analysis.report.html_page import script_json
from sousa_bench.analyze import main
from sousa_bench.data.rudiments import TASK
from sousa_bench.results.finished import finished_run
from sousa_bench.results.result import (
    PREDICTIONS_FILE,
    ResultError,
    read_progress,
    read_result,
    write_json,
    write_result,
)
from tests.analysis.synthetic import FOREIGN, Clips, predict, result, write_predictions, write_sweep

EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u2028\u2029\x1b[2J|`$(id)`=cmd"


def poison(value: Any) -> Any:
    """Every text of a result, but the few that decide its kind, made hostile; every key of an extra block too."""
    if isinstance(value, dict):
        return {key: poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    return value + EVIL if isinstance(value, str) else value


def hostile(number: int, status: str = "completed") -> dict[str, Any]:
    made = poison(result({"seed": number}, status=status, accuracy=0.7 + number / 100))
    made["status"] = status
    made["timestamp"] = "2026-02-01T10:30:00"
    made["fingerprint"] = f"{number}{EVIL}"
    made["config"][f"key{EVIL}"] = f"{number}{EVIL}"
    made["files"] = {"predictions": "predictions.parquet"}
    made[EVIL] = {EVIL: EVIL}
    made["warnings"] = [EVIL]
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four hostile runs, one of them failed, with hostile predictions, beside a hostile manifest."""
    import numpy as np

    clips = Clips.make(10, 20)
    clips.player = np.array([name + EVIL for name in clips.player])
    clips.soundfont = np.array([name + EVIL for name in clips.soundfont])
    rng = np.random.default_rng(1)
    for number in range(4):
        run = tmp_path / "multirun" / str(number)
        write_json(run / "result.json", hostile(number, "failed" if number == 3 else "completed"))
        predicted, logits = predict(clips, np.full(len(clips.label), 0.7), rng)
        write_predictions(run / "predictions.parquet", clips, predicted, logits)
    jobs = [
        {
            "index": 1,
            "fingerprint": EVIL,
            "overrides": [f"model={EVIL}"],
            "folder": EVIL.replace("/", "_"),
            "status": "pending",
        }
    ]
    write_json(tmp_path / "multirun" / "sweep.json", {"schema_version": 1, "name": EVIL, "jobs": jobs})
    return tmp_path / "multirun"


class Tags(HTMLParser):
    """Counts the tags and event handlers of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_html_in_any_text_stays_text(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(folder), "--no-images"]) == 0
    page = (folder / "analysis" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.tags["script"] == 3
    assert "img" not in tags.tags
    assert tags.handlers == []
    report = (folder / "analysis" / "summary_report.md").read_text()
    outside_code = "".join(report.split("```")[::2])
    assert "<script" not in outside_code
    assert "<img" not in outside_code
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    for name in ("summary_report.md", "comparison_table.csv"):
        assert "\x1b" not in (folder / "analysis" / name).read_text()


def test_commands_of_the_report_are_one_quoted_command(folder: Path):
    """What a file says can't become a second command, nor an option of the first."""
    import shlex

    from sousa_bench.analysis.commands import retry_command
    from sousa_bench.analysis.next_steps import next_steps

    study = compare(collect([folder]))
    failed = int(study.table.index[study.table["status"] == "failed"][0])
    for command in [retry_command(study, failed), *(c for step in next_steps(study, 3) for c in step.commands)]:
        if command.startswith("# no command: "):
            assert "\n" not in command
            continue
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "sousa_bench.train"]
        assert "\n" not in command
        assert all("=" in word for word in words[3:] if word != "-m")


def test_a_formula_is_defused_in_the_csv_alone(tmp_path: Path):
    write_result(tmp_path / "run", result({"note": "=HYPERLINK(1)", "other": "@SUM(1)", "model": "-ast"}))
    assert main([str(tmp_path), "--no-plots"]) == 0
    assert pd.read_csv(tmp_path / "analysis" / "combinations.csv")["combination"][0].startswith("'-ast")
    assert pd.read_csv(tmp_path / "analysis" / "comparison_table.csv")["note"][0] == "'=HYPERLINK(1)"
    assert pd.read_parquet(tmp_path / "analysis" / "comparison_table.parquet")["note"][0] == "=HYPERLINK(1)"


def test_json_in_a_script_element_ends_nothing():
    content = {EVIL: [EVIL, float("nan"), float("inf"), None, 1.5]}
    text = script_json(content)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {EVIL: [EVIL, None, None, None, 1.5]}


@pytest.mark.parametrize(
    "where", ["../outside.parquet", "{absolute}", "linked.parquet", "pipe", ".", "\u0000", "x" * 5000]
)
def test_predictions_stay_inside_of_the_run(tmp_path: Path, where: str):
    import numpy as np

    run = tmp_path / "runs" / "one"
    clips = Clips.make(10, 5)
    outside = tmp_path / "runs" / "outside.parquet"
    outside.parent.mkdir()
    write_predictions(outside, clips, clips.label, np.zeros((50, 40), np.float32))
    named = where.format(absolute=outside)
    write_json(run / "result.json", result({}, files={"predictions": named}))
    (run / "linked.parquet").symlink_to(outside)
    os.mkfifo(run / "pipe")
    study = compare(collect([tmp_path / "runs"]))
    assert study.clip_sets == []
    assert any("predictions passed over" in line for line in study.results.problems)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sample_id": ["a"]}, "no column label, predicted"),
        ({"sample_id": [], "label": [], "predicted": []}, "no clip in it"),
        ({"sample_id": ["a", "a"], "label": [1, 2], "predicted": [1, 2]}, "a sample_id occurs twice"),
        ({"sample_id": ["a", None], "label": [1, 2], "predicted": [1, 2]}, "label or prediction is missing"),
        ({"sample_id": ["a", "b"], "label": [1, 2], "predicted": [1, 400]}, "none of the 40 rudiments"),
        ({"sample_id": ["a", "b"], "label": [1, 2], "predicted": [-1, 2**40]}, "none of the 40 rudiments"),
        ({"sample_id": ["a", "b"], "label": ["drag", "<b>"], "predicted": ["drag", "drag"]}, "none of the 40"),
        ({"sample_id": ["a"], "label": [1], "predicted": [1], "tempo_bpm": ["fast"]}, "could not convert string"),
    ],
)
def test_odd_predictions_are_named_and_passed_over(tmp_path: Path, columns: dict[str, list[Any]], message: str):
    write_result(tmp_path / "one", result({}))
    pq.write_table(pa.table(columns), tmp_path / "one" / "predictions.parquet")
    study = compare(collect([tmp_path]))
    assert study.clip_sets == []
    [problem] = study.results.problems
    assert f"{tmp_path / 'one'}: predictions passed over (" in problem
    assert message in problem


@pytest.mark.parametrize("absent", [("player",), ("skill_tier", "soundfont"), ("player", "tempo_bpm", "soundfont")])
def test_predictions_without_some_columns_are_read(tmp_path: Path, absent: tuple[str, ...]):
    folder = write_sweep(tmp_path, models=("ast",), strategies=("lora",), per_player=5)
    for path in folder.glob("*/predictions.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(list(absent)), path)
    study = compare(collect([folder]))
    assert study.results.problems == []
    [clips] = study.clip_sets
    assert len(clips.rows) == 2
    assert (clips.player is None) == ("player" in absent)
    assert set(clips.slices) == {"skill_tier", "tempo_bpm", "soundfont"} - set(absent)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "huge", "deep", "link", "list", "absurd"])
def test_a_hostile_progress_file_neither_hangs_nor_breaks(tmp_path: Path, kind: str):
    process = {"host": "node1", "pid": "x" if kind == "absurd" else 1, "start_time": [1], "slurm_job_id": None}
    run = write_result(tmp_path / "runs" / "one", result({}, status="running", process=process)).parent
    file = run / "progress.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "huge":
        file.write_text('{"epoch": 77, "x": "' + "x" * 2**20 + '"}')
    elif kind == "link":
        (tmp_path / "elsewhere.json").write_text('{"epoch": 77}')
        file.symlink_to(tmp_path / "elsewhere.json")
    else:
        file.write_text({"deep": "[" * 100_000, "list": "[1]"}.get(kind, '{"updated": "x", "epoch": {"a": 1}}'))
    assert read_progress(run).get("epoch") != 77
    write_result(tmp_path / "runs" / "two", result({"seed": 1}))
    code = "import sys; from sousa_bench.analyze import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(tmp_path / "runs"), "--no-plots"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 completed, 1 dead" in done.stderr


def test_a_pipe_named_on_the_command_line_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(ResultError, match="no regular file"):
        read_result(tmp_path / "result.json")


def test_torn_predictions(tmp_path: Path):
    write_result(tmp_path / "one", result({}))
    (tmp_path / "one" / "predictions.parquet").write_bytes(b"PAR1 torn")
    assert len(compare(collect([tmp_path])).results.problems) == 1


def test_a_gigabyte_is_not_read(tmp_path: Path):
    write_result(tmp_path / "good", result({}))
    for name in ("big/result.json", "big/sweep.json", "flat.json", "good/predictions.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**30 + 1)
    results = collect([tmp_path])
    study = compare(results)
    assert len(study.table) == 1
    assert sum("larger than" in line or "too large" in line for line in results.problems) >= 3


def test_a_pipe_is_no_result(tmp_path: Path):
    write_result(tmp_path / "good", result({}))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    assert len(load(tmp_path)) == 1


def test_nan_infinity_and_absurd_numbers(tmp_path: Path):
    values = ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, '"0.9"', "true", "[1]", '{"a": 1}', '"x"']
    for number, value in enumerate(values):
        made = result({"seed": number})
        made["metrics"]["test_acc"] = made["efficiency"]["trainable_params"] = made["config"]["max_epochs"] = "MARK"
        made["metrics"]["extra"] = "MARK"
        made["history"] = [{"epoch": 1, "val_acc": "MARK", "val_loss": "MARK"}]
        text = json.dumps(made).replace('"MARK"', value)
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_text(text)
    assert main([str(tmp_path), "--no-images"]) == 0
    table = load(tmp_path).set_index("seed")
    assert table["test_acc"].dropna().to_dict() == {5: 0.9}
    assert "NaN" not in (tmp_path / "analysis" / "report.html").read_text().split('id="data">')[1].split("</script>")[0]


@pytest.mark.slow
@pytest.mark.parametrize("key", MEANS)
def test_text_in_place_of_a_number_that_is_averaged_does_no_harm(tmp_path: Path, key: str):
    for seed, value in ((1, ["\x1b[2J"]), (2, 7)):
        made = result({"seed": seed})
        made["efficiency" if key in made["efficiency"] else "metrics"][key] = value
        write_json(tmp_path / str(seed) / "result.json", made)
    assert main([str(tmp_path), "--no-plots"]) == 0
    assert load(tmp_path)[key].dropna().to_list() == [7]


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"status": "completed", "config": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}",
        '{"status": {"a": 1}, "config": {}}',
        '{"status": "completed", "config": [], "metrics": []}',
        "\ufeff{}",
        '{"status": "completed", "config": {"model": {"a": [1]}}, "metrics": [1], "efficiency": 3, "history": {}}',
        '{"status": "completed", "config": {"model": "\\ud800"}, "overrides": {"a": 1}, "failure": [], "files": "x"}',
        '{"status": "failed", "config": {"max_epochs": -1, "augmentation": [true]}, "experiment_id": {"x": null}}',
    ],
)
def test_absurd_structure_does_no_harm(tmp_path: Path, content: str):
    write_sweep(tmp_path, models=("ast",), strategies=("lora",), per_player=5)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "result.json").write_text(content, encoding="utf-8")
    assert main([str(tmp_path), "--no-images"]) == 0
    assert (tmp_path / "analysis" / "report.html").is_file()


def test_thousands_of_keys_do_not_make_thousands_of_columns(tmp_path: Path):
    made = result({})
    made["bloat"] = {f"key{number}": number for number in range(50_000)}
    write_result(tmp_path / "one", made)
    assert load(tmp_path).shape[1] < 2200


@pytest.mark.parametrize("block", ["config", "metrics", "resolved_config"])
def test_more_fields_than_any_run_has_are_passed_over(tmp_path: Path, block: str):
    write_result(tmp_path / "good", result({}))
    made = result({"seed": 1})
    made[block] = {**made.get(block, {}), **{f"key {number}": 0 for number in range(50_000)}}
    write_json(tmp_path / "big" / "result.json", made)
    results = collect([tmp_path])
    assert len(compare(results).table) == 1
    assert ["fields, more than any run has" in line for line in results.problems[:1]] == [True]


def test_fifty_megabytes_are_read_or_passed_over(tmp_path: Path):
    made = result({"seed": 1}, error="x" * 25_000_000, warnings=["y" * 100] * 250_000)
    write_json(tmp_path / "result.json", made)
    assert (tmp_path / "result.json").stat().st_size > 50_000_000
    assert main([str(tmp_path), "--no-images"]) == 0
    assert sum(path.stat().st_size for path in (tmp_path / "analysis").iterdir()) < 20_000_000


@pytest.mark.parametrize("kind", ["whole", "torn", "link", "no label", "no logits", "too few logits", "absurd label"])
def test_a_model_is_described_whatever_lies_in_the_place_of_its_predictions(tmp_path: Path, kind: str):
    file = write_result(tmp_path / "one", result({})).parent / PREDICTIONS_FILE
    labels = [400 if kind == "absurd label" else number % 40 for number in range(80)]
    logits = [[float(number % 3)] * (39 if kind == "too few logits" else 40) for number in range(80)]
    columns: dict[str, Any] = {"label": labels, "logits": logits, "player": [f"p{number % 10}" for number in range(80)]}
    columns.pop(kind.removeprefix("no "), None)
    table = pa.table({"sample_id": [str(number) for number in range(80)], **columns})
    pq.write_table(table, tmp_path / "elsewhere.parquet" if kind == "link" else file)
    if kind == "link":
        file.symlink_to(tmp_path / "elsewhere.parquet")
    elif kind == "torn":
        file.write_bytes(b"PAR1 torn PAR1")
    run = finished_run(file.parent)
    made = tested_model.tested_metrics(run, TASK)
    if kind == "whole":
        assert (made["test_clips"], made["test_players"]) == (80, 10)
        low, high = made["test_acc_interval"]
        assert 0 <= low <= 1 / 40 <= high < 0.5
    else:
        assert made == run.result["metrics"]


def test_counts_of_clips_that_are_no_numbers_are_not_said(tmp_path: Path):
    from tests.analysis.summary import summary

    folders = [tmp_path / name for name in ("sound", "foreign")]
    for folder, train in zip(folders, (8000, "many"), strict=True):
        made = result({})
        made["data"]["counts"]["train"] = train
        write_result(folder, made)
    sound, foreign = (summary(compare(collect([folder]))) for folder in folders)
    assert "8,000 clips to train, 1,000 to validate" in sound
    assert "clips to train" not in foreign


def test_what_some_runs_record_is_not_said_of_all(tmp_path: Path):
    from sousa_bench.analysis.report.shared_facts import shared_facts

    for number in range(3):
        made = result({"seed": number})
        if number:
            made["git_commit"] = None
            del made["environment"]["device"]
        write_json(tmp_path / str(number) / "result.json", made)
    facts = shared_facts(compare(collect([tmp_path])))[0].values
    assert facts["commit"] == "abc123def (1 run), not recorded (2 runs)"
    assert facts["device"] == "NVIDIA H100 (1 run), not recorded (2 runs)"
    assert facts["precision"] == "bf16"


def test_a_sweeps_command_keeps_what_says_which_runs_it_has():
    from sousa_bench.analysis.commands import TRAIN, given_command
    from sousa_bench.config.overrides import combinations_override

    rows = [["model=ast", "peft=lora", 'data.root="a b"'], ["model=htsat", "peft=ia3", "lineage.from=[a/b,c]"]]
    for word in (combinations_override(rows), "hydra.sweeper.n_trials=6", "hydra.sweeper.params.model=ast,htsat"):
        command = shlex.join([*TRAIN.split(), "-m", "seed=1,2", word])
        assert given_command(command) == command
        assert given_command(f"{command} hydra.launcher.mem_gb=4") == command
    for evil in FOREIGN:
        for words in ([combinations_override([["model=ast", evil]])], [f"hydra.sweeper.params.{evil.lstrip('+')}"]):
            printed = given_command(shlex.join([*TRAIN.split(), "-m", *words]))
            assert printed.startswith("# no command: "), (evil, printed)


def test_a_manifests_command_that_is_too_long_is_not_printed_in_part():
    from sousa_bench.analysis.commands import TRAIN, given_command
    from sousa_bench.results.manifest import MAX_COMMAND

    command = f"{TRAIN} -m model=ast,beats +note="
    whole = command + "x" * (MAX_COMMAND - len(command))
    assert given_command(whole) == whole
    assert given_command(whole + "x") == "# no command: the manifest's is longer than 8,000 characters"


def test_a_manifest_keeps_enough_of_a_command_to_tell_that_it_is_too_long(tmp_path: Path):
    from sousa_bench.results.manifest import MAX_COMMAND, planned_jobs

    jobs = [{"index": 1, "folder": "run", "status": "pending", "overrides": []}]
    write_json(tmp_path / "sweep.json", {"schema_version": 1, "command": "x" * 9000, "jobs": jobs})
    (job,), problems = planned_jobs(tmp_path / "sweep.json", [tmp_path])
    assert problems == []
    assert len(job.command) > MAX_COMMAND
