"""A hub of its own: the calls of an upload, answered as the real one answers them, and what came is kept."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_right"
LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "unknown")
"""Of those that the hub knows, the ones that our models have."""


class Hub(ThreadingHTTPServer):
    """Repositories by name → file → bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.full = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None: ...

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer({"error": "Invalid user token."}, 401)
        return False

    def do_GET(self) -> None:
        if self.allowed():
            known = self.path == "/api/whoami-v2"
            self.answer({"name": "drummer", "type": "user", "orgs": []} if known else {}, 200 if known else 404)

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            problems = [] if header["license"] in LICENCES else [{"message": f"license {header['license']}"}]
            self.answer({"errors": problems, "warnings": []}, 400 if problems else 200)
            return
        if not self.allowed():
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created.append(asked)
            name = f"{asked.get('organization') or 'drummer'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.answer({"url": f"{self.server.address}/{name}", "name": name})
        elif self.server.full:
            self.answer({"error": "Your storage is full."}, 403)
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            name = "/".join(self.path.split("/")[3:5])
            lines = [json.loads(line) for line in body.splitlines() if line]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self.server.repositories[name] |= files
            commit = f"{self.server.address}/{name}/commit/{'a' * 40}"
            self.answer({"success": True, "commitOid": "a" * 40, "commitUrl": commit, "hookOutput": ""})
        else:
            self.answer({}, 404)


@contextmanager
def running() -> Iterator[Hub]:
    """The hub, while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
