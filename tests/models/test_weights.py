import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from building import build
from safetensors.torch import save_file
from torch import nn

from sousa_bench.errors import ConfigError, WeightsError
from sousa_bench.models import download, weight_files
from sousa_bench.models.weights import CheckpointSource, apply_state, load_official, random_info, seeded
from sousa_bench.pretrain.packing import header

SOURCE = CheckpointSource(hub="owner/name", license="MIT")
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def model() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(3, 2)})


def equal(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


class Callback:
    """Stands for a class that a Lightning file names."""


@pytest.mark.parametrize("container", ["safetensors", "bare", "lightning", "model", "old"])
def test_reads_every_container(container: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"  # The name says nothing of the container.
    if container == "safetensors":
        save_file(STATE, path)
    elif container == "lightning":
        extra = {"callbacks": {Callback: {"best": 0.5}}, "hyper_parameters": argparse.Namespace(lr=1), "epoch": 3}
        torch.save({"state_dict": STATE, **extra}, path)
    elif container == "model":
        torch.save({"model": STATE, "cfg": {"layers": 2}}, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=container == "bare")
    loaded = load_official(SOURCE, str(path))
    assert equal(loaded.state)
    assert loaded.info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.info.as_dict()["kind"] == "official"
    assert loaded.info.origin == "weights.bin"
    assert container != "model" or loaded.extra == {"cfg": {"layers": 2}}
    assert container != "lightning" or loaded.extra["epoch"] == 3


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "more": Malicious()}, tmp_path / "bad.ckpt")
    with pytest.raises(WeightsError, match=r"bad\.ckpt is no checkpoint of plain tensors.*system"):
        load_official(SOURCE, "bad.ckpt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x10\0\0\0\0\0\0\0{", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"junk\.pt"):
        load_official(SOURCE, str(path))


def test_a_file_without_a_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_official(SOURCE, str(tmp_path / "list.pt"))


def test_a_folder_as_the_hub_lays_it_out(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert equal(load_official(SOURCE, str(tmp_path)).state)
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors"):
        load_official(SOURCE, str(tmp_path.parent))


def test_missing_file_names_the_ways_out() -> None:
    with pytest.raises(WeightsError, match=r"no/such\.pth: there is no such file.*hf://owner/name/file"):
        load_official(SOURCE, "no/such.pth")


def test_every_mismatch_is_listed() -> None:
    state = {"a.weight": torch.zeros(3, 3), "b.weight": torch.zeros(1), "c": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        apply_state(model(), state, origin="file.pt")
    message = str(error.value)
    assert "missing (1): a.bias" in message
    assert "unexpected (2): b.weight, c" in message
    assert "a.weight: (3, 3) in the file, (2, 3) in the model" in message


def test_a_mismatch_changes_nothing() -> None:
    module = model()
    before = module["a"].weight.clone()
    with pytest.raises(WeightsError):
        apply_state(module, {"a.weight": torch.zeros(2, 3)}, origin="file.pt")
    assert torch.equal(module["a"].weight, before)


def test_fresh_keys_keep_their_values() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 2), "head": nn.Linear(2, 5)})
    before = module["head"].weight.clone()
    apply_state(
        module,
        {**STATE, "head.weight": torch.zeros(9, 2)},
        origin="f",
        fresh=("head",),
    )
    assert torch.equal(module["a"].weight, STATE["a.weight"])
    assert torch.equal(module["head"].weight, before)


def test_random_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with seeded(7):
        first = model()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    with seeded(7):
        second = model()
    with seeded(8):
        third = model()
    assert random_info(7, first) == random_info(7, second)
    assert (random_info(7, first).origin, random_info(7, first).pretraining) == ("seed 7", "none")
    assert random_info(7, first).sha256 != random_info(8, third).sha256


@pytest.mark.parametrize("name", ["ast", "htsat"])
def test_embedded_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "embedded_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match=rf"no embedded weights for model={name}.*weights=random"):
        build(name, weights="embedded")
    source = build(name, seed=5)
    head = source.head_name + "."
    trained = {k: v for k, v in source.backbone.state_dict().items() if not k.startswith(head)}
    if name == "ast":  # Its head's LayerNorm belongs to the trunk's weights.
        trained |= {k: v for k, v in source.backbone.state_dict().items() if "classifier.layernorm" in k}
    packed = {k: v.contiguous() for k, v in trained.items()}
    save_file(packed, tmp_path / f"{name}.safetensors", metadata=header({"model": name}))
    loaded = build(name, weights="embedded", seed=6)
    assert (loaded.weights.kind, loaded.weights.pretraining, loaded.variant) == ("embedded", "embedded", "tiny")
    assert all(torch.equal(loaded.backbone.state_dict()[key], value) for key, value in trained.items())


