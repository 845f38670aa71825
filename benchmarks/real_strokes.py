"""Whether beginnings, strokes or sounds keep weights that know the rudiments from real clips.

    python benchmarks/real_strokes.py /data/rudiments model=efficientat
    python benchmarks/real_strokes.py /data/rudiments model=efficientat weights=further model.checkpoint=drums

Before any training the model hears each clip of a folder in the layout of SOUSA's generator, the same clip after a
moment of silence, and the clip's labelled strokes on the drums and in the rooms of the synthetic domains. Prints for
each the share of clips whose rudiment comes first, or among the first five, and the mean negative log-likelihood of the
right one, in nats.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from sousa_bench.data.synthetic import SAMPLE_RATE
from sousa_bench.data.synthetic.drums import DRUMS, Drum, make_bank
from sousa_bench.data.synthetic.performance import LEAD_IN_MS, STROKE
from sousa_bench.data.synthetic.rooms import FFT_SIZE, ROOMS, VARIANTS, render
from sousa_bench.errors import UserError
from sousa_bench.inference.predictor import Predictor


def drums_of(domain: str, wanted: Callable[[Drum], bool]) -> tuple[str, list[int]]:
    """A domain and its drums of a kind, by number."""
    return domain, [number for number, drum in enumerate(DRUMS[domain]) if wanted(drum)]


SOUNDS = {
    "source, drums without a tone": drums_of("source", lambda drum: not drum.tone),
    "source, low notes": drums_of("source", lambda drum: drum.name.startswith("Pitched_")),
    "target, low notes": drums_of("target", lambda drum: drum.tone > 1),
}


def wav(sound: np.ndarray, rate: int) -> BytesIO:
    """Samples as a WAV file."""
    file = BytesIO()
    sf.write(file, sound, rate, format="WAV")
    file.seek(0)
    return file


def struck(strokes: pd.DataFrame, domain: str, drums: list[int], seed: int) -> BytesIO:
    """A clip's strokes, as a WAV file, on one of these drums in any room of the domain."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(strokes), STROKE)
    for key in ("hand", "actual_time_ms", "actual_velocity"):
        rows[key] = strokes[key]
    rows["actual_time_ms"] -= min(0.0, rows["actual_time_ms"].min())  # a grace note may come before the beginning
    rows = rows[rows["actual_time_ms"] < 1000 * FFT_SIZE / SAMPLE_RATE - 1000]
    samples = int((rows["actual_time_ms"].max() + 1000) * SAMPLE_RATE / 1000)
    drum, room, place = (int(rng.choice(some)) for some in (drums, len(ROOMS[domain]), VARIANTS))
    return wav(render(rows, samples, make_bank(domain, drum), domain, room, place, rng), SAMPLE_RATE)


LATER_MS = int(LEAD_IN_MS["target"][0])


def later(path: Path) -> BytesIO:
    """A recording after `LATER_MS` of silence, as a WAV file."""
    sound, rate = sf.read(path, dtype="float32", always_2d=True)
    return wav(np.pad(sound, ((rate * LATER_MS // 1000, 0), (0, 0))), rate)


def compare(root: Path, overrides: list[str]) -> None:
    """Print what a model hears in a folder's clips, and in their strokes.

    Raises:
        UserError: The model's head doesn't know the folder's rudiments.
    """
    clips = pd.read_parquet(root / "labels" / "samples.parquet").set_index("sample_id")
    strokes = dict(iter(pd.read_parquet(root / "labels" / "strokes.parquet").groupby("sample_id")))
    predictor = Predictor.untrained(overrides)
    if unknown := sorted(set(clips["rudiment_slug"]) - set(predictor.labels)):
        raise UserError(f"{predictor.name} doesn't know {unknown[0]}: give weights that were trained on rudiments")
    right = np.array([predictor.labels.index(slug) for slug in clips["rudiment_slug"]])
    sounds: dict[str, list[str | BytesIO]] = {
        "as recorded": [str(root / path) for path in clips["audio_path"]],
        f"as recorded, {LATER_MS} ms later": [later(root / path) for path in clips["audio_path"]],
    }
    for name, (domain, some) in SOUNDS.items():
        sounds[name] = [struck(strokes[sample], domain, some, seed) for seed, sample in enumerate(clips.index)]
    print(f"{len(clips)} clips, {clips['profile_id'].nunique()} players; {predictor.name}, not trained on any of them")
    print(f"{'':30} top-1  top-5  loss")
    for name, files in sounds.items():
        told = predictor.probabilities([predictor.read(file) for file in files])
        of_right = told[np.arange(len(told)), right]
        place = (told > of_right[:, None]).sum(1)
        loss = -np.log(np.maximum(of_right, 1e-12)).mean()
        print(f"{name:30} {(place == 0).mean():.3f}  {(place < 5).mean():.3f}  {loss:.2f}")


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/real_strokes.py FOLDER model=NAME [weights=further model.checkpoint=...]")
    try:
        compare(Path(sys.argv[1]), sys.argv[2:])
    except (OSError, KeyError, ValueError, UserError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
