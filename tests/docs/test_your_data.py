"""Each command of `docs/your_data.md` but those of the known data sets, on small folders of birds that are tones."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from tests.docs.test_known_data_sets import ROOT, SHORTER

RATE = 8_000
BIRDS = {"finch": 2400, "owl": 400, "wren": 1200}
THERE = {  # what the reader puts there
    "/data/birds": "birds",
    "data.root=/data/birds": "data.root=birds",
    "FOLDER": "tabled",
    "data.root=FOLDER": "data.root=tabled",
    "data.root=DIGITS": "data.root=tabled",
    "RUN": "multirun/first",
    "recording.wav": "birds/owl/b3_1.wav",
    "weights=official": "weights=random",  # the published file is not everyone's
    "model.checkpoint=mn04_as_mAP_432.pt": "",
}
TABLED = {"data.root=/data/birds": "data.root=tabled"}


def page() -> tuple[str, str]:
    """The page without the section on known data sets, and that section."""
    text = (ROOT / "docs" / "your_data.md").read_text()
    known = re.search(r"\n## Known data sets\n.*?(?=\n## )", text, re.S)
    assert known
    return text.replace(known[0], ""), known[0]


def commands(text: str) -> list[list[str]]:
    """The words of each command, without ``python``."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)).replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line]


def birds(folder: Path, table: bool) -> None:
    """Ten birds of each class, in a folder a class or with a table beside them."""
    time = np.arange(RATE // 4) / RATE
    rows = []
    for number in range(10):
        for name, pitch in BIRDS.items():
            file = f"{name}/b{number}_1.wav"
            (folder / name).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([number, pitch]).normal(0, 0.05, len(time))
            sf.write(folder / file, 0.3 * np.sin(2 * np.pi * (pitch + 5 * number) * time) + noise, RATE)
            rows.append({"file_name": file, "category": name, "bird_id": f"b{number}"})
    if table:
        pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


def test_the_page_shows_every_command_of_the_way():
    general, known = map(commands, page())
    assert {words[1].removeprefix("sousa_bench.") for words in general} == {
        *("data", "train", "analyze", "evaluate", "predict", "export")
    }
    assert len(general) == 18
    assert len(known) == 6


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_general_command(tmp_path: Path):
    birds(tmp_path / "birds", table=False)
    birds(tmp_path / "tabled", table=True)
    printed = {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOUSA_BENCH_CACHE": str(tmp_path / "cache")}
    first = ["sweep=first"]
    for words in commands(page()[0]):
        put = {**THERE, **(TABLED if "data.columns.group=bird_id" in words else {})}
        line = [
            re.sub(r"(data\.fold=[^,]+,[^,]+),.*", r"\1", word)
            for word in (put.get(word, word) for word in words)
            if word
        ]
        if words[1] == "sousa_bench.train":
            given = {word.partition("=")[0] for word in line} - {"trainer.max_epochs"}
            line += first + [word for word in SHORTER if word.partition("=")[0] not in given]
            first = []
        done = subprocess.run(
            [sys.executable, *line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        printed[" ".join(words)] = done.stdout + done.stderr
    said = "\n".join(printed.values())
    assert "10 birds: b0, b1, b2, …" in said
    assert "group: bird_id" in said
    assert "<audio" in (tmp_path / "sounds.html").read_text()
    assert (tmp_path / "my_model" / "model.onnx").is_file()
    assert re.search(r"birds/owl/b3_1\.wav +(finch|owl|wren) ", printed["-m sousa_bench.predict RUN recording.wav"])
    report = (tmp_path / "multirun" / "first" / "analysis" / "report.html").read_text()
    assert len(report) > 10_000
    assert not re.search("rudiment|player", said)
