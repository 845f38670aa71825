"""The command's outputs: CSV, Parquet, summary, next commands, printed formats, exit codes."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from sousa_bench.analysis import Study, collect, compare
from sousa_bench.analysis.commands import TRAIN, merge_cells, retry_command
from sousa_bench.analysis.next_steps import next_steps
from sousa_bench.analysis.not_run import refused
from sousa_bench.analysis.table import FIXED_COLUMNS
from sousa_bench.analyze import main
from sousa_bench.results.result import write_json
from tests.analysis.summary import summary
from tests.analysis.synthetic import FOREIGN, result, write_result, write_sweep

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def output(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    assert main([str(comparison), "--no-images", "--output-dir", str(folder)]) == 0
    return folder


def test_the_table_as_csv_and_parquet(output: Path):
    table = pd.read_csv(output / "comparison_table.csv")
    assert tuple(table.columns[: len(FIXED_COLUMNS)]) == FIXED_COLUMNS
    best = table.loc[table["test_f1_macro"].idxmax()]
    assert best["model"] == "beats"
    efficient = table[table["test_acc"] > 0.8].nsmallest(5, "trainable_params")
    assert len(efficient) == 5
    typed = pd.read_parquet(output / "comparison_table.parquet")
    assert list(typed.columns) == list(table.columns)
    assert typed["augmentation"].dtype == "boolean"
    assert len(pd.read_csv(output / "comparisons.csv")) == 276
    assert "model × strategy" in set(pd.read_csv(output / "effects.csv")["effect"])
    assert len(pd.read_csv(output / "augmentation.csv")) == 12
    assert (output / "report.html").stat().st_size < 8e6


def test_the_summary_has_the_promised_lines(output: Path):
    text = (output / "summary_report.md").read_text()
    for pattern in (
        r"- \*\*Total experiments\*\*: 24",
        r"1\. \*\*beats \+ lora\*\* \(with aug\): Acc=0\.\d{4}, F1=0\.\d{4}; 95 % interval .* 1,140 clips, 19 players",
        r"1\. \*\*efficientat \+ ia3\*\* \(with aug\): 4,410 params, Acc=0\.\d{4}",
        r"1\. \*\*efficientat \+ \w+\*\* \(\w+ aug\): \d+\.\dm, Acc=0\.\d{4}",
        r"- \*\*ast\*\*: Avg Acc=0\.\d{4} ± 0\.\d{4}, Best=0\.\d{4} \(6 runs\)",
        r"- \*\*lora\*\*: Avg Acc=0\.\d{4} ± 0\.\d{4}, Best=0\.\d{4} \(8 runs\)",
        r"- \*\*ast \+ lora\*\*: Avg Acc=0\.\d{4} ± 0\.\d{4}, Best=0\.\d{4} \(2 runs\)",
        r"- \*\*With augmentation\*\*: Avg Acc=0\.\d{4} \(12 runs\)",
        r"\| htsat \+ lora +\| \+\d\.\d\d points \|",
        r"McNemar p, by clip",
    ):
        assert re.search(pattern, text), pattern


def test_a_sweep_that_still_runs(unfinished: Path, tmp_path: Path):
    assert main([str(unfinished), "--no-images", "--output-dir", str(tmp_path)]) == 0
    text = (tmp_path / "summary_report.md").read_text()
    for line in (
        "**Total experiments**: 24",
        "**Completed**: 9",
        "**Failed**: 1",
        "**Running**: 2",
        "**Not started**: 11",
    ):
        assert line in text
    assert "oom in fit" in text
    assert (
        "python -m sousa_bench.train -m sweep=2026-02-01/10-30-00 model=ast peft=adalora augmentation=off data=small "
        "trainer.max_epochs=20 seed=42" in text
    )
    assert "Finish what the sweep planned" in text


def test_no_plots_writes_neither(comparison: Path, tmp_path: Path):
    assert main([str(comparison), "--no-plots", "--output-dir", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "augmentation.csv",
        "combinations.csv",
        "comparison_table.csv",
        "comparison_table.parquet",
        "comparisons.csv",
        "effects.csv",
        "summary_report.md",
    ]


def test_what_there_are_no_rows_of_has_no_file(comparison: Path, tmp_path: Path):
    arguments = [str(comparison), "--no-plots", "--output-dir", str(tmp_path)]
    assert main(arguments) == 0
    assert main([*arguments, "--filter-models", "ast", "--filter-strategies", "lora", "--filter-aug", "true"]) == 0
    assert not (tmp_path / "effects.csv").exists()
    assert not (tmp_path / "augmentation.csv").exists()


def test_command_line_filters(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--filter-models", "ast", "htsat", "--filter-strategies", "lora", "--filter-augmentation", "true"]
    arguments += ["--filter-status", "completed", "--filter", "trainer.batch_size=16", "--format", "json", "--no-plots"]
    assert main([str(comparison), *arguments, "--output-dir", str(tmp_path)]) == 0
    ranking = json.loads(capsys.readouterr().out)["ranking"]
    assert [row["combination"] for row in ranking] == ["ast + lora (with aug)", "htsat + lora (with aug)"]
    assert {"acc_low", "acc_high", "clips", "players"} <= set(ranking[0])


def test_a_filters_value_that_matches_nothing_is_said(comparison: Path, tmp_path: Path, capsys):
    arguments = ["--filter-models", "ast", "htast", "--no-plots", "--output-dir", str(tmp_path)]
    assert main([str(comparison), *arguments]) == 0
    said = "No run has model=htast; there is model=ast, beats, efficientat, htsat."
    assert f"note: {said}\n" in capsys.readouterr().err
    assert said in (tmp_path / "summary_report.md").read_text()


@pytest.mark.parametrize(
    ("form", "start"),
    [("csv", "rank,combination,"), ("markdown", "|  # |"), ("table", "beats + lora, aug: 91.5 % [87.4–93.4]")],
)
def test_printed_formats(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, start: str):
    assert main([str(comparison), "--format", form, "--no-plots", "--output-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "no such folder"),
        (["{tmp}"], "no result file found"),
        (["{runs}", "--filter-models", "resnet"], "nothing left"),
        (["{runs}", "--filter", "peft.r"], "write KEY=VALUE"),
        (["{runs}", "--metric", "speed"], "no such metric"),
        (["{runs}", "--output-dir", "/proc/none"], "can't be written"),
    ],
)
def test_exit_code_one_with_one_message(comparison, tmp_path, capsys, arguments: list[str], message: str):
    places = {"tmp": tmp_path, "runs": comparison}
    assert main([part.format(**places) for part in arguments] + ["--no-plots"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_nothing_completed_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_sweep(tmp_path / "multirun", ("ast",), ("lora",), statuses={0: "failed", 1: "timeout"})
    assert main([str(folder), "--no-images", "--output-dir", str(tmp_path / "out")]) == 0
    said = "No run has completed, so there is nothing to compare."
    assert capsys.readouterr().out == f"{said}\n"
    assert f"## Answer\n\n{said}" in (tmp_path / "out" / "summary_report.md").read_text()


def test_min_accuracy_and_top(comparison_study: Study):
    text = summary(comparison_study, top=2, min_accuracy=0.9)
    section = text.split("### Most parameter-efficient")[1].split("###")[0]
    assert section.count("params, Acc=0.9") == 2
    assert "No combination reaches" in summary(comparison_study, min_accuracy=0.99)


def expand(command: str) -> list[dict[str, str]]:
    parts = [part.split("=", 1) for part in shlex.split(command) if "=" in part]
    return [dict(zip([k for k, _ in parts], v, strict=True)) for v in product(*(v.split(",") for _, v in parts))]


def test_merged_cells_are_exactly_the_cells():
    cells = [
        {"model": m, "peft": p, "augmentation": a}
        for m, p, a in product(("ast", "beats", "htsat"), ("lora", "ia3"), ("on", "off"))
        if (m, p, a) not in {("beats", "ia3", "on"), ("htsat", "lora", "off")}
    ]
    merged = merge_cells(cells)
    assert len(merged) < len(cells)
    back = [
        dict(zip(cell, values, strict=True))
        for cell in merged
        for values in product(*(v.split(",") for v in cell.values()))
    ]
    assert sorted(map(str, back)) == sorted(map(str, cells))


def test_values_with_commas_of_their_own_are_not_merged():
    cells = [
        {"model": "ast", "data.synthetic.split_players": value, "seed": seed}
        for value in ("[50,10,50]", "[60,10,50]")
        for seed in ("1", "2")
    ]
    assert merge_cells(cells) == [cells[0] | {"seed": "1,2"}, cells[2] | {"seed": "1,2"}]


def test_missing_cells_become_commands_that_run_exactly_them(unfinished: Path):
    study = compare(collect([unfinished]))
    step = next(step for step in next_steps(study, 3) if step.title.startswith("Finish"))
    planned = {(r["model"], r["peft"], r["augmentation"]) for command in step.commands for r in expand(command)}
    assert len(planned) == 11
    done = {(m, s, "on" if a else "off") for m, s, a in study.table[["model", "strategy", "augmentation"]].to_numpy()}
    assert planned.isdisjoint(done)


CELLS = tuple(product(("ast", "beats"), ("lora", "ia3")))


class Runs:
    """A folder of results, written one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def add(
        self, model: str, strategy: str, *words: str, lack=(), weights="", test_data="", warnings=(), **config
    ) -> None:
        """Write the next run: ``words`` are more overrides, ``lack`` blocks that it didn't come to."""
        status = config.pop("status", "completed")
        made = result({"model": model, "strategy": strategy, **config}, accuracy=0.4 + self.count / 50, status=status)
        made["data"] |= {"test_fingerprint": test_data} if test_data else {}
        made["warnings"] = list(warnings)
        for key in [key for key in config if key.startswith("peft.")]:
            made["resolved_config"]["peft"][key[5:]] = config[key]
        given = [f"weights={weights}"] if weights and not any("weights=" in word for word in words) else []
        made |= {"overrides": [*made["overrides"], *given, *words], "fingerprint": f"run {self.count}"}
        made["resolved_config"] |= {"weights": weights} if weights else {}
        made["weights"] |= {"kind": weights} if weights else {}
        write_result(self.folder / str(self.count), {key: value for key, value in made.items() if key not in lack})
        self.count += 1

    def plan(self, name: str, *jobs: tuple[str, ...], decision: str = "pending") -> None:
        """Write a sweep's manifest."""
        listed = [
            {"index": number, "fingerprint": f"{name}{number}", "overrides": list(words), "status": decision}
            | {"folder": f"run{number}", "result": None, "reason": "why"}
            for number, words in enumerate(jobs, start=1)
        ]
        manifest = {"schema_version": 1, "name": name, "total": len(jobs), "process": {}, "processes": []}
        folder = self.folder / name
        folder.mkdir(parents=True)
        write_json(folder / "sweep.json", manifest | {"folder": str(folder), "jobs": listed})

    def steps(self) -> dict[str, tuple[str, ...]]:
        return steps_of(self.folder)


