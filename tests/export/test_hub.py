"""Uploading to a hub on this machine through the real client, and what is said where it can't be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.hub import TOKEN, Hub, running

pytestmark = pytest.mark.slow

PUSH = """
import sys
from pathlib import Path
from sousa_bench.errors import UserError
from sousa_bench.export import upload
try:
    upload.check_access(sys.argv[2])
    print(upload.push(Path(sys.argv[1]), sys.argv[2], private=True))
except UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as made:
        yield made


def run(words: list[str], address: str, token: str | None, home: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since the client reads its address once, when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    given = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        **({"HF_TOKEN": token} if token else {}),
    }
    return subprocess.run(
        [sys.executable, *words], env={**kept, **given}, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_package_arrives_file_by_file(hub, package, tmp_path):
    done = run(["-c", PUSH, str(package), "drummer/rudiments"], hub.address, TOKEN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.address}/drummer/rudiments/commit/{'a' * 40}"
    files = {path.name: path.read_bytes() for path in package.iterdir()}
    assert hub.repositories["drummer/rudiments"] == files
    asked = hub.created[0]
    assert asked.get("visibility") == "private" or asked.get("private") is True  # older clients say it so


def test_a_refused_upload_says_why_and_that_the_package_stands(hub, package, tmp_path):
    hub.full = True
    done = run(["-c", PUSH, str(package), "drummer/rudiments"], hub.address, TOKEN, tmp_path)
    assert done.returncode == 1
    assert "the package stands in" in done.stderr
    assert "403" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("repo", "token", "dead", "message"),
    [
        ("drummer/rudiments", None, False, "there is no token; log in first"),
        ("drummer/rudiments", "hf_wrong", False, "the hub doesn't let us in"),
        ("drummer/rudiments", TOKEN, True, "the hub doesn't let us in"),
        ("rudiments", TOKEN, False, "give OWNER/NAME"),
    ],
)
def test_what_is_missing_is_one_message_before_any_work(repo, token, dead, message, hub, finished, tmp_path):
    address = "http://127.0.0.1:9" if dead else hub.address
    words = ["-m", "sousa_bench.export", str(finished.folder), str(tmp_path / "new"), "--push-to-hub", repo]
    done = run(words, address, token, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --push-to-hub {repo}: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()
