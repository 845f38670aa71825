"""Each known data set of `docs/your_data.md`, written from the spoken digits: its command, then one report of all."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.data.known_layouts import WRITERS, with_splits

ROOT = Path(__file__).resolve().parents[2]
DIGITS = Path(os.environ.get("SPOKEN_DIGITS", ROOT.parent / "shared" / "spoken_digits"))
FOLDERS = {
    "ESC-50-master": "ESC-50",
    "UrbanSound8K": "UrbanSound8K",
    "speech_commands_v0.02": "Speech Commands",
    "FSD50K": "FSD50K",
    "audioset": "AudioSet JSON",
    "hub": "hub Parquet",
}
SHORTER = [
    *("model=efficientat", "peft=head", "augmentation=off", "trainer.max_epochs=1", "trainer.accelerator=cpu"),
    *("trainer.progress=false", "logger=none"),
]
ELSEWHERE = {  # what the reader puts there
    "data.hub_id=OWNER/NAME": "data.root=hub",
    "data.columns.label=emotion": "data.columns.label=label",
    "data.columns.group=actor": "data.columns.group=speaker_id",
}


def commands() -> list[list[str]]:
    """The section's commands as words without ``python``, with two folds where there are more."""
    section = (ROOT / "docs" / "your_data.md").read_text().partition("## Known data sets\n")[2].partition("\n## ")[0]
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.S)).splitlines()
    words = [[ELSEWHERE.get(word, word) for word in shlex.split(line)[1:]] for line in lines if line]
    return [[re.sub(r"(data\.fold=[^,]+,[^,]+),.*", r"\1", word) for word in each] for each in words]


def test_the_page_has_a_command_for_each():
    roots = [word.partition("=")[2] for words in commands() for word in words if word.startswith("data.root=")]
    assert roots == list(FOLDERS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_and_one_report(tmp_path: Path):
    if not (DIGITS / "takes.csv").is_file():
        pytest.skip(f"no spoken digits in {DIGITS} (SPOKEN_DIGITS)")
    takes = pd.read_csv(DIGITS / "takes.csv")
    few = takes[takes["take"] < 3].reset_index(drop=True)
    clips = with_splits(few.assign(path=[DIGITS / name for name in few["file_name"]]))

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOUSA_BENCH_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        return done.stdout + done.stderr

    for folder, layout in FOLDERS.items():
        (tmp_path / folder).mkdir()
        WRITERS[layout](tmp_path / folder, clips)
    for words in commands():
        run(*words, *SHORTER)
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert sorted(result["data"]["source"] for result in results) == sorted([*FOLDERS.values(), "ESC-50"])
    for result in results:
        shown = result["task"]["names"]
        assert {shown.get(name, name) for name in result["task"]["classes"]} == set(clips["label"])
        assert ("test_map" if result["task"]["several"] else "test_acc") in result["metrics"]
    run("-m", "sousa_bench.analyze", "outputs", "multirun", "--no-images")
    report = (tmp_path / "outputs" / "analysis" / "summary_report.md").read_text()
    assert {"recording", "speaker", "uploader"} <= {word.removesuffix("s") for word in re.findall(r"\w+", report)}
    assert not re.search("rudiment|player", report)
