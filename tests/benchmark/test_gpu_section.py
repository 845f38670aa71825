"""`make gpu`, as far as a machine without a card can tell: a dry run, and what becomes of failures and of the page."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

PAGE = "# Benchmarks\n\n## First\n\nKept.\n\n## On a GPU\n\nold\n\n## Last\n\nKept too.\n"


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["gpu", *words])
    return gpu.main()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(tmp_path / "cache"))


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command(monkeypatch) == 0
    assert "No CUDA device here" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_measures_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (page := tmp_path / "page.md").write_text(PAGE)
    words = ("--dry-run", "--write", str(page), "--models", "ast", "--methods", "head", "lora", "knn", "conv_adapter")
    assert command(monkeypatch, *words, "--parts", "parity", "steps") == 0
    said = capsys.readouterr().out
    assert "| ast | 0.0e+00 | " in said  # the CPU's float32 is what it is held against
    assert "| ast | 2 | 2 |" in said
    assert page.read_text() == PAGE


def test_what_fails_or_comes_too_late_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    card = gpu.Card("cpu", ["ast"], ["lora"], time.monotonic() + 60)
    monkeypatch.setattr(gpu, "TOLERANCES", {"bf16-mixed": 1e-9})
    made = gpu.section(card, ["parity"])
    assert "- Parity of ast: AssertionError: the logits differ in bf16-mixed" in made
    card.until = time.monotonic() - 1
    assert "There was not time enough for: Parity of ast." in gpu.section(card, ["parity"])


@pytest.mark.parametrize("run", [lambda: time.sleep(60), lambda: subprocess.run(["sleep", "60"])])
def test_what_goes_on_when_time_is_over_is_ended_and_named(run: Callable[[], object]) -> None:
    def long(card: gpu.Card) -> Iterator[gpu.Row]:
        yield ("begun",)
        run()

    def outer(card: gpu.Card) -> Iterator[gpu.Row]:
        yield from card.attempt("inner", long)
        yield ("outer",)

    started = time.monotonic()
    card = gpu.Card("cpu", ["ast"], ["lora"], started + 0.5)
    assert card.attempt("outer", outer) == [("outer",)]
    assert card.attempt("next", long) == []
    assert (card.late, card.failed) == (["inner", "next"], [])
    assert time.monotonic() - started < 20


def test_a_step_that_moves_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    card = gpu.Card("cpu", ["ast"], ["head"], time.monotonic() + 60)
    assert list(gpu.steps(card, "ast")) == [("ast", "0", "0")]
    assert card.failed == ["a step of ast under head: AssertionError: no weight has moved"]


@pytest.mark.slow
def test_speed_and_whole_runs() -> None:
    card = gpu.Card("cpu", ["ast"], ["lora"], time.monotonic() + 500)
    made = gpu.section(card, ["speed", "ddp", "sweep", "sharing"])
    assert card.failed == []
    assert "| AST, LoRA, over two devices |" in made
    assert "| a few small ones |" in made
    assert "clips/s |" in made
    assert re.search(r"^\| 2 \| 2 \| \d+ s \|$", made, re.M)


def test_runs_that_share_a_card_are_timed_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[set[str], dict[str, str]]] = []

    def timed(words: list[str], **variables: str) -> float:
        commands.append((set(words), variables))
        return 7.0

    monkeypatch.setattr(gpu, "timed_command", timed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setattr(gpu, "machine", lambda: {"date": "2026-12-01", "torch": "2"})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "card")
    made = gpu.section(gpu.Card("gpu", ["ast"], ["lora"], time.monotonic() + 60), ["sharing"])
    assert "| auto | 8 | 7 s |" in made
    assert [variables for _, variables in commands] == [{"CUDA_VISIBLE_DEVICES": "3"}] * 5
    for crowd, (words, _) in zip(("1", "2", "4", "8", "auto"), commands, strict=True):
        assert {f"hydra.launcher.runs_per_gpu={crowd}", "model.variant=official", "seed=range(1,9)"} <= words


def test_a_page_says_that_it_has_no_figures_until_it_has_them() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/benchmarks.md").read_text(encoding="utf-8")
    made = gpu.written(page, f"{gpu.HEADING}\n\nnew\n")
    assert (gpu.NONE_YET in page) != (f"\n{gpu.HEADING}\n" in page)
    assert gpu.NONE_YET.strip() not in made
    assert "small sizes.\n\n## " in made


def test_a_page_keeps_the_rest() -> None:
    made = "## On a GPU\n\nnew\n"
    assert gpu.written(PAGE, made) == PAGE.replace("old", "new")
    assert gpu.written("# Page\n", made) == "# Page\n\n## On a GPU\n\nnew\n"
    assert gpu.written("# Page\n\n## On a GPU\n\nold\n", made) == "# Page\n\n## On a GPU\n\nnew\n"
