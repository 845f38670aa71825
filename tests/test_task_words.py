"""Of a task that is not SOUSA's, no file and no line of any command speaks of rudiments or players."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from filelock import FileLock
from plotly.offline import get_plotlyjs

from sousa_bench.analysis.report.html_page import plotly_library
from sousa_bench.analyze import main as analyze
from sousa_bench.evaluate.__main__ import main as evaluate
from sousa_bench.export.__main__ import main as export
from sousa_bench.export.description import model_card
from sousa_bench.predict.__main__ import main as predict
from sousa_bench.task import CLIP
from tests.trained import command, home

RATE = 8_000
SPLITS = ("train",) * 5 + ("val",) * 3 + ("test",) * 9
SMALL = (
    "model=efficientat",
    "peft=lora,probe",
    "augmentation=off",
    "trainer.max_epochs=1",
    "trainer.batch_size=8",
    "trainer.progress=false",
    "logger=none",
)
SOUSAS = re.compile("rudiment|player", re.IGNORECASE)


def sounds(folder: Path, grouped: bool) -> Path:
    """Three tones by seventeen speakers, in a folder with a table."""
    time = np.arange(RATE // 4) / RATE
    rows = []
    for number, split in enumerate(SPLITS):
        for label, pitch in (("low", 300), ("mid", 600), ("high", 1200)):
            noise = np.random.default_rng(number).normal(0, 0.05, len(time))
            (folder / "wav").mkdir(parents=True, exist_ok=True)
            file = f"wav/{number}_{label}.wav"
            sf.write(folder / file, 0.3 * np.sin(2 * np.pi * (pitch + 5 * number) * time) + noise, RATE)
            speaker = {"speaker": f"voice {number}"} if grouped else {}
            rows.append({"file_name": file, "label": label, "split": split} | speaker)
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def trained() -> Path:
    """Both folders' runs, of one sweep."""
    folders = [home() / name for name in ("spoken", "lone")]
    for folder in folders:
        if not folder.exists():
            sounds(folder, grouped=folder.name == "spoken")
    done = command("train", "-m", "sweep=words", *SMALL, "data=folder", f"data.root={','.join(map(str, folders))}")
    assert done.returncode == 0, done.stdout + done.stderr
    stand = command("status", "multirun/words")
    assert stand.returncode == 0, stand.stdout + stand.stderr
    (home() / "multirun" / "words" / "said.log").write_text(done.stdout + done.stderr + stand.stdout + stand.stderr)
    return home() / "multirun" / "words"


def walk(name: str) -> dict[str, str]:
    """Every command, one after the other; what each printed and every text that it wrote, by name."""
    said: dict[str, str] = {}
    root = home() / name

    def run(command: Callable[[Sequence[str]], int], *words: str | Path) -> None:
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            assert command([str(word) for word in words]) == 0, out.getvalue()
        said[command.__module__.split(".")[1]] = out.getvalue()

    runs = trained()
    mine = [file.parent for file in runs.glob("*/result.json") if str(root) in file.read_text()]
    assert len(mine) == 2
    silence = root / "silence.wav"
    sf.write(silence, np.zeros(RATE), RATE)
    run(analyze, runs, "--no-images", "--filter", f"data.root={root}", "--output-dir", root / "report")
    run(evaluate, mine[0], "--split", "all", "--no-images", "--output-dir", root / "evaluated")
    if name == "lone":
        return said | texts(runs, root / "report", root / "evaluated")
    run(export, mine[0], root / "package", "--force")
    run(predict, root / "package", root / "wav" / "0_low.wav", silence)
    return said | texts(runs, root / "report", root / "evaluated", root / "package")


def texts(*places: Path) -> dict[str, str]:
    """What stands in all files of some folders."""
    said: dict[str, str] = {}
    for file in (file for place in places for file in place.rglob("*")):
        if file.suffix in (".json", ".md", ".csv", ".html", ".log", ".yaml"):
            said[str(file)] = file.read_text()
        if file.suffix == ".parquet":
            said[str(file)] = str(pd.read_parquet(file).columns.to_list())
    return said


@pytest.fixture(scope="session")
def spoken() -> dict[str, str]:
    """A walk with the clips of speakers."""
    with FileLock(home() / "words.lock"):
        return walk("spoken")


