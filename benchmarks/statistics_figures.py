"""The pictures of docs/statistics.md: `python -m benchmarks.statistics_figures docs/images`."""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from scipy import stats

from sousa_bench.analysis.plots.style import GREY, PALETTE, template
from sousa_bench.analysis.stats.intervals import accuracy_interval
from sousa_bench.analysis.stats.pairs import max_t
from sousa_bench.analysis.stats.training_luck import Luck, Repeats, TrainingLuck, training_luck

PLAYERS, CLIPS = 19, 100
PLAYER, TASTE, TRAINING = 8.0, 2.0, 2.0  # deviations in points, as in docs/calibration.md
METHODS = np.arange(2, 25)


def simulated(rng: np.random.Generator, methods: int, seeds: int) -> NDArray[np.float64]:
    """Right clips of equal methods, 60 % in the mean, shape (methods, seeds, players)."""
    points = rng.normal(0, PLAYER, PLAYERS) + rng.normal(0, TASTE, (methods, 1, PLAYERS))
    points = 60 + points + rng.normal(0, TRAINING, (methods, seeds, 1))
    return rng.binomial(CLIPS, np.clip(points / 100, 0, 1)).astype(float)


def known(totals: NDArray[np.float64]) -> tuple[NDArray[np.float64], TrainingLuck]:
    """Clips of each player, and what the trainings show."""
    sizes = np.full(PLAYERS, float(CLIPS))
    return sizes, training_luck([Repeats(number, 0, one, sizes, int(sizes.sum())) for number, one in enumerate(totals)])


def two_lucks() -> go.Figure:
    """Six equal methods: what an interval over players holds, and one over both kinds of luck."""
    totals = simulated(np.random.default_rng(5), 6, 3)
    sizes, luck = known(totals)
    names = [f"method {number}" for number in range(1, 7)]
    figure = go.Figure()
    for shift, colour, word, some in (
        (0.18, PALETTE[1], "players alone", None),
        (-0.18, PALETTE[0], "players and trainings", luck.of(range(6), [3] * 6)),
    ):
        made = accuracy_interval(totals.mean(axis=1), sizes, some)
        error = {"array": 100 * (made.high - made.estimate), "arrayminus": 100 * (made.estimate - made.low)}
        place = np.arange(6) + shift
        figure.add_scatter(
            x=100 * made.estimate, y=place, error_x=error, mode="markers", name=word, marker_color=colour
        )
    runs = 100 * totals.sum(axis=2) / sizes.sum()
    marks = {"symbol": "line-ns-open", "size": 9, "color": GREY}
    figure.add_scatter(x=runs.ravel(), y=np.repeat(np.arange(6), 3), mode="markers", name="one training", marker=marks)
    figure.add_vline(60, line_dash="dot", annotation_text="true accuracy of all", annotation_position="bottom right")
    return figure.update_layout(xaxis_title="test accuracy, %", yaxis={"tickvals": np.arange(6), "ticktext": names})


def false_alarms(studies: int = 150) -> go.Figure:
    """Six equal methods: how often at least one is called better."""
    rng, seeds = np.random.default_rng(1), [2, 3, 5]
    couples = np.array(list(combinations(range(6), 2)))
    shares = {"players alone": [], "players and trainings": []}
    for count in seeds:
        alarms = np.zeros(2)
        for _ in range(studies):
            totals = simulated(rng, 6, count)
            sizes, luck = known(totals)
            for number, some in enumerate((Luck.none(6), luck.of(range(6), [count] * 6))):
                alarms[number] += (max_t(totals.mean(axis=1), sizes, couples, some, draws=2000).p <= 0.05).any()
        for name, share in zip(shares, alarms / studies, strict=True):
            shares[name].append(share)
    bars = [
        go.Bar(x=[f"{count} seeds" for count in seeds], y=values, name=name, marker_color=colour)
        for (name, values), colour in zip(shares.items(), (PALETTE[1], PALETTE[0]), strict=True)
    ]
    figure = go.Figure(bars).add_hline(0.05, line_dash="dot", annotation_text="5 %")
    return figure.update_layout(yaxis={"title": 'studies with a false "clear"', "tickformat": ".0%"})


