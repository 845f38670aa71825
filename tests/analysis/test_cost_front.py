"""What can be on the front of accuracy and trainable parameters: what nothing with as few is clearly better than."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.analysis import Study, plots
from sousa_bench.analysis.stats.comparisons import pair_of
from sousa_bench.analysis.stats.cost_front import on_front
from sousa_bench.analysis.table_files import write_tables
from tests.analysis.summary import summary

COSTS = {"small": 10, "as small": 10, "middle": 20, "large": 30, "untested": 5}


@pytest.mark.parametrize(
    ("clear", "off"),
    [
        ({}, set()),
        ({("small", "large"): 0.1}, {"large"}),  # more accurate with fewer
        ({("small", "large"): -0.1}, set()),  # accuracy is paid for
        ({("small", "as small"): -0.1}, {"small"}),  # as few are enough
        ({("middle", "large"): 0.1, ("small", "middle"): 0.1}, {"large", "middle"}),
    ],
)
def test_only_what_is_clearly_worse_and_no_cheaper_is_off_it(clear, off):
    frame = pd.DataFrame(
        [{"cohort": "A", "combination": name, "trainable_params": cost} for name, cost in COSTS.items()]
    )
    rows = [
        {"cohort": "A", "first": first, "second": second, "difference": clear.get((first, second), 0.2)}
        | {"clear": (first, second) in clear, "p_adjusted": float("nan") if second == "untested" else 0.5}
        for first, second in itertools.combinations(COSTS, 2)
    ]
    found = dict(zip(frame["combination"], on_front(frame, pd.DataFrame(rows)), strict=True))
    assert found.pop("untested") is pd.NA
    assert {name for name, there in found.items() if not there} == off


def test_the_study_agrees_with_the_definition(comparison_study: Study, tmp_path: Path):
    frame = comparison_study.combinations
    assert frame["on_front"].notna().all()
    assert 0 < frame["on_front"].sum() < len(frame)
    for row in frame.to_dict("records"):
        cheaper = frame[(frame["trainable_params"] <= row["trainable_params"]) & (frame["cohort"] == row["cohort"])]
        found = [
            pair_of(comparison_study.pairs, row["cohort"], name, row["combination"])
            for name in cheaper["combination"]
            if name != row["combination"]
        ]
        assert row["on_front"] == (not any(pair["simultaneous_low"] > 0 for pair in found)), row["combination"]
    write_tables(comparison_study, tmp_path)
    written = pd.read_csv(tmp_path / "combinations.csv")
    assert written["on_front"].tolist() == frame["on_front"].tolist()


def test_rings_are_explained_where_there_are_some(comparison_study: Study):
    without = copy.copy(comparison_study)
    without.combinations = without.combinations.assign(on_front=pd.array([pd.NA] * 24, "boolean"))
    for study, there in ((comparison_study, True), (without, False)):
        plot = next(plot for plot in plots.all_plots(study, page=True) if plot.name == "efficiency_scatter")
        assert ("A ring" in plot.caption) == there


@pytest.mark.slow
def test_what_was_not_tested_is_counted(comparison_study: Study):
    fewer = copy.copy(comparison_study)
    off = fewer.combinations["on_front"].copy()
    off.iloc[0] = pd.NA
    fewer.combinations = fewer.combinations.assign(on_front=off)
    assert "Not tested, and so on neither list: 1 combination." in summary(fewer)


def test_the_report_lists_them_by_cost_and_the_figure_rings_them(comparison_study: Study):
    able = comparison_study.combinations.query("on_front").sort_values("trainable_params", kind="stable")
    section = summary(comparison_study).split("### What so many trainable parameters can reach")[1].split("\n#")[0]
    assert f"{len(able)} of 24 combinations can be on the front of accuracy and trainable parameters" in section
    rows = [line.split(" | ")[0].strip("| ") for line in section.splitlines() if line.startswith("| ")]
    assert rows[-len(able) :] == list(able["combination"])
    figure = plots.efficiency_scatter(comparison_study)
    [rings] = [trace for trace in figure.data if trace.name == "can be on the front"]
    assert sorted(rings.x) == sorted(able["trainable_params"])
    assert sorted(map(list, rings.customdata)) == sorted(able["rows"])
