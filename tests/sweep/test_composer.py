"""Of jobs that differ in plain numbers one config is composed: the others are what Hydra would have made."""

from __future__ import annotations

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.config.composing import Composer, compose
from sousa_bench.errors import ConfigError
from sousa_bench.sweep.session import register_resolvers


@pytest.fixture
def hydra(monkeypatch):
    """Hydra's loader, a master config, and the jobs that it composed itself."""
    composed = []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        loader = GlobalHydra.instance().config_loader()
        register_resolvers()
        master = loader.load_configuration("config", ["hydra.sweep.dir=out", "weights=random"], RunMode.MULTIRUN)
        original = loader.load_sweep_config

        def load(master, overrides):
            composed.append(overrides)
            return original(master, overrides)

        monkeypatch.setattr(loader, "load_sweep_config", load)
        yield loader, master, composed


def test_numbers_are_put_into_a_copy(hydra):
    loader, master, composed = hydra
    jobs = [
        ["model=ast", "peft=lora", f"peft.r={r}", f"seed={seed}", f"peft.learning_rate={rate}", "hydra.job.chdir=false"]
        for r, seed, rate in ((4, 1, "1e-3"), (8, 2, "0.002"), (16, 30, "1"), (4, 1, "2.5e-4"))
    ]
    jobs += [["model=beats", "peft=head", "seed=1"], ["model=beats", "peft=head", "seed=2"]]
    composer = Composer(loader, master)
    made = [composer.compose(job) for job in jobs]
    assert len(composed) == 2
    for config, job in zip(made, jobs, strict=True):
        whole = compose(loader, master, job)
        for resolve in (False, True):
            one, other = (OmegaConf.to_container(each, resolve=resolve) for each in (config, whole))
            assert one == other
            assert repr(one) == repr(other)  # 1 is not 1.0
        assert OmegaConf.is_struct(config)
    made[4].seed = 7  # a copy of its own
    assert (made[5].seed, made[5].model.seed) == (2, 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["seed=1", "seed=2"], ["seed=3", "seed=4"]),
        (["peft.r=4", "peft={r:8}"], ["peft.r=5", "peft={r:8}"]),
        (["seed=${trainer.batch_size}"], ["seed=${trainer.max_epochs}"]),
        (["+trainer.extra=1"], ["+trainer.extra=2"]),
        (["seed=1", "~seed"], ["seed=2", "~seed"]),
    ],
)
def test_what_is_no_plain_number_goes_through_hydra(hydra, first, second):
    loader, master, composed = hydra
    composer = Composer(loader, master)
    for job in (first, second):
        config, count = composer.compose(job), len(composed)
        assert composed[-1][-len(job) :] == job
        assert OmegaConf.to_container(config) == OmegaConf.to_container(compose(loader, master, job))
        del composed[count:]
    assert len(composed) == 2


def test_an_unknown_key_is_refused_however_often_it_comes(hydra):
    loader, master, _ = hydra
    composer = Composer(loader, master)
    for number in (1, 2):
        with pytest.raises(ConfigError, match="peft"):
            composer.compose(["peft=head", f"peft.nonsense={number}"])
