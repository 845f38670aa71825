"""The command that lists the models: its numbers are the networks', and it sees what is on the disk, offline."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from building import build
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

from sousa_bench.catalogue.list_models import main
from sousa_bench.catalogue.model_facts import model_facts, model_node
from sousa_bench.models.multiply_adds import multiply_adds
from sousa_bench.models.published import Size, sizes
from sousa_bench.system.text_table import scaled
from sousa_bench.training.network_facts import network_facts
from tests.cases import check_each

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = [(model["model"], row["variant"]) for model in model_facts() for row in model["variants"]]
NEEDS_VALUES = ("efficientat", "htsat")  # moves its layers, or reads a number of a tensor: no tensors without values


def measured(name: str, variant: str) -> tuple[int, int, int]:
    """Sample rate, parameters and multiply-adds of the network itself."""
    node = model_node(name)
    family: Any = importlib.import_module(node["_target_"].rpartition(".")[0]).build.__self__
    numbers = family.numbers(**node["variants"][variant])
    frontend = family.frontend(numbers)
    if name in NEEDS_VALUES:
        backbone = family.backbone(numbers, 40)
        count = multiply_adds(frontend, backbone)
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            backbone = family.backbone(numbers, 40)
            count = multiply_adds(frontend, backbone)
    return frontend.sample_rate, sum(parameter.numel() for parameter in backbone.parameters()), count


def check_size(*case: str) -> None:
    known = sizes().get(case)
    found = measured(*case)
    said = f"sizes.csv should say {','.join(map(str, (*case, *found)))}"
    assert known == Size(*found), said


def test_every_variant_has_a_size() -> None:
    assert set(sizes()) == set(VARIANTS)


@pytest.mark.slow
def test_recorded_sizes_are_the_small_networks_own() -> None:
    check_each([case for case in VARIANTS if case[1] == "tiny"], check_size)


@pytest.mark.slow
def test_recorded_sizes_are_the_networks_own() -> None:
    check_each([case for case in VARIANTS if case[1] != "tiny"], check_size)


def test_multiply_adds_are_those_of_a_network_by_hand() -> None:
    """AST's tiny one: 4 rows of patches, 49 columns of them, two tokens; four blocks of width 96."""
    tokens, dim, patch = 4 * 49 + 2, 96, 16 * 16
    block = tokens * 12 * dim**2 + 2 * tokens**2 * dim
    model = build("ast")
    model.backbone.eval()
    model.backbone.trunk.layernorm.train()
    expected = 4 * 49 * patch * dim + 4 * block + 40 * dim
    assert sizes()["ast", "tiny"].multiply_adds == multiply_adds(model.frontend, model.backbone) == expected
    assert [name for name, module in model.backbone.named_modules() if module.training] == ["trunk.layernorm"]