def test_one_run_is_advised_once_wherever_its_data_lie(tmp_path: Path):
    runs = Runs(tmp_path)
    runs.add("ast", "lora", data="mini")
    runs.add("ast", "lora", "data.root=/d", data="tiny")
    (command,) = runs.steps()["The best one on more data, with more epochs"]
    assert "data=small" in command
    assert "data.root=/d" in command


ON_MORE, LONGER = "The best one on more data, with more epochs", "The best one with more epochs"


@pytest.mark.parametrize(("drawn", "title", "data"), [(40, ON_MORE, "medium"), (80, LONGER, "small")])
def test_more_data_are_proposed_where_there_are_more(tmp_path: Path, drawn: int, title: str, data: str):
    clips = {"available": {"train": 80}, "found": {"train": drawn}, "counts": {"train": drawn - 1}}
    (command,) = steps_of(small_sweep(tmp_path, ("lora",), data=clips))[title]
    assert dict(word.split("=", 1) for word in shlex.split(command)[3:] if "=" in word)["data"] == data


def test_where_some_of_the_best_have_more_data_there_are_two_steps(tmp_path: Path):
    for strategy, drawn in (("lora", 40), ("ia3", 80)):
        clips = {"available": {"train": 80}, "found": {"train": drawn}}
        small_sweep(tmp_path / strategy, (strategy,), data=clips)
    steps = steps_of(tmp_path)
    assert "peft=lora" in steps[ON_MORE][0]
    assert "peft=ia3" in steps[LONGER][0]


