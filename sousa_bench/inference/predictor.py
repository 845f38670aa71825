"""A model, ready for waveforms: a run's, the best of a sweep's, a package's, or one with its file's own head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sousa_bench.config.composing import composed
from sousa_bench.config.instantiate import build
from sousa_bench.config.settings import check_values
from sousa_bench.data.augmentation import FULL_SCALE
from sousa_bench.data.cache import STORED_SECONDS
from sousa_bench.data.decode import decode
from sousa_bench.data.saved_task import saved_task
from sousa_bench.errors import ConfigError, PeftError, UserError, WeightsError
from sousa_bench.models import audioset
from sousa_bench.models.base import AudioModel
from sousa_bench.models.checkpoint_formats import read_safetensors
from sousa_bench.models.family import rebuild
from sousa_bench.models.weight_files import PACKED, weights_file
from sousa_bench.peft.adapter import load_run_model, read_description
from sousa_bench.peft.added_tuner import insert
from sousa_bench.peft.block_reader import read_blocks
from sousa_bench.peft.options import BLOCKS, plain
from sousa_bench.results.confidence import Confidence
from sousa_bench.results.finished import FinishedRun, finished_run
from sousa_bench.system.foreign import NUMBER, read_facts, read_json
from sousa_bench.task import Task

PACKAGE_FILE = "config.json"
PACKAGE_WEIGHTS = "model.safetensors"
PACKAGE_KEY = "sousa_bench_package"
PACKAGE_FORMAT = 1
PACKAGE_TYPES = {
    PACKAGE_KEY: int,
    **dict.fromkeys(("model", "preprocessing"), dict),
    "labels": list,
    **dict.fromkeys(("preprocessing.quantum", "preprocessing.max_duration"), NUMBER),
}
"""What readers of a package's file rely on."""
MOST_SECONDS = 3600
QUANTUM = 0.5
MAX_DURATION = 5.0
AUDIOSET_SECONDS = 10.0
"""Of AudioSet's clips, on which the published heads were trained."""


