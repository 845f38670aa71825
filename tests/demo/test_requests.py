"""What the page's server refuses, whom it keeps waiting, and what it leaves behind: nothing."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from sousa_bench.data.rudiments import TASK
from sousa_bench.demo import server
from sousa_bench.inference.predictor import Predictor

pytest.importorskip("gradio")

Serve = Callable[[Callable[[int], None]], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve a page, and call with its port in place of waiting for Ctrl-C."""
    model = SimpleNamespace(
        name="model",
        task=TASK,
        labels=["flam"],
        max_duration=5.0,
        windows=None,
        sample_rate=16_000,
        run=None,
        description={},
        confidence=None,
    )
    monkeypatch.setattr(Predictor, "open", lambda *_, **__: model)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    with socket.socket() as probe:
        probe.bind((server.HOST, 0))
        port = probe.getsockname()[1]

    def serving(ask: Callable[[int], None]) -> None:
        monkeypatch.setattr(server.signal, "pause", lambda: ask(port))
        server.serve(Path("model"), port=port, browser=False)

    return serving


def request(port: int, place: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and content of an answer."""
    with closing(http.client.HTTPConnection(server.HOST, port, timeout=30)) as connection:
        connection.request(method, place, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()


def upload(port: int, content: bytes) -> tuple[int, bytes]:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + content + b"\r\n--x--\r\n"
    return request(port, "/gradio_api/upload", "POST", body, Content_Type="multipart/form-data; boundary=x")


def test_a_request_to_another_name_is_refused(serve: Serve) -> None:
    answers = {}

    def ask(port: int) -> None:
        for host in ("evil.example", "localhost", "127.0.0.1"):
            answers[host] = request(port, "/config", Host=f"{host}:{port}")[0]

    serve(ask)
    assert answers == {"evil.example": 400, "localhost": 200, "127.0.0.1": 200}


def test_it_listens_on_this_machine_alone(serve: Serve) -> None:
    places = []

    def ask(port: int) -> None:
        lines = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
        places.extend(fields[1] for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "0A")

    serve(ask)
    assert [place.split(":")[0] for place in places] == ["0100007F"]  # 127.0.0.1, its bytes in the machine's order


def test_too_large_an_upload_is_refused_before_it_is_read(serve: Serve) -> None:
    """The client sends a head and not one byte of what it announces."""
    answers = []

    def ask(port: int) -> None:
        for said in (str(server.MOST_BYTES + 1), "-1", "x"):
            with socket.create_connection((server.HOST, port), timeout=30) as client:
                head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {said}\r\n\r\n"
                client.sendall(head.encode())
                answers.append(client.recv(1000).split(b" ")[1])

    serve(ask)
    assert answers == [b"413", b"400", b"400"]


@pytest.mark.slow
def test_fifty_at_once_beside_one_that_never_ends_and_nothing_is_left(serve: Serve) -> None:
    found = {}

    def ask(port: int) -> None:
        head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        kind = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
        with socket.create_connection((server.HOST, port), timeout=30) as endless, ThreadPoolExecutor(50) as people:
            endless.sendall(head + kind)
            sounds = [os.urandom(1000) for _ in range(50)]
            answers = list(people.map(lambda sound: upload(port, sound), sounds))
        found["statuses"] = {status for status, _ in answers}
        places = [Path(json.loads(text)[0]) for _, text in answers]
        found["kept"] = [place.read_bytes() for place in places] == sounds
        folder = places[0].parents[1]
        found["listed"] = [
            request(port, f"/gradio_api/file={path}")[0]
            for path in (folder, places[0].parent, folder / "x" / "a.wav", "/etc/passwd", f"{folder}/../../etc/passwd")
        ]
        found["folder"] = folder

    serve(ask)
    assert found["statuses"] == {200}
    assert found["kept"]
    assert not set(found["listed"]) & {200}
    assert not found["folder"].exists()
