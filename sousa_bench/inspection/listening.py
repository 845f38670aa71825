"""Every clip decoded once: how it was recorded, what is wrong with it, and which clips are the same sound."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile as sf
from tqdm import tqdm

from sousa_bench.data import SousaData
from sousa_bench.data.cache import LONGEST, STORED_SECONDS, too_long
from sousa_bench.data.decode import NO_LENGTH, BadClip, Part, mix, read_channels, usable_mono, why_unreadable
from sousa_bench.data.sources.source import Audio, Source
from sousa_bench.system.cores import usable_cores

FULL_SCALE = 127 / 128
"""The highest sample of 8 bits, which the others' full scale lies above."""

BLOCK = 1 << 20
"""Frames of a long recording that are in memory at a time."""

PIECE = 64
"""Clips that a thread takes at a time."""


class Heard(NamedTuple):
    """One clip's sound.

    Attributes:
        seconds: Of the whole file; 0 where it can't be used.
        rate: Sample rate in Hz, as it was recorded; 0 where it can't be used.
        channels: As it was recorded; 0 where it can't be used.
        clipped: Whether three samples of a channel in a row, or more, stand at full scale.
        digest: Of sample rate and samples, channels mixed: the same for the same sound in any format.
        kind: What kind of a bad clip it is (`BadClip.kind`); empty for one that can be used.
        reason: What is wrong with it, in words.
    """

    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    clipped: bool = False
    digest: bytes = b""
    kind: str = ""
    reason: str = ""


def heard_clips(data: SousaData) -> pd.DataFrame:
    """The clips that a training would use, each with `clip`, its file's name, and the fields of `Heard`."""
    whole, clips = data.windows is not None, data.chosen()
    stored = max(LONGEST if whole else STORED_SECONDS, float(data.max_duration))
    heard = hear(data.source, clips, stored, whole, data.workers)
    return clips.drop(columns="seconds").assign(clip=data.source.names(clips)).join(heard)


def hear(source: Source, table: pd.DataFrame, seconds: float, whole: bool, workers: int | None) -> pd.DataFrame:
    """Listen to clips, with a progress line on the standard error.

    Args:
        source: The dataset.
        table: Some of its clips.
        seconds: As much of a clip as a training decodes, which must be neither silent nor damaged.
        whole: Whether a longer clip can't be used.
        workers: Threads; None: one for each usable core. libsndfile works outside Python's lock.

    Returns:
        The fields of `Heard`, one row for each of `table`.

    Raises:
        DataError: A file that holds several clips can't be read.
    """
    source.fetch(table)
    heard: list[Heard] = [Heard(kind="missing", reason="is missing")] * len(table)

    def piece(positions: np.ndarray) -> int:
        for position, audio in source.audio(table, positions):
            heard[position] = listen(audio, seconds, whole)
        return len(positions)

    pool = ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="listen")
    pace = 0.5 if sys.stderr.isatty() else 10.0
    try:
        pieces = [pool.submit(piece, positions) for positions in source.groups(table, PIECE)]
        with tqdm(total=len(table), desc="listening", unit="clip", mininterval=pace) as bar:
            for done in as_completed(pieces):
                bar.update(done.result())
    finally:  # on Ctrl-C or an error nothing new is begun
        pool.shutdown(cancel_futures=True)
    return pd.DataFrame(heard, index=table.index, columns=Heard._fields)


def listen(audio: Audio, seconds: float, whole: bool = False) -> Heard:
    """Listen to one clip; what is wrong with it is among what is heard. See `hear`."""
    try:
        return _listen(audio, seconds, whole)
    except BadClip as bad:
        return Heard(kind=bad.kind, reason=str(bad))


def _listen(audio: Audio, seconds: float, whole: bool) -> Heard:
    samples, rate, complete = read_channels(audio, seconds)
    usable_mono(samples)
    if whole and not complete:
        raise too_long(seconds)
    sound = hashlib.blake2b(str(rate).encode(), digest_size=16)
    frames, clipped = 0, False
    for block in [samples] if complete else _blocks(audio):
        frames += len(block)
        clipped = clipped or is_clipped(block)
        sound.update((block[:, 0] if block.shape[1] == 1 else mix(block)).tobytes())
    return Heard(frames / rate, rate, samples.shape[1], clipped, sound.digest())


def _blocks(audio: Audio) -> Iterator[np.ndarray]:
    """(samples, channels) of a whole clip, block by block.

    Raises:
        BadClip: It can't be decoded to its end.
    """
    if isinstance(audio, BytesIO):
        audio.seek(0)
    part, audio = (audio, audio.path) if isinstance(audio, Part) else (None, audio)
    try:
        with sf.SoundFile(audio) as file:
            left = NO_LENGTH if part is None else part.frames(file)
            while len(block := file.read(min(BLOCK, left), dtype="float32", always_2d=True)):
                left -= len(block)
                yield block
    except (sf.LibsndfileError, RuntimeError) as error:
        raise BadClip(why_unreadable(audio, error)) from error


def is_clipped(samples: np.ndarray) -> bool:
    """Whether three samples of a channel in a row, or more, stand at full scale; (samples, channels)."""
    if max(samples.max(), -samples.min()) < FULL_SCALE:
        return False
    level = np.minimum(np.abs(samples), 1)
    flat = (level[2:] == level[1:-1]) & (level[1:-1] == level[:-2]) & (level[2:] >= FULL_SCALE)
    return bool(flat.any())
