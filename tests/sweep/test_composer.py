"""Of jobs that differ in plain numbers one config is composed: the others are what Hydra would have made."""

from __future__ import annotations

import random

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from sousa_bench.config import conf_folder
from sousa_bench.config.composing import Composer, compose
from sousa_bench.config.like_configs import LikeConfig
from sousa_bench.config.run_config import RunConfig, values_of
from sousa_bench.errors import ConfigError
from sousa_bench.sweep.plan import Candidate, warnings_about
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
    sources = [composer.compose(job) for job in jobs]
    made = [source.whole() for source in sources]
    assert len(composed) == 2
    for config, job in zip(made, jobs, strict=True):
        whole = compose(loader, master, job)
        for resolve in (False, True):
            one, other = (OmegaConf.to_container(each, resolve=resolve) for each in (config, whole))
            assert one == other
            assert repr(one) == repr(other)  # 1 is not 1.0
        assert OmegaConf.is_struct(config)
    made[5].seed = 7  # a copy of its own
    assert sources[5].whole().model.seed == sources[5].values["model"]["seed"] == 2


@pytest.mark.slow
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
        config, count = composer.compose(job).whole(), len(composed)
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


def test_one_of_the_numbers_can_be_given_another_value(hydra):
    loader, master, _ = hydra
    composer = Composer(loader, master)
    for seed in (1, 2, 3):
        job = ["timeout=600", f"seed={seed}"]
        changed = [
            source.having("timeout", 30.0)
            for source in (composer.compose(job), RunConfig(compose(loader, master, job)))
        ]
        assert isinstance(changed[0], LikeConfig) is (seed > 1)
        found, expected = ((source.values, OmegaConf.to_container(source.whole())) for source in changed)
        assert repr(found) == repr(expected)
        assert (found[0]["timeout"], found[0]["seed"]) == (30.0, seed)


NUMBERS = {
    "seed": ("0", "7", "4294967295", "4294967296", "1.5", "1e3", "007"),
    "timeout": ("60", "0", "0.5"),
    "n_jobs": ("1", "2"),
    "peft.r": ("1", "8", "8.0", "5000", "0", "2.5"),
    "peft.lora_alpha": ("16", "1e-3"),
    "peft.learning_rate": ("1e-3", "0.001", "1", "0"),
    "trainer.max_epochs": ("1", "20", "0", "1.0"),
    "trainer.warmup_fraction": ("0", "0.1", "1", "1.5e-1"),
    "trainer.batch_size": ("8", "16", "0.5"),
    "data.synthetic.seed": ("1", "2"),
    "data.clips.train": ("10", "11", "0"),
    "model.seed": ("3", "4"),
    "trainer.nonsense": ("1", "2"),
}
"""Keys with interpolations onto them and without, and values of which some are refused."""
OTHERS = (
    "trainer.sampling=null",
    "trainer.sampling=balanced",
    "trainer.tested_epoch=best",
    "trainer.progress=false",
    "peft.targets=[attention]",
    "peft=head",
    "peft.budget=.50%",
    "model=efficientat",
    "weights=random",
    "++trainer.weight_decay=1e-3",
    "~lineage",
    "logger=none",
    "+logger.where='run ${seed}'",
    "+logger.where=${hydra:runtime.output_dir}",
    "+model.note='a, \\'b\\' of ${seed}'",
    "+model.note=[${peft.r},{x:${.seed}}]",
    "+model.note=${by_weights:${seed},{random:${trainer.max_epochs}}}",
    "+model.note=${oc.select:trainer.batch_size,3}",
    "+model.note=${hydra.job.override_dirname}",
    "+model.note=???",
    "trainer.eval_batch_size=${trainer.nowhere}",
    "peft.r=4",
)


def outcome(source, job):
    """All that planning makes of a config, its refusal included."""
    candidate = Candidate.of(source, job)
    values = dict(candidate.source.values)
    whole = candidate.source.whole()
    assert repr(values) == repr(values_of(whole))
    plain = repr(OmegaConf.to_container(whole))
    return values, plain, candidate.digest, candidate.refusal, warnings_about(values)


@pytest.mark.slow
def test_a_config_that_is_like_another_is_what_full_composing_gives(hydra):
    loader, master, _ = hydra
    rng, fast, texts = random.Random(19), 0, set()
    for _ in range(16):
        others = rng.sample(OTHERS, rng.choice([0, 1, 1, 2]))
        keys = rng.sample(sorted(NUMBERS), rng.choice([1, 2, 3]))
        composer = Composer(loader, master)
        for _ in range(3):
            job = [*others, *(f"{key}={rng.choice(NUMBERS[key])}" for key in keys)]
            found = []
            for make in (composer.compose, lambda job: RunConfig(compose(loader, master, job))):
                try:
                    source = make(job)
                    fast += isinstance(source, LikeConfig) and source._kind.values is not None
                    found.append(repr(outcome(source, job)))
                except ConfigError as error:
                    found.append(str(error))
            assert found[0] == found[1], job
            texts.add(found[0].partition(":")[0])
    assert fast > 10
    assert len(texts) > 5
