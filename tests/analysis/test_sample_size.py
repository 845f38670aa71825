"""The variance components of simulated trainings, and the numbers of seeds and players that find a difference."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.next_steps import FRESH_PLAYERS, MORE_SEEDS, OTHER_GROUPS, next_steps
from sousa_bench.analysis.reach import reaches
from sousa_bench.analysis.stats.intervals import difference_interval
from sousa_bench.analysis.stats.sample_size import Components, Design
from sousa_bench.analysis.stats.training_luck import Repeats, TrainingLuck, training_luck
from sousa_bench.analyze import main
from sousa_bench.config.composing import composed
from sousa_bench.data.rudiments import RUDIMENTS
from sousa_bench.evaluate.__main__ import parser as evaluate_parser
from sousa_bench.results.result import PREDICTIONS_FILE, read_result, write_result
from tests.analysis.synthetic import Clips, fold_result, result, write_predictions
from tests.cases import check_each

CLIPS = 10
TRUTH = Components(player=0.06**2, training=2 * 0.012**2, both=2 * 0.03**2)


def simulated(design: Design, rng: np.random.Generator, gap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Right clips by method, seed and player, varying as ``TRUTH``; the first method is better by ``gap``."""
    shape = (design.methods, design.seeds, design.players)
    taste = rng.normal(0, (TRUTH.player / 2) ** 0.5, (design.methods, 1, design.players))
    training = rng.normal(0, (TRUTH.training / 2) ** 0.5, (*shape[:2], 1))
    both = rng.normal(0, (TRUTH.both / 2) ** 0.5, shape)
    totals = CLIPS * (0.5 + taste + training + both)
    totals[0] += CLIPS * gap
    return totals, np.full(design.players, float(CLIPS))


def luck_of(totals: np.ndarray, sizes: np.ndarray) -> TrainingLuck:
    return training_luck([Repeats(index, 0, seeds, sizes, int(sizes.sum())) for index, seeds in enumerate(totals)])