def test_weights_policy_is_explicit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights=pretrained: there is no such choice.*official, random, embedded"):
        build("ast", weights="pretrained")
    with pytest.raises(ConfigError, match=r"model\.checkpoint=x\.pth would not be read.*weights=official"):
        build("ast", checkpoint="x.pth")
    with pytest.raises(ConfigError, match=r"model\.variant=huge is unknown.*official, tiny"):
        build("ast", variant="huge")


class Server(BaseHTTPRequestHandler):
    """A URL, a hub and a dead host in one."""

    content = b""
    stated_hash = ""
    requests = 0

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        type(self).requests += 1
        if "silent" in self.path:
            time.sleep(3)
            return
        self._head()
        self.wfile.write(self.content[: len(self.content) // 2] if "cut" in self.path else self.content)

    def _head(self) -> None:
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", f'"{self.stated_hash}"')
        self.send_header("X-Linked-Etag", f'"{self.stated_hash}"')
        self.send_header("X-Linked-Size", str(len(self.content)))
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    save_file(STATE, tmp_path / "published.safetensors")
    Server.content = (tmp_path / "published.safetensors").read_bytes()
    Server.stated_hash = hashlib.sha256(Server.content).hexdigest()
    Server.requests = 0
    monkeypatch.setenv("SOUSA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def test_url_is_fetched_once(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_official(SOURCE, f"{server}/w.safetensors#sha256={Server.stated_hash}")
    assert equal(loaded.state)
    assert (loaded.info.origin, loaded.info.sha256) == (f"{server}/w.safetensors", Server.stated_hash)
    assert "w.safetensors" in capfd.readouterr().err  # The progress bar
    load_official(SOURCE, f"{server}/w.safetensors")
    assert Server.requests == 1


def test_url_with_another_hash(server: str) -> None:
    with pytest.raises(WeightsError, match=f"SHA-256 {Server.stated_hash}, not {'0' * 64}"):
        load_official(SOURCE, f"{server}/w.safetensors#sha256={'0' * 64}")


@pytest.mark.parametrize("path", ["missing.pt", "cut.pt"])
def test_url_that_fails_leaves_nothing_behind(server: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"can't be had.*model\.checkpoint=FILE.*weights=random"):
        load_official(SOURCE, f"{server}/{path}")
    left = [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert all(name.endswith(".lock") for name in left)


def test_dead_host_is_given_up_on(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.CONNECT_SECONDS <= 9  # The promise is 10 s.
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.5)
    with pytest.raises(WeightsError, match=r"no answer within 0\.5 s.*weights=random"):
        load_official(SOURCE, f"{server}/silent.pt")


HUB_CLIENT = """
import json, sys
from sousa_bench.errors import WeightsError
from sousa_bench.models.weights import CheckpointSource, load_official
out = []
for address in sys.argv[1:]:
    try:
        out.append(load_official(CheckpointSource(hub="owner/name", license="MIT"), address or None).info.as_dict())
    except WeightsError as error:
        out.append(str(error))
print(json.dumps(out))
"""


def hub(endpoint: str, home: Path, *addresses: str) -> list:
    """What a process whose hub is ``endpoint`` gets for these checkpoints."""
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", HUB_CLIENT, *addresses], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_hub(server: str, tmp_path: Path) -> None:
    """Default source, an explicit file at a revision, a repository without the file; then the cache without a hub."""
    first, second, missing = hub(server, tmp_path / "hf", "", "hf://other/thing/sub/w.safetensors@v1", "owner/missing")
    assert first["sha256"] == second["sha256"] == Server.stated_hash
    assert (first["origin"], first["license"]) == ("hf://owner/name/model.safetensors", "MIT")
    assert second["license"] is None
    assert "can't be had from the hub" in missing
    assert "weights=random" in missing
    asked = Server.requests
    again, absent = hub("http://127.0.0.1:1", tmp_path / "hf", "", "no/where")
    assert again == first
    assert Server.requests == asked
    assert "can't be had from the hub" in absent


@pytest.mark.slow
def test_hub_with_another_hash_than_it_states(server: str, tmp_path: Path) -> None:
    Server.stated_hash = "0" * 64
    (refused,) = hub(server, tmp_path / "hf", "")
    assert "has SHA-256" in refused
    assert "0" * 64 in refused
