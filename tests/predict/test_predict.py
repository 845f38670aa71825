"""Files → rudiments: equal to the run's own test, whatever the file; each file gets an answer or one error."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from scipy.special import softmax

from sousa_bench.data.rudiments import FAMILIES, RUDIMENTS, TASK
from sousa_bench.inference.answer import Answer
from sousa_bench.inference.predictor import Predictor
from sousa_bench.predict.__main__ import main
from tests.predict.conftest import RATE, write
from tests.trained import ROOT, Trained, sweep

KEYS = {
    "file",
    "status",
    "reason",
    "seconds",
    "sample_rate",
    "channels",
    "rudiment",
    "name",
    "family",
    "probability",
    "confident",
    "top",
    "windows",
    "drum_windows",
    "timeline",
    "notes",
}


def test_a_test_clips_file_gets_the_runs_own_prediction(finished: Trained, predict):
    audio, own = finished.audio(), finished.predictions()
    assert len(audio) == 10
    answers = predict(*audio.values(), "--top", "40")["files"]
    for answer, name in zip(answers, audio, strict=True):
        expected = softmax(np.asarray(own.loc[name, "logits"], dtype=np.float64))
        found = np.array([next(t["probability"] for t in answer["top"] if t["rudiment"] == s) for s in RUDIMENTS])
        assert np.abs(found - expected).max() < 1e-5
        assert answer["rudiment"] == RUDIMENTS[int(own.loc[name, "predicted"])]


def test_a_clip_a_little_too_long_is_cut_as_in_training(finished: Trained, stroke: np.ndarray, predict, tmp_path: Path):
    """The cache resamples more of a clip than is used, so its end is a cut; so must this be."""
    long = write(tmp_path / "long.wav", np.tile(stroke, 6), RATE)
    predictor = Predictor.open(finished.folder)
    expected = predictor.probabilities([predictor.read(str(long))])[0]
    assert len(predictor.read(str(long))) == 5 * predictor.sample_rate
    [answer] = predict(long, "--top", "40")["files"]
    assert answer["windows"] == 1
    assert answer["timeline"] == []
    assert "the first 5 s of 6.0 were heard" in answer["notes"][0]
    assert answer["probability"] == pytest.approx(float(expected.max()), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "rate"), [("a.wav", 8_000), ("a.flac", 192_000), ("a.ogg", 44_100), ("a.mp3", 48_000)]
)
def test_formats_rates_and_channels(name: str, rate: int, stroke: np.ndarray, predict, tmp_path: Path):
    samples = soxr.resample(stroke, RATE, rate)
    file = write(tmp_path / name, np.stack([samples, samples], axis=1), rate)
    found = predict(file, "--top", "3")
    [answer] = found["files"]
    assert found["code"] == 0
    assert set(answer) == KEYS
    assert answer["status"] == "ok"
    assert (answer["sample_rate"], answer["channels"]) == (rate, 2)
    assert answer["rudiment"] == answer["top"][0]["rudiment"]
    assert answer["family"] == FAMILIES[answer["rudiment"]]
    chances = [item["probability"] for item in answer["top"]]
    assert len(chances) == 3
    assert chances == sorted(chances, reverse=True)
    assert bool(answer["notes"]) is (rate < 16_000)


def test_every_bad_file_gets_one_error_and_the_good_ones_their_answer(stroke: np.ndarray, predict, tmp_path: Path):
    good = write(tmp_path / "good.wav", stroke)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio at all")
    (tmp_path / "folder.wav").mkdir()
    write(tmp_path / "none.wav", stroke[:0])
    write(tmp_path / "nan.wav", np.full(RATE, np.nan, np.float32), subtype="FLOAT")
    whole = write(tmp_path / "cut.flac", np.tile(stroke, 3)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 8])
    bad = ["empty.wav", "text.wav", "folder.wav", "none.wav", "nan.wav", "missing.wav", "*.aiff"]
    found = predict(*(tmp_path / name for name in bad), good, tmp_path / "cut.flac")
    reasons = {Path(answer["file"]).name: answer["reason"] for answer in found["files"]}
    assert found["code"] == 1
    assert reasons["good.wav"] is None
    for name, word in zip(
        bad,
        ("zero bytes", "no audio file", "folder without", "length is zero", "finite", "missing", "pattern"),
        strict=True,
    ):
        assert word in reasons[name], name
    assert reasons["cut.flac"] is None or "truncated" in reasons["cut.flac"]
    assert all(set(answer) == KEYS for answer in found["files"])


def test_what_holds_no_drum_gets_a_plain_word(stroke: np.ndarray, predict, tmp_path: Path):
    time = np.arange(2 * RATE) / RATE
    files = {
        "silence.wav": (np.zeros(RATE), "no_drum", "silence"),
        "dc.wav": (np.full(RATE, 0.5), "no_drum", "steady"),
        "tone.wav": (0.5 * np.sin(2 * np.pi * 440 * time), "no_drum", "steady"),
        "noise.wav": (np.random.default_rng(0).normal(0, 0.1, 2 * RATE), "no_drum", "steady"),
        "short.wav": (stroke[:2000], "too_short", "45.4 ms"),
        "one.wav": (stroke[:1], "too_short", "100 ms"),
    }
    for name, (samples, _, _) in files.items():
        write(tmp_path / name, samples)
    found = predict(tmp_path)
    assert found["code"] == 0
    assert len(found["files"]) == len(files)
    for answer in found["files"]:
        _, status, word = files[Path(answer["file"]).name]
        assert answer["status"] == status
        assert word in answer["reason"]
        assert answer["rudiment"] is None
        assert answer["top"] == []


def test_a_long_recording_has_a_timeline_with_its_pause(stroke: np.ndarray, predict, finished: Trained, tmp_path: Path):
    played = np.tile(stroke, 10)
    file = write(tmp_path / "long.wav", np.concatenate([played, np.zeros(RATE * 10), played]))
    [answer] = predict(file, "--top", "40")["files"]
    assert answer["seconds"] == 30.0
    assert answer["windows"] == 11  # a start every 2.5 s
    assert answer["drum_windows"] == 8
    edges = [stretch["start"] for stretch in answer["timeline"]] + [answer["timeline"][-1]["end"]]
    assert edges[0] == 0
    assert edges[-1] == 30.0
    assert [stretch["end"] for stretch in answer["timeline"]] == edges[1:]
    [pause] = [stretch for stretch in answer["timeline"] if stretch["rudiment"] is None]
    assert (pause["start"], pause["end"]) == (10.0, 20.0)
    # The whole is the mean over the windows in which something is played.
    predictor = Predictor.open(finished.folder)
    rate = predictor.sample_rate
    mono = predictor.read(str(file), seconds=30.0)
    starts = [0, 2.5, 5, 7.5, 17.5, 20, 22.5, 25]
    mean = predictor.probabilities([mono[round(s * rate) : round((s + 5) * rate)] for s in starts]).mean(axis=0)
    assert answer["probability"] == pytest.approx(float(mean.max()), abs=1e-6)


def test_the_beginning_alone_and_other_windows(stroke: np.ndarray, predict, tmp_path: Path):
    file = write(tmp_path / "a.wav", np.tile(stroke, 12))
    [beginning] = predict(file, "--beginning")["files"]
    assert (beginning["windows"], beginning["seconds"]) == (1, 12.0)
    [fine] = predict(file, "--window", "2", "--hop", "1")["files"]
    assert fine["windows"] == 11
    [ragged] = predict(file, "--window", "2.5", "--hop", "2")["files"]
    assert ragged["windows"] == 6  # the last one ends with the recording
    assert ragged["timeline"][-1]["end"] == 12.0


def test_folders_and_patterns_name_each_file_once(stroke: np.ndarray, predict, tmp_path: Path):
    (tmp_path / "in" / "side").mkdir(parents=True)
    for name in ("a.wav", "in/b.WAV", "in/side/c.flac", "in/.hidden.wav"):
        write(tmp_path / name, stroke)
    (tmp_path / "in" / "notes.txt").write_text("x")
    found = predict(tmp_path / "*.wav", tmp_path / "in", tmp_path / "a.wav", tmp_path / "**" / "*.flac")
    assert [Path(answer["file"]).name for answer in found["files"]] == ["a.wav", "b.WAV", "c.flac"]


@pytest.mark.slow
def test_the_command_prints_a_table_and_ends_with_1_where_a_file_failed(finished: Trained, stroke, tmp_path: Path):
    write(tmp_path / "a.wav", stroke)
    write(tmp_path / "b.wav", np.zeros(RATE))
    (tmp_path / "c.wav").touch()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sousa_bench.predict",
            str(finished.folder.parent),
            ".",
            "--top",
            "2",
            "--device",
            "cpu",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: c.wav is empty: zero bytes"
    best = max(sweep().values(), key=lambda run: run.result["metrics"]["val_acc"])
    assert best.result["experiment_id"].rpartition("_s42_")[0] in done.stdout
    score = f"{best.result['metrics']['val_acc']:.3f}"
    assert f"\nThe best of {len(sweep())} completed runs by val_acc ({score})\n" in done.stdout
    assert re.search(r"^a\.wav +[A-Z].* \d+(\.\d)? %", done.stdout, re.M)
    assert "no drum (silence)" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "9"], "--window 9: it is from 0.1 to 5 seconds"),
        (["--window", "2", "--hop", "3"], "--hop 3: it is from 0.1 seconds to the window's 2"),
        (["--device", "cuda"], "torch sees no CUDA device"),
        (["--metric", "nope"], "none of that name"),
    ],
)
def test_wrong_switches(words, message, finished: Trained, stroke, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    file = write(tmp_path / "a.wav", stroke)
    assert main([str(finished.folder.parent), str(file), *words]) == 1
    assert message in capsys.readouterr().err


def test_no_run_no_answer(tmp_path: Path, stroke, capsys):
    file = write(tmp_path / "a.wav", stroke)
    assert main([str(tmp_path / "nothing"), str(file)]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_json_never_holds_nan():
    record = Answer("x", "error", TASK, reason="y").record(5)
    assert set(record) == KEYS
    json.dumps(record, allow_nan=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_hour_takes_no_more_memory_than_a_minute(finished: Trained, stroke: np.ndarray, tmp_path: Path):
    def peak(minutes: int) -> tuple[int, dict, str]:
        file = tmp_path / f"{minutes}.flac"
        with sf.SoundFile(file, "w", RATE, 2) as out:
            block = np.tile(stroke, 60)
            for _ in range(minutes):
                out.write(np.stack([block, block], axis=1))
        words = [str(finished.folder), str(file), "--json", "--threads", "1", "--hop", "5"]
        program = (
            "import resource, sys; from sousa_bench.predict.__main__ import main; code = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=800, check=True, cwd=ROOT
        )
        return int(done.stderr.split()[-1]), json.loads(done.stdout)["files"][0], done.stderr

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    small, _, _ = peak(2)
    large, answer, told = peak(60)
    assert answer["seconds"] == 3600.0
    assert answer["windows"] == 720
    assert answer["timeline"][-1]["end"] == 3600.0
    assert "60.flac" in told  # the progress line
    assert large < small + 60_000  # kB; the recording itself is 600 MB as float32
