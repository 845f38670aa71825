"""A package's own `predict.py` gives the answers of `sousa_bench.predict`, where no sousa_bench is installed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from sousa_bench.predict.__main__ import main as predict

RATE = 44_100
CLOSE = 2e-5
"""Between probabilities: the export's own check lets logits differ by 1e-4."""
NO_NETWORK = re.compile("NewConnectionError|ConnectTimeout|ProxyError|name resolution|Network is unreachable")


def strokes(seconds: int) -> np.ndarray:
    """(samples, 2): four strokes a second, the second channel softer and a little later."""
    time = np.arange(RATE // 4) / RATE
    noise = np.random.default_rng(0).normal(size=len(time))
    mono = np.tile(0.4 * np.exp(-25 * time) * (np.sin(2 * np.pi * 220 * time) + 0.5 * noise), 4 * seconds)
    return np.stack([mono, 0.5 * np.roll(mono, 40)], axis=1).clip(-1, 1)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind: clips, long ones with a pause, other rates and channels, no drum, damaged, no audio."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(1)
    long = np.concatenate([strokes(9), np.zeros((10 * RATE, 2)), strokes(11), 0.1 * rng.normal(size=(RATE * 7, 2))])
    for name, samples, rate in (
        ("clip.wav", strokes(1), RATE),
        ("long.wav", long, RATE),
        ("little_too_long.flac", strokes(6), RATE),
        ("slow.wav", strokes(2)[::4], RATE // 4),
        ("same_rate.wav", strokes(2), 32_000),
        ("six_channels.flac", np.tile(strokes(3), 3), 48_000),
        ("packed.ogg", strokes(2), RATE),
        ("silence.wav", np.zeros(RATE), RATE),
        ("tone.wav", 0.3 * np.sin(np.arange(RATE) * 0.05) + 0.2, RATE),
        ("noise.wav", 0.1 * rng.normal(size=RATE * 2), RATE),
        ("short.wav", strokes(1)[:2000], RATE),
        ("none.wav", strokes(1)[:0], RATE),
    ):
        sf.write(folder / name, samples, rate)
    sf.write(folder / "loud.wav", 8 * strokes(1), RATE, subtype="FLOAT")
    sf.write(folder / "nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    whole = (folder / "long.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").touch()
    (folder / "letter.wav").write_text("Dear drummer")
    return folder


def answers(python: str | Path, package: Path, *words: str | Path) -> dict[str, dict[str, Any]]:
    """What the package's own program says of files, by their names; it is not told where sousa_bench lies."""
    line = [str(python), "-I", str(package / "predict.py"), *map(str, words), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False, cwd=package.parent)
    found = {answer["file"]: answer for answer in json.loads(done.stdout)["files"]}
    assert done.returncode == any(answer["status"] == "error" for answer in found.values()), done.stderr
    return found


def theirs(package: Path, capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, dict[str, Any]]:
    """What sousa_bench says of the same files."""
    predict([str(package), *map(str, words), "--json"])
    return {answer["file"]: answer for answer in json.loads(capsys.readouterr().out)["files"]}


def assert_same(found: Any, wanted: Any, place: str) -> None:
    """The same answer, probabilities apart by no more than `CLOSE`."""
    assert type(found) is type(wanted), place
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), place
        for key in wanted:
            assert_same(found[key], wanted[key], f"{place} {key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other, place)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=CLOSE), place
    else:
        assert found == wanted, place


def assert_same_answers(found: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        if wanted[name]["status"] == "error":  # each in its own words
            found[name], wanted[name] = found[name] | {"reason": ""}, wanted[name] | {"reason": ""}
        assert_same(found[name], wanted[name], name)


def with_facts(package: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the package whose config says something else."""
    copied = shutil.copytree(package, folder)
    facts = json.loads((copied / "config.json").read_text())
    change(facts)
    (copied / "config.json").write_text(json.dumps(facts))
    return copied


@pytest.mark.slow
def test_every_file_gets_the_answer_of_predict(package, sounds, tmp_path, capsys):
    files = [*sorted(sounds.iterdir()), sounds / "missing.wav"]
    known = sorted(
        answer["probability"] for answer in theirs(package, capsys, *files).values() if answer["probability"]
    )
    threshold = {"confidence": {"target": 0.9, "threshold": sum(known[3:5]) / 2}}  # at no clip's own
    package = with_facts(package, tmp_path / "package", lambda facts: facts.update(threshold))
    found = answers(sys.executable, package, *files)
    wanted = theirs(package, capsys, *files)
    statuses = [answer["status"] for answer in wanted.values()]
    assert {status: statuses.count(status) for status in set(statuses)} == {
        "ok": 9,
        "no_drum": 3,
        "too_short": 1,
        "error": 5,
    }
    assert len(wanted[str(sounds / "long.wav")]["timeline"]) > 3
    assert {answer["confident"] for answer in wanted.values()} == {True, False, None}
    for answer in found.values():
        assert answer["confident"] == (
            answer["probability"] and answer["probability"] >= threshold["confidence"]["threshold"]
        )
    assert_same_answers(found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_other_classes_and_several_labels(package, sounds, tmp_path, capsys, several):
    def change(facts: dict[str, Any]) -> None:
        classes = [f"sound {number}" for number in range(len(facts["labels"]))]
        facts["labels"] = classes
        names = {"sound 3": "Third sound"}
        facts["task"] |= {"classes": classes, "names": names, "families": {}, "several": several, "noun": "class"}
        facts["listening"] |= {"strokes": None}

    other = with_facts(package, tmp_path / "other", change)
    names = ("clip.wav", "long.wav", "noise.wav", "silence.wav", "short.wav")
    files = [sounds / name for name in names]
    found, wanted = answers(sys.executable, other, *files), theirs(other, capsys, *files)
    assert_same_answers(found, wanted)
    assert wanted[str(files[2])]["class"].startswith("sound ")
    assert [wanted[str(file)]["status"] for file in files[3:]] == ["no_sound", "too_short"]
    if several:
        counts = {len(part["accepted"] or []) for answer in found.values() for part in answer["timeline"]}
        assert len(counts) > 1


@pytest.mark.slow
def test_for_people_each_file_has_a_line_and_each_bad_one_a_message(package, sounds):
    files = [str(sounds / name) for name in ("clip.wav", "letter.wav", "silence.wav", "nowhere.wav")]
    line = [sys.executable, "-I", str(package / "predict.py"), *files, "--top", "2"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    errors = done.stderr.splitlines()
    assert [error.split(" ")[:2] for error in errors] == [["error:", files[1]], ["error:", files[3]]]
    clip, silence = (line for line in done.stdout.splitlines() if line.startswith(str(sounds)))
    assert re.fullmatch(r".*clip\.wav  [A-Z][^,]* [\d.]+ % \?, [A-Z][^,]* [\d.]+ %", clip)
    heading = done.stdout[: done.stdout.index(str(sounds))]
    assert heading.count("Base weights: embedded (efficientat.safetensors). Test accuracy ") == 1
    assert "No answer is confident: at no threshold were 90 % right on the validation clips." in heading
    assert silence == f"{files[2]}  no drum (silence)"


@pytest.mark.slow
def test_a_package_that_lost_its_graph_is_one_message(package, sounds, tmp_path):
    copied = shutil.copytree(package, tmp_path / "copied")
    (copied / "model.onnx").write_bytes(b"nothing")
    line = [sys.executable, "-I", str(copied / "predict.py"), str(sounds / "clip.wav")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {copied}: is no whole package")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_graph_that_fails_and_an_odd_name_are_one_message_for_each_file(package, sounds, tmp_path):
    """The graph takes an input of another name; the file's name is no UTF-8 and holds a control character (C1)."""
    odd = tmp_path / os.fsdecode(b"odd\xff \xc2\x9b31m.wav")
    shutil.copy(sounds / "clip.wav", odd)
    copied = with_facts(package, tmp_path / "copied", lambda facts: facts["onnx"].update(input="nothing"))
    files = [str(odd), str(sounds / "clip.wav"), str(sounds / "silence.wav")]
    line = [sys.executable, "-I", str(copied / "predict.py"), "--json", *files]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout.isascii()
    unnamed, failed, silent = json.loads(done.stdout)["files"]
    assert (unnamed["file"], unnamed["status"]) == (files[0], "error")
    assert failed["reason"].startswith("makes onnxruntime fail (")
    assert silent["status"] == "no_drum"


@pytest.mark.slow
def test_it_runs_where_only_what_the_readme_names_is_installed(package, sounds, tmp_path, capsys):
    """The two lines of the README, in a new virtual environment, on a file of 44.1 kHz in stereo."""
    block = re.search(r"```bash\n(.*?)```", (package / "README.md").read_text(), re.S)[1]
    install, use = map(shlex.split, block.splitlines())
    assert (install[:2], use[:2]) == (["pip", "install"], ["python", "predict.py"])
    folder = shutil.copytree(package, tmp_path / "package")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=100)
    python = tmp_path / "venv" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-m", *install], capture_output=True, text=True, timeout=400, check=False, cwd=tmp_path
    )
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip("no package index can be reached to install what the README names")
    assert done.returncode == 0, done.stderr
    gone = subprocess.run([str(python), "-I", "-c", "import sousa_bench"], capture_output=True, check=False)
    assert gone.returncode == 1
    shutil.copy(sounds / "clip.wav", folder / "clip.wav")
    info = sf.info(folder / "clip.wav")
    assert (info.samplerate, info.channels) == (44_100, 2)
    said = subprocess.run(
        [str(python), *use[1:]], cwd=folder, capture_output=True, text=True, timeout=100, check=True, env={}
    )
    files = [folder / "clip.wav", sounds / "long.wav"]
    found, wanted = answers(python, folder, *files), theirs(folder, capsys, *files)
    assert_same_answers(found, wanted)
    assert f"clip.wav  {wanted[str(files[0])]['name']} " in said.stdout
    assert "Base weights: embedded (efficientat.safetensors). " in said.stdout
