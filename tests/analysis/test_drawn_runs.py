"""Which runs a page of too many holds one by one."""

from __future__ import annotations

import itertools
import time

import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.drawn_runs import drawn_runs
from sousa_bench.results.result import write_json, write_result
from tests.analysis.synthetic import result


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Of one combination 30 runs, of another 4, of a third 12, 2 that failed and one in progress; no predictions."""
    folder = tmp_path_factory.mktemp("uneven")
    runs = [("ast", seed, "completed") for seed in range(30)] + [("htsat", seed, "completed") for seed in range(4)]
    runs += [("beats", seed, "completed") for seed in range(12)]
    runs += [("beats", 12, "failed"), ("beats", 13, "running"), ("beats", 14, "failed")]
    for number, (model, seed, status) in enumerate(runs):
        made = result({"model": model, "seed": seed}, accuracy=0.5 + 0.007 * (17 * number % 49), status=status)
        write_result(folder / made["experiment_id"], made)
        if status == "running":
            write_json(folder / made["experiment_id"] / "progress.json", {"phase": "fit", "updated": time.time()})
    return compare(collect([folder]))


def by_model(study: Study, rows: list[int]) -> dict[str, list[float]]:
    """Accuracies of the completed ones of ``rows`` by model, in their order."""
    done = study.done.loc[[row for row in rows if row in study.done.index]]
    return {str(model): list(part["test_acc"]) for model, part in done.groupby("model")}


def test_all_are_held_where_there_is_room(uneven: Study):
    drawn = drawn_runs(uneven)
    assert drawn.all
    assert sorted(drawn.rows) == list(range(49))
    assert drawn.part([3, 1]) == [3, 1]
    assert list(drawn.of(uneven.done["test_acc"])) == list(uneven.done["test_acc"])


def test_every_combination_has_its_share_with_both_ends(uneven: Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sousa_bench.analysis.drawn_runs.MOST_RUNS", 30)
    monkeypatch.setattr("sousa_bench.analysis.drawn_runs.ROW_LIMIT", 1)
    drawn = drawn_runs(uneven)
    assert not drawn.all
    assert 20 <= len(drawn.rows) <= 30
    assert drawn.rows == drawn_runs(uneven).rows
    held, every = by_model(uneven, drawn.rows), by_model(uneven, list(uneven.table.index))
    assert held["htsat"] == sorted(every["htsat"], reverse=True)  # all four, best first
    assert 0 <= len(held["ast"]) - len(held["beats"]) <= 2
    for model, values in held.items():
        assert (max(values), min(values)) == (max(every[model]), min(every[model]))
    ranks = [sorted(every["ast"], reverse=True).index(value) for value in held["ast"]]
    assert max(after - before for before, after in itertools.pairwise(ranks)) <= 5
    assert (uneven.table.loc[drawn.rows, "status"] == "failed").sum() == 2
    assert list(drawn.of(uneven.done["test_acc"]).index) == [row for row in uneven.done.index if row in drawn]
    rows = list(uneven.table.index[uneven.table["model"] == "ast"])
    held_ones = [row for row in rows if row in drawn]
    assert drawn.part(rows)[:-1] == held_ones
    assert drawn.part(rows)[-1] in set(rows).difference(held_ones)
    assert drawn.part(held_ones) == held_ones


def test_of_too_many_combinations_all_runs_are_one_row(uneven: Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sousa_bench.analysis.drawn_runs.MOST_RUNS", 10)
    monkeypatch.setattr("sousa_bench.analysis.drawn_runs.ROW_LIMIT", 1)
    drawn = drawn_runs(uneven)
    assert not drawn.by_combination
    best = uneven.done.groupby("model")["test_acc"].idxmax()
    assert {*best, uneven.table.index[uneven.table["status"] == "running"][0]} <= set(drawn.rows)
    assert "of all runs" in drawn.chosen
    assert len(drawn.rows) <= 10
    assert {uneven.done.index[0], uneven.done.index[-1]} <= set(drawn.rows)