def found(design: Design, gap: float, studies: int = 600) -> float:
    """Share of simulated studies whose interval of the first two methods' difference leaves out zero."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(studies):
        totals, sizes = simulated(design, rng, gap)
        luck = luck_of(totals, sizes).of([0, 1], [design.seeds] * 2).of(np.array([[1.0, -1.0]]))
        means = totals.mean(axis=1)
        hits += float(difference_interval(means[:1] - means[1:2], sizes, luck).low[0]) > 0
    return hits / studies


def test_the_number_of_seeds_or_players_finds_the_difference_as_often_as_it_says():
    def check(gap: float, players: int | None, seeds: int | None) -> None:
        design = Design(players or 2, seeds or 2, methods=4)
        if seeds is None:
            design = replace(design, seeds=TRUTH.seeds_for(gap, design))
            assert TRUTH.least(replace(design, seeds=design.seeds - 1)) > gap
        else:
            design = replace(design, players=TRUTH.players_for(gap, design))
            assert TRUTH.least(replace(design, players=design.players - 1)) > gap
        assert 0.76 < found(design, gap) < 0.9

    check_each([(0.035, 50, None), (0.04, None, 3)], check)


def test_more_of_what_the_variance_does_not_come_from_never_suffices():
    few, once = Design(20, 2), Design(50, 2)
    assert TRUTH.seeds_for(0.02, few) is None, "the players' variance stands above"
    assert TRUTH.players_for(0.01, once) is None, "the trainings' variance stands above"
    assert TRUTH.seeds_for(0.05, replace(few, folds=5, players=100)) == 1, "folds are trainings of their own"


def test_one_seed_says_nothing_of_other_trainings():
    assert Design(50, 1).training_dof == 0
    elsewhere = Design(50, 1, known_dof=2)  # the seeds of a third method tell it
    assert TRUTH.error(elsewhere) ** 2 == pytest.approx(TRUTH.error(Design(50, 1)) ** 2 + TRUTH.training)
    assert TRUTH.least(elsewhere) > TRUTH.least(replace(elsewhere, known_dof=20)) > TRUTH.least(Design(50, 1))
    assert TRUTH.error(Design(50, 1)) == pytest.approx(((TRUTH.player + TRUTH.both) / 50) ** 0.5)
    assert TRUTH.error(Design(50, 2)) == pytest.approx(
        (TRUTH.player / 50 + TRUTH.both / 100 + TRUTH.training / 2) ** 0.5
    )


def written(root: Path, right: Callable[..., np.ndarray], seeds: tuple[int, ...], synthetic: bool = False) -> Path:
    """A sweep of four methods; ``right`` says, by method, seed and clips, with which probability each is recognised."""
    rng = np.random.default_rng(3)
    clips = Clips.make(40, CLIPS)
    number_of = np.unique(clips.player, return_inverse=True)[1]
    for (method, strategy), seed in itertools.product(enumerate(("lora", "ia3", "adalora", "head")), seeds):
        hit = rng.random(len(clips.label)) < right(method, seed, number_of)
        predicted = np.where(hit, clips.label, (clips.label + 1) % len(RUDIMENTS))
        data = {"data": "synthetic"} if synthetic else {}
        made = result({"strategy": strategy, "seed": seed, **data}, accuracy=float(hit.mean()), rng=rng)
        made["data"]["players"] = {"train": 50, "val": 10, "test": 40}
        if synthetic:
            made["resolved_config"]["data"]["synthetic"] = {"seed": 0, "clips": 800, "domain": "target"}
        write_result(root / made["experiment_id"], made)
        write_predictions(root / made["experiment_id"] / PREDICTIONS_FILE, clips, predicted)
    return root


def even(method: int, seed: int, player: np.ndarray) -> np.ndarray:
    return np.full(len(player), 0.6)


def steps_of(folder: Path) -> dict[str, tuple[str, ...]]:
    return {step.title: step.commands for step in next_steps(compare(collect([folder])), 3)}


def test_the_components_of_a_study_are_those_it_was_made_with(tmp_path: Path):
    """Deviations of 6 points between trainings, 20 between players; clips alone add 0.6 · 0.4 each."""
    luck = {key: np.random.default_rng(key).normal(0, 0.06) for key in itertools.product(range(4), range(1, 9))}
    taste = np.random.default_rng(1).normal(0, 0.2 / 2**0.5, (4, 40))
    chance = lambda method, seed, player: 0.6 + luck[method, seed] + taste[method][player]  # noqa: E731
    (reach,) = reaches(compare(collect([written(tmp_path, chance, tuple(range(1, 9)))])))
    assert reach.design == Design(40, 8, methods=4, known_dof=4 * 7)
    assert reach.everyone == 100
    found, clips = reach.components, 2 * 0.6 * 0.4 / CLIPS
    assert found.training**0.5 == pytest.approx(0.06 * 2**0.5, rel=0.3)
    assert found.player**0.5 == pytest.approx(0.2, rel=0.3)
    assert found.both == pytest.approx(clips, rel=0.3)


def test_seeds_come_first_where_nothing_was_trained_twice_and_none_is_asked_for_again(tmp_path: Path):
    folder = written(tmp_path, even, (1,))
    assert next(iter(steps_of(folder))) == MORE_SEEDS
    running = result({"strategy": "lora", "seed": 2}, status="running")
    write_result(folder / "running", running)
    asked = [line for line in steps_of(folder)[MORE_SEEDS] if "peft=lora" in line]
    assert [line.rpartition("seed=")[2] for line in asked] == ["3"], "seed 2 runs already"


def test_real_players_are_confirmed_by_folds_in_commands_that_compose(tmp_path: Path):
    folder = written(tmp_path, even, (1, 2, 3))
    commands = steps_of(folder)[OTHER_GROUPS.format(groups="players")]
    assert commands
    for line in commands:
        words = [word for word in shlex.split(line)[4:] if not word.startswith(("data.fold=", "peft="))]
        assert str(composed([*words, "data.fold=1/5", "peft=lora"]).data.fold) == "1/5"
        assert "data.fold=1/5,2/5,3/5,4/5,5/5" in line
    write_result(folder / "fold", fold_result({"strategy": "lora", "seed": 1}, 1, 5))
    assert not any(
        "peft=lora" in line.split() for line in steps_of(folder).get(OTHER_GROUPS.format(groups="players"), ())
    )


def test_what_goes_on_from_a_run_is_not_confirmed_on_clips_that_the_run_may_have_met(tmp_path: Path):
    folder = written(tmp_path, even, (1, 2, 3))
    for file in folder.glob("*/result.json"):
        made = read_result(file)
        made["resolved_config"]["init_from"] = "multirun/first/ast_lora"
        write_result(file.parent, made)
    assert OTHER_GROUPS.format(groups="players") not in steps_of(folder)


def test_players_of_several_splits_are_counted_once(tmp_path: Path):
    folder = written(tmp_path, even, (1, 2, 3))
    for file in folder.glob("*/result.json"):
        made = read_result(file)
        made["data"]["distinct_players"] = 60
        write_result(file.parent, made)
    (reach,) = reaches(compare(collect([folder])))
    assert reach.everyone == 60


def test_the_report_says_what_it_takes_and_confirms_on_a_fresh_cast(tmp_path: Path):
    sweep = written(tmp_path / "multirun" / "one", even, (1, 2, 3), synthetic=True)
    assert main([str(sweep), "--no-images"]) == 0
    report = (sweep / "analysis" / "summary_report.md").read_text()
    said = report.split("## Answer")[1].split("##")[0]
    assert "What decides more, the cheapest first: confirm on fresh players" in said
    (cells,) = [line.split("|") for line in report.splitlines() if line.strip("| ").startswith("2 points")]
    assert all(cell.strip() for cell in cells[1:-1])
    assert len(cells) == 6
    commands = [line for line in report.splitlines() if line.startswith("python -m sousa_bench.evaluate")]
    for line in commands:
        options = evaluate_parser().parse_args(shlex.split(line)[3:])
        assert (options.run / "result.json").is_file()
        assert "data.synthetic.seed=1" in options.overrides
        recipe = dict(word.removeprefix("data.synthetic.").split("=") for word in options.overrides)
        assert int(recipe["clips"]) // int(recipe["split_players"].strip("[]").split(",")[2]) == CLIPS
    for run in {shlex.split(line)[3] for line in commands}:
        made = read_result(Path(run) / "result.json")
        made["evaluated_run"] = made["experiment_id"]
        made["resolved_config"]["data"]["synthetic"]["seed"] = 1
        made["fingerprint"] += "e"
        write_result(tmp_path / "multirun" / "evaluated" / made["experiment_id"], made)
    assert FRESH_PLAYERS in steps_of(sweep)
    assert FRESH_PLAYERS not in steps_of(tmp_path / "multirun"), "what was evaluated is not proposed again"
