"""A run's folder or a package of someone else's: it chooses no code, and what is wrong with it is one message."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from export.conftest import Finished
from safetensors.torch import load_file, save_file

from sousa_bench.predict.__main__ import main as predict
from tests.cases import check_each

pytestmark = pytest.mark.slow

Change = Callable[[Path], object]
DEEP = "[" * 10_000 + "]" * 10_000
HEADER_OF_100_MB = struct.pack("<Q", 100 * 2**20) + b"{" + b" " * (100 * 2**20 - 1)
NEGATIVE = b'{"a":{"dtype":"F32","shape":[-1,2],"data_offsets":[0,8]}}'


def merged(file: str, **blocks: Any) -> Change:
    """Change fields of a JSON file: a mapping is merged into what stands there, anything else replaces."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        for key, value in blocks.items():
            content[key] = {**(content[key] or {}), **value} if isinstance(value, dict) else value
        (folder / file).write_text(json.dumps(content))

    return change


def written(file: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def piped(file: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return change


def linked_to_itself(file: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(Path(file).name)

    return change


def bomb(folder: Path) -> None:
    """A torch file of a few kilobytes that unpacks to 20 MB."""
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 20_000_000)
    merged("adapter/sousa.json", model={"weights": "official", "checkpoint": str(folder / "bomb.pt")})(folder)


def method_of(target: str) -> Change:
    """As if it were a run that saved the values of parameters that the model has."""

    def change(folder: Path) -> None:
        (folder / "adapter" / "adapter_config.json").unlink()
        (folder / "adapter" / "adapter_model.safetensors").rename(folder / "adapter" / "model.safetensors")
        merged("adapter/sousa.json", peft={"_target_": target})(folder)

    return change


def pickled(folder: Path) -> None:
    """Weights as a pickle that would make a file."""

    class Evil:
        def __reduce__(self) -> tuple:
            return open, (str(folder / "executed"), "w")

    (folder / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "adapter" / "adapter_model.bin")


def not_finite(file: str) -> Change:
    def change(folder: Path) -> None:
        state = load_file(folder / file)
        save_file({key: tensor * float("nan") if tensor.is_floating_point() else tensor
                   for key, tensor in state.items()}, folder / file)  # fmt: skip

    return change


SAID, CONFIG, WEIGHTS = "adapter/sousa.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
RUNS: list[tuple[str, Change, str]] = [
    ("a method that is imported", method_of("evil_module.Config"), "peft._target_ must be sousa_bench."),
    ("a module to import", merged(CONFIG, megatron_config={"a": 1}), "megatron_config names a module"),
    ("weights as a pickle", pickled, "is missing"),
    ("a pattern of names", merged(CONFIG, target_modules="(.*a*)*(.*b*)*!"), "target_modules can't be"),
    ("another kind of adapter", merged(CONFIG, peft_type="PROMPT_TUNING"), "doesn't fit"),
    ("a list as PEFT's config", written(CONFIG, "[]"), "holds no object"),
    ("a header of 100 MB", written(WEIGHTS, HEADER_OF_100_MB), "header too large"),
    ("negative shapes", written(WEIGHTS, struct.pack("<Q", len(NEGATIVE)) + NEGATIVE + bytes(8)), "-1"),
    ("a pipe for weights", piped(WEIGHTS), "no regular file"),
    ("a link to itself for weights", linked_to_itself(WEIGHTS), "is missing"),
    ("not finite", not_finite(WEIGHTS), "no finite number"),
    ("a pipe for a description", piped(SAID), "no checkpoint here"),
    ("10,000 levels", written(SAID, DEEP), "nested too deeply"),
    ("a list", written(SAID, "[1]"), "holds no object"),
    ("other classes", merged(SAID, num_classes=3), "different numbers of classes"),
    ("no end of classes", merged(SAID, num_classes=1e400), "num_classes can't be"),
    ("no model", merged(SAID, model=None), "it lacks model"),
    ("no method", merged(SAID, peft=None), "it lacks peft"),
    ("no weights", merged(SAID, weights=None), "it lacks weights"),
    ("a zip bomb", bomb, "its parts are compressed"),
    ("a text as checkpoint", merged(SAID, model={"weights": "official", "checkpoint": "/etc/passwd"}), "can't be read"),
    ("no length grid", merged("result.json", resolved_config={"data": {"quantum": 0}}), "quantum=0 can't be"),
    ("endless clips", merged("result.json", resolved_config={"data": {"max_duration": 1e12}}), "must be seconds"),
    ("data as a list", merged("result.json", resolved_config={"data": [1]}), "resolved_config.data can't be"),
]  # fmt: skip
PACKAGES: list[tuple[str, Change, str]] = [
    ("a number as preprocessing", merged("config.json", preprocessing=1), "preprocessing can't be 1"),
    ("no length grid", merged("config.json", preprocessing={"quantum": 0}), "quantum=0 can't be"),
    ("a number as labels", merged("config.json", labels=3), "labels can't be 3"),
    ("other labels", merged("config.json", labels=["a", "b"]), "different numbers of classes"),
    ("a list as model", merged("config.json", model=[]), "model can't be"),
    ("10,000 levels", written("config.json", DEEP), "no completed run here"),
    ("a pipe", piped("config.json"), "no completed run here"),
    ("no safetensors", written("model.safetensors", "junk"), "no readable safetensors file"),
    ("a pipe for weights", piped("model.safetensors"), "no regular file"),
    ("not finite", not_finite("model.safetensors"), "no finite number"),
    ("an escape in a message", merged("config.json", model={"_target_": "\x1b[2J"}), "must name a model"),
]


def refused(source: Path, folder: Path, sound: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """A check of one change: ``predict`` ends with 1 and one message that holds ``said``."""

    def check(name: str, change: Change, said: str) -> None:
        place = shutil.copytree(source, folder / name.replace(",", ""))
        change(place)
        assert predict([str(place), str(sound), "--threads", "1"]) == 1
        message = capsys.readouterr().err
        assert said in message
        assert "\x1b" not in message
        assert not (place / "executed").exists()

    return check


def test_runs(finished: Finished, tmp_path: Path, stroke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_each(RUNS, refused(finished.folder, tmp_path, stroke, capsys))


def test_packages(package: Path, tmp_path: Path, stroke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_each(PACKAGES, refused(package, tmp_path, stroke, capsys))


@pytest.fixture
def stroke(tmp_path: Path) -> Path:
    """A clip that is heard as strokes."""
    import numpy as np
    import soundfile as sf

    sound = np.zeros(16_000)
    rng = np.random.default_rng(0)
    for onset in range(500, 15_000, 2500):
        sound[onset : onset + 1000] += rng.normal(0, 0.3, 1000) * np.exp(-np.arange(1000) / 150)
    sf.write(tmp_path / "stroke.wav", sound, 16_000)
    return tmp_path / "stroke.wav"