@pytest.mark.parametrize(
    ("data", "limits", "title"),
    [
        ("full", {"clips": {"train": None}}, LONGER),
        ("small", {"clips": {"train": 8000}, "per_class": 10}, LONGER),
        ("full", {"clips": {"train": 5000}}, ON_MORE),
    ],
)
def test_larger_data_are_proposed_where_the_choice_had_a_limit(tmp_path: Path, data: str, limits: dict, title: str):
    runs = Runs(tmp_path)
    runs.add("ast", "lora", data=data)
    for path in tmp_path.glob("*/result.json"):
        made = json.loads(path.read_text())
        made["resolved_config"]["data"] |= limits
        write_json(path, made)
    assert title in runs.steps()


def test_a_word_that_the_next_run_has_anew_makes_no_second_command(tmp_path: Path):
    runs = Runs(tmp_path)
    runs.add("ast", "lora", data="mini", weights="embedded")
    runs.add("ast", "lora", "weights=embedded", data="tiny", weights="embedded")
    (command,) = runs.steps()["The best one on more data, with more epochs"]
    assert "weights=official" in command


def test_a_list_is_commanded_as_it_was_given(tmp_path: Path):
    runs = Runs(tmp_path)
    for (model, strategy), names in list(product(CELLS, (["qkv"], ["qkv", "proj"])))[:7]:
        word = f"peft.targets=[{','.join(names)}]"
        runs.add(model, strategy, word, **{"peft.targets": names})
    commands = runs.steps()["The best 5 on more data, with more epochs"]
    words = {word for line in commands for word in shlex.split(line) if word.startswith("peft.targets=")}
    assert words == {"peft.targets=[qkv]", "peft.targets=[qkv,proj]"}