def test_a_network_of_other_numbers_is_counted_anew() -> None:
    node = OmegaConf.create(model_node("whisper"))
    assert network_facts(build("whisper"), node)["multiply_adds"] == sizes()["whisper", "tiny"].multiply_adds
    node.variants.tiny.layers = 1
    half = network_facts(build("whisper", variants={"tiny": {"layers": 1}}), node)
    assert half["multiply_adds"] < 0.6 * sizes()["whisper", "tiny"].multiply_adds
    fill = OmegaConf.create(model_node("whisper") | {"fill": False})
    counted = network_facts(build("whisper", variants={"tiny": {"layers": 1}}), fill)
    assert counted == half, "what stands beside the variants decides, too"


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sousa_bench.models", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_the_list_fits_a_terminal_and_loads_no_torch(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in done.stdout
    for name, variant in VARIANTS:
        assert any(re.match(rf"({name})? +{variant} ", line) for line in lines), (name, variant)
    [ast] = [line for line in lines if line.startswith("ast ") and "official" in line]
    assert re.split(r" {2,}", ast)[1:5] == ["official", "86.2 M", "56.6 G", "AudioSet labels"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sousa_bench.models.published" in imported
    assert not {"torch", "transformers", "peft"} & imported


def test_what_lies_on_this_disk_is_found(tmp_path: Path) -> None:
    address = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn02_as_mAP_378.pt"
    fetched = tmp_path / "cache" / "weights" / hashlib.sha256(address.encode()).hexdigest()[:16] / "mn02_as_mAP_378.pt"
    commit = "ace276d29dd0bb3f3517b0fa8cf300738c409019"
    hub = tmp_path / "hub" / "models--mispeech--ced-tiny" / "snapshots" / commit / "model.safetensors"
    for file in (fetched, hub):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 1234)
    done = run(
        *("efficientat", "ced", "htsat", "--json"),
        cwd=tmp_path,
        SOUSA_BENCH_CACHE=str(tmp_path / "cache"),
        HF_HUB_CACHE=str(tmp_path / "hub"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert [model["model"] for model in found] == ["htsat", "efficientat", "ced"]
    rows = {(model["model"], row["variant"]): row for model in found for row in model["variants"]}
    there = {key: (row["on_disk"], row["bytes"]) for key, row in rows.items() if row["on_disk"]}
    package = ROOT / "sousa_bench" / "models" / "embedded"
    assert there == {
        ("htsat", "tiny"): ("package", (package / "htsat.safetensors").stat().st_size),
        ("efficientat", "tiny"): ("package", (package / "efficientat.safetensors").stat().st_size),
        ("efficientat", "mn02"): ("cache", 1234),
        ("ced", "tiny"): ("package", (package / "ced.safetensors").stat().st_size),
        ("ced", "ced-tiny"): ("hub cache", 1234),
    }
    assert rows["ced", "ced-tiny"]["checkpoint"] == f"hf://mispeech/ced-tiny/model.safetensors@{commit}"
    assert rows["ced", "ced-tiny"]["path"] == str(hub)
    assert (rows["htsat", "official"]["licence"], rows["htsat", "clap"]["licence"]) == ("MIT", "Apache-2.0")
    assert (rows["htsat", "tiny"]["licence"], rows["htsat", "tiny"]["pretraining"]) == ("MIT", "embedded")


def test_named_models_show_their_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dasheng", "beats"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    assert re.search(r"^dasheng dasheng-06B +hf://mispeech/dasheng-0.6B/model.safetensors$", said, re.M)
    assert re.search(r"^beats official +BEATs_iter3_plus_AS2M.pt$", said, re.M)
    assert "ast" not in said.split()


def test_a_network_is_timed_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["ced", "--variants", "tiny", "--latency", "--threads", "1", "--json"]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr()
    [[row]] = [model["variants"] for model in json.loads(said.out)]
    assert (row["variant"], row["threads"]) == ("tiny", 1)
    assert 0.1 < row["latency_ms"] < 10_000
    assert said.err == "timing ced tiny …\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg"], "there is no model vgg; models: ast, htsat, beats, efficientat, ced"),
        (["ced", "--variants", "mn04"], "no variant mn04; variants: official, tiny, ced-base"),
        (["--latency"], "--latency runs every network that is listed: name models or --variants"),
        (["ced", "--threads", "2"], "--threads is for --latency"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: Any = main(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_the_table_in_the_docs_is_the_commands() -> None:
    lines = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("| `model=` | architecture")) + 2 :]
    rows = {match[1]: line for line in table if (match := re.match(r"\| `(\w+)` \|", line))}
    for model in model_facts():
        if model["model"] == "cnn":
            continue
        cells = [cell.strip() for cell in rows[model["model"]].strip("|").split("|")]
        official, tiny = ({row["variant"]: row for row in model["variants"]}[key] for key in ("official", "tiny"))
        assert cells[1] == model["architecture"]
        assert cells[2].startswith(f"{official['sample_rate'] / 1000:g} kHz")
        assert cells[3:5] == [f"{row['parameters']:,}" for row in (official, tiny)]
        assert cells[5] == f"{scaled(official['multiply_adds'])}, {scaled(tiny['multiply_adds'])}"
        assert cells[6].startswith(official["licence"] or "none found")
