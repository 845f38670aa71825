"""Each figure: title, axis titles, error bars, safe texts; and the same definition in image and page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from sousa_bench.analysis import Study, collect, compare, plots
from sousa_bench.analysis.plots.details import f1_by_class, tempo_bands
from sousa_bench.analysis.plots.style import accuracy_scale, log_axis, safe
from sousa_bench.analysis.report.blocks import Figure, Options
from sousa_bench.analysis.report.html_page import page
from sousa_bench.analysis.report.images import NO_BROWSER, write_images
from sousa_bench.analysis.report.sections import figures, report
from sousa_bench.analysis.stats.cost_front import front_places
from sousa_bench.data.rudiments import FAMILY_NAMES
from tests.analysis.synthetic import result, write_folds, write_result

ALWAYS = {
    "accuracy_comparison",
    "model_strategy_heatmap",
    "pairwise_differences",
    "efficiency_scatter",
    "time_accuracy",
    "training_time",
    "peak_memory",
    "augmentation_effect",
    "main_effects",
    "learning_curves",
    "confusion_matrix",
    "per_class_f1",
    "accuracy_by_skill_tier",
    "accuracy_by_tempo",
    "accuracy_by_soundfont",
}


def test_every_plot_of_the_comparison(comparison_study: Study):
    made = {plot.name: plot for plot in plots.all_plots(comparison_study, page=False)}
    assert set(made) == ALWAYS
    for plot in made.values():
        assert isinstance(plot.figure, go.Figure), plot.name
        layout = plot.figure.layout
        assert layout.title.text, plot.name
        assert layout.xaxis.title.text or plot.name in ("pairwise_differences", "per_class_f1"), plot.name
        assert plot.caption


@pytest.mark.parametrize(
    "draw",
    [
        "accuracy_comparison",
        "efficiency_scatter",
        "augmentation_effect",
        "main_effects",
        "per_class_f1",
        "accuracy_by_tempo",
    ],
)
def test_error_bars(comparison_study: Study, draw: str):
    figure = getattr(plots, draw)(comparison_study)
    bars = [
        bar for trace in figure.data for bar in (getattr(trace, "error_x", None), trace.error_y) if bar and bar.array
    ]
    assert bars
    assert all(np.max(bar.array) > 0 for bar in bars)


def test_a_factor_gets_its_own_figure(ranks: Path):
    study = compare(collect([ranks]))
    names = [plot.name for plot in plots.all_plots(study, page=True)]
    assert "factor_peft_r" in names
    figure = plots.factor_effect(study, "peft.r")
    assert len(figure.data) == 4
    assert list(figure.data[0].x) == [4, 8, 16]


def test_seeds_get_their_own_figure(seeded_study: Study):
    figure = plots.seed_spread(seeded_study)
    assert figure is not None
    assert len(figure.data[0].x) == 24


def test_what_is_not_there_says_why(tmp_path: Path):
    made = result({})
    del made["efficiency"]["peak_memory_bytes"]
    write_result(tmp_path / "one", made | {"history": []})
    study = compare(collect([tmp_path]))
    absent = {plot.name: plot.caption for plot in plots.all_plots(study, page=True) if plot.figure is None}
    assert {"peak_memory", "pairwise_differences", "augmentation_effect", "main_effects", "learning_curves"} <= set(
        absent
    )
    assert all(absent.values())
    text = page(study, report(study, Options()))
    assert "No run recorded its memory." in text


def test_the_page_carries_the_figures_as_they_are(comparison_study: Study):
    drawn = [block for block in figures(comparison_study, Options()) if isinstance(block, Figure)]
    text = page(comparison_study, drawn)
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    by_name = {plot["name"]: plot for plot in data["plots"]}
    for plot in drawn:
        assert plot.figure is not None
        if plot.name in ("confusion_matrix", "per_class_f1"):
            assert len(by_name[plot.name]["variants"]) == 24
            continue
        own = json.loads(plot.figure.to_json())["data"]
        assert [trace["type"] for trace in by_name[plot.name]["data"]] == [trace["type"] for trace in own]
        assert by_name[plot.name]["title"] == plot.figure.layout.title.text
    assert text.count("plotly.js v") >= 1
    assert text.count("<script") == 3


def test_pareto_front():
    cost = np.array([4.0, 1.0, 2.0, 2.0, 3.0])
    gain = np.array([0.9, 0.5, 0.7, 0.6, 0.7])
    places = front_places(cost, gain)
    assert cost[places].tolist() == [1, 2, 4]
    assert gain[places].tolist() == [0.5, 0.7, 0.9]


def test_confusions_are_grouped_by_family_and_rows_add_up(comparison_study: Study):
    figure = plots.confusion_matrix(comparison_study)
    assert figure is not None
    heat = figure.data[0]
    assert np.array(heat.customdata).sum() == 1140
    assert np.nansum(np.array(heat.z, float), axis=1) == pytest.approx(1, abs=0.02)
    assert [note.text.lower() for note in figure.layout.annotations] == list(FAMILY_NAMES)
    assert len(figure.layout.shapes) == 6


def test_f1_is_that_of_scikit_learn(comparison_study: Study):
    metrics = pytest.importorskip("sklearn.metrics")
    clips = comparison_study.clip_sets[0]
    value, error = f1_by_class(clips, clips.predicted[0])
    assert value == pytest.approx(metrics.f1_score(clips.label, clips.predicted[0], average=None))
    assert np.isfinite(error).all()


def test_jackknife_of_the_share_of_hits_is_the_classical_one(comparison_study: Study):
    """Leaving out one player at a time by hand gives the same error."""
    clips = comparison_study.clip_sets[0]
    predicted = clips.predicted[3]
    metrics = pytest.importorskip("sklearn.metrics")
    assert clips.player is not None
    left = [
        metrics.f1_score(clips.label[clips.player != p], predicted[clips.player != p], average=None, labels=[7])[0]
        for p in range(19)
    ]
    by_hand = np.sqrt(18 / 19 * ((left - np.mean(left)) ** 2).sum())
    assert f1_by_class(clips, predicted)[1][7] == pytest.approx(by_hand)


def test_tempo_bands():
    bands = tempo_bands(np.array([40, 79.9, 80, 139, 160, 300, np.nan]))
    assert bands.tolist() == ["under 80", "under 80", "80–99", "120–139", "160 and over", "160 and over", "unknown"]


def test_markup_is_text():
    assert safe("<b>$x$</b> & co") == "&lt;b&gt;&#36;x&#36;&lt;/b&gt; &amp; co"


@pytest.mark.slow
@pytest.mark.browser
def test_images(comparison_study: Study, tmp_path: Path, chromium: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROWSER_PATH", chromium)
    chosen = [
        p
        for p in plots.all_plots(comparison_study, page=False)
        if p.name in ("accuracy_comparison", "efficiency_scatter")
    ]
    assert write_images(chosen, tmp_path) == ""
    for plot in chosen:
        assert (tmp_path / f"{plot.name}.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_browser_a_line_says_how_to_get_one(
    comparison_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    chosen = [plot for plot in plots.all_plots(comparison_study, page=False) if plot.name == "training_time"]
    assert write_images(chosen, tmp_path) == NO_BROWSER
    assert "apt install chromium" in NO_BROWSER


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0.025, 0.05, 0.0375], 0.025, 0.5),
        ([0.70, 0.91], 0.70, 0.91),
        ([0.85, 0.87], 0.76, 0.96),
        ([0.99, 1.0], 0.8, 1.0),
        ([float("nan")], 0.0, 0.5),
    ],
)
def test_colours_of_accuracies_show_neither_luck_nor_a_clips_difference(values: list[float], low: float, high: float):
    assert accuracy_scale(values) == pytest.approx((low, high))


def test_the_heat_map_of_runs_near_chance_is_dark(tmp_path: Path):
    for number, strategy in enumerate(("lora", "ia3")):
        write_result(tmp_path / strategy, result({"strategy": strategy}, accuracy=0.025 + number / 80, files={}))
    heat = plots.model_strategy_heatmap(compare(collect([tmp_path]))).data[0]
    assert heat.zmax == 0.5
    assert np.nanmax(np.array(heat.z, float)) < heat.zmin + 0.1 * (heat.zmax - heat.zmin)


@pytest.mark.parametrize(
    "values", [[0.33, 0.335], [2.0], [59, 61], [5_000, 900_000], [0.02, 1e4], [1e6, 1.5e6], [7.99, 8.01]]
)
def test_a_logarithmic_axis_has_three_ticks_and_room(values: list[float]):
    axis = log_axis(values)
    low, high = (10**end for end in axis["range"])
    assert low < min(values) <= max(values) < high
    assert sum(low <= tick <= high for tick in axis["tickvals"]) == len(axis["ticktext"]) >= 3
    assert len(set(axis["ticktext"])) == len(axis["ticktext"])


def test_folds_get_the_figure_of_seeds(tmp_path: Path):
    study = compare(collect([write_folds(tmp_path)]))
    figure = plots.seed_spread(study)
    assert figure is not None
    assert figure.layout.title.text == "Folds and players: two kinds of luck"
    assert figure.data[0].text[0].startswith("fold 1/5, seed 1")
    assert list(figure.data[1].error_x.array) == pytest.approx(study.combinations["acc_std"], rel=1e-4)
