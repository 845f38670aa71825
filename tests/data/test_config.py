"""The config files, and what is said about values that can't be."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from noise_data import data
from omegaconf import OmegaConf

from sousa_bench.config.composing import composed
from sousa_bench.data import SousaData, fingerprint
from sousa_bench.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf" / "data"
FILES = sorted(path.stem for path in CONF.glob("*.yaml"))
SIZES = {"tiny": 1_000, "mini": 3_000, "small": 10_000, "medium": 25_000}


def test_the_choices() -> None:
    assert FILES == ["folder", "full", "medium", "mini", "pretraining", "small", "synthetic", "tiny"]


@pytest.fixture(scope="module")
def nodes() -> dict[str, dict[str, Any]]:
    """Each choice as Hydra composes it."""
    return {name: OmegaConf.to_container(composed([f"data={name}"]).data, resolve=True) for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_each_choice_opens_with_its_command_and_composes_to_every_key(name: str, nodes: dict[str, dict]) -> None:
    own = "pretrain" if name == "pretraining" else f"train data={name}"
    assert (CONF / f"{name}.yaml").read_text().startswith(f"# python -m sousa_bench.{own}")
    node = dict(nodes[name])
    assert node.pop("_target_") == "sousa_bench.data.SousaData"
    assert node["name"] == name
    assert set(node) == set(inspect.signature(SousaData).parameters)
    if name in SIZES:
        assert sum(node["clips"].values()) == SIZES[name]
    SousaData(**node).check()


def test_the_sizes_are_nested(nodes: dict[str, dict]) -> None:
    """Sizes share seed and rule, so a smaller one lies within a larger one."""
    rules = [{k: v for k, v in nodes[name].items() if k not in ("name", "clips")} for name in (*SIZES, "full")]
    assert all(rule == rules[0] for rule in rules)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("clips", {"train": 0}, r"data\.clips\.train=0"),
        ("clips", {"trian": 5}, r"data\.clips\.trian: the splits are"),
        ("clips", 80, r"data\.clips=80 can.t be: say it of a split"),
        ("max_duration", 0, r"data\.max_duration=0"),
        ("max_duration", 0.05, r"data\.max_duration=0\.05 .* at least 0\.1"),
        ("workers", 0, r"data\.workers=0 .* at least 1, or null"),
        ("workers", 1.5, r"data\.workers=1\.5"),
        ("quantum", 6.0, r"data\.quantum=6\.0"),
        ("name", "../x", r"data\.name=\.\./x .* one part of a path"),
        ("name", "..", r"data\.name=\.\. "),
        ("on_bad_clip", "ignore", r"data\.on_bad_clip=ignore .* error or skip"),
        ("shards", "some", r"data\.shards=some .* fewest or all"),
        ("resplit", "yes", r"data\.resplit=yes"),
        ("subset_seed", 0.5, r"data\.subset_seed=0\.5"),
        ("tempo_min", -3, r"data\.tempo_min=-3"),
        ("cache_limit_gb", 0, r"data\.cache_limit_gb=0"),
        ("fold", "9/5", r"data\.fold=9/5"),
        ("soundfont", [], r"data\.soundfont=\[\]"),
        ("skill_tier", 3, r"data\.skill_tier=3"),
        ("layout", "no_module.Layout", r"data\.layout=no_module\.Layout can't be imported"),
        ("layout", "pathlib.Path", r"data\.layout=pathlib\.Path can't be: .* derived from FolderSource"),
        ("synthetic", {"clips": 80, "seed": 0, "sed": 1}, r"data\.synthetic\.sed: .* mean data\.synthetic\.seed"),
        ("synthetic", [1.5], r"data\.synthetic=\[1\.5\] can't be: it is clips, seed"),
        ("synthetic", {"clips": 5, "seed": 0}, r"data\.synthetic\.clips=5"),
        ("synthetic", {"clips": 80, "seed": 0, "split_players": [1, 2]}, "split_players"),
        ("cache_dir", {"_target_": "os.system"}, r"data\.cache_dir=\{.* a folder, or null"),
        ("root", 5, r"data\.root=5 can't be: it must be a folder"),
        ("hub_id", ["x"], r"data\.hub_id=\['x'\] can't be: it must be text"),
        ("foldd", "1/5", r"data\.foldd: there is no such key\. Did you mean data\.fold"),
    ],
)
def test_impossible_values_name_their_key(generator: Path, key: str, value: object, said: str) -> None:
    node = {"name": "tiny", "root": None if key == "synthetic" else str(generator)} | {key: value}
    with pytest.raises(ConfigError, match=said):
        fingerprint(OmegaConf.create(node))


def test_choices_that_contradict_each_other(generator: Path) -> None:
    with pytest.raises(ConfigError, match="choose one"):
        data(generator, fold="1/3", resplit=True).prepare([16_000])
    with pytest.raises(ConfigError, match=r"tempo_min=100 lies above data\.tempo_max=90"):
        data(generator, tempo_min=100, tempo_max=90).prepare([16_000])
    with pytest.raises(ConfigError, match=r"reads no data\.root"):
        data(generator, name="synthetic", synthetic={"clips": 80, "seed": 0}).prepare([16_000])


def test_no_data_at_all() -> None:
    with pytest.raises(DataError, match=r"data\.root=FOLDER, set SOUSA_ROOT, or use data=synthetic"):
        data(None).prepare([16_000])


def test_fingerprint_counts_content_not_place(generator: Path, tmp_path: Path) -> None:
    first = fingerprint({"name": "tiny", "root": str(generator)})
    moved = generator.rename(tmp_path / "moved")
    same = {"name": "small", "root": str(moved), "cache_dir": str(tmp_path / "c"), "clips": {"train": 5000}}
    assert fingerprint(same) == first
    made = data(moved)
    made.prepare([16_000])
    assert made.fingerprint == first
    different = [{"max_duration": 4.0}, {"quantum": 1.0}, {"clips": {"train": 7}}, {"tempo_min": 70, "resplit": True}]
    prints = [fingerprint({"name": "tiny", "root": str(moved)} | more) for more in different]
    assert len({first, *prints}) == 5


def test_fingerprint_sees_other_audio_of_the_same_size(generator: Path) -> None:
    """All clips rendered anew as WAV: sizes and labels stay, sound doesn't."""
    import numpy as np
    import pandas as pd
    import soundfile as sf

    labels = pd.read_parquet(generator / "labels" / "samples.parquet")
    node = {"name": "tiny", "root": str(generator)}
    prints = []
    for seed in (1, 2):
        for where in labels["audio_path"]:
            sf.write(generator / where, np.random.default_rng(seed).uniform(-0.1, 0.1, 4_000), 44_100, format="WAV")
        prints.append(fingerprint(node))
    assert prints[0] != prints[1]


