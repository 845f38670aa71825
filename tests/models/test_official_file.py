"""A checkpoint file says whose model's it is, and which variant, before anything starts."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from sousa_bench.config.composing import composed
from sousa_bench.config.fingerprint import fingerprint
from sousa_bench.config.run_config import RunConfig
from sousa_bench.models.checkpoint_contents import Contents, broken, contents
from sousa_bench.models.checkpoint_formats import read
from sousa_bench.models.official_file import objection_to, recognise, variant_told
from sousa_bench.sweep.plan import Candidate
from tests.parity.reference import table
from tests.sweep.running import Command

STATE = {"a.weight": torch.zeros(2, 3), "b": torch.nn.Parameter(torch.zeros(())), "c": torch.zeros(4, dtype=torch.half)}
ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, "-m", "sousa_bench.train"]
CFG = {"encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072}


class Callback:
    """Stands for a class that a Lightning file names."""


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def efficientat(path: Path, channels: int) -> Path:
    """As much of an official file as tells its width."""
    torch.save({"features.0.0.weight": torch.zeros(8, 1, 3, 3), "classifier.2.weight": torch.zeros(8, channels)}, path)
    return path


def node(name: str, *words: str) -> dict:
    config = composed([f"model={name}", "weights=official", *words])
    return OmegaConf.to_container(config.model, resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize("container", ["safetensors", "bare", "lightning", "model", "old"])
def test_shapes_are_those_that_torch_reads(container: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    if container == "safetensors":
        save_file({key: value.detach() for key, value in STATE.items()}, path, metadata={"x": "y"})
    elif container == "lightning":
        extra = {"callbacks": {Callback: {"best": 0.5}}, "hyper_parameters": argparse.Namespace(lr=[1]), "epoch": 3}
        torch.save({"state_dict": STATE, **extra}, path)
    elif container == "model":
        torch.save({"model": STATE, "cfg": CFG}, path)
    else:
        torch.save(torch.nn.Module().state_dict() | STATE, path, _use_new_zipfile_serialization=container == "bare")
    found, (state, _) = contents(path), read(path)
    assert found is not None
    assert found.shapes == {key: tuple(value.shape) for key, value in state.items()}
    assert container != "model" or found.extra == {"cfg": CFG}
    assert container != "lightning" or found.extra["epoch"] == 3


def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save({"state_dict": STATE, "more": Malicious()}, name, _use_new_zipfile_serialization=zipped)
        found = contents(Path(name))
        assert found is not None
        assert len(found.shapes) == len(STATE)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is neither a safetensors file nor one that torch.save wrote"),
        (b"<!DOCTYPE html>", "is neither a safetensors file nor one that torch.save wrote"),
        (b"\x10\0\0\0\0\0\0\0{", "is cut short, or no safetensors file"),
        (b"PK\x03\x04 cut short", "is cut short"),
        (b"\x80\x02N.", None),  # a pickle, of which only loading tells
    ],
)
def test_what_is_no_whole_checkpoint_is_refused_before_anything_starts(
    content: bytes, says: str | None, tmp_path: Path
) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    assert contents(tmp_path / "x.pt") is None
    words = (f"model.checkpoint={tmp_path / 'x.pt'}",)
    reason = objection_to(node("ast", *words))
    assert (reason is None) if says is None else (says in str(reason))
    assert variant_told(node("ast", *words)) is None


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("format_", ["torch", "safetensors"])
def test_a_file_that_lost_its_end_is_refused_and_a_whole_one_is_not(format_: str, cut: int, tmp_path: Path) -> None:
    file = tmp_path / "x"
    if format_ == "torch":
        torch.save({"state_dict": STATE}, file)
    else:
        save_file({key: value.detach() for key, value in STATE.items()}, file)
    file.write_bytes(file.read_bytes()[: -cut or None])
    reason = objection_to(node("ast", f"model.checkpoint={file}"))
    assert (reason is None) if not cut else ("is cut short" in str(reason))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mn10_as_hop_15_mAP_463.pt", "another front end"),
        ("mn10_as_mels_64_mAP_461.pt", "another front end"),
        ("mn04_im.pt", "ImageNet's weights"),
        ("mn10_im_pytorch.pt", "ImageNet's weights"),
        ("mn40_as_no_im_pre_mAP_483.pt", None),
        ("mn10_as_mAP_471.pt", None),
        ("mn04_im_drums.pt", None),
    ],
)
def test_files_of_other_front_ends_and_heads_are_told_by_name(name: str, says: str | None, tmp_path: Path) -> None:
    layer = {"features.0.0.weight": torch.zeros(16, 1, 3, 3), "classifier.2.weight": torch.zeros(1280, 960)}
    torch.save(layer, tmp_path / name)
    for place in (str(tmp_path / name), f"https://example.org/{name}"):
        reason = objection_to(node("efficientat", f"model.checkpoint={place}"))
        assert (reason is None) if says is None else (says in str(reason)), place


def test_another_zip_is_refused_and_so_is_what_cannot_be_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("a.txt", "")
    assert "neither a safetensors file" in str(objection_to(node("ast", f"model.checkpoint={tmp_path / 'x.pt'}")))
    assert broken(tmp_path) == "can't be read (Is a directory)"


def test_a_file_or_folder_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for place, says in (
        ("nothere.pt", "there is no such file"),
        (f"file://{tmp_path}/x.safetensors", "there is no such file"),
        (str(tmp_path), "the folder holds no model.safetensors"),
        ("owner/name", None),  # of the hub
        ("hf://owner/name/file.pt", None),
        ("https://example.org/x.pt", None),
    ):
        reason = objection_to(node("ast", f"model.checkpoint={place}"))
        assert (reason is None) if says is None else (says in str(reason)), place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "keys", "model", "variant"),
    [
        ("ast", "keys.json", "ast", "official"),
        ("ast", "keys_original.json", "ast", "official"),
        ("htsat", "keys.json", "htsat", "official"),
        ("beats", "keys.json", "beats", "official"),
        ("efficientat", "keys.json", "efficientat", "official"),
        ("efficientat", "keys_mn04_as.json", "efficientat", "mn04"),
        *(("ced", keys, "ced", "official") for keys in ("keys.json", "keys_original.json")),
        ("ced", "keys_tiny.json", "ced", "ced-tiny"),
        *(
            ("dasheng", keys, "dasheng", "official")
            for keys in ("keys.json", "keys_original.json", "keys_audioset.json")
        ),
        ("passt", "keys.json", "passt", "official"),
        ("eat", "keys.json", "eat", "official"),
        ("openbeats", "keys.json", "openbeats", "large"),
        ("openbeats", "keys_base.json", "openbeats", "official"),
    ],
)
def test_every_published_file_is_told(folder: str, keys: str, model: str | None, variant: str | None) -> None:
    shapes = {entry["key"]: tuple(entry["shape"]) for entry in table(folder, keys)["keys"]}
    official = node("beats")["variants"]["official"]
    found = recognise(Contents(shapes, {"cfg": official} if folder == "beats" else {}))
    assert (found and found.model) == model
    if model is not None:
        fitting = found.fitting(node(model)["variants"])
        assert fitting[0] == variant
        assert "tiny" not in fitting


def test_claps_file_is_told_from_audiosets(tmp_path: Path) -> None:
    key = "patch_embed.proj.weight"
    for prefix, variant in (("audio_model.audio_encoder.", "clap"), ("sed_model.", "official")):
        save_file({prefix + key: torch.zeros(96, 1, 4, 4)}, tmp_path / "model.safetensors")
        model = node("htsat", f"model.checkpoint={tmp_path}")  # the folder, as the hub lays it out
        assert variant_told(model) == variant
        assert objection_to({**model, "variant": variant}) is None
        other = {"clap": "official", "official": "clap"}[variant]
        assert f"give model.variant={variant}" in str(objection_to({**model, "variant": other}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("model.variant=mn10",), r"embedding_channels=384, where model.variant=mn10 has 960: leave model.variant out"),
        (("-m", "model=efficientat,beats"), "is a checkpoint of efficientat, and this is model=beats: give model=eff"),
    ],
)
def test_another_file_is_refused_before_anything_starts(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    file = efficientat(tmp_path / "renamed.bin", 384)
    train = Command(tmp_path, TRAIN)
    said = train("model=efficientat", "weights=official", f"model.checkpoint={file}", *words, code=2)
    assert says in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.slow
def test_weights_that_cannot_be_had_are_asked_for_before_any_clip_is_decoded(tmp_path: Path) -> None:
    train = Command(tmp_path, TRAIN, SOUSA_BENCH_CACHE=str(tmp_path / "cache"))
    words = ("model=efficientat", "weights=official", "model.variant=mn04", "logger=none")
    said = train(*words, "model.checkpoint=http://127.0.0.1:9/x.pt", code=1)
    assert "The weights at http://127.0.0.1:9/x.pt can't be had" in said
    assert not (tmp_path / "cache" / "clips").exists()


def test_a_width_that_was_never_published_is_refused(tmp_path: Path) -> None:
    words = (f"model.checkpoint={efficientat(tmp_path / 'x.pt', 288)}",)
    assert "fits none of official, tiny, mn01" in str(objection_to(node("efficientat", *words)))
    assert objection_to(node("efficientat", *words, "model.variants.tiny.width=0.3")) is None


@pytest.mark.slow
def test_a_variant_that_followed_and_one_that_was_given_are_one_run(tmp_path: Path) -> None:
    file = efficientat(tmp_path / "renamed.bin", 384)
    train = Command(tmp_path, TRAIN)
    words = ("model=efficientat", "weights=official", f"model.checkpoint={file}", "resume=failed", "sweep=s")
    train("-m", *words, "model.variant=null,mn04", code=1)  # nothing has failed, so nothing is run
    first, second = json.loads((tmp_path / "multirun" / "s" / "sweep.json").read_text())["jobs"]
    assert first["fingerprint"] == second["fingerprint"]
    assert second["status"] == "duplicate"


@pytest.mark.parametrize("channels", [960, 384])
def test_a_run_that_could_be_before_keeps_its_identity(channels: int, tmp_path: Path) -> None:
    """With null a file of the default variant was taken before too, and counts as it did."""
    file = efficientat(tmp_path / "x.pt", channels)
    words = ["model=efficientat", "weights=official", f"model.checkpoint={file}", "logger=none"]
    open_, given = composed(words), composed([*words, f"model.variant={'official' if channels == 960 else 'mn04'}"])
    assert (fingerprint(open_) == fingerprint(given)) is (channels == 384)
    candidate = Candidate.of(RunConfig(open_), words)
    assert candidate.digest == fingerprint(composed(words))
    assert candidate.config.model.variant == (None if channels == 960 else "mn04")


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "conf/hydra/help/sousa.yaml", "docs/models.md"])
def test_every_published_variant_is_named_where_a_user_looks(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = [
        name
        for model in (
            "efficientat",
            "htsat",
            "ced",
            "dasheng",
            "eat",
            "passt",
            "openbeats",
            "hubert",
            "wavlm",
            "whisper",
        )
        for name in node(model)["variants"]
        if name != "tiny"
    ]
    assert len(named) == 41
    assert [name for name in named if not re.search(rf"\b{name}\b", text)] == []
