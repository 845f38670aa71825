"""Every command that a report prints runs what its sentence says: composed by the real configs, told by fingerprint."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from sousa_bench.analysis.commands import retry_command
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.study import Study, compare
from sousa_bench.analysis.table import collect
from sousa_bench.config.fingerprint import fingerprint, outcome_config
from sousa_bench.config.overrides import combinations_override
from sousa_bench.promote.selection import promotion
from tests.analysis.composed_runs import SHORT, configs_of, run_sweep, words_of

RATES = ["trainer.learning_rate", "trainer.head_learning_rate"]
FOLLOWS_WEIGHTS = ["trainer.batch_size", "peft.learning_rate", "peft.batch_norm", *RATES]
MAY_DIFFER = {
    "More seeds": ["seed", "model.seed"],
    "Finish the cross-validations": ["seed", "model.seed", "data.fold", "data_content"],
    "Confirm on other": ["seed", "model.seed", "data.fold", "data_content"],
    "Baselines": ["peft", "augmentation", "init_from", "teacher", *RATES],
    "The best": ["seed", "data", "data_content", "trainer.max_epochs", "weights", "model", *FOLLOWS_WEIGHTS],
    "No run is above": ["trainer.max_epochs"],
}
"""What the runs of a step may have otherwise than the runs that it is about."""


class Folder:
    """Results below ``multirun``, and what they are known by."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = [json.loads(path.read_text()) for path in sorted(root.rglob("result.json"))]
        manifests = [json.loads(path.read_text()) for path in sorted(root.rglob("sweep.json"))]
        done = [result["resolved_config"] for result in self.results if result["status"] == "completed"]
        self.outcomes = [outcome_config(OmegaConf.create(resolved)) for resolved in done]
        self.jobs = {job["fingerprint"]: manifest for manifest in manifests for job in manifest["jobs"]}

    @property
    def study(self) -> Study:
        return compare(collect([self.root]))

    def check(self) -> int:
        """Compose all commands of the report; the number of runs that they ask for."""
        study, count = self.study, 0
        for row in study.table.index[study.table["status"].isin(["failed", "timeout", "interrupted"])]:
            [config] = configs_of(words_of(retry_command(study, int(row))))
            assert fingerprint(config) == study.table.at[row, "fingerprint"]
            count += 1
        begun = {result["fingerprint"] for result in self.results}
        for title, commands in next_steps(study, 3):
            asked: set[str] = set()
            for command in commands:
                if command.startswith(("python -m sousa_bench.evaluate", "python -m sousa_bench.analyze")):
                    assert Path(shlex.split(command)[3]).parts[-1]
                    continue
                configs = configs_of(words_of(command))
                prints = [fingerprint(_at_hand(config)) for config in configs]
                assert len({*prints}) == len(prints), f"{title}: one run twice in {command}"
                assert not asked & {*prints}, f"{title}: one run in two commands"
                assert not begun & {*prints}, f"{title}: a run that there is already: {command}"
                asked |= {*prints}
                for config, own in zip(configs, prints, strict=True):
                    self._check_kind(title, command, config, own)
            count += len(asked)
            if title.startswith("Finish what"):
                ended = [digest for digest, manifest in self.jobs.items() if not manifest["processes"]]
                assert asked == {*ended} - begun
        return count

    def _check_kind(self, title: str, command: str, config: DictConfig, own: str) -> None:
        """A run is planned, or like one that there is but for what its step changes."""
        if title.startswith("Finish what"):
            assert own in self.jobs
            return
        assert own not in self.jobs, f"{title}: planned already: {command}"
        keys = next(keys for start, keys in MAY_DIFFER.items() if title.startswith(start))
        asked = outcome_config(_at_hand(config))
        assert any(_with(outcome, asked, keys) == asked for outcome in self.outcomes), f"{title}: {command}"


