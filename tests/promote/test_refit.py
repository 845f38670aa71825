"""From a finished sweep to its winner trained on all clips but those that tested it, and to what is said of it."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import load_file

from sousa_bench.analysis import collect, compare
from sousa_bench.analysis.flatten import read_row
from sousa_bench.analyze import main as analyze
from sousa_bench.config import refit
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.run_config import RunConfig
from sousa_bench.data import SousaData
from sousa_bench.data import fingerprint as data_fingerprint
from sousa_bench.errors import ConfigError, DataError
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.export.__main__ import main as export
from sousa_bench.export.description import package_config
from sousa_bench.inference.predictor import Predictor
from sousa_bench.peft.options import SOLVED
from sousa_bench.promote.__main__ import main
from sousa_bench.results.finished import finished_run
from sousa_bench.results.lineage import lineage
from sousa_bench.results.result import EFFICIENCY_KEYS, METRIC_KEYS, read_result, write_result
from sousa_bench.status import look
from sousa_bench.sweep.job import score
from sousa_bench.sweep.plan import Candidate
from sousa_bench.training.evaluated_clips import SplitData, data_node
from sousa_bench.training.run import run
from tests.core.test_run import interrupt
from tests.promote.test_promote_command import SWEEP
from tests.trained import command, trained

Config = Callable[..., DictConfig]
EPOCHS = {1: 4, 2: 7, 3: 9}  # tested epoch by seed


@pytest.fixture
def asked(seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask for the refit of a synthetic sweep, whose results were changed; a table of the sweep goes with the answer."""

    def ask(*words: str, code: int = 0, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Any:
        shutil.copytree(seeded / "multirun", tmp_path / "multirun", dirs_exist_ok=True)
        for file in tmp_path.glob("multirun/**/result.json"):
            result = json.loads(file.read_text())
            result["metrics"]["tested_epoch"] = EPOCHS[result["config"]["seed"]]
            result["overrides"] += ["trainer.train_batches=9", "trainer.early_stopping=3", "init_from=x"]
            change(result)
            file.write_text(json.dumps(result))
        monkeypatch.chdir(tmp_path)
        assert main([SWEEP, "--refit", *words, "--print"]) == code
        said = capsys.readouterr()
        return shlex.split(said.out), said.err

    return ask


def test_the_winner_goes_on_as_it_was_but_for_clips_and_epochs(asked: Any, tmp_path: Path) -> None:
    words, said = asked("sweep=final", "data.root=/data/sousa", "trainer.progress=false", "logger.x=1")
    study = compare(collect([tmp_path / SWEEP]), "val_acc")
    row = study.combinations.iloc[0]
    runs = study.table.iloc[list(row["rows"])].sort_values("val_acc", ascending=False)
    kept = {"trainer.train_batches=9", "init_from=x", f"model={row['model']}", f"peft={row['strategy']}"}
    made = {"data.refit=val", "trainer.max_epochs=7", "trainer.tested_epoch=last", "trainer.early_stopping=null"}
    given = {"sweep=final", "data.root=/data/sousa", f"seed={runs['seed'].iloc[0]}"}
    assert kept | made | given <= set(words)
    assert len({word.partition("=")[0] for word in words[4:]}) == len(words[4:])
    [origins] = [word.removeprefix("lineage.from=[").rstrip("]") for word in words if word.startswith("lineage.from")]
    assert [Path(place).resolve() for place in origins.split(",")] == [Path(place) for place in runs["folder"]]
    assert "training and validation clips, 7 epochs, and not tested. Its scores are the earlier ones: test_acc " in said
    assert f"test_acc {row['test_acc']:.4f}, mean of 3 runs" in said
    assert "seed=7" in asked("seed=7")[0]


def test_a_sweep_over_folds_is_refitted_on_all_clips(asked: Any, tmp_path: Path) -> None:
    def in_folds(result: dict[str, Any]) -> None:
        was = result["config"]["seed"]
        fold, seed = f"{min(was, 2)}/3", max(was, 2) + 3
        result["config"]["seed"] = result["resolved_config"]["seed"] = seed
        result["overrides"] = [f"seed={seed}" if word.startswith("seed=") else word for word in result["overrides"]]
        result["overrides"].append(f"data.fold={fold}")
        result["resolved_config"]["data"]["fold"] = fold

    words, said = asked(change=in_folds)
    study = compare(collect([tmp_path / SWEEP]), "val_acc")
    row = study.combinations.iloc[0]
    runs = study.table.iloc[list(row["rows"])].sort_values("val_acc")
    best = runs.iloc[-1]
    assert {"data.refit=all", f"data.fold={best['data.fold']}", f"seed={best['seed']}"} <= set(words)
    assert "Trained again on all clips" in said
    assert f"test_acc {row['test_acc']:.4f}, mean of 3 runs" in said
    assert abs(runs["test_acc"].mean() - row["test_acc"]) > 1e-4  # a fold with more seeds weighs no more


def without_steps(result: dict[str, Any]) -> None:
    result["resolved_config"]["peft"] |= {"name": "probe", "trains": SOLVED}


def without(block: str, *keys: str) -> Callable[[dict[str, Any]], None]:
    def change(result: dict[str, Any]) -> None:
        result[block] = {name: value for name, value in result[block].items() if name not in (*keys, "best_epoch")}

    return change


@pytest.mark.parametrize(
    ("words", "says", "change"),
    [
        (("--warm",), "--refit and --warm", None),
        (("--seeds", "2"), "--refit makes one model", None),
        (("seed=1,2",), "--refit makes one model", None),
        (("trainer.max_epochs=9",), "trainer.max_epochs: --refit trains the best as it was", None),
        (("data=full",), "data: --refit trains the best as it was", None),
        (("search=lora",), "search: --refit trains the best as it was", None),
        ((), "peft=probe has no epochs", without_steps),
        (("experiment=smoke",), "experiment: --refit trains the best as it was", None),
        ((), "the result doesn't say the epoch that was tested; run it again", without("metrics", "tested_epoch")),
        ((), "the result doesn't say its seed; run it again", without("config", "seed")),
    ],
)
def test_what_is_no_refit_is_one_message(asked: Any, words: tuple[str, ...], says: str, change: Any) -> None:
    out, said = asked(*words, code=1, **({"change": change} if change else {}))
    assert out == []
    assert said.startswith("error: ")
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("option", ["--undecided", "--distil", "--top=2"])
def test_one_choice_excludes_the_other(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([SWEEP, "--refit", option])
    assert "not allowed with argument" in capsys.readouterr().err


WINNER = ("model=efficientat", "peft=lora", "augmentation=on", "trainer.max_epochs=2")


def recorded(folder: Path, blocks: dict[str, Any], cfg: DictConfig, **more: Any) -> Path:
    """A run's result, as the sweep's machinery would have recorded it."""
    folder.mkdir(exist_ok=True)
    flat = {"model": "efficientat", "strategy": "lora", "augmentation": True, "data": "synthetic", "max_epochs": 2}
    facts = {"experiment_id": folder.name, "timestamp": "2026-02-01T10:30:00", "git_commit": "x", "status": "completed"}
    config = {"resolved_config": RunConfig(cfg).values, "config": {**flat, "seed": 42}, "fingerprint": fingerprint(cfg)}
    write_result(folder, {**blocks, **facts, **config, "error": None, **more})
    return folder


@pytest.fixture
def origin(config: Config, tmp_path: Path) -> Path:
    """The record of a run that was never trained."""
    cfg = config(*WINNER)
    scores = dict.fromkeys((*METRIC_KEYS, "temperature"), 0.5) | {"own": None}
    blocks = {
        "metrics": scores,
        "efficiency": dict.fromkeys(EFFICIENCY_KEYS, 1),
        "confidence": {"target": 0.9, "threshold": 0.7, "validation": {}, "test": {}},
        "data": {"fingerprint": data_fingerprint(cfg.data)},
    }
    return recorded(tmp_path / "origin", blocks, cfg)


@pytest.mark.slow
def test_it_learns_the_validation_clips_too_and_an_interruption_changes_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tmp_path / "origin"
    then = read_result(recorded(origin, run(config(*WINNER), origin), config(*WINNER)))
    counts, whole = then["data"]["counts"], {}
    for clips, joined in (("val", ("train", "val")), ("all", ("train", "val", "test"))):
        cfg = config(*WINNER, f"data.refit={clips}", f"lineage.from=[{origin}]")
        blocks = whole[clips] = run(cfg, tmp_path / clips)
        there = sum(counts[split] for split in joined)
        left = 0 if clips == "all" else counts["test"]
        assert blocks["data"]["counts"] == {"train": there, "val": 0, "test": left}
        assert blocks["efficiency"]["steps"] == 2 * -(-there // 4)
        assert [entry.keys() & {"train_loss", "val_loss"} for entry in blocks["history"]] == [{"train_loss"}] * 2
        own = {"final_train_loss": blocks["history"][-1]["train_loss"]}
        own |= dict.fromkeys(("tested_epoch", "best_epoch", "last_epoch"), 2)
        assert blocks["metrics"] == {**then["metrics"], **own}
        assert blocks["confidence"] == {key: then["confidence"][key] for key in ("target", "threshold")}
        assert not {"per_class"} & blocks.keys()
        assert not (tmp_path / clips / "predictions.parquet").exists()
        assert any("not tested: its scores are those of the run that it comes from" in w for w in blocks["warnings"])
    adapters = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (origin, tmp_path / "val")]
    assert any((adapters[0][key] != adapters[1][key]).any() for key in adapters[0])

    cfg = config(*WINNER, "data.refit=val", f"lineage.from=[{origin}]")
    for steps in (3, 3, 3):  # in the middle of each epoch, and between them
        interrupt(monkeypatch, cfg, tmp_path / "parts", steps)
    assert run(cfg, tmp_path / "parts")["metrics"] == whole["val"]["metrics"]
    parts = load_file(tmp_path / "parts" / "adapter" / "adapter_model.safetensors")
    assert all((parts[key] == value).all() for key, value in adapters[1].items())


def test_several_runs_give_their_means_and_the_most_careful_threshold(
    config: Config, origin: Path, tmp_path: Path
) -> None:
    result = read_result(origin)
    places = []
    for number, threshold in enumerate((0.7, 0.9, None)):
        folder = tmp_path / f"run{number}"
        scores = {**result["metrics"], "test_acc": 0.1 * (number + 1), "temperature": 1.0 + number}
        confidence = {**result["confidence"], "threshold": threshold}
        recorded(folder, {**result, "metrics": scores, "confidence": confidence}, config(*WINNER))
        places.append(folder)

    of_folds = []
    for number, fold in enumerate(("1/3", "1/3", "2/3")):
        scores = {**result["metrics"], "test_acc": (0.2, 0.4, 0.9)[number]}
        cfg = config(*WINNER, f"data.fold={fold}")
        of_folds.append(recorded(tmp_path / f"fold{number}", {**result, "metrics": scores}, cfg))

    def made(*chosen: Path) -> dict[str, Any]:
        found = refit.repeated(config(*WINNER, "data.refit=val", f"lineage.from=[{','.join(map(str, chosen))}]"))
        assert found is not None
        return found

    assert made(*places)["metrics"]["test_acc"] == pytest.approx(0.2)
    assert made(*of_folds)["metrics"]["test_acc"] == pytest.approx(0.6)  # a fold with more seeds weighs no more
    assert made(*places)["metrics"]["temperature"] == pytest.approx(2.0)
    assert made(*places)["metrics"]["val_acc"] == pytest.approx(result["metrics"]["val_acc"])
    assert "own" not in made(*places)["metrics"]  # of which there is no mean
    assert [made(*chosen)["confidence"]["threshold"] for chosen in (places[:2], places)] == [0.9, None]


@pytest.mark.slow
def test_what_has_no_scores_to_repeat_is_refused_before_a_run(config: Config, origin: Path, tmp_path: Path) -> None:
    def refused(says: str, *words: str) -> None:
        with pytest.raises(ConfigError, match=says):
            Candidate.of(RunConfig(config(*WINNER, "data.refit=val", *words)), [])

    good = f"lineage.from=[{origin}]"
    assert Candidate.of(RunConfig(config(*WINNER, "data.refit=val", good)), []).refusal is None
    moved = ("data.hub_id=an/other", "data.revision=v2", "seed=7")  # where the synthetic ones don't lie
    assert Candidate.of(RunConfig(config(*WINNER, "data.refit=val", good, *moved)), []).refusal is None
    unfinished, again = tmp_path / "unfinished", tmp_path / "again"
    result = read_result(origin)
    recorded(unfinished, {}, config(*WINNER), status="interrupted")
    recorded(again, result, config(*WINNER, "data.refit=val", good))
    refused("promote SWEEP --refit start it")
    refused("data.refit=most can't be: it must be val, all or null", "data.refit=most", good)
    refused("no such file", f"lineage.from=[{tmp_path / 'gone'}]")
    refused("unfinished is interrupted", f"lineage.from=[{unfinished}]")
    refused("again is a refit itself", f"lineage.from=[{again}]")
    refused("peft=knn has no epochs", "peft=knn", good)
    refused("trainer.tested_epoch=best: no validation clips choose an epoch", "trainer.tested_epoch=best", good)
    refused(r"otherwise \(data.synthetic.clips=\d+ and not 48, on other data\)", "data.synthetic.clips=48", good)
    refused("origin was trained otherwise .trainer.learning_rate=.* and not 1", "trainer.learning_rate=1", good)
    refused("peft.name=lora and not full", "peft=full", good)
    changed = recorded(tmp_path / "changed", result, config(*WINNER), fingerprint="0" * 64)
    refused("changed was trained otherwise .from other weights", f"lineage.from=[{changed}]")
    other = config(*WINNER, "seed=3", "trainer.max_epochs=9", "trainer.early_stopping=2", "data.fold=2/3")
    both = f"lineage.from=[{origin},{recorded(tmp_path / 'other', result, other)}]"
    assert Candidate.of(RunConfig(config(*WINNER, "data.refit=all", both)), []).refusal is None
    recorded(tmp_path / "other", result, config(*WINNER, "seed=3", "peft.r=2"))
    refused("other was trained otherwise .peft.r=2 and not 8", both)


def test_without_the_key_nothing_is_another_run(config: Config) -> None:
    plain, unset = config(*WINNER), config(*WINNER)
    with open_dict(unset):
        del unset["data"]["refit"]  # as before there were refits
    assert fingerprint(plain) == fingerprint(unset)
    data = {
        clips: SousaData("synthetic", synthetic=plain.data.synthetic, refit=clips) for clips in (None, "val", "all")
    }
    assert len({each.fingerprint for each in data.values()}) == 3
    assert len({frozenset(each.chosen()["sample_id"]) for each in data.values()}) == 1


@pytest.mark.slow
def test_no_report_ranks_it_and_all_that_use_a_run_take_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = trained()
    words = ("--filter", "trainer.precision=32-true", "--refit", "sweep=refit", "logger=none")
    done = command("promote", "multirun/tiny", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Compare the results" not in done.stdout
    [file] = (winner.home / "multirun" / "refit").glob("*/result.json")
    result, then = json.loads(file.read_text()), winner.result
    assert result["metrics"]["test_acc"] == then["metrics"]["test_acc"]
    assert [item["experiment_id"] for item in result["lineage"]["from"]] == [then["experiment_id"]]
    assert result["data"]["counts"]["train"] == then["data"]["counts"]["train"] + then["data"]["counts"]["val"]

    shown = look(file.parent.parent)
    assert shown is not None
    assert f"{then['metrics']['val_acc']:.4f}" not in shown.text
    monkeypatch.chdir(winner.home)
    capsys.readouterr()
    for failing in (lambda: analyze(["multirun/refit"]), lambda: main(["multirun/refit", "--print"])):
        assert failing() != 0
        said = capsys.readouterr().err
        assert "a refit (data.refit), whose scores are those of the runs that it comes from" in said
        assert said.count("\n") == 1
    both = tmp_path / "both"
    for folder in (winner.folder, file.parent):
        shutil.copytree(folder, both / folder.name)
    assert analyze([str(both), "--no-images"]) == 0
    assert "passed over:" in capsys.readouterr().err
    assert file.parent.name not in (both / "analysis" / "comparison_table.csv").read_text()
    assert finished_run(both).folder == (both / winner.folder.name).resolve()

    predictor = Predictor.open(file.parent.parent, device="cpu")
    about = package_config(predictor, finished_run(file.parent.parent), "export")
    assert about["about"].endswith("before it was trained again on more clips.")
    assert about["metrics"]["before_refit"] is True

    done = command("evaluate", "multirun/refit", "--no-images", "--output-dir", str(tmp_path / "evaluated"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "It has no test of its own" in done.stdout
    evaluated = json.loads((tmp_path / "evaluated" / "result.json").read_text())
    assert evaluated["evaluation"]["met_before"]["train"]["clips"] == 0
    facts = {"experiment_id": result["experiment_id"], "fingerprint": result["fingerprint"], "val_acc": None}
    for key, child in (
        ("init_from", {"init_from": str(file.parent)}),
        ("teacher", {"teacher": {"run": str(file.parent)}}),
    ):
        comes_from = lineage(OmegaConf.create(child))
        found = comes_from["from"][0] if key == "init_from" else comes_from["teacher"]
        assert facts.items() <= found.items()
        assert found.get("test_acc") is None
    assert math.isnan(score(result))
    result["status"] = "failed"
    (tmp_path / "failed").mkdir()
    failed = write_result(tmp_path / "failed", result)
    assert read_row(failed).fields["status"] == "failed"

    result["status"], result["resolved_config"]["data"]["refit"] = "completed", "all"
    shutil.copytree(file.parent, tmp_path / "of_all")
    write_result(tmp_path / "of_all", result)
    for refused, says in (
        (lambda: evaluate([str(tmp_path / "of_all"), "--no-images"]), "The test clips of .* were trained on"),
        (lambda: export([str(tmp_path / "of_all"), str(tmp_path / "new"), "--int8"]), r"trained on them \(data.refit"),
    ):
        assert refused() == 1
        assert re.search(says, capsys.readouterr().err)
    run_of_all = finished_run(tmp_path / "of_all")
    assert data_node(run_of_all, [])["refit"] == "all"
    assert data_node(run_of_all, ["data.root=/others"])["refit"] is None
    result["resolved_config"]["data"]["refit"] = "val"
    with pytest.raises(DataError, match=r"The val clips of .* were trained on \(data.refit=val\)"):
        SplitData.of("val", result["resolved_config"]["data"]).chosen()
    assert len(SplitData.of("train", result["resolved_config"]["data"]).chosen()) == result["data"]["counts"]["train"]