@pytest.fixture(scope="session")
def lone() -> dict[str, str]:
    """A walk with clips of which no groups are known."""
    with FileLock(home() / "words.lock"):
        return walk("lone")


def own(text: str) -> str:
    """A text without plotly's library, which has its own words."""
    return text.replace(plotly_library(), "").replace(get_plotlyjs(), "")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["spoken", "lone"])
def test_no_file_and_no_line_speaks_of_rudiments_or_players(which: str, request: pytest.FixtureRequest) -> None:
    said = request.getfixturevalue(which)
    found = {
        name: [text[max(0, match.start() - 60) : match.end() + 40] for match in SOUSAS.finditer(text)][:3]
        for name, text in ((name, own(text)) for name, text in said.items())
    }
    assert not {name: matches for name, matches in found.items() if matches}


def text_of(said: dict[str, str], ending: str) -> str:
    return next(text for name, text in said.items() if name.endswith(ending))


@pytest.mark.slow
def test_they_speak_of_the_tasks_own_groups(spoken: dict[str, str]) -> None:
    summary = text_of(spoken, "summary_report.md")
    assert "27 clips, 9 speakers" in summary
    assert "clips/speakers" in summary
    assert "Intervals: 95 %, over speakers (" in summary
    assert "test_speakers" in text_of(spoken, "comparison_table.csv").splitlines()[0]
    assert "speakers" in text_of(spoken, "comparisons.csv").splitlines()[0]
    assert "51 clips of 17 speakers" in spoken["evaluate"]
    card = text_of(spoken, "package/README.md")
    assert "27 clips of 9 speakers. Intervals take the speakers as the sample." in card
    assert "| test | 27 | 9 |" in card
    content = json.loads(text_of(spoken, "package/config.json"))
    content["training"]["parameters"]["adapter"] = 0
    assert "adapters are merged" not in model_card(content)
    content["training"]["parameters"]["adapter"] = 8
    assert "seed 42. The adapters are merged into the weights.\n" in model_card(content)
    assert "probabilities > 0.5)  # any number of classes\n" in model_card(
        content | {"task": content["task"] | {"several": True}}
    )
    assert json.loads(text_of(spoken, "package/config.json"))["data"]["groups"] == {"train": 5, "val": 3, "test": 9}


@pytest.mark.slow
def test_without_groups_they_speak_of_clips_alone(spoken: dict[str, str], lone: dict[str, str]) -> None:
    summary = text_of(lone, "summary_report.md")
    assert "27 clips)" in summary
    assert "| clips |" in summary
    assert "Intervals: 95 %, over clips (" in summary
    assert "clips, 27" not in summary
    columns = text_of(lone, "comparison_table.csv").splitlines()[0]
    assert "test_clips" in columns
    assert "test_groups" not in columns
    assert "51 clips\n" in lone["evaluate"]
    content = json.loads(text_of(spoken, "package/config.json"))
    card = model_card(content | {"task": content["task"] | {"group": CLIP}})
    assert "27 clips. Intervals take the clips as the sample." in card
    assert "| test | 27 |\n" in card


@pytest.mark.slow
@pytest.mark.parametrize("which", ["spoken", "lone"])
def test_no_choice_of_sousas_data_is_advised(which: str, request: pytest.FixtureRequest) -> None:
    said = request.getfixturevalue(which)
    words = {name: own(text) for name, text in said.items() if not name.endswith(".yaml")}  # Hydra's help has them
    assert not {name for name, text in words.items() if re.search("data=(tiny|small|medium|full)", text)}
    places = ("said.log", "result.json", "summary_report.md", *(["package/README.md"] if which == "spoken" else []))
    assert all("The published ones: weights=official" in text_of(said, place) for place in places)


@pytest.mark.slow
def test_any_sound_is_named_and_silence_is_none(spoken: dict[str, str]) -> None:
    """A tone never rises and falls as a drum does."""
    first, second = (line for line in spoken["predict"].splitlines() if line.startswith(("0_low", "wav", "silence")))
    assert re.search(r"\b(low|mid|high)\b +\d+ %", first)
    assert "no sound (silence)" in second
