"""One run, start to end: data → weights → PEFT → fit → test → report."""

from __future__ import annotations

import logging
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from sousa_bench.config import refit
from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import TrainerSettings
from sousa_bench.data.datamodule import SousaDataModule
from sousa_bench.peft import inject
from sousa_bench.peft.adapter import warm_start
from sousa_bench.peft.options import takes_no_steps
from sousa_bench.results.predictions import outcome_warnings, write_predictions
from sousa_bench.results.result import ADAPTER_FOLDER, PREDICTIONS_FILE, Recorder
from sousa_bench.training import distributed, hardware
from sousa_bench.training.checkpoint import Checkpoints, KeepState, Stop, restore
from sousa_bench.training.classifier import Classifier
from sousa_bench.training.fit_without_steps import solve
from sousa_bench.training.loggers import BackgroundLogger, open_logger
from sousa_bench.training.memory import MemoryUse
from sousa_bench.training.network_facts import network_facts
from sousa_bench.training.outcome import outcome
from sousa_bench.training.progress_bar import EpochBar
from sousa_bench.training.recipe import (
    build_batches,
    build_model,
    build_module,
    build_teacher,
    fetch_weights,
    total_steps,
)
from sousa_bench.training.seen_before import inherited

if TYPE_CHECKING:
    from pytorch_lightning.profilers import Profiler

    from sousa_bench.data import SousaData
    from sousa_bench.models.base import AudioModel
    from sousa_bench.peft import Injection

log = logging.getLogger(__name__)
SAMPLE_RATES = (16_000, 32_000)


