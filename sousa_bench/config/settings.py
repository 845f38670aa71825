"""How a run trains: the ``trainer`` config group as one checked object."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sousa_bench.errors import ConfigError
from sousa_bench.models.weight_files import WEIGHTS, check_weights, embedded_file, embedded_missing

PRECISIONS = ("auto", "32-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu")


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

    def __post_init__(self) -> None:
        for key in ("max_epochs", "batch_size", "eval_batch_size", "devices"):
            self._need(key, self._whole(key) and getattr(self, key) >= 1, "a whole number, at least 1")
        for key in ("micro_batch_size", "early_stopping", "train_batches", "eval_batches"):
            good = getattr(self, key) is None or (self._whole(key) and getattr(self, key) >= 1)
            self._need(key, good, "a whole number, at least 1, or null")
        for key in ("warmup_fraction", "label_smoothing"):
            self._need(key, self._number(key) and 0 <= getattr(self, key) < 1, "from 0 up to, not including, 1")
        for key in ("learning_rate", "head_learning_rate", "gradient_clip"):
            good = getattr(self, key) is None or (self._number(key) and getattr(self, key) > 0)
            self._need(key, good, "a number above 0, or null")
        for key in ("weight_decay", "feature_memory_mb"):
            self._need(key, self._number(key) and getattr(self, key) >= 0, "a number, 0 or more")
        self._need(
            "checkpoint_minutes", self._number("checkpoint_minutes") and self.checkpoint_minutes > 0, "a number above 0"
        )
        self._need("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._need("accelerator", self.accelerator in ACCELERATORS, f"one of {', '.join(ACCELERATORS)}")
        for key in ("compile", "progress"):
            self._need(key, isinstance(getattr(self, key), bool), "true or false")

    def _whole(self, key: str) -> bool:
        return isinstance(getattr(self, key), int) and not isinstance(getattr(self, key), bool)

    def _number(self, key: str) -> bool:
        return isinstance(getattr(self, key), (int, float)) and not isinstance(getattr(self, key), bool)

    def _need(self, key: str, good: bool, what: str) -> None:
        if not good:
            raise ConfigError(f"trainer.{key}={getattr(self, key)!r} can't be: it must be {what}")


def _check_model_weights(model: DictConfig | None) -> None:
    """Look at what a model's node says of weights; one without the key reads its checkpoint as it likes."""
    if not isinstance(model, DictConfig) or "weights" not in model:
        return
    try:
        weights, checkpoint = str(model.weights), model.get("checkpoint")
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config can't be resolved: {str(error).splitlines()[0]}") from error
    check_weights(weights, checkpoint)
    if weights == "embedded" and checkpoint is not None:
        file = embedded_file(str(model.get("name")), str(checkpoint))
        if not file.is_file():
            raise ConfigError(embedded_missing(str(checkpoint), file))


def check_values(config: DictConfig) -> None:
    """Look at the values that can be checked before anything heavy is loaded, so that a sweep is refused whole.

    Args:
        config: The composed config of one run.

    Raises:
        ConfigError: A value is impossible; the message names the key and what it may be.
    """
    experiment = config.get("experiment")
    if isinstance(experiment, DictConfig):
        raise ConfigError(
            "the experiment's file sets nothing: its first line must be `# @package _global_`, or Hydra puts it below "
            "`experiment`, where nothing reads it"
        )
    seed = config.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed!r} can't be: it must be a whole number from 0 to 4294967295")
    check_weights(str(config.get("weights", WEIGHTS[0])), None)
    _check_model_weights(config.get("model"))
    trainer = config.get("trainer")
    if isinstance(trainer, DictConfig) and trainer.get("_target_") == f"{__name__}.{TrainerSettings.__name__}":
        values = OmegaConf.to_container(trainer, resolve=True)
        assert isinstance(values, dict)
        TrainerSettings(**{str(key): value for key, value in values.items() if key != "_target_"})