def family() -> go.Figure:
    """Equal methods: how often the lowest stands clearly behind the highest, by three rules."""
    drawn = np.random.default_rng(3).normal(size=(50_000, METHODS[-1]))
    gaps = (drawn[:, 1:] - drawn[:, :1]) / 2**0.5
    hsu = [np.quantile(gaps[:, : count - 1].max(axis=1), 0.95) for count in METHODS]  # one-sided, against one method
    tukey = [stats.studentized_range.ppf(0.95, count, 1e4) / 2**0.5 for count in METHODS]
    rules = {"each pair alone": [1.96] * len(METHODS), "against one method, one-sided": hsu, "all pairs": tukey}
    figure = go.Figure()
    for (name, constants), colour in zip(rules.items(), (PALETTE[1], PALETTE[4], PALETTE[0]), strict=True):
        pairs = zip(constants, METHODS, strict=True)
        share = [stats.studentized_range.sf(constant * 2**0.5, count, 1e4) for constant, count in pairs]
        figure.add_scatter(x=METHODS, y=share, mode="lines", name=name, line_color=colour)
    yaxis = {"title": "studies that leave one out", "tickformat": ".0%"}
    return figure.update_layout(xaxis_title="equal methods compared", yaxis=yaxis)


def leader() -> go.Figure:
    """How far the highest of equal methods stands above its truth."""
    drawn = np.random.default_rng(2).normal(size=(20_000, METHODS[-1]))
    excess = [drawn[:, :count].max(axis=1).mean() for count in METHODS]
    figure = go.Figure(go.Scatter(x=METHODS, y=excess, mode="lines", line_color=PALETTE[0]))
    yaxis = {"title": "too high by, standard errors", "rangemode": "tozero"}
    return figure.update_layout(xaxis_title="equal methods compared", yaxis=yaxis)


def verdicts() -> go.Figure:
    """What an interval of the leader's lead says."""
    cases = {"clear": (4.0, 2.6), "can't be told apart": (2.0, 3.5), "as good within 2 points": (0.5, 1.2)}
    middle, half = np.array(list(cases.values())).T
    points = go.Scatter(x=middle, y=list(cases), error_x={"array": half}, mode="markers", marker_color=PALETTE[0])
    figure = go.Figure(points).add_vline(0, line_color=GREY)
    figure.add_vline(2, line_dash="dot", annotation_text="margin", annotation_position="bottom right")
    return figure.update_layout(xaxis_title="lead with its simultaneous interval, points", yaxis_autorange="reversed")


def reach() -> go.Figure:
    """The difference of two methods that is found in four of five studies, each comparison alone."""
    seeds, figure = np.arange(2, 11), go.Figure()
    for players, colour in ((8, PALETTE[1]), (19, PALETTE[0]), (50, PALETTE[2])):
        of_players = 2 * (TASTE**2 + 100**2 * 0.24 / CLIPS) / players
        of_trainings = 2 * TRAINING**2 / seeds
        dof = (of_players + of_trainings) ** 2 / (of_players**2 / (players - 1) + of_trainings**2 / (6 * (seeds - 1)))
        found = (stats.t.ppf(0.975, dof) + stats.t.ppf(0.8, dof)) * np.sqrt(of_players + of_trainings)
        figure.add_scatter(x=seeds, y=found, name=f"{players} players", line_color=colour)
    yaxis = {"title": "difference, points", "rangemode": "tozero"}
    return figure.update_layout(xaxis_title="seeds of each of six methods", yaxis=yaxis)


def main(arguments: list[str] | None = None) -> None:
    """Write `statistics_….png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go, e.g. docs/images")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (two_lucks, false_alarms, family, leader, verdicts, reach):
        path = folder / f"statistics_{draw.__name__}.png"
        look = {"template": template("light"), "width": 640, "height": 320, "margin": {"t": 30, "r": 20}}
        draw().update_layout(**look, legend={"orientation": "h", "y": 1.15}).write_image(path)
        print(path)


if __name__ == "__main__":
    main()
