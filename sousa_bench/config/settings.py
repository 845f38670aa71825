"""How a run trains: the ``trainer`` config group as one checked object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.config_errors import missing_key, resolved
from sousa_bench.config.identity import lasting_target
from sousa_bench.errors import ConfigError
from sousa_bench.models import packed_file
from sousa_bench.models.official_file import objection_to
from sousa_bench.models.weight_files import (
    PACKED,
    WEIGHTS,
    check_kind,
    check_weights,
    embedded_file,
    packed_missing,
    unknown_variant,
)
from sousa_bench.peft.options import plain
from sousa_bench.results.metrics import own_metrics
from sousa_bench.system.number_checks import is_number, is_positive, is_whole

PRECISIONS = ("auto", "32-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu")
TESTED_EPOCHS = ("last", "best")
WANDB = "sousa_bench.training.loggers.weights_and_biases"
TENSORBOARD = "sousa_bench.training.loggers.tensorboard"


def _or_null(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("max_epochs batch_size eval_batch_size devices", "a whole number, at least 1", partial(is_whole, least=1)),
    (
        "micro_batch_size early_stopping train_batches eval_batches",
        "a whole number, at least 1, or null",
        _or_null(partial(is_whole, least=1)),
    ),
    ("warmup_fraction label_smoothing", "from 0 up to, not including, 1", lambda x: is_number(x) and 0 <= x < 1),
    ("learning_rate head_learning_rate gradient_clip", "a number above 0, or null", _or_null(is_positive)),
    ("weight_decay feature_memory_mb", "a number, 0 or more", lambda x: is_number(x) and x >= 0),
    ("checkpoint_minutes", "a number above 0", is_positive),
    ("precision", f"one of {', '.join(PRECISIONS)}", PRECISIONS.__contains__),
    ("tested_epoch", f"one of {', '.join(TESTED_EPOCHS)}", TESTED_EPOCHS.__contains__),
    ("accelerator", f"one of {', '.join(ACCELERATORS)}", ACCELERATORS.__contains__),
    ("sampling class_weights", "balanced or null", lambda x: x in (None, "balanced")),
    ("compile progress", "true or false", lambda x: isinstance(x, bool)),
    ("new_head", "true, false or null", _or_null(lambda x: isinstance(x, bool))),
)
"""Keys of ``trainer``, what their values must be, and whether a value is so."""


@dataclass(frozen=True)
class TrainerSettings:
    """The choices of ``conf/trainer``; that file says what each means.

    Raises:
        ConfigError: A value is impossible; the message names the key.
    """

    max_epochs: int
    batch_size: int
    micro_batch_size: int | None
    eval_batch_size: int
    learning_rate: float | None
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    gradient_clip: float | None
    tested_epoch: str
    early_stopping: int | None
    accelerator: str
    devices: int
    precision: str
    checkpoint_minutes: float
    feature_memory_mb: int
    train_batches: int | None
    eval_batches: int | None
    progress: bool
    # Configs of results by earlier versions don't have these keys.
    compile: bool = False
    head_learning_rate: float | None = None
    sampling: str | None = None
    class_weights: str | None = None
    new_head: bool | None = None

    def __post_init__(self) -> None:
        for keys, rule, good in RULES:
            for key in keys.split():
                if not good(value := getattr(self, key)):
                    raise ConfigError(f"trainer.{key}={value!r} can't be: it must be {rule}")
        if self.early_stopping is not None and self.tested_epoch == "last":
            raise ConfigError(
                f"trainer.early_stopping={self.early_stopping} can't be with trainer.tested_epoch=last: it would end "
                "training after epochs without gain, and the last would be tested; add trainer.tested_epoch=best"
            )
        if self.sampling and self.class_weights:
            raise ConfigError(
                f"trainer.sampling={self.sampling} can't be with trainer.class_weights={self.class_weights}: each "
                "makes rare classes count as much as frequent ones, and both together more; choose one"
            )


def check_values(config: Mapping[str, Any]) -> None:
    """Look at the values that can be checked before anything heavy is loaded, so that a sweep is refused whole.

    Args:
        config: The composed config of one run, or its values.

    Raises:
        ConfigError: A value is impossible; the message names the key and what it may be.
    """
    experiment = config.get("experiment")
    if isinstance(experiment, Mapping):
        raise ConfigError(
            "the experiment's file sets nothing: its first line must be `# @package _global_`, or Hydra puts it below "
            "`experiment`, where nothing reads it"
        )
    seed = config.get("seed")
    if not is_whole(seed, least=0) or seed >= 2**32:
        raise ConfigError(f"seed={seed!r} can't be: it must be a whole number from 0 to 4294967295")
    check_kind(str(config.get("weights", WEIGHTS[0])))
    model = config.get("model")
    if isinstance(model, Mapping) and "weights" in model:  # a model of the user's own may do without the key
        with resolved():
            weights, checkpoint = str(model["weights"]), model.get("checkpoint")
        check_weights(weights, checkpoint)
        if weights in PACKED and checkpoint is not None:
            file = embedded_file(str(model.get("name")), str(checkpoint))
            if not file.is_file():
                raise ConfigError(packed_missing(weights, str(checkpoint), file))
        node = plain(model)
        if objection := unknown_variant(node) or packed_file.objection_to(node) or objection_to(node):
            raise ConfigError(objection)
    own_metrics(config.get("metrics"))
    if isinstance(logger := config.get("logger"), Mapping):
        check_logger(logger)
    trainer = config.get("trainer")
    own = lasting_target(f"{__name__}.{TrainerSettings.__name__}")
    if isinstance(trainer, Mapping) and lasting_target(str(trainer.get("_target_"))) == own:
        values: Any = OmegaConf.to_container(trainer, resolve=True) if isinstance(trainer, DictConfig) else trainer
        given = {str(key): value for key, value in values.items() if key != "_target_"}
        known = [f"trainer.{each.name}" for each in fields(TrainerSettings)]
        for key in given:
            if f"trainer.{key}" not in known:
                raise ConfigError(missing_key(f"trainer.{key}", known))
        TrainerSettings(**given)


def check_logger(logger: Mapping[str, Any]) -> None:
    """Refuse a logger that can't log.

    Raises:
        ConfigError: W&B's mode is neither offline nor online, or TensorBoard isn't installed.
    """
    if logger.get("_target_") == WANDB and (mode := logger.get("mode")) not in (None, "offline", "online"):
        raise ConfigError(f"logger.mode={mode!r} can't be: it must be offline or online (or take logger=none)")
    if logger.get("_target_") == TENSORBOARD and find_spec("tensorboard") is None:
        raise ConfigError(
            "logger=tensorboard needs TensorBoard: pip install 'sousa-bench[tensorboard]' (logger=csv needs nothing)"
        )
