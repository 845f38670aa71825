"""The verdict, the table and the picture that stand first: what they say, how wide they are, how many digits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.digits import decimals, points_behind, three_digits
from sousa_bench.analysis.labels import short_labels
from sousa_bench.analysis.plots.leaders import leaders
from sousa_bench.analysis.report.blocks import Details, Figure, Options
from sousa_bench.analysis.report.first_screen import conclusion
from sousa_bench.analysis.report.printed import fitted, render
from sousa_bench.analysis.report.ranking import MOST_COLUMNS, ranking_table
from sousa_bench.analysis.report.verdict_line import verdict
from sousa_bench.analysis.standings import MOST_COHORTS, ROWS, Standings, standings
from sousa_bench.results.result import write_json
from sousa_bench.system.text_table import WIDTH
from tests.analysis.summary import summary
from tests.analysis.synthetic import Truth, result, write_result, write_sweep


def test_the_verdict_says_who_leads_how_sure_and_who_ties(comparison_study: Study, seeded_study: Study):
    (models,), (methods,) = standings(comparison_study), standings(seeded_study)
    assert verdict(models) == (
        "beats + lora, aug",
        ": 91.5 % [87.4–93.4] (of these trained models only). 9 of 23 others tie.",
    )
    assert verdict(methods)[1].endswith(". All 7 others tie.")
    assert "trained models" not in verdict(methods)[1]


@pytest.mark.slow
def test_a_lighter_one_that_is_as_good_is_named_with_its_share_of_the_parameters(tmp_path: Path):
    truth = Truth(model={}, strategy={"lora": 0.05}, player_model=0.0, seed=0.0)
    folder = write_sweep(tmp_path, ("ast",), ("lora", "ia3"), seeds=(1, 2, 3), truth=truth, per_player=100)
    (cohort,) = standings(compare(collect([folder]), margin=0.04))
    assert cohort.leader["strategy"] == "lora"
    said = verdict(cohort)[1]
    assert re.search(r"; ia3, aug is as good within 4 points at a sixth of the trainable parameters\.$", said), said
    none = Standings(cohort.study, cohort.cohort, cohort.rows.assign(trainable_params=0))
    assert "as good within" not in verdict(none)[1]


def test_a_single_combination_and_none_above_chance(tmp_path: Path):
    folder = write_sweep(tmp_path / "one", models=("ast",), strategies=("lora",), augmentations=(True,))
    study = compare(collect([folder]))
    assert render(study).splitlines()[0].startswith("ast + lora: ")
    assert "It is the only combination." in render(study)


@pytest.mark.parametrize(
    ("width", "digits"), [(0.13, 0), (0.1, 0), (0.06, 1), (0.01, 1), (0.009, 2), (0.0001, 2), (float("nan"), 1)]
)
def test_the_last_decimal_is_worth_a_tenth_of_the_interval_at_most(width: float, digits: int):
    assert decimals([width, 0.0]) == digits


def test_numbers_have_three_digits():
    found = [three_digits(value) for value in (0, 4410, 460_530, 86_219_560, 37.63, 0.000412, 999.6, 999_999)]
    assert found == ["0", "4.41 k", "461 k", "86.2 M", "37.6", "0.000412", "1 k", "1 M"]


def test_an_end_that_decides_is_never_rounded_to_zero():
    assert points_behind(0.06, -0.0004, 0.123, 1) == "6.0 (-0.04 to 12.3)"
    assert points_behind(-0.0001, 0.0, 0.2, 0) == "0 (0 to 20)"


def test_the_table_has_few_columns_and_its_intervals_agree_with_can_be_the_best(comparison_study: Study):
    (cohort,) = standings(comparison_study)
    table = ranking_table(cohort)
    assert len(table.columns) <= MOST_COLUMNS
    cells = {column.label: [column.cell(row) for row in table.rows] for column in table.columns}
    assert cells["can be the best"][:2] == ["yes", "yes"]
    for behind, best in zip(cells["points behind"][1:], cells["can be the best"][1:], strict=True):
        low = float(re.search(r"\((\S+) to", behind)[1])
        assert (low <= 0) == (best == "yes"), (behind, best)
    assert "no" in cells["can be the best"]


@pytest.mark.slow
def test_labels_hold_only_what_differs(tmp_path: Path):
    one = write_sweep(tmp_path / "one", models=("ast",), strategies=("lora", "ia3"), augmentations=(True,))
    (cohort,) = standings(compare(collect([one])))
    assert set(cohort.names.values()) == {"lora", "ia3"}
    assert cohort.full_name in ("ast + lora", "ast + ia3")
    ranks = write_sweep(
        tmp_path / "two", models=("ast",), strategies=("lora",), augmentations=(True,), extra={"peft.r": (4, 8)}
    )
    study = compare(collect([ranks]))
    assert set(short_labels(study.combinations, study.factors).values()) == {"r=4", "r=8"}


@pytest.mark.slow
def test_ten_are_shown_and_the_others_follow(comparison_study: Study):
    said = render(comparison_study)
    assert "10 of 24 shown; all are in combinations.csv" in said
    text = summary(comparison_study)
    first, rest = text.split("### The other 14 combinations")
    assert first.count("\n| ") == ROWS + 1
    assert "| 24 | efficientat + ia3, no aug" in rest.split("##")[0]


def test_no_printed_line_is_wider_than_the_terminal(comparison_study: Study):
    (cohort,) = standings(comparison_study)
    assert max(map(len, render(comparison_study).splitlines())) <= WIDTH
    table = ranking_table(cohort)
    table = fitted(type(table)(table.columns, [row | {"name": "long " * 30} for row in table.rows]), "test_acc")
    assert len("  ".join(table.aligned(str)[0])) <= WIDTH


def test_the_picture_shades_who_can_be_the_best(comparison_study: Study):
    (cohort,) = standings(comparison_study)
    figure = leaders(cohort)
    meta = figure.layout.meta
    told_apart = {(a, b): clear for a, b, clear in meta["pairs"]} | {(b, a): clear for a, b, clear in meta["pairs"]}
    rest = range(1, len(cohort.rows))
    assert [not told_apart[0, number] for number in rest] == list(cohort.rows["best_set"])[1:]
    assert meta["limit"] == ROWS
    (line,) = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert line.x0 == pytest.approx(cohort.chance)
    assert 1 / 40 <= cohort.chance < 0.1
    assert [each["rows"] for each in meta["combinations"]] == list(cohort.rows["rows"])
    assert figure.data[0].x[0] == pytest.approx(cohort.leader["test_acc"], abs=1e-4)


@pytest.mark.slow
def test_what_all_runs_share_is_said_once_with_the_sweeps_command(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", models=("ast",))
    manifest = json.loads((folder / "sweep.json").read_text())
    command = "python -m sousa_bench.train -m --config-dir /mine model=ast peft=lora,ia3 hydra.verbose=true"
    write_json(folder / "sweep.json", manifest | {"command": command})
    text = summary(compare(collect([folder]))).split("### What all runs share")[1].split("## Top")[0]
    for line in ("- **data**: small, 8,000 clips to train", "- **epochs**: at most 20", "- **device**: NVIDIA H100"):
        assert text.count(line) == 1
    assert "- **model**: ast\n" in text
    assert "python -m sousa_bench.train -m model=ast peft=lora,ia3\n" in text
    assert "config-dir" not in text
    write_json(folder / "sweep.json", manifest | {"command": "rm -rf / ; python -m sousa_bench.train"})
    assert "rm -rf" not in summary(compare(collect([folder])))


def test_a_study_is_a_line_in_a_console_and_a_table_in_a_notebook(comparison_study: Study):
    said = "91.5 % [87.4–93.4] (of these trained models only). 9 of 23 others tie."
    assert repr(comparison_study) == f"<Study of 24 runs, 24 combinations. beats + lora, aug: {said}>"
    html = comparison_study._repr_html_()
    assert html.count("<table>") == 2
    assert 'id="verdict_A"><b>beats + lora, aug</b>: 91.5 %' in html
    assert "<script" not in html


def test_keys_that_vary_in_step_are_named_together(tmp_path: Path):
    for number, rank in enumerate((4, 8, 16)):
        made = result({"seed": 1}, accuracy=0.6 + number / 10, extra={"peft.r": rank})
        made["resolved_config"]["peft"] |= {"r": rank, "alpha": 3 * rank}
        made["resolved_config"]["trainer"]["warmup"] = 0.1 / rank
        write_result(tmp_path / str(number), made)
    study = compare(collect([tmp_path]))
    assert study.results.in_step == {"peft.r": ["peft.alpha", "trainer.warmup"]}
    text = summary(study)
    assert "- **peft.r (in step: peft.alpha, trainer.warmup)**: 16, 4, 8" in text
    assert "## Statistics by peft.r (in step: peft.alpha, trainer.warmup)" in text
    assert study.results.named("model × peft.r") == "model × peft.r (in step: peft.alpha, trainer.warmup)"


def test_a_single_run_is_said_in_the_singular(tmp_path: Path):
    write_result(tmp_path / "run", result({}))
    text = summary(compare(collect([tmp_path])))
    for wrong in ("1 runs", "1 combinations", "1 pairs", "1 effects"):
        assert wrong not in text
    assert "(1 run)" in text


@pytest.mark.slow
def test_of_many_cohorts_the_first_have_a_picture_and_the_others_a_verdict(tmp_path: Path):
    number = MOST_COHORTS + 3
    for epochs in range(1, number + 1):
        write_result(tmp_path / str(epochs), result({"max_epochs": epochs}))
    study = compare(collect([tmp_path]))
    assert len(study.cohorts) == number
    blocks = conclusion(study, Options())
    assert sum(isinstance(block, Figure) for block in blocks) == MOST_COHORTS
    (more,) = [block for block in blocks if isinstance(block, Details)]
    assert more.title == "The other 3 cohorts"
    assert [name for name, _ in more.blocks[0].lines] == [f"{letter}: ast + lora" for letter in "IJK"]
