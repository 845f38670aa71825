"""Models by pretraining and size: only where results say what networks cost, and several sizes are compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sousa_bench.analysis import collect, compare, plots
from sousa_bench.analyze import main
from tests.analysis.synthetic import write_sweep

LABELS, ALONE = "AudioSet labels", "self-supervised"
NETWORKS = {  # variant, parameters, multiply-adds, pretraining
    "ast": ("official", 86_219_560, 56_643_262_464, LABELS),
    "beats": ("official", 90_342_552, 23_528_292_352, ALONE),
    "ced-tiny": ("ced-tiny", 5_409_192, 735_198_720, LABELS),
    "ced-base": ("ced-base", 85_337_256, 10_839_717_888, LABELS),
}


def recorded(root: Path, **more: Any) -> Path:
    """A comparison of two models, and one of two sizes of a third, on the same clips, with what their networks cost."""
    common: dict[str, Any] = {"strategies": ("lora", "head"), "augmentations": (False,), "per_player": 20} | more
    write_sweep(root / "one", models=("ast", "beats"), **common)
    write_sweep(root / "two", models=("ced",), extra={"model.variant": ("ced-tiny", "ced-base")}, **common)
    for file in root.rglob("result.json"):
        result = json.loads(file.read_text())
        variant, parameters, count, seen = NETWORKS[result["config"].get("model.variant", result["config"]["model"])]
        result["network"] = {"variant": variant, "parameters": parameters, "multiply_adds": count, "seconds": 5.0}
        result["weights"]["pretraining"] = seen
        file.write_text(json.dumps(result))
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("sizes") / "multirun")


def test_the_page_the_summary_and_a_table_on_disk_have_them(runs: Path, tmp_path: Path):
    assert main([str(runs), "--no-images", "--output-dir", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "models.csv")
    assert table[["cohort", "pretraining", "model", "variant", "parameters", "multiply_adds"]].values.tolist() == [
        ["A", LABELS, "ast", *NETWORKS["ast"][:3]],
        ["A", LABELS, "ced", *NETWORKS["ced-tiny"][:3]],
        ["A", LABELS, "ced", *NETWORKS["ced-base"][:3]],
        ["A", ALONE, "beats", *NETWORKS["beats"][:3]],
    ]
    combinations = pd.read_csv(tmp_path / "combinations.csv")
    for row in table.itertuples():
        mine = combinations[combinations["model"] == row.model]
        mine = mine[mine["model.variant"] == row.variant] if row.model == "ced" else mine
        best = mine.loc[mine["test_acc"].idxmax()]
        assert (row.combination, row.test_acc, row.acc_low) == (best["combination"], best["test_acc"], best["acc_low"])
    summary = (tmp_path / "summary_report.md").read_text()
    [section] = re.findall(r"^## Models by pretraining and size\n(.*?)^## ", summary, re.M | re.S)
    labelled = table[table["pretraining"] == LABELS]
    best = labelled.loc[labelled["test_acc"].idxmax()]
    assert f"{LABELS}**: 3 networks of 2 models; the best is {best['combination']}" in section
    assert f"{ALONE}**: 1 network of 1 model" in section
    cells = [re.split(r" *\| *", line) for line in section.splitlines()]
    assert ["self-supervised", "beats", "official", "90.3 M", "23.5 G"] in [line[1:6] for line in cells]
    page = (tmp_path / "report.html").read_text()
    assert "accuracy_over_parameters" in page
    assert "accuracy_over_multiply_adds" in page


def test_the_figures_place_each_run_at_its_networks_cost(runs: Path):
    study = compare(collect([runs]))
    made = {plot.name: plot for plot in plots.all_plots(study, page=True)}
    for name, place in (("accuracy_over_parameters", 1), ("accuracy_over_multiply_adds", 2)):
        figure = made[name].figure
        at = {
            row: x
            for trace in figure.data
            if trace.customdata
            for row, x in zip(trace.customdata, trace.x, strict=True)
        }
        assert len(at) == 8
        for row, x in at.items():
            model, variant = study.table.loc[row, ["model", "network.variant"]]
            assert x == pytest.approx(NETWORKS[variant if model == "ced" else model][place], rel=1e-4)
        front = next(trace for trace in figure.data if trace.name == "Pareto front")
        assert min(front.x) == min(at.values())


def test_networks_of_one_size_or_of_unknown_cost_have_none(tmp_path: Path):
    root = recorded(tmp_path / "multirun", predictions=False)
    files = list(root.rglob("result.json"))
    for file in files:  # all but one network by someone who writes words where numbers belong
        result = json.loads(file.read_text())
        if result["config"].get("model.variant") != "ced-tiny":
            result["network"]["multiply_adds"] = "many"
            file.write_text(json.dumps(result))
    assert main([str(root), "--no-images"]) == 0
    study = compare(collect([root]))
    assert not len(study.model_sizes)
    assert not [plot.name for plot in plots.all_plots(study, page=True) if plot.name.startswith("accuracy_over_")]
    assert not (root / "analysis" / "models.csv").exists()
    assert "Models by pretraining" not in (root / "analysis" / "summary_report.md").read_text()
