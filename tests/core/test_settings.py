"""Impossible values are refused before anything starts, by name."""

import pytest
from omegaconf import DictConfig, open_dict

from sousa_bench.config.config_errors import explained
from sousa_bench.config.instantiate import build
from sousa_bench.config.run_config import RunConfig
from sousa_bench.config.settings import TrainerSettings, check_values
from sousa_bench.errors import ConfigError
from sousa_bench.sweep.plan import Candidate

BUDGETS = ([], ["peft.budget=null"], ["peft.budget=0.3%"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.max_epochs=five", r"trainer\.max_epochs='five' can't be: it must be a whole number"),
        ("trainer.batch_size=1.5", r"trainer\.batch_size=1\.5"),
        ("trainer.max_epochs=true", r"trainer\.max_epochs=True"),
        ("trainer.precision=fp16", r"trainer\.precision='fp16'.*32-true"),
        ("trainer.learning_rate=-1", r"trainer\.learning_rate=-1"),
        ("trainer.head_learning_rate=-1", r"trainer\.head_learning_rate=-1"),
        ("+trainer.lr=1", r"^trainer\.lr: there is no such key\. Did you mean trainer\.learning_rate\?$"),
        ("trainer.early_stopping=0", r"trainer\.early_stopping=0"),
        ("trainer.early_stopping=2", r"trainer\.early_stopping=2 can't be with .*; add trainer\.tested_epoch=best"),
        ("trainer.tested_epoch=first", r"trainer\.tested_epoch='first' can't be: it must be one of last, best"),
        ("trainer.sampling=fair", r"trainer\.sampling='fair' can't be: it must be balanced or null"),
        ("trainer.class_weights=true", r"trainer\.class_weights=True can't be"),
        ("trainer.sampling=balanced trainer.class_weights=balanced", "both together more; choose one"),
        ("trainer.progress=maybe", r"trainer\.progress='maybe'"),
        ("trainer.compile=1", r"trainer\.compile=1 can't be: it must be true or false"),
        ("seed=abc", r"seed='abc'"),
        ("seed=-1", r"seed=-1"),
        (
            "weights=embedded model.checkpoint=nowhere",
            r"model\.checkpoint=nowhere: there is no file nowhere/\w+\.safetensors",
        ),
        ("weights=random model.checkpoint=MIT/x", r"model\.checkpoint=MIT/x would not be read with weights=random"),
        ("weights=embedded model.weights=random model.checkpoint=x", "would not be read with weights=random"),
        ("weights=random model.weights=null", "weights=None: there is no such choice"),
        ("weights=oficial model.weights=random", r"Did you mean weights=official\?"),
        ("~weights", "can't be resolved: Interpolation key 'weights' not found"),
        ("weights=oficial", r"Did you mean weights=official\?"),
    ],
)
def test_refused(config, override, says):
    with pytest.raises(ConfigError, match=says):
        check_values(config(*override.split()))


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("trainer.lr=1", ["trainer.learning_rate"]),
        ("lr=1", ["peft.learning_rate", "trainer.learning_rate"]),
        ("trainer.epochs=1", ["trainer.max_epochs"]),
        ("epochs=1", ["trainer.max_epochs"]),
        ("trainer.bs=1", ["trainer.batch_size"]),
        ("trainer.wd=1", ["trainer.weight_decay"]),
        ("peft.rank=1", ["peft.r"]),
        ("peft.alpha=1", ["peft.lora_alpha"]),
        ("trainer.r=1", ["peft.r"]),
        ("data.rot=1", ["data.root"]),
    ],
)
def test_a_key_that_is_not_there_brings_the_one_that_was_meant(config, override, meant):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError) as refusal, explained():
        config(override)
    assert str(refusal.value) == f"{key}: there is no such key. Did you mean {' or '.join(meant)}?"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+peft.r=4", "peft.r: there is such a key already; write peft.r=…, without the +"),
        ("+seed=3", "seed: there is such a key already"),
        ("~peft.r=9", "peft.r: ~ takes away neither a key that is null nor one of another value; write peft.r=…"),
        ("~peft.budget", "peft.budget: ~ takes away neither a key that is null"),
        ("~peft.rank", "peft.rank: there is no such key. Did you mean peft.r?"),
    ],
)
def test_a_key_that_is_there_is_not_called_missing(config, override, says):
    with pytest.raises(ConfigError) as refusal, explained():
        config(override)
    assert str(refusal.value).startswith(says)


@pytest.mark.parametrize("method", ["head", "probe"])
def test_a_method_without_a_size_takes_no_budget_but_null(config, method):
    words = (f"peft={method}", "model=ast", "augmentation=off")
    plain, null, given = (Candidate.of(RunConfig(config(*words, *more)), more) for more in BUDGETS)
    assert (plain.digest, plain.refusal) == (null.digest, None) == (plain.digest, null.refusal)
    assert str(given.refusal).startswith(f"peft={method} has no size that peft.budget could choose")


@pytest.mark.parametrize("words", [("peft=bottleneck", "peft.width=3"), ("peft=adalora", "peft.target_r=3")])
def test_a_size_beside_a_budget_is_refused(config, words):
    with pytest.raises(
        ConfigError, match=rf"^{words[1]} can't be with peft\.budget=1%, which chooses peft\.\w+; leave"
    ):
        Candidate.of(RunConfig(config(*words, "peft.budget=1%")), [*words, "peft.budget=1%"])


def test_a_key_like_no_other_brings_its_neighbours(config):
    with (
        pytest.raises(ConfigError, match=r"^trainer\.foo: .* Keys there: trainer\.accelerator, .*weight_decay$"),
        explained(),
    ):
        config("trainer.foo=1")


@pytest.mark.parametrize("file", ["model.checkpoint=f.pt", "model.checkpoint=null"])
def test_a_variant_that_there_is_not_is_refused_with_those_that_there_are(config, file):
    with pytest.raises(
        ConfigError, match=r"^model\.variant=mn4 is unknown; did you mean mn40 or mn04\? There are: .* mn01, mn02, mn04"
    ):
        check_values(config("model=efficientat", "weights=official", "model.variant=mn4", file))


def test_the_defaults_pass(config):
    check_values(config())


def test_a_model_of_the_users_own_reads_its_checkpoint_as_it_likes(config):
    cfg = config("weights=random")
    with open_dict(cfg):
        cfg.model = {"_target_": "mine.build", "name": "mine", "checkpoint": "/f.pt"}
    check_values(cfg)


def test_an_experiment_without_its_package_line_is_refused(config):
    cfg = config()
    with open_dict(cfg):
        cfg.experiment = {"hydra": {"mode": "MULTIRUN"}}
    with pytest.raises(ConfigError, match="@package _global_"):
        check_values(cfg)


def test_a_choice_that_names_classes_where_they_lay_is_taken(config):
    cfg = config("augmentation=on")
    now = build(cfg.augmentation)
    cfg.trainer._target_ = "sousa_bench.settings.TrainerSettings"
    for node in (cfg.augmentation, *(part for part in cfg.augmentation.values() if isinstance(part, DictConfig))):
        node._target_ = node._target_.replace("sousa_bench.data.augmentation", "sousa_bench.augmentation")
    assert isinstance(build(cfg.trainer), TrainerSettings)
    assert build(cfg.augmentation) == now
    cfg.trainer.max_epochs = 0
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=0"):
        check_values(cfg)
