"""A dataset on the hub: against a small server that speaks the hub's interface, and against none."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_layouts import made_up, write_labelled_hub
from noise_data import rows, write_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves one dataset, `someone/drums`, and notes what is asked for.

    Answers: the dataset's facts, its files (whole or in ranges), and nothing else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sent: dict[str, int] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                paths = json.loads(self.rfile.read(length) or b"{}").get("paths", [])
                self.json([outer.entry(name) for name in outer.names() if name in paths])

            def json(self, content: object, status: int = 200) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def answer(self, body: bool) -> None:
                path = self.path.split("?")[0]
                if re.fullmatch(r"/api/datasets/someone/drums(/revision/[^/]+)?", path):
                    siblings = [{"rfilename": name} | outer.entry(name) for name in outer.names()]
                    self.json({"id": "someone/drums", "sha": COMMIT, "siblings": siblings, "private": False})
                elif path.startswith("/api/datasets/someone/drums/tree/"):
                    self.json([outer.entry(name) for name in outer.names()])
                elif match := re.fullmatch(r"/datasets/someone/drums/resolve/[^/]+/(.+)", path):
                    self.file(match[1], body)
                else:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def file(self, name: str, body: bool) -> None:
                content = (outer.root / name).read_bytes()
                span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                total = len(content)
                first, last = (int(span[1]), int(span[2] or total - 1)) if span else (0, total - 1)
                last = min(last, total - 1)
                part = content[first : last + 1]
                self.send_response(206 if span else 200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Linked-Size", str(total))
                self.send_header("Accept-Ranges", "bytes")
                if span:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                if body:
                    outer.sent[name] = outer.sent.get(name, 0) + len(part)
                    self.wfile.write(part)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def entry(self, name: str) -> dict[str, object]:
        content = (self.root / name).read_bytes()
        oid = hashlib.sha256(content).hexdigest()
        return {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": oid[:40],
            "blobId": oid[:40],
            "lfs": {"oid": oid, "sha256": oid, "size": len(content), "pointerSize": 130},
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    write_hub(tmp_path / "served", rows(players=6, rudiments=5, clips=16), shards=2, row_group=1000)
    (tmp_path / "served" / "README.md").write_text("# drums\n")
    hub = Hub(tmp_path / "served")
    yield hub
    hub.close()


RUN = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)
from sousa_bench.data import SousaData
from sousa_bench.errors import UserError
made = SousaData("tiny", hub_id=sys.argv[1], clips=json.loads(sys.argv[2]))
try:
    made.prepare([16_000])
except UserError as error:
    sys.exit(f"ERROR {error}")
print(json.dumps({"counts": made.describe()["counts"], "fingerprint": made.fingerprint,
                  "read": int(abs(made.waveforms("test", 16_000).read(0).astype(int)).max())}))
"""


def run(tmp_path: Path, endpoint: str, hub_id: str = "someone/drums", clips: str = "{}", **environment: str):
    """In a process of its own: huggingface_hub reads its variables when it is imported."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    variables |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        variables[name] = ""
    kept = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
    command = [sys.executable, "-c", RUN, hub_id, clips]
    return subprocess.run(command, env=kept | variables | environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_only_the_shards_that_a_subset_needs(served: Hub, tmp_path: Path) -> None:
    small = '{"train": 5, "val": 2, "test": 2}'
    done = run(tmp_path, served.url, clips=small)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["counts"] == {"train": 5, "val": 2, "test": 2}
    assert facts["read"] > 1000
    sizes = {name: (served.root / name).stat().st_size for name in served.names() if name.endswith(".parquet")}
    fetched = {f"audio/{path.name}" for path in (tmp_path / "hf").rglob("snapshots/*/audio/*.parquet")}
    assert sum("train" in name for name in fetched) == 1
    assert fetched < set(sizes)
    for name in set(sizes) - fetched:  # of the others, the list of clips alone
        assert served.sent[name] < 0.5 * sizes[name]
    before = dict(served.sent)
    again = run(tmp_path, served.url, clips=small)
    assert json.loads(again.stdout) == facts
    assert served.sent == before
    assert "Decoding" not in again.stderr


@pytest.mark.slow
def test_without_a_network_what_was_fetched_is_used_again(served: Hub, tmp_path: Path) -> None:
    first = run(tmp_path, served.url)
    assert first.returncode == 0, first.stderr
    served.close()
    again = run(tmp_path, served.url)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert "can't be reached" in again.stderr
    offline = run(tmp_path, served.url, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout


def test_the_same_clips_as_from_a_folder(served: Hub, tmp_path: Path) -> None:
    from noise_data import data

    clips = {"train": 12, "val": 3, "test": 40}
    done = run(tmp_path, served.url, clips=json.dumps(clips))
    assert json.loads(done.stdout)["fingerprint"] == data(served.root, clips=clips).fingerprint


def test_no_such_dataset(served: Hub, tmp_path: Path) -> None:
    done = run(tmp_path, served.url, hub_id="someone/drum")
    assert "ERROR hub dataset someone/drum doesn't exist" in done.stderr
    assert "data.hub_id" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_dead_network_is_told(tmp_path: Path, kind: str) -> None:
    """Once a port that nobody listens on, once a server that takes the call and never answers."""
    import socket

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if kind == "silent":
        listener.listen(50)
    try:
        done = run(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", hub_id="zkeown/sousa")
    finally:
        listener.close()
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("ERROR") :]
    assert "zkeown/sousa can't be reached" in message
    assert all(way in message for way in ("data.root=FOLDER", "SOUSA_ROOT", "data=synthetic"))
    assert "Traceback" not in done.stderr


def test_patience_ends_what_has_no_time_limit() -> None:
    from sousa_bench.data.sources.hub import PATIENCE, within

    assert PATIENCE < 10
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.1, never.wait)
    never.set()
    assert within(5, lambda: 7) == 7
    with pytest.raises(KeyError):
        within(5, lambda: {}["x"])


@pytest.mark.slow
def test_a_dataset_of_another_task(tmp_path: Path) -> None:
    """Its labels come from the features in its schema, its audio from the shards that are needed."""
    write_labelled_hub(tmp_path / "served", made_up(tmp_path / "clips"))
    hub = Hub(tmp_path / "served")
    small = '{"train": 3, "val": 3, "test": 3}'
    done = run(tmp_path, hub.url, clips=small)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"train": 3, "val": 3, "test": 3}
    fetched = {path.name for path in (tmp_path / "hf").rglob("snapshots/*/data/*.parquet")}
    assert 3 <= len(fetched) < 6
    hub.close()
    assert run(tmp_path, hub.url, clips=small).stdout == done.stdout
