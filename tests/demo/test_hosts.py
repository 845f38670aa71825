"""The page answers to this machine's own names alone."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from sousa_bench.data.rudiments import TASK
from sousa_bench.demo import server
from sousa_bench.inference.predictor import Predictor

pytest.importorskip("gradio")


def test_a_request_to_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(name="model", task=TASK, labels=["flam"], max_duration=5.0, sample_rate=16_000)
    monkeypatch.setattr(Predictor, "open", lambda *_, **__: model)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    with socket.socket() as probe:
        probe.bind((server.HOST, 0))
        port = probe.getsockname()[1]
    answers = {}

    def ask() -> None:
        for host in ("evil.example", "localhost", "127.0.0.1"):
            connection = http.client.HTTPConnection(server.HOST, port, timeout=30)
            connection.request("GET", "/config", headers={"Host": f"{host}:{port}"})
            answers[host] = connection.getresponse().status
            connection.close()

    monkeypatch.setattr(server.signal, "pause", ask)
    server.serve(Path("model"), port=port, browser=False)
    assert answers == {"evil.example": 400, "localhost": 200, "127.0.0.1": 200}
