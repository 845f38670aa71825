"""One run, start to end: data → weights → PEFT → fit → test → report."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import TrainerSettings
from sousa_bench.data.datamodule import SousaDataModule
from sousa_bench.errors import out_of_memory
from sousa_bench.peft import inject
from sousa_bench.peft.warm import warm_start
from sousa_bench.results.predictions import outcome_warnings, write_predictions
from sousa_bench.results.result import ADAPTER_FOLDER, PREDICTIONS_FILE, Recorder
from sousa_bench.rudiments import RUDIMENTS
from sousa_bench.training import distributed, hardware
from sousa_bench.training.checkpoint import Checkpoints, KeepState, LoadOptimizer, Stop, restore
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.loggers import Pending, RunLogger, check_mode
from sousa_bench.training.metrics import per_class
from sousa_bench.training.outcome import outcome
from sousa_bench.training.progress_bar import EpochBar
from sousa_bench.training.recipe import build_batches, build_model, build_module, total_steps

if TYPE_CHECKING:
    from sousa_bench.data import SousaData
    from sousa_bench.models.base import AudioModel
    from sousa_bench.peft import Injection

log = logging.getLogger(__name__)
SAMPLE_RATES = (16_000, 32_000)


def run(cfg: DictConfig, folder: Path, recorder: Recorder | None = None) -> dict[str, Any]:
    """Train, test and save one combination.

    Args:
        cfg: The composed config.
        folder: The run's folder; an unfinished run's checkpoint there is continued from.
        recorder: Collects the result, and tells whoever supervises; a new one by itself.

    Returns:
        The result's blocks that a run knows: metrics, efficiency, history, parameters, phases, warnings, ….

    Raises:
        UserError: Something that the user can mend.
        Interrupted: The run was asked to stop and saved its state.
        NonFiniteLossError: Training diverged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recorder = recorder or Recorder(folder, quiet=distributed.rank() > 0)
    with Stop().listening() as stop:
        _Run(cfg, folder, recorder, stop).complete()
    return recorder.result


