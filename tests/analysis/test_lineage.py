"""Where runs come from: in table, report and page; evaluations stand apart from the runs that were trained."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.origins import origins
from sousa_bench.analyze import main
from tests.analysis.synthetic import result, write_result

COMMAND = "python -m sousa_bench.promote multirun/a --top 3 --warm data=full"
FROM = [
    {"experiment_id": "ast_lora_on_tiny_s42_1a2b3c4d", "fingerprint": "f" * 64, "val_acc": 0.8123},
    {"experiment_id": "beats_ia3_on_tiny_s42_5e6f7a8b", "fingerprint": "e" * 64, "val_acc": None},
]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two runs of one combination: the second goes back to two others and is evaluated twice; and an older try."""
    lineage = {"command": COMMAND, "from": FROM, "warm": True}
    write_result(tmp_path / "first", result({"seed": 1}, accuracy=0.7))
    promoted = result({"seed": 2}, accuracy=0.9, lineage=lineage)
    write_result(tmp_path / "second", promoted)
    for name, when in (("old", "01"), ("new", "02")):
        evaluated = promoted | {"evaluated_run": promoted["experiment_id"], "timestamp": f"2026-03-{when}T10:00:00"}
        evaluated["experiment_id"] = f"evaluation_{name}"
        evaluated["config"] = promoted["config"] | {"trained_on": "small", "evaluated_split": "test"}
        write_result(tmp_path / name, {key: value for key, value in evaluated.items() if key != "lineage"})
    return compare(collect([tmp_path]))


def test_an_evaluation_is_no_repeat_of_its_run_nor_a_seed_of_its_combination(study: Study):
    trained, evaluated = study.combinations.sort_values("runs", ascending=False).to_dict("records")
    assert trained["combination"] == evaluated["combination"]
    assert study.results.factors == []
    assert (trained["runs"], evaluated["runs"]) == (2, 1)
    assert trained["test_acc"] == pytest.approx(0.8)
    assert study.cohorts == {"A": "kind of result training", "B": "kind of result evaluation"}
    assert [line.split(":")[0].rpartition("/")[2] for line in study.results.repeats] == ["old"]


def test_next_commands_are_for_what_was_trained(study: Study):
    commands = [command for step in next_steps(study, 5) for command in step.commands]
    assert sum("data=medium" in command for command in commands) == 1
    assert not any("promote" in command for command in commands)


def test_where_runs_come_from(study: Study):
    found = {item.experiment: item for item in origins(study.table)}
    named = "ast_lora_on_tiny_s42_1a2b3c4d (val acc 0.8123); beats_ia3_on_tiny_s42_5e6f7a8b"
    (promoted,) = [item for name, item in found.items() if not name.startswith("evaluation")]
    assert promoted.words == f"went on from the weights of {named}"
    assert promoted.command == COMMAND
    assert found["evaluation_new"].words == f"evaluates {promoted.experiment}"
    assert len(found) == 2


def test_origins_stand_in_table_report_and_page(study: Study, tmp_path: Path):
    assert main([str(tmp_path), "--no-images", "--output-dir", str(tmp_path / "analysis")]) == 0
    table = pd.read_csv(tmp_path / "analysis" / "comparison_table.csv")
    assert table["lineage.command"].dropna().tolist() == [COMMAND]
    assert table["lineage.from"].dropna().str.contains("val acc 0.8123").tolist() == [True]
    assert table["lineage.warm"].dropna().astype(str).str.lower().tolist() == ["true"]
    assert len(table["evaluated_run"].dropna()) == 1
    report = (tmp_path / "analysis" / "summary_report.md").read_text()
    section = report.split("## Where these runs come from")[1].split("##")[0]
    assert "went on from the weights of ast_lora_on_tiny_s42_1a2b3c4d (val acc 0.8123)" in section
    assert f"as recorded: {COMMAND}" in section
    page = (tmp_path / "analysis" / "report.html").read_text()
    assert '<section id="origins"><h2>Where these runs come from</h2>' in page
    assert '"title":"comes from"' in page


def test_runs_of_their_own_need_no_section(tmp_path: Path):
    write_result(tmp_path / "run", result({}))
    assert main([str(tmp_path), "--no-images"]) == 0
    assert "come from" not in (tmp_path / "analysis" / "summary_report.md").read_text()
    assert 'id="origins"' not in (tmp_path / "analysis" / "report.html").read_text()


@pytest.mark.parametrize(
    "lineage",
    [
        "text",
        [1],
        {"command": 5, "from": "x", "warm": "yes"},
        {"from": [None, 3, {}, {"val_acc": "much"}]},
        {"from": [{}] * 9999},
    ],
)
def test_foreign_lineage_does_no_harm(tmp_path: Path, lineage: object):
    write_result(tmp_path / "run", result({}, lineage=lineage, evaluated_run=["x"]))
    assert main([str(tmp_path), "--no-images"]) == 0
    row = collect([tmp_path]).table.iloc[0]
    assert row["status"] == "completed"
    assert len(str(row.get("lineage.from", ""))) < 2100


def test_a_teacher_is_one_however_its_path_was_written(tmp_path: Path):
    for seed, (run, name) in enumerate([("m/big", "big"), ("/x/m/big/adapter", "big"), ("m/other", "other")]):
        made = result({"seed": seed}, extra={"teacher.run": run})
        made["resolved_config"]["teacher"] = {"run": run, "weight": 0.9, "temperature": 2}
        made["lineage"] = {"from": [], "warm": False, "teacher": {"experiment_id": name, "fingerprint": f"{name}1"}}
        write_result(tmp_path / str(seed), made)
    study = compare(collect([tmp_path]))
    assert study.results.factors == ["teacher.run"]
    runs = dict(zip(study.combinations["teacher.run"], study.combinations["runs"], strict=True))
    assert runs == {"big": 2, "other": 1}
    commands = " ".join(command for step in next_steps(study, 5) for command in step.commands)
    assert "m/big" in commands
    assert "teacher.run=big" not in commands
