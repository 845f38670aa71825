"""Where a run's curves go besides its result file: Weights & Biases, TensorBoard, a CSV file, or nowhere."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from sousa_bench.config.instantiate import build
from sousa_bench.training import distributed


@dataclass
class RunLogger:
    """A Lightning logger and how to close it.

    Attributes:
        logger: None when nothing is logged.
        facts: What the result file says of it.
    """

    logger: Logger | None
    facts: dict[str, Any] = field(default_factory=dict)

    def finish(self, exit_code: int) -> None:
        """Close this run's log; ``exit_code`` 1 marks it as failed at Weights & Biases."""
        if isinstance(self.logger, WandbLogger):
            self.logger.experiment.finish(exit_code=exit_code)
        elif isinstance(self.logger, TensorBoardLogger):
            self.logger.finalize("failed" if exit_code else "success")


class BackgroundLogger(Logger):
    """The run's logger, opened by another thread: training begins meanwhile, what is logged waits.

    Args:
        open_logger: Opens it. W&B takes half a second for that, most of it waiting.
    """

    def __init__(self, open_logger: Callable[[], RunLogger]) -> None:
        super().__init__()
        pool = ThreadPoolExecutor(1, "logger")
        self._opening = pool.submit(open_logger)
        pool.shutdown(wait=False)

    @property
    def opened(self) -> RunLogger:
        """The logger itself, waited for where it is not open yet."""
        return self._opening.result()

    @property
    def name(self) -> str | None:
        """None: Lightning would make a folder of it."""
        return None

    @property
    def version(self) -> int | str | None:
        """See ``name``."""
        return None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log once the logger is there."""
        if (logger := self.opened.logger) is not None:
            logger.log_metrics(dict(metrics), step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The whole config is logged when the logger is opened."""

    def finalize(self, status: str) -> None:
        """Let the logger write what it holds."""
        if (logger := self.opened.logger) is not None:
            logger.finalize(status)

    def close(self, exit_code: int) -> str | None:
        """Close the log of a run that ended with ``exit_code``.

        Returns:
            Why the log of a completed run could not be closed, or None.
        """
        if exit_code and not self._opening.done():
            return None  # a run that has failed does not wait until its log is open
        try:
            self.opened.finish(exit_code)
        except Exception as error:  # the result is complete: what its log lacks is a warning
            return f"the run's log could not be closed: {type(error).__name__}: {error}" if exit_code == 0 else None
        return None


def open_logger(cfg: DictConfig, folder: Path, steps: int) -> RunLogger:
    """The logger that ``conf/logger`` chose; the first process of a run has it, the others none.

    Args:
        cfg: The composed config.
        folder: The run's folder.
        steps: Optimizer steps that an earlier attempt did, and that this one goes on from; 0 where it begins.
    """
    if distributed.rank() > 0:
        return RunLogger(None)
    make = build(cfg.logger, _partial_=True)
    return make(
        folder=folder,
        steps=steps,
        group=cfg.get("sweep") or folder.parent.name,
        name=folder.name,
        tags=[cfg.model.name, cfg.peft.name, f"augmentation_{cfg.augmentation.name}", cfg.data.name],
        resolved=OmegaConf.to_container(cfg, resolve=True),
    )


def none(folder: Path, **_: Any) -> RunLogger:
    """No log besides the result file (``logger=none``)."""
    return RunLogger(None)


def csv(folder: Path, **_: Any) -> RunLogger:
    """``csv/version_N/metrics.csv`` in the run's folder, N counting the attempts (``logger=csv``)."""
    logger = CSVLogger(save_dir=str(folder), name="csv")
    return RunLogger(logger, {"csv": str(Path(logger.log_dir, "metrics.csv").relative_to(folder))})


def tensorboard(folder: Path, *, steps: int, resolved: dict[str, Any], **_: Any) -> RunLogger:
    """``tensorboard/`` in the run's folder, one for all attempts (``logger=tensorboard``).

    Args:
        folder: The run's folder.
        steps: See :func:`open_logger`; readers pass over what an earlier attempt logged behind them.
        resolved: The resolved config, which stands there as a text.
    """
    logger = TensorBoardLogger(
        folder, name="tensorboard", version="", default_hp_metric=False, purge_step=steps + 1, max_queue=1
    )
    logger.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(resolved)}```", steps)
    return RunLogger(logger, {"tensorboard": "tensorboard"})


class StepLogger(WandbLogger):
    """Lightning's logger, with optimizer steps as W&B's own steps: those of a later attempt follow the first one's."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row at once, at ``step`` or right behind the last row: W&B drops what goes back."""
        run = self.experiment
        run.log({**metrics, "trainer/global_step": step}, step=max(step or 0, run.step), commit=True)


def weights_and_biases(
    folder: Path,
    *,
    mode: str,
    project: str,
    entity: str | None,
    group: str | None,
    name: str,
    tags: list[str],
    resolved: dict[str, Any],
    steps: int,
) -> RunLogger:
    """One Weights & Biases run per job, offline unless ``logger.mode=online``.

    Args:
        folder: The run's folder; the log lies in ``wandb/`` below it, a folder for each attempt.
        mode: ``offline`` or ``online``.
        project: Project at Weights & Biases.
        entity: Team or user, or None for the account's default.
        group: The sweep's name, so that its runs stand together.
        name: The run's name.
        tags: Model, method and the like.
        resolved: The resolved config, shown there beside the curves.
        steps: See :func:`open_logger`; 0 makes it another run at Weights & Biases than an attempt that was given up.
    """
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_MODE"] = mode  # offline, its telemetry heeds this alone, and would post and wait for an answer
    import wandb

    logging.getLogger("wandb").setLevel(logging.ERROR)
    run = wandb.init(
        id=_identity(folder, steps),
        resume="allow" if mode == "online" else None,
        dir=folder,
        mode=mode,  # type: ignore[arg-type]
        project=project,
        entity=entity,
        group=group,
        name=name,
        tags=tags,
        config=resolved,
        settings=wandb.Settings(
            console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True, silent=True
        ),
        reinit="finish_previous",
    )
    place = Path(run.dir).parent  # W&B takes one of its own where it thinks that it can't write to ours
    inside = place.is_relative_to(folder.resolve())
    facts = {"wandb": {"mode": mode, "folder": str(place.relative_to(folder.resolve()) if inside else place)}}
    return RunLogger(StepLogger(experiment=run, save_dir=str(folder)), facts)


def _identity(folder: Path, steps: int) -> str:
    """W&B's id of a run: what an attempt logs that goes on from ``steps`` is uploaded to where the last one's is."""
    earlier = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.name.removeprefix("offline-"))
    if steps and earlier:
        return earlier[-1].name.rpartition("-")[2]
    return hashlib.sha256(f"{folder.resolve()} {len(earlier)}".encode()).hexdigest()[:16]