class _Run:
    """The parts of one run that its phases hand on to each other."""

    data: SousaData
    model: AudioModel
    datamodule: SousaDataModule
    injection: Injection
    module: Classifier
    trainer: pl.Trainer
    state: dict[str, Any] | None
    _opening: Future[RunLogger]
    fit_seconds: float
    fit_peak: int

    def __init__(self, cfg: DictConfig, folder: Path, recorder: Recorder, stop: Stop) -> None:
        self.cfg = cfg
        self.folder = folder
        self.recorder = recorder
        self.stop = stop
        self.settings: TrainerSettings = build(cfg.trainer)
        self.accelerator = hardware.choose_accelerator(self.settings.accelerator)
        self.precision = hardware.choose_precision(self.settings.precision, self.accelerator)
        self.checkpoints = Checkpoints(folder)
        self.peak = 0
        self.told_before = False

    def complete(self) -> None:
        """All phases in order."""
        _quiet_libraries()
        hardware.set_up(self.accelerator)
        self.recorder.add(environment=hardware.environment(self.accelerator, self.precision))
        check_mode(self.cfg.logger.get("mode"))
        if self.settings.compile:
            hardware.check_compiler(self.accelerator)
        pool = ThreadPoolExecutor(1, "logger")  # W&B takes half a second, most of it waiting
        self._opening = pool.submit(self._open_logger)
        exit_code = 1
        try:
            with self.recorder.phase("data"):
                self._prepare_data()
            if self.cfg.logger.get("mode") == "online":  # a wrong key or a dead network shows before training
                self._opening.result()
            self._fit_with_memory_left()
            with self.recorder.phase("test"):
                self._test()
            exit_code = 0
        finally:
            pool.shutdown(wait=False)
            self._close(exit_code)

    @property
    def logger(self) -> RunLogger:
        """The run's logger, waited for where it is not open yet."""
        return self._opening.result()

    def _close(self, exit_code: int) -> None:
        if exit_code and not self._opening.done():
            return  # a run that is to end does not wait for its log to begin
        try:
            self.logger.finish(exit_code)
        except Exception as error:  # the result is complete: what its log lacks is a warning
            if exit_code == 0:
                self._warn(f"the run's log could not be closed: {type(error).__name__}: {error}")

    def _prepare_data(self) -> None:
        self.data = build(self.cfg.data)
        self.data.prepare(SAMPLE_RATES)
        for message in [*self.data.warnings, *self._inherited()]:
            self._warn(message)
        self.recorder.add(data=self.data.describe())

    def _inherited(self) -> list[str]:
        if not self.cfg.get("init_from"):
            return []
        from sousa_bench.training.overlap import inherited

        plain = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(plain, dict)
        return inherited({str(key): value for key, value in plain.items()})

    def _warn(self, message: str) -> None:
        self.recorder.warn(message)
        log.warning(message)

    def _open_logger(self) -> RunLogger:
        cfg = self.cfg
        if distributed.rank() > 0:
            return RunLogger(None)
        make = build(cfg.logger, _partial_=True)
        return make(
            folder=self.folder,
            group=cfg.get("sweep") or self.folder.parent.name,
            name=self.folder.name,
            tags=[cfg.model.name, cfg.peft.name, f"augmentation_{cfg.augmentation.name}", cfg.data.name],
            resolved=OmegaConf.to_container(cfg, resolve=True),
        )

    def _fit_with_memory_left(self) -> None:
        """Fit; when memory runs out, go on from the last checkpoint with half the micro-batch."""
        micro = self.settings.micro_batch_size or self.settings.batch_size
        evaluation = self.settings.eval_batch_size
        while True:
            try:
                self._build(micro, evaluation)
                with self.recorder.phase("fit"):
                    self._fit()
                return
            except Exception as error:
                if refusal := hardware.compiler_refusal(error):
                    raise refusal from error
                if not out_of_memory(error) or micro == evaluation == 1:
                    raise
                if self.settings.devices > 1:  # the other processes wait for this one: all end
                    error.add_note(
                        f"over several devices the micro-batch is not halved: trainer.micro_batch_size={micro // 2}"
                    )
                    raise
                where = f"{type(error).__name__} in phase {self.recorder.progress.get('phase')}"
            self._release()
            micro, evaluation = max(1, micro // 2), max(1, evaluation // 2)
            self._warn_of_memory(where, micro)

    def _warn_of_memory(self, where: str, micro: int) -> None:
        message = (
            f"memory ran out ({where}); went on from the last checkpoint with micro-batches of {micro} clips (the "
            f"effective batch stays {self.settings.batch_size}; dropout draws other units)"
        )
        if self.cfg.peft.get("batch_norm") == "train" or self.cfg.peft.name == "full":
            message += "; where batch statistics train, they come from smaller batches: not quite the same experiment"
        self._warn(message)

    def _release(self) -> None:
        self.peak = max(self.peak, hardware.peak_memory(self.accelerator))
        for part in ("module", "trainer", "injection", "model"):
            self.__dict__.pop(part, None)
        if self.accelerator == "gpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _told(self) -> dict[str, Any]:
        """What a later attempt's result repeats of this one."""
        return {
            "warnings": list(self.recorder.result["warnings"]),
            "phases": dict(self.recorder.result["phases"]),
            "peak": max(self.peak, hardware.peak_memory(self.accelerator)),
        }

    def _recall(self, told: dict[str, Any]) -> None:
        """Take over, once, what earlier attempts had to tell."""
        if self.told_before:
            return
        self.told_before = True
        for message in told["warnings"]:
            self.recorder.warn(message)
        phases = self.recorder.result["phases"]
        for name, seconds in told["phases"].items():
            phases[name] = phases.get(name, 0.0) + seconds
        self.peak = told["peak"]

    def _build(self, micro_batch_size: int, eval_batch_size: int) -> None:
        cfg, settings = self.cfg, self.settings
        pl.seed_everything(cfg.seed, workers=False, verbose=False)
        with self.recorder.phase("weights"):
            self.model = build_model(cfg)
            self.recorder.add(weights=self.model.weights.as_dict())
        if self.model.sample_rate not in SAMPLE_RATES:
            with self.recorder.phase("data"):
                self.data.prepare((self.model.sample_rate,))
                self.recorder.add(data=self.data.describe())
        self.state = self.checkpoints.last()
        if self.state:
            self._recall(self.state["told"])
            micro_batch_size = min(micro_batch_size, self.state["micro_batch_size"])
        self.told_before = True
        start = (self.state["epoch"], self.state["step"]) if self.state else (0, 0)
        self.datamodule = build_batches(
            cfg, settings, self.data, self.model.sample_rate, eval_batch_size=eval_batch_size, start=start
        )
        with self.recorder.phase("peft"):
            self.injection = inject(self.model, cfg.peft, total_steps(settings, self.datamodule))
            for message in self.injection.warnings:
                self._warn(message)
            self.recorder.add(parameters=self.injection.parameters)
            if cfg.get("init_from") and self.state is None:
                warm_start(self.injection, Path(cfg.init_from))
                log.info("starting from the weights of %s", cfg.init_from)
        self.module = build_module(cfg, settings, self.injection, self.datamodule, micro_batch_size)
        if settings.compile and self.module.inputs.prefix is not None:
            self._warn(
                "trainer.compile=true: the frozen part of this network is computed once a clip, and what is left of it "
                "is not compiled"
            )

    def _fit(self) -> None:
        state, settings = self.state, self.settings
        callbacks: list[pl.Callback] = [EpochBar()] if settings.progress else []
        keep = KeepState(
            self.checkpoints,
            self.recorder,
            self.stop,
            settings.checkpoint_minutes,
            settings.early_stopping,
            state["fit_seconds"] if state else 0.0,
            self._told,
        )
        callbacks.append(keep)
        if state:
            restore(self.module, state)
            callbacks.append(LoadOptimizer(state["optimizer"], state["epoch"]))
            log.info("going on from epoch %d, step %d", state["epoch"] + 1, state["step"])
        self.trainer = self._trainer(callbacks)
        if not (state and state["finished"]):
            self.stop.training = True
            try:
                self.trainer.fit(self.module, datamodule=self.datamodule)
            finally:
                self.stop.training = False
        self.fit_seconds = keep.fit_seconds
        self.fit_peak = max(self.peak, hardware.peak_memory(self.accelerator))

    def _trainer(self, callbacks: list[pl.Callback]) -> pl.Trainer:
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=self.settings.devices,
            strategy=distributed.strategy(self.settings.devices, self.accelerator),
            precision=self.precision,  # type: ignore[arg-type]
            max_epochs=self.settings.max_epochs,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            logger=Pending(self._opening),
            callbacks=callbacks,
            plugins=[distributed.cluster_environment()],
            default_root_dir=self.folder,
        )

    def _test(self) -> None:
        state = self.checkpoints.last()
        assert state is not None, "the fit's end always writes a checkpoint"
        self.injection.load_trainable_state(self.checkpoints.best(state))
        self.module.inputs.compile(False)  # one pass, of a network that may have changed its shape
        self.injection.finish()
        self.injection.check_merge()
        for message in self.injection.final_warnings():
            self._warn(message)
        self.trainer.test(self.module, datamodule=self.datamodule, verbose=False)
        index, logits = self.module.outputs["test"]
        labels = self.module.clips["test"].labels[index]
        table = self.module.clips["test"].table.iloc[index.numpy()]
        peak = max(self.fit_peak, hardware.peak_memory(self.accelerator))
        self.recorder.result["phases"]["fit"] = self.fit_seconds
        self.recorder.add(
            **outcome(self.module, self.injection, self.settings, self.fit_seconds, peak),
            **self.logger.facts,
            files={"predictions": PREDICTIONS_FILE, "adapter": ADAPTER_FOLDER},
            per_class=per_class(logits, labels, RUDIMENTS),
        )
        noted = outcome_warnings(
            logits.numpy(),
            labels.numpy(),
            RUDIMENTS,
            partial=self.settings.eval_batches is not None,
            random_weights=self.model.weights.kind == "random",
        )
        for message in noted:
            self._warn(message)
        if self.trainer.is_global_zero:
            write_predictions(self.folder / PREDICTIONS_FILE, table, logits.numpy())
            self.injection.save(self.folder / ADAPTER_FOLDER, self.cfg)


def _quiet_libraries() -> None:
    """Keep what Lightning says about itself off the screen; what it says about the run stays."""
    for name in ("pytorch_lightning", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "does not have many workers",  # the clips lie in memory: workers would only copy them
        "in eval mode at the start of training",  # frozen BatchNorm is meant to be
        "GPU available but not used",
        "The `srun` command is available",  # a run inside Slurm has its own supervisor
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