def test_the_longer_run_keeps_where_its_data_lie(tmp_path: Path):
    chance = ["test accuracy 0.0250 is not above chance (1 of 40 clips; 0.0250 by always naming one class)"]
    runs = Runs(tmp_path)
    for strategy in ("full", "lora"):
        runs.add("ast", strategy, "experiment=pretraining", "data.root=/d", warnings=chance)
    ((command,),) = runs.steps().values()
    assert "data.root=/d" in command


def test_what_only_synthetic_clips_and_small_weights_have_is_not_taken_to_real_ones(tmp_path: Path):
    runs = Runs(tmp_path)
    left = (
        *("data.clips.train=40", "model.variant=tiny", "init_from=/run", "model.weights=embedded"),
        *("peft.learning_rate=1e-2", "trainer.learning_rate=1e-2", "trainer.head_learning_rate=2e-2"),
        "peft.batch_norm=train",
    )
    for strategy, clips in product(("lora", "ia3"), (100, 200)):
        words = (f"data.synthetic.clips={clips}", *left, "data.max_duration=4")
        runs.add("ast", strategy, *words, data="synthetic", weights="embedded", **{"data.synthetic.clips": clips})
    (command,) = runs.steps()["The best 2 on more data, with more epochs"]
    assert shlex.split(command)[4:] == [
        "model=ast",
        "peft=ia3,lora",
        "augmentation=on",
        "data=small",
        "trainer.max_epochs=30",
        "data.max_duration=4",
        "weights=official",
        "seed=1,2,3",
    ]


def test_the_models_own_kind_of_weights_counts(tmp_path: Path):
    runs = Runs(tmp_path)
    for strategy in ("lora", "ia3"):
        runs.add("ast", strategy, "model.weights=random", weights="embedded")
    for path in tmp_path.glob("*/result.json"):
        made = json.loads(path.read_text())
        made["resolved_config"]["model"]["weights"] = "random"
        write_json(path, made)
    (command,) = runs.steps()["The best 2 on more data, with more epochs"]
    assert "model.weights=random" in command
    assert "weights=official" not in command