def run(
    cfg: DictConfig, folder: Path, recorder: Recorder | None = None, profiler: Profiler | None = None
) -> dict[str, Any]:
    """Train, test and save one combination.

    Args:
        cfg: The composed config.
        folder: The run's folder; an unfinished run's checkpoint there is continued from.
        recorder: Collects the result, and tells whoever supervises; a new one by itself.
        profiler: Lightning's, for whoever measures: besides its own actions it is told of ``inputs``, ``metrics``,
            ``checkpoint``, ``log`` and ``record``.

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
        _Run(cfg, folder, recorder, stop, profiler).complete()
    return recorder.result


class _Run:
    """The parts of one run that its phases hand on to each other."""

    data: SousaData
    model: AudioModel
    datamodule: SousaDataModule
    injection: Injection
    module: Classifier
    trainer: pl.Trainer
    logger: BackgroundLogger
    state: dict[str, Any] | None
    fit_seconds: float
    repeated: dict[str, Any] | None

    def __init__(
        self, cfg: DictConfig, folder: Path, recorder: Recorder, stop: Stop, profiler: Profiler | None
    ) -> None:
        self.cfg = cfg
        self.folder = folder
        self.recorder = recorder
        self.stop = stop
        self.profiler = profiler
        self.settings: TrainerSettings = build(cfg.trainer)
        self.accelerator = hardware.choose_accelerator(self.settings.accelerator)
        self.precision = hardware.choose_precision(self.settings.precision, self.accelerator)
        self.checkpoints = Checkpoints(folder)
        self.memory = MemoryUse(self.settings, self.accelerator)

    def complete(self) -> None:
        """All phases in order."""
        _quiet_libraries()
        hardware.set_up(self.accelerator)
        self.recorder.add(environment=hardware.environment(self.accelerator, self.precision))
        if self.settings.compile:
            hardware.check_compiler(self.accelerator)
        self.state = self.checkpoints.last()
        steps = self.state["steps_done"] if self.state else 0
        self.logger = BackgroundLogger(partial(open_logger, self.cfg, self.folder, steps))
        exit_code = 1
        try:
            with self.recorder.phase("data"):
                self._prepare_data()
            if self.cfg.logger.get("mode") == "online":
                _ = self.logger.opened  # a wrong key or a dead network shows before training
            self._fit_with_memory_left()
            with self.recorder.phase("test"):
                self._test()
            exit_code = 0
        finally:
            if problem := self.logger.close(exit_code):
                self._warn(problem)

    def _warn(self, *messages: str) -> None:
        for message in messages:
            self.recorder.warn(message)
            log.warning(message)

    def _prepare_data(self) -> None:
        fetch_weights(self.cfg)
        self.data = build(self.cfg.data)
        self.repeated = refit.repeated(self.cfg)
        if self.repeated is not None:
            self._warn(refit.notice(self.cfg, self.repeated["runs"]))
        self.data.prepare(SAMPLE_RATES)
        self._warn(*self.data.warnings)
        plain = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(plain, dict)
        self._warn(*inherited({str(key): value for key, value in plain.items()}))
        self.recorder.add(task=self.data.task.as_dict(), data=self.data.describe())

    def _fit_with_memory_left(self) -> None:
        """Fit; when memory runs out, go on from the last checkpoint with half the micro-batch."""
        if self.state:
            self._take_over(self.state)
        while True:
            try:
                self._build()
                with self.recorder.phase("fit"):
                    self._fit()
                return
            except Exception as error:
                if refusal := hardware.compiler_refusal(error):
                    raise refusal from error
                if not self.memory.can_shrink(error):
                    raise
                where = f"{type(error).__name__} in phase {self.recorder.progress.get('phase')}"
            for part in ("module", "trainer", "injection", "model"):
                self.__dict__.pop(part, None)
            self.memory.shrink()
            self._warn_of_memory(where)
            self.state = self.checkpoints.last()

    def _warn_of_memory(self, where: str) -> None:
        message = (
            f"memory ran out ({where}); went on from the last checkpoint with micro-batches of "
            f"{self.memory.micro_batch_size} clips (the effective batch stays {self.settings.batch_size}; dropout "
            "draws other units)"
        )
        if self.cfg.peft.get("batch_norm") == "train" or self.cfg.peft.name == "full":
            message += "; where batch statistics train, they come from smaller batches: not quite the same experiment"
        self._warn(message)

    def _attempt(self) -> dict[str, Any]:
        """What the result of a later attempt repeats of this one."""
        result = self.recorder.result
        return {
            "warnings": list(result["warnings"]),
            "phases": dict(result["phases"]),
            "peak": self.memory.peak,
        }

    def _take_over(self, state: dict[str, Any]) -> None:
        """Let the result repeat what the earlier attempts found."""
        earlier = state["told"]
        for message in earlier["warnings"]:
            self.recorder.warn(message)
        phases = self.recorder.result["phases"]
        for name, seconds in earlier["phases"].items():
            phases[name] = phases.get(name, 0.0) + seconds
        self.memory.take_over(earlier["peak"], state["micro_batch_size"])

    def _build(self) -> None:
        cfg, settings, state = self.cfg, self.settings, self.state
        pl.seed_everything(cfg.seed, workers=False, verbose=False)
        with self.recorder.phase("weights"):
            self.model = build_model(cfg, self.data.task)
            self.recorder.add(weights=self.model.weights.as_dict())
        if self.model.sample_rate not in SAMPLE_RATES:
            with self.recorder.phase("data"):
                self.data.prepare((self.model.sample_rate,))
                self.recorder.add(data=self.data.describe())
        start = (state["epoch"], state["step"]) if state else (0, 0)
        self.datamodule = build_batches(
            cfg, settings, self.data, self.model.sample_rate, self.memory.eval_batch_size, start
        )
        self.recorder.add(network=network_facts(self.model, cfg.model))
        heard = self.model.frontend.longest
        if heard and any(clips.padded.max(initial=0) > heard for clips in self.datamodule.clips.values()):
            seconds = heard / self.model.sample_rate
            self._warn(f"model={cfg.model.name} hears {seconds:g} s of a clip; of longer ones the rest is left out")
        with self.recorder.phase("peft"):
            self.injection = inject(self.model, cfg.peft, total_steps(settings, self.datamodule))
            self._warn(*self.injection.warnings)
            self.recorder.add(parameters=self.injection.parameters)
            if cfg.get("init_from") and state is None:
                warm_start(self.injection, Path(cfg.init_from), self.data.task)
                log.info("starting from the weights of %s", cfg.init_from)
        with self.recorder.phase("weights"):
            teacher = build_teacher(cfg, self.data)
        micro_batch_size = self.memory.micro_batch_size
        self.module = build_module(cfg, settings, self.injection, self.datamodule, micro_batch_size, teacher)
        if settings.compile and self.module.inputs.prefix is not None:
            self._warn(
                "trainer.compile=true: the frozen part of this network is computed once a clip, and what is left of it "
                "is not compiled"
            )

    def _fit(self) -> None:
        if takes_no_steps(self.injection.node):
            self._solve()
            return
        state = self.state
        keep = KeepState(self.checkpoints, self.recorder, self.stop, self.settings, self._attempt, state)
        if state:
            restore(self.module, state)
            log.info("going on from epoch %d, step %d", state["epoch"] + 1, state["step"])
        self.trainer = self._trainer([EpochBar(self.recorder.title), keep] if self.settings.progress else [keep])
        if not (state and state["finished"]):
            try:
                self.trainer.fit(self.module, datamodule=self.datamodule)
            finally:
                self.stop.training = False
        self.fit_seconds = keep.fit_seconds

    def _solve(self) -> None:
        """A fit without epochs: nothing is kept of an attempt that was interrupted."""
        started = time.monotonic()
        self.trainer = self._trainer([])
        self._warn(*solve(self.module, self.datamodule, self.trainer))
        self.fit_seconds = time.monotonic() - started
        self.recorder.add(history=self.module.history)
        self.recorder.show(**hardware.gpu_memory(self.accelerator))

    def _trainer(self, callbacks: list[pl.Callback]) -> pl.Trainer:
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=self.settings.devices,
            strategy=distributed.strategy(self.settings.devices, self.accelerator),
            precision=self.precision,  # type: ignore[arg-type]
            max_epochs=self.settings.max_epochs,
            limit_val_batches=1.0 if len(self.datamodule.clips["val"]) else 0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            logger=self.logger,
            callbacks=callbacks,
            plugins=[distributed.cluster_environment()],
            profiler=self.profiler,
            default_root_dir=self.folder,
        )

    def _test(self) -> None:
        module, injection = self.module, self.injection
        if not takes_no_steps(injection.node):
            state = self.checkpoints.last()
            assert state is not None, "the fit's end always writes a checkpoint"
            tested = self.checkpoints.tested(state)
            injection.load_trainable_state(tested["trainable"])
            if tested["val"] is not None:
                module.outputs["val"] = tested["val"]
        module.inputs.compile(False)  # one pass, of a network that may have changed its shape
        injection.finish()
        injection.check_merge()
        self._warn(*injection.final_warnings())
        if self.repeated is None:
            self.trainer.test(module, datamodule=self.datamodule, verbose=False)
        self.recorder.result["phases"]["fit"] = self.fit_seconds
        self.recorder.add(
            **outcome(module, self.settings, self.fit_seconds, self.memory.peak, self.repeated),
            **self.logger.opened.facts,
        )
        if self.repeated is None:
            self._keep_predictions()
        if self.trainer.is_global_zero:
            injection.save(self.folder / ADAPTER_FOLDER, self.cfg, module.task)

    def _keep_predictions(self) -> None:
        module = self.module
        positions, logits = (part.numpy() for part in module.outputs["test"])
        clips = module.clips["test"]
        self._warn(
            *outcome_warnings(
                logits,
                clips.labels[positions].numpy(),
                clips.task,
                clips.table["group"].iloc[positions],
                partial=self.settings.eval_batches is not None,
                random_weights=self.model.weights.kind == "random",
            )
        )
        if self.trainer.is_global_zero:
            write_predictions(self.folder / PREDICTIONS_FILE, clips.table.iloc[positions], logits, clips.task)


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