def test_test_fingerprint_is_that_of_the_test_clips(generator: Path) -> None:
    whole, fewer = data(generator), data(generator, clips={"train": 10}, max_duration=3.0)
    assert whole.fingerprint != fewer.fingerprint
    assert whole.test_fingerprint == fewer.test_fingerprint
    assert whole.test_fingerprint != data(generator, clips={"test": 10}).test_fingerprint


def test_no_torch(generator: Path) -> None:
    code = (
        "import sys; from sousa_bench.data import SousaData, fingerprint; "
        f"made = SousaData('tiny', root={str(generator)!r}); made.prepare([16000]); "
        "made.waveforms('test', 16000).read(0); "
        "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pandas_comes_with_the_class_only() -> None:
    """The processes that write synthetic clips import this package and would wait for pandas."""
    code = (
        "import sys, sousa_bench.data.synthetic, sousa_bench.data.synthetic.writer; "
        "assert 'pandas' not in sys.modules; "
        "from hydra.utils import instantiate; "
        "made = instantiate({'_target_': 'sousa_bench.data.SousaData', 'name': 'tiny', 'workers': 2}); "
        "assert made.workers == 2 and 'pandas' in sys.modules; "
        "from sousa_bench.data import SousaData, fingerprint; assert type(made) is SousaData and callable(fingerprint)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package() -> None:
    import sousa_bench.data

    with pytest.raises(AttributeError, match="SouzaData"):
        _ = sousa_bench.data.SouzaData


def test_workers_are_no_part_of_a_runs_identity(generator: Path) -> None:
    from sousa_bench.config.fingerprint import fingerprint as identity

    node = {"name": "tiny", "root": str(generator), "_target_": "sousa_bench.data.SousaData"}
    one, two, other = (
        identity(OmegaConf.create({"seed": 0, "data": node | more}))
        for more in ({"workers": 1}, {"workers": 2}, {"workers": 2, "quantum": 1.0})
    )
    assert one == two != other


def test_a_layout_counts_where_one_is_named() -> None:
    """Runs from before there was the key keep their identity."""
    from sousa_bench.config.fingerprint import outcome_config

    without, unset, named = (
        outcome_config(OmegaConf.create({"data": {"name": "tiny"} | more}))["data"]
        for more in ({}, {"layout": None}, {"layout": "my.Layout"})
    )
    assert without == unset != named


def test_describe_is_json(generator: Path) -> None:
    import json

    made = data(generator, skill_tier=["beginner", "advanced", "intermediate", "professional"])
    made.prepare([16_000])
    facts = json.loads(json.dumps(made.describe()))
    assert facts["asked"] == {"train": 800, "val": 100, "test": 100}
    assert facts["found"] == {"train": 160, "val": 40, "test": 40}
    assert facts["cache"]["bytes"] > 240 * 0.12 * 16_000 * 2


def test_missing_classes_are_told(hub: Path) -> None:
    made = data(hub)
    made.prepare([16_000])
    assert [warning.split(":")[0] for warning in made.warnings] == [
        f"20 of 40 classes have no clip in the {split} split" for split in ("train", "val", "test")
    ]
