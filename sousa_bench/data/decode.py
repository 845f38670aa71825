"""One audio file to 16-bit mono at the sample rates that are wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

SILENCE = 1e-4
"""A clip whose peak lies below this (-80 dBFS) is silent."""

SHORTEST = 0.1
"""Seconds; a clip below is no performance, and leaves some models' front ends without a single frame."""

NO_LENGTH = 1 << 40
"""libsndfile gives an absurd number of frames where a header tells none."""

WAV_SHORTFALL = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""In libsndfile's log: the bytes that a WAV header promises, and those that are there."""


class BadClip(Exception):  # noqa: N818 - a fact about a file; whether it is an error, on_bad_clip says
    """A clip that can't be used; the text says what is wrong with it, without its name."""

    @property
    def kind(self) -> str:
        """`missing`, `empty`, `short`, `long`, `silent`, or else `unreadable`."""
        return next((kind for start, kind in _KINDS.items() if str(self).startswith(start)), "unreadable")


_KINDS = {
    "is missing": "missing",
    "is empty": "empty",
    "holds no audio": "empty",
    "is too short": "short",
    "is silent": "silent",
    "is longer": "long",
}
"""What kind of a bad clip a text that begins so tells of."""


@dataclass(frozen=True)
class Part:
    """A clip that is a part of a file.

    Attributes:
        path: The file, or its bytes.
        onset: Seconds from the file's beginning to the clip's.
        offset: Seconds to its end; None: the file's end.
    """

    path: str | BytesIO
    onset: float
    offset: float | None = None

    def frames(self, file: sf.SoundFile) -> int:
        """Move an open file to the clip's beginning; how many frames the clip has.

        Raises:
            BadClip: The file ends before.
        """
        end = file.frames if self.offset is None else round(self.offset * file.samplerate)
        over = end - file.frames
        if round(self.onset * file.samplerate) >= file.frames or over > SHORTEST * file.samplerate:
            length = file.frames / file.samplerate
            raise BadClip(f"ends at {length:.4g} s, before the clip from onset {self.onset:g} s does")
        begin = file.seek(round(self.onset * file.samplerate))
        return int(min(end, file.frames) - begin)


def read_mono(audio: str | BytesIO | Part, seconds: float) -> tuple[np.ndarray, int, bool]:
    """The beginning of a clip, all channels mixed to one.

    Args:
        audio: A path, a file's bytes, or a part of a file.
        seconds: Read at most this much.

    Returns:
        (samples,) float32, its sample rate in Hz, and whether that is the whole clip.

    Raises:
        BadClip: Missing, truncated, no audio, of zero length, shorter than `SHORTEST`, silent, or not finite.
    """
    samples, rate, complete = read_channels(audio, seconds)
    return usable_mono(samples), rate, complete


def read_channels(audio: str | BytesIO | Part, seconds: float) -> tuple[np.ndarray, int, bool]:
    """The beginning of a clip.

    Args:
        audio: See `read_mono`.
        seconds: Read at most this much.

    Returns:
        (samples, channels) float32, the sample rate in Hz, and whether that is the whole clip.

    Raises:
        BadClip: Missing, truncated, no audio, of zero length, or shorter than `SHORTEST`.
    """
    part, audio = (audio, audio.path) if isinstance(audio, Part) else (None, audio)
    if isinstance(audio, str) and not Path(audio).is_file():
        raise BadClip("is no regular file" if Path(audio).exists() else "is missing")
    try:
        with sf.SoundFile(audio) as file:
            rate, frames = file.samplerate, file.frames if part is None else part.frames(file)
            limit = round(seconds * rate)
            samples = file.read(min(frames, limit), dtype="float32", always_2d=True)
            shortfall = WAV_SHORTFALL.search(file.extra_info) if "WAV" in file.format else None
    except (sf.LibsndfileError, RuntimeError) as error:
        raise BadClip(why_unreadable(audio, error)) from error
    cut_wav = shortfall is not None and int(shortfall[1]) > int(shortfall[2])
    if cut_wav or (frames < NO_LENGTH and len(samples) < min(frames, limit)):
        raise BadClip("is truncated: it holds less audio than its header says")
    if len(samples) == 0:
        raise BadClip("holds no audio: its length is zero")
    if len(samples) < round(min(SHORTEST, seconds) * rate):
        raise BadClip(f"is too short: {len(samples) / rate * 1000:.3g} ms, and the least is {SHORTEST * 1000:g} ms")
    return samples, rate, frames <= limit or (frames >= NO_LENGTH and len(samples) < limit)


def usable_mono(samples: np.ndarray) -> np.ndarray:
    """(samples,): the mean over the channels of (samples, channels).

    Raises:
        BadClip: Silent, or not finite.
    """
    mono = samples[:, 0] if samples.shape[1] == 1 else mix(samples)
    low, high = float(mono.min()), float(mono.max())
    if not np.isfinite(low + high):
        raise BadClip("holds samples that are not finite numbers")
    if max(high, -low) < SILENCE:
        raise BadClip("is silent")
    return mono


def mix(samples: np.ndarray) -> np.ndarray:
    """Mean over channels; numpy's own mean over so short an axis takes as long as decoding."""
    mono = samples[:, 0] + samples[:, 1]
    for channel in range(2, samples.shape[1]):
        mono += samples[:, channel]
    mono *= np.float32(1 / samples.shape[1])
    return mono


def why_unreadable(audio: str | BytesIO, error: Exception) -> str:
    """What libsndfile's error means, in words for whoever gave the file."""
    size = Path(audio).stat().st_size if isinstance(audio, str) else len(audio.getbuffer())
    if size == 0:
        return "is empty: zero bytes"
    text = str(error).rpartition(": ")[2].strip().rstrip(".").lower()
    if "lost sync" in text or "premature" in text:
        return f"is truncated or damaged ({text})"
    if "not recognised" in text or "unimplemented" in text:
        return f"is no audio file, holds no audio, or is cut in its header ({size} bytes, {text})"
    return f"can't be decoded ({text})"


def resample(mono: np.ndarray, rate: int, target: int) -> np.ndarray:
    """(samples,) float32 at another sample rate, by soxr's high-quality polyphase filter."""
    return mono if rate == target else soxr.resample(mono, rate, target)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Full scale 1.0 becomes 32768, rounded and clipped; the inverse is division by 32768."""
    scaled = samples * np.float32(32768)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return scaled.astype(np.int16)


def decode(audio: str | BytesIO | Part, rates: Sequence[int], seconds: float) -> tuple[dict[int, np.ndarray], bool]:
    """One clip at each of several sample rates.

    Args:
        audio: See `read_mono`.
        rates: Sample rates in Hz.
        seconds: Read at most this much.

    Returns:
        (samples,) int16 for each rate, and whether that is the whole clip.

    Raises:
        BadClip: See `read_mono`.
    """
    mono, rate, complete = read_mono(audio, seconds)
    return {target: to_int16(resample(mono, rate, target)) for target in rates}, complete