def test_what_was_planned_is_commanded_with_its_own_words_alone(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", missing=(5,))
    for path in folder.glob("**/result.json"):
        made = json.loads(path.read_text())
        write_json(path, made | {"overrides": [*made["overrides"], "data.root=/d"]})
    manifest = json.loads((folder / "sweep.json").read_text())
    for job in manifest["jobs"]:
        job["overrides"].append("~note")
    write_json(folder / "sweep.json", manifest)
    (command,) = steps_of(folder)["Finish what the sweep planned and never started"]
    assert "'~note'" in command
    assert "data.root" not in command


@pytest.mark.slow
def test_next_commands_are_accepted_by_the_real_config(unfinished: Path, seeded: Path):
    """Every command of the report composes with the project's own configuration."""
    hydra = pytest.importorskip("hydra")
    commands = []
    for folder in (unfinished, seeded):
        study = compare(collect([folder]))
        commands += [command for step in next_steps(study, 5) for command in step.commands]
        failed = study.table.index[study.table["status"] == "failed"]
        commands += [retry_command(study, int(row)) for row in failed]
    assert len(commands) >= 5
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for command in commands:
            first = expand(command)[0]
            cfg = hydra.compose("config", [f"{key}={value}" for key, value in first.items()])
            assert cfg.model.name == first["model"]
            assert cfg.peft.name == first["peft"]
            assert str(cfg.trainer.max_epochs) == first["trainer.max_epochs"]


def test_more_seeds_only_for_what_is_undecided(comparison_study: Study):
    steps = {step.title: step.commands for step in next_steps(comparison_study, 3)}
    asked = [row for command in steps["More seeds for what is undecided"] for row in expand(command)]
    best = comparison_study.combinations[comparison_study.combinations["best_set"]]
    assert len(asked) == 2 * len(best)
    assert {row["seed"] for row in asked} == {"43", "44"}
    promoted = [row for command in steps["The best 3 on more data, with more epochs"] for row in expand(command)]
    assert {row["data"] for row in promoted} == {"medium"}
    assert len(promoted) == 9


def steps_of(folder: Path) -> dict[str, tuple[str, ...]]:
    return {step.title: step.commands for step in next_steps(compare(collect([folder])), 5)}


def small_sweep(folder: Path, strategies: tuple[str, ...], **blocks) -> Path:
    for number, strategy in enumerate(strategies):
        made = result({"strategy": strategy}, accuracy=0.5 + number / 10, **blocks)
        made["overrides"] += ["trainer.train_batches=1", "trainer=smoke", "data.root=/d", "weights=official"]
        made["resolved_config"] |= {"weights": "official"}
        write_result(folder / str(number), made)
    return folder


@pytest.mark.parametrize(("strategies", "said"), [(("lora", "ia3"), True), (("lora", "probe"), False)])
def test_trained_heads_beside_new_ones_are_named(tmp_path: Path, strategies: tuple[str, str], said: bool):
    """A probe solves for its own head whatever it starts from."""
    first, second = (result({"strategy": strategy, "seed": 1}) for strategy in strategies)
    first["weights"]["own_head"] = True
    for number, made in enumerate((first, second)):
        write_result(tmp_path / str(number), made)
    notes = compare(collect([tmp_path])).notes
    assert any("started from a head that was trained on the same classes" in note for note in notes) == said


def test_next_commands_count_what_is_there_and_keep_the_weights_but_no_trials_limits(tmp_path: Path):
    steps = steps_of(small_sweep(tmp_path / "two", ("lora", "ia3")))
    commands = steps["The best 2 on more data, with more epochs"]
    assert all("weights=official" in line and "data.root=/d" in line for line in commands)
    assert not any("train_batches" in line or "smoke" in line for line in commands)
    assert "The best one on more data, with more epochs" in steps_of(small_sweep(tmp_path / "one", ("lora",)))


def test_at_chance_level_one_run_is_advised_and_not_twelve(tmp_path: Path):
    words = ["test accuracy 0.0250 is not above chance (1 of 40 clips; 0.0250 by always naming one class)"]
    steps = steps_of(small_sweep(tmp_path, ("lora", "ia3"), warnings=words))
    ((title, commands),) = steps.items()
    assert title.startswith("No run is above chance")
    (command,) = commands
    assert len(expand(command)) == 1
    assert "trainer.max_epochs=60" in command


@pytest.mark.slow
def test_neither_help_nor_the_analysis_imports_what_it_does_not_need(comparison: Path, tmp_path: Path):
    code = (
        "import sys; from sousa_bench.analyze import main, parser; parser().format_help();"
        "assert 'numpy' not in sys.modules and 'pandas' not in sys.modules;"
        f"assert main([{str(comparison)!r}, '--no-images', '--output-dir', {str(tmp_path)!r}]) == 0;"
        "heavy = {'torch', 'statsmodels', 'lightning', 'transformers', 'scipy.stats', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_watch_refreshes_until_every_run_has_ended(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", models=("ast",), statuses={2: "running"}, missing=(3, 4, 5))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sousa_bench.analyze", str(folder), "--watch", "--interval", "0.3", "--no-images"]
    process = subprocess.Popen(
        [*command, "--output-dir", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Report:" in line:
                break
        assert "2 completed, 1 running, 3 not started" in line
        assert '<meta http-equiv="refresh" content="0.3">' in (out / "report.html").read_text()
        complete_from(folder, 2, "ast")
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "6 total, 6 completed" in output
    assert 'http-equiv="refresh"' not in (out / "report.html").read_text()


def test_watch_is_redrawn_in_place_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = write_sweep(tmp_path / "multirun", models=("ast",), missing=(3, 4, 5))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(time, "sleep", lambda seconds: complete_from(folder, 3, "ast"))  # while it waits, all arrive
    assert main([str(folder), "--watch", "--no-plots"]) == 0
    above, first, *later = capsys.readouterr().out.split("\x1b[H\x1b[J")
    assert above == ""
    for screen, combinations in ((first, 3), *((screen, 6) for screen in later)):
        assert screen.startswith("ast + ")  # the verdict, and nothing of the screen before
        assert re.findall(r"^ ?(\d+)  \w+, ", screen, re.MULTILINE) == [str(n + 1) for n in range(combinations)]
        assert "\x1b" not in screen
    assert later


def complete_from(folder: Path, first: int, model: str) -> None:
    """Let the sweep's runs from a place on arrive."""
    for job in json.loads((folder / "sweep.json").read_text())["jobs"][first:]:
        chosen = dict(item.split("=") for item in job["overrides"])
        config = {"model": model, "strategy": chosen["peft"], "augmentation": chosen["augmentation"] == "on"}
        write_result(folder / job["folder"], result(config))


def watching(folder: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sousa_bench.analyze", str(folder), "--watch", "--interval", "0.2", "--no-plots"]
    return subprocess.Popen(
        [*command, "--output-dir", str(out), *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def named(pid: int) -> dict[str, object]:
    return {"host": socket.gethostname(), "pid": pid, "start_time": None, "slurm_job_id": None}


@pytest.mark.slow
def test_watch_ends_with_a_sweep_that_died(tmp_path: Path):
    """The run's process goes while it is watched, which changes no file; the sweep's own has gone before."""
    with subprocess.Popen(["sleep", "300"]) as run:
        folder = write_sweep(tmp_path / "multirun", models=("ast",), statuses={2: "running"}, missing=(3, 4, 5))
        for path in folder.glob("*/result.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"process": named(run.pid)}))
        manifest = json.loads((folder / "sweep.json").read_text())
        (folder / "sweep.json").write_text(json.dumps(manifest | {"processes": [named(2**22 + 1)]}))
        process = watching(folder, tmp_path / "out")
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Report:" in line:
                    break
            assert "2 completed, 1 running, 3 not started" in line
            run.kill()
            run.wait()
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            run.kill()
    assert process.returncode == 0, output
    assert "3 planned runs never started" in output
    assert "2 completed, 1 dead, 3 not started" in output
    report = (tmp_path / "out" / "summary_report.md").read_text()
    assert "**Running**: 0" in report
    assert "its process is gone in fit" in report


def test_watch_ends_with_a_sweep_that_died_before_its_first_result(tmp_path: Path):
    """Its process goes while it is watched; until then the sweep is waited for."""
    with subprocess.Popen(["sleep", "300"]) as sweep:
        folder = write_sweep(tmp_path / "multirun", models=("ast",), missing=tuple(range(6)))
        manifest = json.loads((folder / "sweep.json").read_text())
        (folder / "sweep.json").write_text(json.dumps(manifest | {"processes": [named(sweep.pid)]}))
        process = watching(folder, tmp_path / "out")
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("waiting: no result file found")
            assert process.poll() is None
            sweep.kill()
            sweep.wait()
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            sweep.kill()
    assert process.returncode == 1
    (said,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "its process is gone before the first result, and 6 planned runs never started" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_watch_waits_for_what_its_filter_wants(tmp_path: Path):
    folder = write_sweep(tmp_path / "multirun", models=("ast", "beats"), missing=tuple(range(6, 12)))
    process = watching(folder, tmp_path / "out", "--filter-models", "beats")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("waiting: nothing left")
        complete_from(folder, 6, "beats")
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "6 total, 6 completed" in output
    over = watching(folder, tmp_path / "out", "--filter-models", "htsat")
    output, _ = over.communicate(timeout=60)
    assert over.returncode == 1
    assert output.splitlines()[-1].startswith("error: nothing left")


def test_a_retry_goes_back_into_its_sweep(tmp_path: Path):
    folder = tmp_path / "my results" / "night"
    made = result({}, status="failed", sweep={"name": "night", "folder": "/elsewhere", "index": 1, "total": 1})
    made["overrides"] += ["hydra.sweep.dir=/tmp/evil", "hydra/launcher=slurm", "sweep=other"]
    made["command"] = "python -m sousa_bench.train --config-dir /tmp/evil model=ast"
    write_result(folder / "run", made)
    study = compare(collect([folder]))
    words = shlex.split(retry_command(study, 0))
    assert words[3:6] == ["-m", "sweep=night", f"hydra.sweep.dir='{tmp_path / 'my results'}'"]
    assert "hydra/launcher=slurm" in words
    assert not any("evil" in word or "other" in word for word in words)
    assert any("started with --config-dir" in note for note in study.notes)
    study.table["sweep.name"] = "../../night"
    assert "sweep=" not in retry_command(study, 0)


def test_commands_hold_plain_overrides_only(tmp_path: Path):
    evil = [
        "--config-dir=x",
        "--config-dir=/tmp/evil",
        "-cd=x",
        "hydra.searchpath=[file:///tmp/evil]",
        "++hydra.run.dir=/",
        "--multirun",
        "a b=c",
    ]
    write_result(tmp_path / "run", result({}, status="failed", overrides=[*evil, "+note=$(id) `id`", "~logger"]))
    write_result(tmp_path / "other", result({"seed": 1}, overrides=[*evil, "data.root=/d"]))
    study = compare(collect([tmp_path]))
    failed = int(study.table.index[study.table["status"] == "failed"][0])
    assert shlex.split(retry_command(study, failed)) == [*TRAIN.split(), "+note=$(id) `id`", "~logger"]
    for command in (command for step in next_steps(study, 3) for command in step.commands):
        assert not any(item in shlex.split(command) for item in evil)


@pytest.mark.parametrize("override", FOREIGN)
def test_no_command_where_an_override_may_execute_code(tmp_path: Path, override: str):
    write_result(tmp_path / "run", result({}, status="failed", overrides=["model=ast", override]))
    write_result(tmp_path / "other", result({"seed": 1}, overrides=["model=ast", override]))
    study = compare(collect([tmp_path]))
    failed = int(study.table.index[study.table["status"] == "failed"][0])
    assert retry_command(study, failed).startswith(f"# no command: the override {override!r}")
    for command in (command for step in next_steps(study, 3) for command in step.commands):
        assert command.startswith("# no command: ") or override not in shlex.split(command)


def test_a_refused_job_stays_not_run_where_another_of_its_model_and_method_completed(tmp_path: Path):
    refusals = (0, 4, 5)  # lora with augmentation has a result all the same, of the other seed
    folder = write_sweep(tmp_path, ("ast",), ("lora", "ia3"), seeds=(1, 2), missing=refusals, predictions=False)
    manifest = json.loads((folder / "sweep.json").read_text())
    for place in refusals:
        manifest["jobs"][place] |= {"status": "refused", "reason": "no layer"}
    write_json(folder / "sweep.json", manifest)
    words = [each.words for each in refused(compare(collect([folder])))]
    assert words == ["model=ast peft=ia3 augmentation=on data=small trainer.max_epochs=20"]
    assert refused(compare(collect([folder], [("strategy", ["lora"])]))) == []
