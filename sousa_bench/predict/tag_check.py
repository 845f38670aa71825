"""``--check``: three sounds that are made here, heard by a published model, beside what is recorded for its file."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from sousa_bench.config.composing import composed
from sousa_bench.data.synthetic import SAMPLE_RATE
from sousa_bench.data.synthetic.generator import Generator
from sousa_bench.errors import ConfigError, WeightsError
from sousa_bench.inference.answer import TOP
from sousa_bench.inference.listener import Listener, Windows
from sousa_bench.inference.predictor import Predictor
from sousa_bench.predict.prediction import model_line, opened
from sousa_bench.system.foreign import clean

RECORD = Path(__file__).with_name("recorded_tags.json")
"""SHA-256 of a checkpoint file → its name and, for each sound, display name → probability of its best classes."""

TOLERANCE = 0.02
"""Of a probability. With mn04 no pre-emphasis moves one of these by 0.29, another offset of the logarithm by 0.52, a
filter bank up to 16 kHz by 0.07, a hard sigmoid gate by 0.22, another epsilon of BatchNorm by 0.21, bfloat16 by 0.09.
Another number of threads moves none. A periodic window and HTK's filter bank, below 0.002, are seen by the parity tests
alone (docs/models.md)."""

SECONDS = 5.0
FULL_SCALE = 32767


def snare_roll() -> NDArray[np.int16]:
    """A multiple bounce roll of the synthetic drummer, on a studio drum in a garage."""
    return Generator(clips=880, seed=0).clip(777).audio


def sine_sweep() -> NDArray[np.int16]:
    """From 300 to 3000 Hz, as many octaves in each second, at a tenth of full scale."""
    low, high = 300.0, 3000.0
    growth = np.log(high / low) / SECONDS
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    return _samples(0.1 * np.sin(2 * np.pi * low * np.expm1(growth * time) / growth))


def white_noise() -> NDArray[np.int16]:
    """Gaussian, its deviation a quarter of full scale."""
    return _samples(np.random.default_rng(0).normal(0.0, 0.25, round(SECONDS * SAMPLE_RATE)))


def _samples(sound: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.round(sound.clip(-1, 1) * FULL_SCALE).astype(np.int16)


SOUNDS: Mapping[str, Callable[[], NDArray[np.int16]]] = {
    "snare roll": snare_roll,
    "sine sweep": sine_sweep,
    "white noise": white_noise,
}


def check(options: argparse.Namespace) -> int:
    """Hear the sounds, print what is heard, and compare.

    Args:
        options: The command line's, see :func:`sousa_bench.predict.__main__.parser`.

    Raises:
        ConfigError: The model is no published one.
        WeightsError: It is not what was recorded, or no number.
    """
    if (weights := composed(options.model).model.get("weights")) != "official":
        raise ConfigError(f"weights={weights}: --check is for a published model; give weights=official")
    predictor = opened(options)
    print(clean(model_line(predictor)), flush=True)
    digest = predictor.model.weights.sha256
    recorded = json.loads(RECORD.read_text(encoding="utf-8")).get(digest, {}).get("sounds", {})
    differences = []
    width = max(map(len, SOUNDS))
    for sound, heard in hear(predictor).items():
        best = ", ".join(f"{name} {probability:.3f}" for name, probability in list(heard.items())[: options.top or TOP])
        print(f"{sound:{width}}  {best}", flush=True)
        differences += [f"{sound}: {text}" for text in compare(heard, recorded.get(sound, {}))]
    if differences:
        raise WeightsError(
            f"{predictor.model.weights.origin} is known (SHA-256 {digest[:12]}…), and heard other things when its "
            f"answers were recorded: {'; '.join(differences)}. Front end or network differ from those of the record."
        )
    print(
        f"As recorded for this file (SHA-256 {digest[:12]}…), within {TOLERANCE:g}."
        if recorded
        else f"No answers are recorded for this file (SHA-256 {digest}): judge by the names above."
    )
    return 0


def hear(predictor: Predictor) -> dict[str, dict[str, float]]:
    """Sound → display name → probability, best first; the sounds go through a file, as any recording does.

    Raises:
        WeightsError: The model has no answer: its numbers are not finite.
    """
    listener = Listener(predictor, Windows.of(predictor, None, None), progress=False)
    made: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for sound, samples in SOUNDS.items():
            path = Path(folder) / f"{sound}.wav"
            soundfile.write(path, samples(), SAMPLE_RATE, subtype="PCM_16")
            answer = listener.answer(path)
            if (probabilities := answer.probabilities) is None:
                raise WeightsError(f"{predictor.model.weights.origin}: the {sound} {answer.reason}")
            order = np.argsort(-probabilities, kind="stable")
            task = predictor.task
            made[sound] = {task.display(task.classes[i]): float(probabilities[i]) for i in order}
    return made


def compare(heard: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """In words, where what is heard is not what was recorded.

    Args:
        heard: Of all classes.
        recorded: Of the best ones; empty: nothing is compared.
    """
    differing = {name: was for name, was in recorded.items() if not abs(heard.get(name, 0.0) - was) <= TOLERANCE}
    texts = [f"{name} {heard.get(name, 0.0):.3f}, recorded {was:.3f}" for name, was in differing.items()]
    if recorded:
        least = min(recorded.values())
        new = [name for name, value in heard.items() if name not in recorded and value > least + TOLERANCE]
        texts += [f"{name} {heard[name]:.3f}, recorded below {least:.3f}" for name in new[:5]]
    return texts