@dataclass
class Predictor:
    """Waveforms → logits, with the numbers of the run's own test.

    Attributes:
        model: In evaluation mode.
        task: What the logits answer.
        quantum: Seconds; a clip is padded to a whole number of these, as in training.
        max_duration: Seconds of a clip that the model was trained on.
        place: The run's or the package's folder, or where an untrained model's file is from.
        run: The run, unless this is a package or an untrained model.
        description: What a package's file says, or what is known of an untrained model's weights.
        batch_size: Most clips of one forward pass.
        windows: What the run's own test heard of a longer clip (``data.windows``); None: its beginning.
        confidence: When its answers are confident; None where that is not known: of an untrained model, and of runs and
            packages by earlier versions.
        precision: ``32-true``, or ``bf16-mixed`` for the numbers of a run that was tested so.
    """

    model: AudioModel
    task: Task
    quantum: float
    max_duration: float
    place: Path | str
    run: FinishedRun | None
    description: Mapping[str, Any]
    batch_size: int = 16
    windows: int | str | None = None
    precision: str = "32-true"
    confidence: Confidence | None = None

    def __post_init__(self) -> None:
        for key in ("quantum", "max_duration"):
            value = getattr(self, key)
            if not (isinstance(value, NUMBER) and 0 < value <= MOST_SECONDS):
                raise UserError(f"{self.place}: {key}={value} can't be: it must be seconds from 0 to {MOST_SECONDS}")

    @classmethod
    def open(
        cls, place: Path, *, metric: str | None = None, device: str = "cpu", checkpoint: str | None = None
    ) -> Predictor:
        """Load a run's folder, a sweep's best run, or a package.

        Args:
            place: See :func:`sousa_bench.results.finished.finished_run`, or a folder that ``sousa_bench.export`` wrote.
            metric: What chooses the run of a sweep.
            device: Where the model goes.
            checkpoint: Where a run's base weights are now, if they have moved since its training.

        Raises:
            UserError: No completed run, no or damaged weights.
        """
        if is_package(place):
            return cls._open_package(place, device)
        run = finished_run(place, metric)
        description = read_description(run.adapter)
        data = run.config.get("data") or {}
        try:
            model = load_run_model(run.adapter, **({"checkpoint": checkpoint} if checkpoint else {}))
        except WeightsError as error:
            where = "" if checkpoint else " If the run's base weights lie elsewhere now: --checkpoint FILE."
            raise WeightsError(f"{error}{where}") from error
        return cls(
            model=model.to(device),
            task=saved_task(description, run.adapter),
            quantum=data.get("quantum", QUANTUM),
            max_duration=data.get("max_duration", MAX_DURATION),
            place=run.folder,
            run=run,
            description=description,
            windows=data.get("windows"),
            confidence=Confidence.of(run.result, run.folder),
        )

    @classmethod
    def _open_package(cls, place: Path, device: str) -> Predictor:
        content = read_package(place)
        labels = content["labels"]
        model = rebuild(content["model"], len(labels), place / PACKAGE_FILE, own_models=False, with_weights=False)
        try:
            if content.get("reads") == BLOCKS:
                read_blocks(model)
            if (added := content.get("added")) is not None:
                insert(model.backbone, added)
        except PeftError as error:
            raise PeftError(f"{place / PACKAGE_FILE}: {error}") from error
        try:
            model.load_state_dict(read_safetensors(place / PACKAGE_WEIGHTS)[0])
        except RuntimeError as error:
            raise UserError(f"{place / PACKAGE_WEIGHTS}: doesn't fit {PACKAGE_FILE}, or is damaged: {error}") from error
        return cls(
            model=model.eval().to(device),
            task=saved_task(content, place / PACKAGE_FILE),
            quantum=content["preprocessing"]["quantum"],
            max_duration=content["preprocessing"]["max_duration"],
            place=place.resolve(),
            run=None,
            description=content,
            windows=content["preprocessing"].get("windows"),
            confidence=Confidence.of(content, place / PACKAGE_FILE),
        )

    @classmethod
    def untrained(cls, overrides: Sequence[str], device: str = "cpu") -> Predictor:
        """Load a model as its weights come, with their own head: a published file's, or one of sousa_bench.pretrain.

        Args:
            overrides: Of the training's config: ``model=NAME``, ``weights=official`` (``embedded`` without it) and
                keys of ``model``.
            device: Where the model goes.

        Raises:
            ConfigError: They can't be composed, or ask for random weights.
            WeightsError: The file can't be had, has no head, or a head whose classes it doesn't say.
        """
        config = composed(overrides)
        check_values(config)
        if (weights := config.model.get("weights")) == "random":
            raise ConfigError(
                f"weights={weights}: random weights hear nothing by name before they are trained; give "
                "weights=official or weights=embedded where the model has them, or the folder of a run"
            )
        model: AudioModel = build(config.model, num_classes=None)
        head = model.packed_head
        if weights in PACKED and head is None:
            way_out = (
                "pack its run again, since sousa_bench.pretrain keeps the head now"
                if config.model.checkpoint
                else "of the package's weights those of AST, BEATs, EfficientAT and HTS-AT have one"
            )
            raise WeightsError(
                f"{model.weights.origin} has no head, so that model={model.name} hears nothing by name before it is "
                f"trained: {way_out}"
            )
        if head is None and not model.classes:
            what = "no head" if model.fresh else "a head, and does not say of which classes"
            raise WeightsError(
                f"{model.weights.origin} has {what}: model={model.name} hears nothing by name before it is trained. "
                "Which files have AudioSet's classes: docs/predict.md."
            )
        file = weights_file(plain(config.model))
        return cls(
            model=model.eval().to(device),
            task=audioset.task(model.classes) if head is None else head.task,
            quantum=QUANTUM if head is None else head.quantum or QUANTUM,
            max_duration=AUDIOSET_SECONDS if head is None else head.max_duration or MAX_DURATION,
            place=file.resolve() if file is not None and file.exists() else model.weights.origin,
            run=None,
            description=model.weights.as_dict(),
        )

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(self.task.classes)

    @property
    def name(self) -> str:
        """The run's id, the package's folder name, or an untrained model's name and variant."""
        if self.run is not None:
            return self.run.name
        return Path(self.place).name if PACKAGE_KEY in self.description else f"{self.model.name} {self.model.variant}"

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms."""
        return self.model.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def read(self, audio: str | BytesIO, seconds: float | None = None) -> np.ndarray:
        """(samples,) int16: the beginning of an audio file as the run's cache would hold it.

        Args:
            audio: A path, or a file's bytes.
            seconds: Read at most this much; None: ``max_duration``.

        Raises:
            BadClip: The file holds no usable audio.
        """
        seconds = seconds or self.max_duration
        # More is resampled than used: as in the cache, the end is a cut and not the end of the sound.
        waveforms, _ = decode(audio, (self.sample_rate,), max(seconds, STORED_SECONDS))
        return waveforms[self.sample_rate][: round(seconds * self.sample_rate)]

    def logits(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """(clips, classes) float32.

        Clips of one place on the length grid go through together; what a clip gets does not depend on the others.

        Args:
            clips: (samples,) int16 each, at ``sample_rate``.
        """
        step = round(self.quantum * self.sample_rate)
        lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
        padded = np.maximum(-(-lengths // step), 1) * step
        result = np.zeros((len(clips), len(self.labels)), dtype=np.float32)
        for size in np.unique(padded):
            same = np.flatnonzero(padded == size)
            for start in range(0, len(same), self.batch_size):
                rows = same[start : start + self.batch_size]
                result[rows] = self._forward([clips[row] for row in rows], int(size)).numpy()
        return result

    def probabilities(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """(clips, classes) float32, each row of sum 1 where a clip has one label; see :meth:`logits`."""
        logits = torch.from_numpy(self.logits(clips))
        return (logits.sigmoid() if self.task.several else logits.softmax(dim=1)).numpy()

    @torch.inference_mode()
    def _forward(self, clips: Sequence[np.ndarray], size: int) -> Tensor:
        block = np.zeros((len(clips), size), dtype=np.int16)
        for row, clip in enumerate(clips):
            block[row, : len(clip)] = clip
        waveform = torch.from_numpy(block).to(self.device).float() / FULL_SCALE
        lengths = torch.tensor([len(clip) for clip in clips], device=self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            logits: Tensor = self.model(waveform, lengths).float().cpu()
        if not logits.isfinite().all():
            raise UserError(f"{self.place}: the model's answer is no finite number: its weights are damaged")
        return logits


def device_named(name: str, threads: int | None = None) -> str:
    """``cpu`` or ``cuda``; ``auto`` is the GPU where there is one.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads of this process; None leaves them as they are.

    Raises:
        UserError: ``cuda`` without such a device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def is_package(place: Path) -> bool:
    """Whether a folder was written by ``sousa_bench.export``."""
    try:
        return PACKAGE_KEY in read_json(place / PACKAGE_FILE, linked=True)
    except (OSError, ValueError, TypeError):
        return False


def read_package(place: Path) -> dict[str, Any]:
    """What a package says of itself.

    Raises:
        UserError: Written by a newer version, or a key is missing or of another type.
    """
    file = place / PACKAGE_FILE
    try:
        content = read_facts(file, PACKAGE_TYPES, linked=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read as a package's ({error}); export the run again") from error
    if content[PACKAGE_KEY] > PACKAGE_FORMAT:
        raise UserError(f"{file}: written by a newer sousa_bench ({content.get('sousa_bench')}); update this one")
    if len(content["labels"]) != len(saved_task(content, file).classes):
        raise UserError(f"{file}: its labels and its task are of different numbers of classes; export the run again")
    return content
