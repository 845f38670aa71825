"""The page in a real headless browser: a file goes in, the answer of `predict` comes out, nothing goes elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from sousa_bench.demo import __main__ as demo
from sousa_bench.predict.__main__ import main as predict
from tests.export.conftest import Finished

playwright_api = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio"),
]


MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SPY = """
import sys
def hook(event, values):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = values[1] if event == "socket.connect" else values
        with open({file!r}, "a") as file:
            print(place[0] if isinstance(place, tuple) else "unix", file=file)
sys.addaudithook(hook)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """The command while it runs."""

    process: subprocess.Popen[str]
    address: str
    uploads: Path
    calls: Path


@pytest.fixture(scope="module")
def served(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port, temporary = free_port(), tmp_path_factory.mktemp("temporary")
    spy = tmp_path_factory.mktemp("spy")
    (spy / "sitecustomize.py").write_text(SPY.format(file=str(spy / "calls.txt")))
    process = subprocess.Popen(
        [sys.executable, "-m", "sousa_bench.demo", str(finished.folder), "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(spy)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    address = process.stdout.readline().split()[1]
    assert address.rstrip("/") == f"http://127.0.0.1:{port}"
    yield Served(process, address, temporary, spy / "calls.txt")
    process.kill()
    process.wait()


@dataclass
class Visit:
    """A tab with everything it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    chromium = next((found for name in names if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium or Chrome on this machine")
    with playwright_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *MICROPHONE])
        yield made
        made.close()


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Visit]:
    made = Visit(browser.new_page())
    made.page.on("console", lambda message: made.said.append(f"{message.type}: {message.text}"))
    made.page.on("pageerror", lambda error: made.said.append(f"error: {error}"))
    made.page.on("request", lambda request: made.asked.append(request.url))
    made.page.goto(served.address)
    yield made
    made.page.close()


def upload(visit: Visit, file: Path, status: str) -> str:
    """Give the page a file; the words that it shows for it."""
    visit.page.locator("#audio input[type=file]").set_input_files(str(file))
    visit.page.wait_for_selector(f"#word [data-status={status}]", timeout=60_000)
    return visit.page.locator("#word").inner_text()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Stereo at another rate than the model's: a stroke every 0.2 s."""
    rng = np.random.default_rng(0)
    time = np.arange(round(2.3 * 44_100)) % round(0.2 * 44_100) / 44_100
    strokes = 0.4 * rng.standard_normal((len(time), 2)) * np.exp(-time / 0.03)[:, None]
    sf.write(tmp_path / "strokes.wav", strokes, 44_100, subtype="PCM_16")
    return tmp_path / "strokes.wav"


def test_an_uploaded_file_gets_the_answer_of_predict_and_nothing_leaves_the_machine(
    visit, served, finished, clip, capsys
):
    words = upload(visit, clip, "ok")
    assert predict([str(finished.folder), str(clip), "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)["files"][0]
    assert words.startswith(wanted["name"])
    rudiment = visit.page.locator("#answer")
    assert rudiment.get_by_test_id("label-output-value").inner_text().strip() == wanted["name"]
    bars = [text.split("\n") for text in rudiment.locator(".confidence-set").all_inner_texts()]
    assert [bar[0] for bar in bars] == [item["name"] for item in wanted["top"]]
    assert [bar[-1] for bar in bars] == [f"{round(100 * item['probability'])}%" for item in wanted["top"]]
    picture = visit.page.locator("#picture")
    assert "128 mel bins" in picture.inner_text()
    assert picture.locator("#spectrogram").evaluate("image => image.getBBox().height") > 100
    assert picture.locator("#waveform").evaluate("path => path.getBBox().width") > 900
    assert [message for message in visit.said if message.startswith("error")] == []
    outside = [url for url in visit.asked if not url.startswith((served.address, "data:", "blob:"))]
    assert outside == []
    assert visit.page.locator("#audio").get_by_label("Share").count() == 0  # it would send the clip away


@pytest.mark.parametrize(
    ("samples", "status", "said"),
    [
        (np.zeros(32_000), "no_drum", "silence"),
        (0.3 * np.sin(np.arange(64_000) * 0.1), "no_drum", "steady sound"),
        (0.3 * np.ones(500), "too_short", "the least is 100 ms"),
    ],
)
def test_what_holds_no_drum_gets_a_plain_word_and_no_rudiment(visit, tmp_path, samples, status, said):
    sf.write(tmp_path / "odd.wav", samples, 32_000, subtype="PCM_16")
    assert said in upload(visit, tmp_path / "odd.wav", status)
    assert visit.page.locator("#answer .confidence-set").count() == 0


def test_a_file_that_is_no_audio_gets_a_word(visit, tmp_path):
    (tmp_path / "letter.wav").write_text("Dear drummer")
    assert upload(visit, tmp_path / "letter.wav", "error").startswith("Error: letter.wav is no audio file")


def test_the_page_says_what_its_model_is_worth(visit, finished):
    accuracy = json.loads((finished.folder / "result.json").read_text())["metrics"]["test_acc"]
    visit.page.locator("#about p").wait_for(timeout=60_000)
    words = visit.page.locator("#about").inner_text()
    assert "Base weights: embedded (efficientat.safetensors). " in words
    assert f"Test accuracy {100 * accuracy:.1f} % (95 % interval " in words


def test_an_example_is_heard_as_any_file_and_a_long_one_has_a_timeline_picture(visit, finished):
    offered = visit.page.locator("#examples button")
    offered.first.wait_for(timeout=60_000)
    names = [name.strip() for name in offered.all_inner_texts()]
    assert names == ["Single stroke roll", "Single paradiddle", "Flam tap", "Double drag tap", "Three in a row"]
    offered.nth(2).click()
    visit.page.wait_for_selector("#picture #hertz", timeout=60_000)
    assert visit.page.locator("#picture #timeline").count() == 0
    offered.nth(4).click()
    visit.page.wait_for_selector("#picture #timeline", timeout=60_000)
    boxes = visit.page.locator("#timeline g")
    titles = boxes.locator("title").all_text_contents()
    lines = visit.page.locator("#word").inner_text().splitlines()
    assert titles == [line for line in lines if " – " in line]
    assert any(title.endswith(": no drum") for title in titles)
    wide = visit.page.locator("#timeline").evaluate("group => group.getBBox().width")
    assert wide == pytest.approx(1000, abs=2)
    marks = visit.page.locator("#hertz text").all_text_contents()
    assert marks == ["10 kHz", "5 kHz", "2 kHz", "1 kHz", "500 Hz", "200 Hz"]


def test_a_recording_from_the_microphone_is_heard(visit):
    """Chromium's own stand-in for a microphone beeps once a second."""
    audio = visit.page.locator("#audio")
    audio.get_by_label("Record audio").click()
    audio.get_by_role("button", name="Record", exact=True).click()
    visit.page.wait_for_timeout(1_500)
    audio.get_by_role("button", name="Stop", exact=True).click()
    visit.page.wait_for_selector("#word [data-status]", timeout=60_000)
    assert visit.page.locator("#word [data-status]").get_attribute("data-status") in ("ok", "no_drum")
    assert visit.page.locator("#picture #waveform").count() == 1


def test_the_server_calls_nobody(served):
    """Of every connection and name look-up of the process, none leaves the machine."""
    hosts = set(served.calls.read_text().split())
    assert "127.0.0.1" in hosts  # Gradio asks itself whether it is up: the list is no empty one
    assert hosts <= {"127.0.0.1", "localhost", "None", "unix"}


def test_ctrl_c_ends_it_and_leaves_no_upload(served):
    assert list(served.uploads.iterdir())
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(timeout=30) == 0
    assert list(served.uploads.iterdir()) == []


def test_a_taken_port_is_one_message(finished, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert demo.main([str(finished.folder), "--no-browser", "--port", str(port)]) == 1
    assert capsys.readouterr().err.startswith(f"error: --port {port}: another program listens there")


def test_a_missing_extra_names_the_command(monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main(["anything"]) == 1
    assert capsys.readouterr().err == "error: the demo needs gradio: pip install 'sousa-bench[demo]'\n"


def test_a_missing_example_is_one_message(finished, capsys):
    assert demo.main([str(finished.folder), "--no-browser", "--examples", "nowhere.wav"]) == 1
    assert capsys.readouterr().err == "error: --examples nowhere.wav: there is no such file\n"


def test_help_imports_nothing_heavy():
    code = "import sys; from sousa_bench.demo.__main__ import parser; parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "torch" not in done.stdout.split()
