"""The space of a search: what varies, what is refused, the baseline; the study that takes it up again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sousa_bench.config import conf_folder
from sousa_bench.config.composing import compose, remember_files
from sousa_bench.config.config_errors import is_config_error
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.search_spaces import register_spaces
from sousa_bench.errors import ConfigError, UserError
from sousa_bench.search.optuna_study import STUDY_NAME, Trials
from sousa_bench.search.search_settings import SearchSettings, built
from sousa_bench.search.space import Space, make_space
from sousa_bench.search.trial_table import trial_table
from sousa_bench.sweep.session import register_resolvers

SPACES = sorted(path.stem for path in (conf_folder() / "peft").glob("*.yaml") if path.stem not in ("probe", "knn"))
MEASURED = ("dora", "adalora", "ia3", "bitfit", "head")  # beside lora and full
TPE = {"_target_": "optuna.samplers.TPESampler"}


@contextmanager
def hydra() -> Iterator[Any]:
    register_resolvers()
    register_spaces([conf_folder()])
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        loader = GlobalHydra.instance().config_loader()
        remember_files(loader)
        yield loader


def space(*words: str, params: dict[str, str] | None = None, sweeper: str = "optuna") -> Space:
    with hydra() as loader:
        master = loader.load_configuration("config", [*words, f"hydra/sweeper={sweeper}"], RunMode.MULTIRUN)
        own = params if params is not None else dict(master.hydra.sweeper.params or {})
        return make_space(loader, master, own, list(words))


def test_there_is_a_space_for_every_method() -> None:
    with hydra() as loader:
        assert loader.get_group_options("search") == SPACES


OFTEN = ("lora", "adalora", "full")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in SPACES])
def test_a_methods_space_begins_with_its_own_defaults(name: str) -> None:
    made = space(f"search={name}", "model=ast")
    assert not made.notes  # every default is among the choices
    for key, item in made.distributions.items():
        assert item._contains(item.to_internal_repr(made.baseline[key])), key
    assert "search" not in " ".join(made.fixed)
    with hydra() as loader:
        master = loader.load_configuration("config", [], RunMode.MULTIRUN)
        assert made.identity == fingerprint(compose(loader, master, ["model=ast", f"peft={name}"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "full", *MEASURED])
def test_a_space_lies_around_the_defaults_of_the_weights(name: str) -> None:
    official = ("model=efficientat", "weights=official", "model.variant=mn04")
    for start in (official, ("model=efficientat",), ("model=ast", "weights=official")):
        made = space(f"search={name}", *start)
        rates, default = made.distributions["peft.learning_rate"], made.baseline["peft.learning_rate"]
        assert isinstance(rates, FloatDistribution)
        assert isinstance(default, float)
        assert (rates.low, rates.high) == pytest.approx((default / 10, default * 10)), start


def test_hydras_sweep_syntax_makes_the_distributions() -> None:
    made = space(
        "peft.r=2,4,8",
        "peft.lora_alpha=range(8,33,8)",
        "peft.learning_rate=tag(log,interval(1e-4,1e-2))",
        "trainer.warmup_fraction=interval(0.0,0.5)",
        "model=ast,htsat",
        "trainer.batch_size=tag(log,int(interval(4,32)))",
        "peft.targets=[attention],[attention,mlp]",
    )
    assert made.distributions["peft.r"] == CategoricalDistribution(("2", "4", "8"))
    assert made.distributions["peft.lora_alpha"] == IntDistribution(8, 32, step=8)
    assert made.distributions["peft.learning_rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert made.distributions["trainer.warmup_fraction"] == FloatDistribution(0.0, 0.5)
    assert made.distributions["trainer.batch_size"] == IntDistribution(4, 32, log=True)
    assert made.distributions["model"] == CategoricalDistribution(("ast", "htsat"))
    assert made.baseline == {
        "peft.r": "8",
        "peft.lora_alpha": 16,
        "peft.learning_rate": 1e-3,
        "trainer.warmup_fraction": 0.1,
        "model": "ast",
        "trainer.batch_size": 16,
        "peft.targets": "[attention,mlp,pointwise,squeeze_excitation]",
    }
    assert made.notes == [
        "peft.targets: the default, [attention,mlp,pointwise,squeeze_excitation], is added to the choices"
    ]


@pytest.mark.slow
def test_the_command_line_narrows_a_space() -> None:
    made = space("search=lora", "peft.r=4", "peft.lora_alpha=8,16")
    assert "peft.r" not in made.distributions
    assert "peft.r=4" in made.fixed
    assert made.distributions["peft.lora_alpha"] == CategoricalDistribution(("8", "16"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["peft.rr=4,8"], "peft.rr"),
        (["search=lora", "seed=1,2"], "seed: a search can't vary it"),
        (["search=lora", "data=tiny,small"], "data: a search can't vary it"),
        (["search=lora", "n_jobs=1,2"], "n_jobs: it belongs to the search"),
        (["search=lora", "peft.learning_rate=tag(log,interval(0,1))"], "peft.learning_rate"),
        (["search=lora", "trainer.batch_size=interval(-3,8)"], "trainer.batch_size"),
        (["trainer.learning_rate=interval(1e-4,1e-2)"], "no baseline"),
        (["peft.r=8"], "nothing to search"),
    ],
)
def test_what_can_not_vary_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(Exception, match=says) as caught:
        space(*words)
    assert isinstance(caught.value, UserError) or is_config_error(caught.value)


def settings(**changed: Any) -> SearchSettings:
    values = {"n_trials": 3, "metric": "val_acc", "seed": 0, "sampler": TPE, "pruner": None, "poll": 0.5}
    return SearchSettings.of(changed.pop("direction", None), **{**values, **changed})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"metric": "test_acc"}, "must have no part in the choice"),
        ({"n_trials": 0}, "n_trials=0"),
        ({"direction": "up"}, "direction=up"),
        ({"seed": -1}, "seed=-1"),
        ({"poll": 0}, "poll=0"),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings(**changed)


def test_a_loss_is_minimised() -> None:
    assert settings(metric="val_loss").direction == "minimize"
    assert settings().direction == "maximize"


def test_an_unknown_sampler_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.sampler"):
        built("hydra.sweeper.sampler", {"_target_": "optuna.samplers.Nix"})
    with pytest.raises(ConfigError, match="nix"):
        built("hydra.sweeper.sampler", {**TPE, "nix": 1})


SMALL = Space(
    ["model=ast"],
    {"a": FloatDistribution(0, 1), "b": CategoricalDistribution(("x", "y"))},
    {"a": 0.5, "b": "x"},
    "0" * 64,
)


def test_a_trial_that_was_half_drawn_is_taken_up(tmp_path: Path) -> None:
    Trials(tmp_path, SMALL, settings())
    study = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.tell(study.ask(SMALL.distributions), 0.1)
    drawn = study.ask().suggest_float("a", 0, 1)  # and here it was killed
    trials = Trials(tmp_path, SMALL, settings())
    [asked] = trials.next(1)
    assert asked.number == 1
    assert asked.params["a"] == drawn
    assert asked.params["b"] in ("x", "y")
    assert [each.number for each in trials.next(5)] == [2]
    assert trials.next(5) == []


def test_another_space_metric_or_config_under_the_same_name_is_refused(tmp_path: Path) -> None:
    Trials(tmp_path, SMALL, settings())
    Trials(tmp_path, SMALL, settings(n_trials=9, pruner={"_target_": "optuna.pruners.MedianPruner"}))
    wider = replace(SMALL, distributions={**SMALL.distributions, "a": FloatDistribution(0, 2)})
    fewer = replace(SMALL, distributions={"a": SMALL.distributions["a"]})
    for space_, changed, says in (
        (wider, {}, "another space, a high: 1.0 before, 2.0 now;"),
        (fewer, {}, r'another space, b kind: .*, b choices: \["x", "y"\] before, none now;'),
        (SMALL, {"metric": "val_f1_macro"}, "another metric"),
        (SMALL, {"direction": "minimize"}, "another direction"),
        (replace(SMALL, identity="1" * 64), {}, "another config"),
    ):
        with pytest.raises(ConfigError, match=says):
            Trials(tmp_path, space_, settings(**changed))


def test_draws_go_on_where_they_were(tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):  # each time as a new command
        trials = Trials(tmp_path, SMALL, settings(n_trials=9))
        for asked in trials.next(3):
            seen.add(asked.params["a"])
            trials.fail(asked, "no reason")
    assert len(seen) == 9


def test_of_many_trials_the_table_shows_the_best() -> None:
    keys = ["peft.r", "trainer.lr", "peft.lr"]
    values = {"peft.r": 8, "trainer.lr": 1.23456e-3, "peft.lr": 0.5}
    trials = [
        optuna.trial.create_trial(
            params=values,
            distributions=dict.fromkeys(keys, FloatDistribution(0, 10)),
            value=number / 50,
            state=optuna.trial.TrialState.PRUNED if number == 49 else optuna.trial.TrialState.COMPLETE,
        )
        for number in range(50)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    head, *rows, more = trial_table(trials, keys, "val_acc", "maximize", {48: 61.0}).splitlines()
    assert head.split() == ["trial", "r", "trainer.lr", "peft.lr", "status", "val_acc", "time"]
    assert [int(row.split()[0]) for row in rows] == list(range(48, 8, -1))
    assert rows[0].split() == ["48", "8", "0.00123", "0.5", "completed", "0.9600", "1:01"]
    assert more == "The best 40 of 50 trials."
    worst = trial_table(trials, keys, "val_loss", "minimize", {}).splitlines()[1]
    assert worst.split() == ["0", "8", "0.00123", "0.5", "completed", "0.0000"]


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database at all, but some text that is long enough to be looked at" * 20)
    with pytest.raises(UserError, match=r"study\.db: can't be used as a study"):
        Trials(tmp_path, SMALL, settings())
