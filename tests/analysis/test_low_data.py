"""Low-data curves: runs that differ in `data.per_class` share a cohort, and the report says where curves cross."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.plots import all_plots
from sousa_bench.analysis.plots.low_data_curves import low_data_curves
from sousa_bench.analysis.report.blocks import Items, Options, Table
from sousa_bench.analysis.report.with_few_clips import with_few_clips
from sousa_bench.analyze import main as analyze
from sousa_bench.results.result import PREDICTIONS_FILE, write_result
from tests.analysis.synthetic import Clips, predict, result, scores, write_predictions

COUNTS = (1, 5, 20, None)
CROSSING = {"lora": (0.6, 0.7, 0.75, 0.8), "full": (0.3, 0.55, 0.85, 0.92)}
PARALLEL = {"lora": (0.5, 0.6, 0.7, 0.75), "ia3": (0.5, 0.6, 0.7, 0.75)}


def write(root: Path, curves, players: int = 16) -> Path:
    rng = np.random.default_rng(5)
    clips = Clips.make(players, 60)
    for strategy, chances in curves.items():
        for count, chance in zip(COUNTS, chances, strict=True):
            predicted, _ = predict(clips, np.full(len(clips.label), chance), rng)
            data = {
                "fingerprint": f"{count}" * 16 if count else "d" * 64,
                **({"base_fingerprint": "d" * 64} if count else {}),
                "test_fingerprint": "e" * 64,
                "counts": {"train": 40 * (count or 200), "val": 80, "test": len(clips.label)},
                "classes": {"train": 40, "val": 40, "test": 40},
            }
            accuracy = float((predicted == clips.label).mean())
            extra = {"data.per_class": count}
            made = result(
                {"strategy": strategy}, accuracy, extra=extra, data=data, per_class=scores(clips.label, predicted)
            )
            made["resolved_config"]["data"]["per_class"] = count
            folder = root / f"{strategy}_{count}"
            folder.mkdir(parents=True)
            write_result(folder, made)
            write_predictions(folder / PREDICTIONS_FILE, clips, predicted)
    return root


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return compare(collect([write(tmp_path_factory.mktemp("crossing"), CROSSING)]))


def said(study: Study) -> list[str]:
    blocks = [block for block in with_few_clips(study, Options()) if isinstance(block, Items)]
    return ["".join(line) for block in blocks for line in block.lines]


def test_runs_that_differ_in_the_number_of_clips_are_compared(crossing: Study) -> None:
    assert crossing.results.factors == ["data.per_class"]
    assert set(crossing.combinations["data.per_class"].map(str)) == {"1", "5", "20", "all"}
    assert crossing.cohorts == {}
    assert len(crossing.pairs) == 8 * 7 / 2


def test_a_crossing_that_the_tests_tell_is_said(crossing: Study) -> None:
    [line] = said(crossing)
    assert line.startswith("ast + lora (with aug) and ast + full (with aug) cross between 5 and 20 clips a class")
    assert "both clear" in line
    [table] = [block for block in with_few_clips(crossing, Options()) if isinstance(block, Table)]
    assert len(table.rows) == 8
    assert [row["clips"] for row in table.rows[:4]] == ["1", "5", "20", "all"]
    assert all(row["acc_low"] < row["test_acc"] < row["acc_high"] for row in table.rows)


def test_curves_that_only_change_places_are_not_said_to_cross(tmp_path: Path) -> None:
    study = compare(collect([write(tmp_path, PARALLEL)]))
    lines = said(study)
    assert lines
    assert not any(" cross " in line for line in lines)
    assert all("the tests can't tell on both sides which is ahead" in line for line in lines)


def test_a_foreign_number_of_clips_that_is_none_has_no_place_on_a_curve(tmp_path: Path) -> None:
    root = write(tmp_path, PARALLEL)
    file = root / "lora_5" / "result.json"
    made = json.loads(file.read_text())
    del made["resolved_config"]["data"]
    file.write_text(json.dumps(made))
    assert analyze([str(root), "--no-plots", "--output-dir", str(tmp_path / "analysis")]) == 0


def test_the_figure_has_a_line_a_method_and_an_interval_a_point(crossing: Study) -> None:
    made = low_data_curves(crossing)
    assert made is not None
    assert len(made.data) == 2
    assert list(made.data[0].x) == [1, 5, 20, 200]
    assert made.layout.xaxis.ticktext == ("1", "5", "20", "all")
    assert min(made.data[0].error_y.array) > 0
    names = [plot.name for plot in all_plots(crossing, page=True)]
    assert names.count("low_data_curves") == 1
    assert not any(name.startswith("factor_data_per_class") for name in names)


def test_a_study_without_such_runs_says_nothing_of_them(comparison_study: Study) -> None:
    assert with_few_clips(comparison_study, Options()) == []
    assert low_data_curves(comparison_study) is None
