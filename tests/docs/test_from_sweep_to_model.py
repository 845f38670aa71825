"""The way from a comparison to a model in use: every command of `docs/from_sweep_to_model.md`, from an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "from_sweep_to_model.md"


def printed() -> list[list[str]]:
    """Every command of the page, as words without ``python``."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def shortened(words: list[str]) -> list[str]:
    """The command with a quarter of the clips and half the epochs, also where it takes the defaults of both.

    The comparison has two of its four models.

    One analysis draws its images, for which it starts a browser.
    """
    if words[1] == "sousa_bench.analyze" and words[2] != "multirun/first":
        return [*words, "--no-images"]
    numbers = {"data.synthetic.clips": 880, "trainer.max_epochs": 2}
    if words[1] not in ("sousa_bench.train", "sousa_bench.promote") or "--refit" in words:
        return words
    numbers |= {key: int(value) for key, _, value in (word.partition("=") for word in words) if key in numbers}
    kept = [word for word in words if word.partition("=")[0] not in numbers]
    clips, epochs = numbers.values()
    kept += ["model=ast,efficientat"] if "experiment=comparison" in words else []
    return [*kept, f"data.synthetic.clips={clips // 4}", f"trainer.max_epochs={epochs // 2}"]


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("result.json"))]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_page(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = {
        **os.environ,
        "SOUSA_BENCH_CACHE": str(tmp_path_factory.mktemp("cache")),
        "PYTHONPATH": str(ROOT),
    }
    output: dict[str, str] = {}
    commands = printed()
    assert [words[1].rpartition(".")[2] for words in commands][-1] == "demo"
    for words in commands[:-1]:
        if "practice.wav" in words and not (tmp_path / "practice.wav").exists():
            a_clip(Path(environment["SOUSA_BENCH_CACHE"]), tmp_path / "practice.wav")
        done = subprocess.run(
            [sys.executable, *shortened(words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        told = f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, told
        assert "Traceback" not in done.stderr, told
        output[shlex.join(words[1:3])] = done.stdout

    first, second, warm = (results(tmp_path / "multirun" / name) for name in ("first", "second", "warm"))
    assert len(first) == 12
    assert len(second) == 6
    assert len(warm) == 3  # seeds
    assert all(result["status"] == "completed" for result in [*first, *second, *warm])
    known = {result["experiment_id"] for result in first}
    for result in [*second, *warm]:
        assert {each["experiment_id"] for each in result["lineage"]["from"]} <= known
    assert all(result["lineage"]["warm"] is True for result in warm)
    trials = results(tmp_path / "multirun" / "search")  # the default values' run may be the comparison's
    assert len(trials) in (5, 6)
    assert "6 trials" in output["sousa_bench.train search=lora"]
    combinations = pd.read_csv(tmp_path / "multirun" / "folds" / "analysis" / "combinations.csv")
    assert len(combinations) == 1
    [final], folds = (results(tmp_path / "multirun" / name) for name in ("final", "folds"))
    assert final["data"]["counts"] == {"train": 220, "val": 0, "test": 0}
    assert final["metrics"]["test_acc"] == pytest.approx(np.mean([fold["metrics"]["test_acc"] for fold in folds]))
    [evaluation] = results(tmp_path / "outputs" / "evaluate")
    assert evaluation["evaluated_run"] in {result["experiment_id"] for result in second}

    exported = json.loads((tmp_path / "my_model" / "config.json").read_text())["run"]["experiment_id"]
    best = next(result for result in second if result["experiment_id"] == exported)  # of equals any
    assert best["metrics"]["val_acc"] == max(result["metrics"]["val_acc"] for result in second)
    folder = next(p.parent for p in (tmp_path / "multirun" / "second").rglob("result.json") if same(p, best))
    agrees_with_the_run(tmp_path / "my_model", folder, environment)
    answers_to_a_browser([sys.executable, *commands[-1]], tmp_path, environment)


def same(path: Path, result: dict[str, Any]) -> bool:
    return json.loads(path.read_text())["experiment_id"] == result["experiment_id"]


def a_clip(cache: Path, target: Path) -> None:
    """One of the synthetic clips as a WAV file."""
    path = sorted(cache.rglob("*.flac"))[0]
    samples, rate = sf.read(path)
    sf.write(target, samples, rate)


def agrees_with_the_run(package: Path, run: Path, environment: dict[str, str]) -> None:
    """The exported graph on every test clip of the run: the same label, probabilities within 1e-4."""
    code = (
        "import sys, json, numpy as np, onnxruntime as ort\n"
        "from sousa_bench.config.instantiate import build\nfrom omegaconf import OmegaConf\n"
        "cfg = OmegaConf.create(json.load(open(sys.argv[2] + '/result.json'))['resolved_config'])\n"
        "facts = json.load(open(sys.argv[1] + '/config.json'))\n"
        "rate = facts['preprocessing']['sample_rate']\n"
        "data = build(cfg.data); data.prepare((rate,)); store = data.waveforms('test', rate)\n"
        "session = ort.InferenceSession(sys.argv[1] + '/model.onnx')\n"
        "name = session.get_inputs()[0].name\n"
        "rows = [session.run(None, {name: store.read(i)[None].astype(np.float32) / 32768})[0][0]\n"
        "        for i in range(len(store))]\n"
        "np.save(sys.argv[3], np.stack(rows)); print(list(data.rows('test')['sample_id']) and 'ok')\n"
    )
    target = package.parent / "logits.npy"
    done = subprocess.run(
        [sys.executable, "-c", code, str(package), str(run), str(target)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    frame = pd.read_parquet(run / "predictions.parquet").sort_values("sample_id")
    theirs, ours = np.load(target), np.stack(frame["logits"].to_list())
    np.testing.assert_array_equal(theirs.argmax(1), ours.argmax(1))
    np.testing.assert_allclose(softmax(theirs), softmax(ours), atol=1e-4)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def answers_to_a_browser(words: list[str], folder: Path, environment: dict[str, str]) -> None:
    """The page is served until it is stopped."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*words, "--port", str(port)], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(240):
            assert process.poll() is None, process.stdout and process.stdout.read()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("the page never came")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