def _with(outcome: dict[str, Any], other: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """What decides a run's outcome, with some of another one's values."""
    made = copy.deepcopy(outcome)
    for key in keys:
        group, _, name = key.rpartition(".")
        target, source = (made.setdefault(group, {}), other.get(group, {})) if group else (made, other)
        target.pop(name, None)
        if name in source:
            target[name] = source[name]
    return made


def _at_hand(config: DictConfig) -> DictConfig:
    """A config whose data, where they are a hub's, are told by their keys alone: no hub can be asked here."""
    if config.data.name in ("small", "medium", "full"):
        config = config.copy()
        config.data = {"keys": OmegaConf.to_yaml(config.data, resolve=True)}
    return config


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "multirun"


FIVE = [(32, 8, 0.1, 0.01, 1e-3), (8, 16, 0.0, 0.1, 3e-3), (4, 64, 0.2, 0.0, 1e-4)]
KEYS = ("peft.r", "peft.lora_alpha", "peft.lora_dropout", "trainer.weight_decay", "trainer.learning_rate")
TRIALS = [[f"{key}={value}" for key, value in zip(KEYS, values, strict=True)] for values in FIVE]
SEARCH = ["model=ast", "peft=lora", "augmentation=off", combinations_override(TRIALS), *SHORT]
COMPARISON = ["experiment=comparison", "model=ast,efficientat", "peft=lora,ia3", "augmentation=off", *SHORT]


@pytest.mark.slow
def test_after_a_search_over_five_keys(root: Path):
    run_sweep(root, "search", SEARCH)
    found = Folder(root)
    assert found.check() > 3
    steps = {step.title: step.commands for step in next_steps(found.study, 3)}
    more = [line for title, lines in steps.items() if title.startswith("More seeds") for line in lines]
    assert more
    assert all("peft.lora_alpha=" in line and "trainer.weight_decay=" in line for line in more)


@pytest.mark.slow
def test_a_comparison_that_was_cut_off_and_has_a_failure(root: Path):
    run_sweep(root, "cut", COMPARISON, lambda number: {1: "failed", 4: None}.get(number, "completed"))
    assert Folder(root).check() > 2


@pytest.mark.slow
def test_sizes_chosen_for_budgets(root: Path):
    """The baselines' command takes no budget, and no other names a size beside one."""
    run_sweep(root, "sizes", ["experiment=budget", "model=ast", "peft=lora", "peft.budget=0.3%,1%", *SHORT])
    run_sweep(root, "ranks", ["model=ast", "peft=lora", "peft.r=2", "augmentation=off", *SHORT])
    found = Folder(root)
    assert found.check() > 4
    labels = [label.partition(", ")[2] for label in found.study.combinations["combination"]]
    chosen = [("0.3%", "none"), ("1%", "none"), ("none", "2")]
    assert sorted(labels) == [f"peft.budget={budget}, peft.r={r}" for budget, r in chosen]


@pytest.mark.slow
def test_a_comparison_its_promotion_and_a_search_in_one_folder(root: Path):
    run_sweep(root, "first", COMPARISON)
    words, _ = promotion(
        [root / "first"],
        ["trainer.max_epochs=30"],
        top=2,
        metric="val_acc",
        filters=[],
        seeds=2,
        warm=False,
        distil=False,
        refit=False,
        command="promote",
    )
    run_sweep(root, "promoted", words, lambda number: None if number == 4 else "completed")
    run_sweep(root, "search", SEARCH)
    assert Folder(root).check() > 4


@pytest.mark.slow
def test_a_cross_validation_with_holes(root: Path):
    words = ["model=ast", "peft=lora,ia3", "augmentation=off", "data.fold=1/3,2/3,3/3", "seed=1,2", *SHORT]
    run_sweep(root, "folds", words, lambda number: None if number in (3, 8) else "completed")
    assert Folder(root).check() >= 2


@pytest.mark.slow
def test_nothing_is_proposed_that_a_living_sweep_does(root: Path):
    """Of a sweep that goes on: what it will start itself is neither to be finished, nor are its seeds."""
    from sousa_bench.results.run_process import identity

    words = ["model=ast", "peft=lora,ia3", "augmentation=off", "seed=1,2,3", *SHORT]
    folder = run_sweep(root, "on", words, lambda number: {2: "running", 6: None}.get(number, "completed"))
    manifest = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(manifest | {"processes": [identity()]}))
    found = Folder(root)
    assert not [title for title, _ in next_steps(found.study, 3) if title.startswith("Finish")]
    found.check()


SETTINGS = {
    "peft.r": ("4", "16"),
    "trainer.learning_rate": ("1e-3", "0.0003"),
    "trainer.weight_decay": ("0", "0.05"),
    "trainer.max_epochs": ("3", "5"),
    "data.max_duration": ("2", "4.0"),
    "weights": ("random", "embedded"),
    "seed": ("1", "7"),
    "peft.layers": ("all", "last_2"),
    "+note": ("one",),
}


