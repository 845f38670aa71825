"""Whether any method beats the linear probe of its model: the report's line, and the command where none has run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.baselines import held_against_baselines
from sousa_bench.analysis.limitations import limitations
from sousa_bench.analysis.next_steps import MORE_SEEDS, next_steps
from sousa_bench.analysis.report.against_baselines import against_baselines
from sousa_bench.analysis.stats.data_sets import data_set_verdicts
from sousa_bench.config import conf_folder
from sousa_bench.sweep.plan import refusal
from tests.analysis.synthetic import Truth, result, write_result, write_sweep

MODELS = ("ast", "beats")
STEP = "Baselines, which the methods are held against (experiment=baselines)"


def study_of(
    root: Path, effects: dict[str, float], baselines: tuple[str, ...] = ("probe", "head", "full"), seeds=(1, 2, 3)
) -> Study:
    """Two methods with and without augmentation, baselines without, in two sweeps on the same clips."""
    truth = Truth(strategy=effects, augmentation=0.0)
    common = {"models": MODELS, "seeds": seeds, "players": 30, "per_player": 20, "truth": truth}
    write_sweep(root / "methods", strategies=("lora", "ia3"), **common)
    if baselines:
        write_sweep(root / "baselines", strategies=baselines, augmentations=(False,), **common)
    return compare(collect([root]))


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_of(tmp_path_factory.mktemp("better"), {"lora": 1.2, "full": -1.2})


def test_what_beats_the_probe_is_said_with_the_difference(better: Study):
    verdict, worse = against_baselines(better)
    accuracy = better.combinations.set_index("combination")["test_acc"]
    gains = {name: accuracy[name] - accuracy[f"{name.split(' + ')[0]} + probe (no aug)"] for name in accuracy.index}
    most = max(gains, key=gains.get)
    assert verdict.startswith("4 of 10 combinations clearly beat the linear probe of the same model; by the most ")
    assert f"{most}, by {100 * gains[most]:+.2f} points (simultaneous 95 % interval +" in verdict
    assert verdict.endswith(f"against {most.split(' + ')[0]} + probe (no aug).")
    assert worse.startswith("Clearly worse than the linear probe: ")
    assert {name.split(" (")[0] for name in worse.removesuffix(".").split(": ")[1].split("; ")} == {
        "ast + full",
        "beats + full",
    }


@pytest.mark.parametrize(("others", "cohorts"), [((20,), 1), ((20, 30), 3)])
def test_what_takes_no_steps_stands_in_the_cohort_of_its_data_whatever_its_epochs(
    tmp_path: Path, others: tuple[int, ...], cohorts: int
):
    common = {"models": MODELS, "augmentations": (False,), "players": 30, "per_player": 20}
    write_sweep(tmp_path / "baselines", strategies=("probe", "knn"), max_epochs=15, **common)
    for epochs in others:
        write_sweep(tmp_path / str(epochs), strategies=("lora", "ia3"), max_epochs=epochs, **common)
    study = compare(collect([tmp_path]))
    assert study.table["cohort"].nunique() == cohorts
    asked = STEP in {step.title for step in next_steps(study, 3)}
    assert asked == (cohorts > 1)
    assert ("no baseline has completed" in " ".join(against_baselines(study)).lower()) == asked


def test_the_report_shows_the_line_and_asks_for_no_baseline(better: Study):
    assert STEP not in {step.title for step in next_steps(better, 3)}


def test_baselines_leave_the_effects_of_the_others_whole(better: Study):
    [effects] = better.effects.values()
    assert not effects.reason
    assert sorted(effects.left_out) == ["full", "head", "probe"]
    assert set(effects.levels["level"]) == {"ast", "beats", "lora", "ia3", "with aug", "no aug"}
    commands = [command for step in next_steps(better, 3) if step.title.startswith("Fill") for command in step.commands]
    assert not any("probe" in command or "head" in command for command in commands)


@pytest.mark.slow
def test_where_none_is_better_it_says_so(tmp_path: Path):
    said = against_baselines(study_of(tmp_path, {}))
    assert said[0].startswith("No method clearly beats the linear probe of its model (10 combinations compared); ")
    assert len(said) == 1


@pytest.mark.slow
def test_one_training_each_speaks_of_the_trained_models(tmp_path: Path):
    [said, *_] = against_baselines(study_of(tmp_path, {}, ("head",), seeds=(42,)))
    assert said.startswith("Of these trained models only: ")
    assert "of 8 combinations clearly beat the linear probe" in said  # by luck, which one training can't tell
    assert "+ head (no aug)." in said  # the next best baseline


@pytest.mark.slow
def test_more_seeds_are_not_asked_of_what_no_seed_changes(tmp_path: Path):
    study = study_of(tmp_path, {"probe": 0.3}, ("probe",), seeds=(42,))
    assert "probe" in set(study.combinations.loc[study.combinations["best_set"], "strategy"])
    commands = [command for step in next_steps(study, 3) if step.title == MORE_SEEDS for command in step.commands]
    assert commands
    assert not any("probe" in command for command in commands)


@pytest.mark.slow
def test_without_a_baseline_the_command_runs_it_on_the_same_data(tmp_path: Path):
    study = study_of(tmp_path, {}, baselines=())
    assert against_baselines(study)[0].startswith("No baseline has completed beside these methods, so nothing tells ")
    [step] = [step for step in next_steps(study, 3) if step.title == STEP]
    assert step.commands == (
        "python -m sousa_bench.train -m model=beats,ast peft=probe,knn,head,full augmentation=off data=small "
        "trainer.max_epochs=20 seed=1,2,3",
    )
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        words = step.commands[0].split()[4:]
        for model in MODELS:
            chosen = {"model": model, "peft": "probe", "seed": "1"}
            cfg = compose("config", [f"{key}={chosen.get(key, value)}" for key, value in (w.split("=") for w in words)])
            assert refusal(cfg) is None


def test_what_belongs_to_the_methods_is_not_given_to_the_baselines(tmp_path: Path):
    """A method's rank and rate stay with it; weights, the place of the data and the folds' number go along."""
    for number, strategy in enumerate(("lora", "ia3")):
        made = result({"strategy": strategy, "augmentation": False}, accuracy=0.5 + number / 10)
        made["overrides"] += [
            "peft.learning_rate=0.01",
            "trainer.learning_rate=0.02",
            "data.root=/d",
            "weights=official",
        ]
        made["resolved_config"] |= {"weights": "official"}
        write_result(tmp_path / str(number), made)
    [step] = [step for step in next_steps(compare(collect([tmp_path])), 3) if step.title == STEP]
    [command] = step.commands
    assert "learning_rate" not in command
    assert {"seed=42", "weights=official", "data.root=/d", "peft=probe,knn,head,full"} <= {*command.split()}


def test_a_baseline_that_is_under_way_is_not_asked_for_again(tmp_path: Path):
    write_result(tmp_path / "0", result({"strategy": "lora", "augmentation": False}))
    write_result(tmp_path / "1", result({"strategy": "probe", "augmentation": False}, status="failed"))
    assert STEP not in {step.title for step in next_steps(compare(collect([tmp_path])), 3)}


@pytest.mark.slow
def test_the_baselines_of_other_data_are_none_of_these(tmp_path: Path):
    write_sweep(tmp_path / "a", MODELS[:1], ("lora", "probe"), (False,), players=10, per_player=10)
    write_sweep(tmp_path / "b", MODELS[:1], ("lora",), (False,), players=10, per_player=10, data="other")
    [step] = [step for step in next_steps(compare(collect([tmp_path])), 3) if step.title == STEP]
    assert len(step.commands) == 1
    assert " peft=probe,knn,head,full " in step.commands[0]
    assert " data=other " in step.commands[0]


@pytest.mark.slow
def test_what_learnt_from_a_teacher_is_no_baseline(tmp_path: Path):
    def write(strategy: str, accuracy: float, teacher: str | None = None, seed: int = 1) -> None:
        made = result({"strategy": strategy, "augmentation": False, "seed": seed}, accuracy=accuracy)
        made["resolved_config"]["teacher"] = {"run": teacher, "weight": 0.9, "temperature": 2}
        if teacher is not None:
            made["lineage"] = {"from": [], "warm": False, "teacher": {"experiment_id": "big", "fingerprint": "f" * 64}}
        write_result(tmp_path / f"{strategy}_{teacher}_{seed}".replace("/", "_"), made)

    write("lora", 0.7)
    write("head", 0.8, "multirun/a/big")
    study = compare(collect([tmp_path]))
    assert [each.baseline for each in held_against_baselines(study, "A")] == [None, None]
    [step] = [step for step in next_steps(study, 3) if step.title == STEP]
    assert "peft=probe,knn,head,full" in step.commands[0]
    write("head", 0.6, seed=2)
    held = held_against_baselines(compare(collect([tmp_path])), "A")
    assert {each.row["combination"].partition(" (")[0]: each.baseline.partition(",")[0] for each in held} == {
        "ast + head": "ast + head (no aug)",
        "ast + lora": "ast + head (no aug)",
    }


def test_a_network_that_nobody_has_pretrained_is_a_baseline_of_the_cohort_of_its_data(tmp_path: Path):
    """Its weights and epochs are its own; where there are two cohorts of its data, it has none of them."""

    def sweep(name: str, models: tuple[str, ...], strategies: tuple[str, ...], kind: str, epochs: int, data="") -> None:
        common = {"augmentations": (False,), "seeds": (1, 2), "players": 12, "per_player": 20, "data": data}
        folder = write_sweep(tmp_path / name, models=models, strategies=strategies, max_epochs=epochs, **common)
        for file in folder.glob("*/result.json"):
            made = json.loads(file.read_text())
            file.write_text(json.dumps(made | {"weights": {**made["weights"], "kind": kind}}))

    sweep("pretrained", MODELS, ("lora", "ia3"), "embedded", 2)
    sweep("nothing", ("cnn",), ("full",), "random", 15)
    study = compare(collect([tmp_path]))
    names = {f"{model} + {method} (no aug)" for model in MODELS for method in ("lora", "ia3")}
    assert set(study.combinations["combination"]) == names | {"cnn + full (no aug)"}
    assert (study.cohorts, len(study.pairs)) == ({}, 10)
    assert any("Cohort A: cnn, which nobody has pretrained, began" in said for said in limitations(study))
    [asked] = [step.commands for step in next_steps(study, 3) if step.title == STEP]
    assert [("beats" in command, "cnn" in command) for command in asked] == [(True, False)]
    [effects] = study.effects.values()
    assert (effects.reason, set(effects.levels["level"])) == ("", {*MODELS, "lora", "ia3"})

    sweep("longer", ("cnn",), ("full",), "random", 20)
    for name, models, epochs, kind in (("one", MODELS, 2, "embedded"), ("two", ("cnn",), 15, "random")):
        sweep(name, models, ("lora", "full"), kind, epochs, data="other")
    study = compare(collect([tmp_path]))
    assert {"cnn + full (no aug), max_epochs=15", "cnn + full (no aug), max_epochs=20"} <= set(
        study.combinations["combination"].str.replace(", data=small", "")
    )
    [verdict] = data_set_verdicts(study)
    assert not any("cnn" in str(method) for method in verdict.accuracy.index)

    sweep("random", ("ast",), ("full",), "random", 2)
    study = compare(collect([tmp_path]))
    own = study.combinations[study.combinations["data"] != "other"]
    assert not set(own["cohort"][own["model"] == "cnn"]) & set(own["cohort"][own["model"] != "cnn"])