@st.composite
def sweeps(draw: st.DrawFn) -> list[str]:
    keys = draw(st.lists(st.sampled_from(list(SETTINGS)), max_size=4, unique=True))
    words = [f"model={draw(st.sampled_from(['ast', 'ast,efficientat']))}"]
    words += [f"peft={draw(st.sampled_from(['lora', 'lora,dora']))}", "augmentation=off", *SHORT]
    for key in keys:
        values = draw(st.lists(st.sampled_from(SETTINGS[key]), min_size=1, max_size=2, unique=True))
        words.append(f"{key}={','.join(values)}")
    return words


@pytest.mark.slow
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],
)
@given(
    asked=st.lists(sweeps(), min_size=1, max_size=3), fates=st.lists(st.sampled_from("cccccfn"), min_size=8, max_size=8)
)
def test_drawn_folders(tmp_path_factory: pytest.TempPathFactory, asked: list[list[str]], fates: list[str]):
    root = tmp_path_factory.mktemp("drawn") / "multirun"
    became = {"c": "completed", "f": "failed", "n": None}
    for number, words in enumerate(asked):
        run_sweep(root, f"s{number}", words, lambda run: became[fates[run % len(fates)]])
    Folder(root).check()


def _as_before_reads(folder: Path) -> None:
    """Make a sweep that asks for ``peft.reads=last`` one of before that key, when the last layer was all there was."""
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text())
        for node in (content, *content.get("jobs", [])):
            node.pop("reads", None)
            node["overrides"] = [word for word in node.get("overrides", []) if word != "++peft.reads=last"]
            node.get("resolved_config", {}).get("peft", {}).pop("reads", None)
        content.get("config", {}).pop("peft.reads", None)
        file.write_text(json.dumps(content))


PROBES = ["model=ast", "peft=probe,knn", "augmentation=off", *SHORT]


@pytest.mark.slow
def test_what_read_the_last_layer_goes_on_doing_so(root: Path):
    """A run of before ``peft.reads``, under whose own words other features would be read today."""
    words = [*PROBES, "data.fold=1/4,2/4,3/4"]
    fate = {3: None}.get
    old = run_sweep(root, "old", [*words, "++peft.reads=last"], lambda number: fate(number, "completed"))
    _as_before_reads(old)
    assert Folder(root).check() >= 3
    titles = {step.title: " ".join(step.commands) for step in next_steps(Folder(root).study, 3)}
    for title in ("Finish what the sweep planned and never started", "Finish the cross-validations"):
        assert "peft.reads=last" in titles[title]
    run_sweep(root, "new", words, lambda number: fate(number, "completed"))
    mixed = Folder(root)
    assert mixed.check() >= 6
    labels = set(mixed.study.combinations["combination"])
    assert {label.partition("peft.reads=")[2] for label in labels} == {"last", "blocks"}
    assert len(labels) == 4


@pytest.mark.slow
def test_what_read_the_last_layer_is_retried_and_promoted_as_that(root: Path):
    fate = {2: "failed", 4: "failed"}.get
    words = [*PROBES, "++peft.reads=last", "seed=42,1"]
    old = run_sweep(root, "old", words, lambda number: fate(number, "completed"))
    _as_before_reads(old)
    study = Folder(root).study
    done = study.table["status"] == "completed"
    for row in study.table.index[~done]:
        [config] = configs_of(words_of(retry_command(study, int(row))))
        assert fingerprint(config) == study.table.at[row, "fingerprint"]
    known = set(study.table.loc[done, ["strategy", "fingerprint"]].itertuples(index=False, name=None))
    run_sweep(root, "same", [*PROBES, "++peft.reads=last", "seed=7"])
    assert "peft.reads" not in Folder(root).study.results.factors  # named or not, it is one choice

    def promoted(strategy: str, *new: str) -> list[DictConfig]:
        given: dict[str, Any] = {"top": 1, "metric": "val_acc", "seeds": None}
        given |= dict.fromkeys(("warm", "distil", "refit"), False)
        words, _ = promotion([old], new, filters=[f"strategy={strategy}"], command="promote", **given)
        return configs_of(words)

    assert {(name, fingerprint(promoted(name, "seed=42")[0])) for name in ("probe", "knn")} == known
    assert "reads" not in promoted("probe", "peft=lora")[0].peft
