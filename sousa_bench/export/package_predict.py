"""Say what is heard in audio files, with the model of this folder.

python predict.py FILE...

Needs onnxruntime, numpy, soundfile and soxr, and no sousa_bench, which put this file beside its graph. The answers are
those of ``python -m sousa_bench.predict`` with this folder: any sample rate, any number of channels, any length.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

NEEDED = "onnxruntime numpy soundfile soxr"
try:
    import numpy as np
    import onnxruntime
    import soundfile as sf
    import soxr
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: predict.py needs {error.name}: pip install {NEEDED}")

BLOCK_VALUES = 2**19
"""Samples over all channels of one read: 2 MiB."""
BATCH = 16
"""Windows that go through the graph together."""
FULL_SCALE = 32768
NO_LENGTH = 1 << 40
"""libsndfile gives an absurd number of frames where a header tells none."""
STREAMED = 0xFFFFF000
"""Bytes; a WAV header that promises as much was written before the length was known."""
SHORTFALL = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""In libsndfile's log: the bytes that a WAV header promises, and those that are there."""
TOO_LOUD = 2.0
"""Times full scale, above which clipping is noted."""
CUT_NOTED = 0.5
"""Seconds; a shorter part that is cut off a clip is not noted."""


class BadFile(Exception):  # noqa: N818 - a fact about a file
    """A file that gets no answer; the text says why, without its name."""


class Recording:
    """A file that is read once, from its beginning.

    Args:
        path: The file.
        target: Hz of the blocks.
    """

    def __init__(self, path: Path, target: int) -> None:
        self.path, self.target = path, target
        self.rate = self.channels = self.frames = 0
        self.expected: float | None = None
        self.notes: list[str] = []

    @property
    def seconds(self) -> float:
        """Read so far."""
        return self.frames / self.rate if self.rate else 0.0

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples,) int16 each: mixed to mono, at the target's rate.

        Raises:
            BadFile: No file, no audio, or samples that are not finite numbers.
        """
        if not self.path.is_file():
            raise BadFile("is no file" if self.path.exists() else "is missing: there is no such file or folder")
        if not self.path.stat().st_size:
            raise BadFile("is empty: zero bytes")
        try:
            file = sf.SoundFile(str(self.path))
        except UnicodeError as error:
            raise BadFile("can't be opened: its name is no UTF-8; rename it") from error
        except (sf.LibsndfileError, RuntimeError, OSError) as error:
            raise BadFile(f"can't be read as audio ({_reason(error)})") from error
        with file:
            self._describe(file)
            try:
                same = self.rate == self.target
                convert = None if same else soxr.ResampleStream(self.rate, self.target, 1, dtype="float32")
            except (ValueError, RuntimeError) as error:
                raise BadFile(f"has a sample rate of {self.rate} Hz, which can't be converted ({error})") from error
            for mono in self._mono(file):
                yield _to_int16(mono if convert is None else convert.resample_chunk(mono))
            if convert is not None:
                yield _to_int16(convert.resample_chunk(np.zeros(0, np.float32), last=True))

    def _describe(self, file: sf.SoundFile) -> None:
        self.rate, self.channels = file.samplerate, file.channels
        if file.frames < NO_LENGTH:
            self.expected = file.frames / file.samplerate
        promised = SHORTFALL.search(file.extra_info) if "WAV" in file.format else None
        if promised and int(promised[2]) < int(promised[1]) < STREAMED:
            share = int(promised[2]) / int(promised[1])
            self.notes.append(f"truncated: {share:.0%} of what its header promises is there")
        if self.rate < self.target:
            self.notes.append(
                f"recorded at {self.rate} Hz: nothing above {self.rate // 2} Hz, and the model listens up to "
                f"{self.target // 2} Hz"
            )

    def _mono(self, file: sf.SoundFile) -> Iterator[np.ndarray]:
        peak = 0.0
        while True:
            try:
                block = file.read(max(BLOCK_VALUES // file.channels, 1), dtype="float32", always_2d=True)
            except (sf.LibsndfileError, RuntimeError) as error:
                if not self.frames:
                    raise BadFile(f"can't be read as audio ({_reason(error)})") from error
                self.notes.append(f"damaged: nothing can be read after {self.seconds:.1f} s")
                return
            if not len(block):
                break
            self.frames += len(block)
            mono = block.sum(axis=1) * np.float32(1 / file.channels)
            loudest = float(np.abs(mono).max())
            if not math.isfinite(loudest):
                raise BadFile("holds samples that are not finite numbers")
            peak = max(peak, loudest)
            yield mono
        if not self.frames:
            raise BadFile("holds no audio: its length is zero")
        if peak > TOO_LOUD:
            self.notes.append(f"samples of up to {peak:.3g} times full scale were clipped")
        if self.expected and self.seconds < self.expected - 0.01:
            self.notes.append(
                f"truncated: its header promises {self.expected:.1f} s, and there are {self.seconds:.1f} s"
            )


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2].strip().rstrip(".").lower()


def _to_int16(samples: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.clip(np.rint(samples * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1)
    return whole.astype(np.int16)


def windows(blocks: Iterator[np.ndarray], size: int, hop: int, slack: int) -> Iterator[tuple[int, np.ndarray]]:
    """Overlapping windows of a recording, each with its first sample; the last one ends where the recording does.

    Args:
        blocks: The recording.
        size: Samples of a window.
        hop: Samples from one start to the next.
        slack: Samples by which a recording may exceed one window and still be one, its first ``size``.
    """
    held = np.zeros(0, np.int16)
    first, start = 0, 0  # of what is held, and of the next window
    for block in blocks:
        held = np.concatenate([held, block])
        if not start and len(held) <= size + slack:
            continue
        while start + size <= first + len(held):
            yield start, held[start - first : start - first + size]
            start += hop
        keep = max(min(start, first + len(held) - size), first)
        held, first = held[keep - first :], keep
    end = first + len(held)
    if not start and len(held):
        yield 0, held[:size]
    elif start and start - hop + size < end:
        yield end - size, held[end - size - first :]


def contrast(clip: np.ndarray, rate: int, rule: dict[str, float]) -> float:
    """By how many dB the clearest stroke of a clip stands above what precedes and what follows it.

    Args:
        clip: (samples,) int16.
        rate: Hz.
        rule: ``strokes`` of the package's config.
    """
    samples = (clip - np.float64(clip[0])) / FULL_SCALE  # a high-pass filter that has settled on the first sample
    filtered = _high_pass(samples, rate, rule["high_pass"])[round(rule["settle"] * rate) :]
    step = round(rule["step"] * rate)
    count = len(filtered) // step
    if not count:
        return 0.0
    power = (filtered[: count * step] ** 2).reshape(count, step).mean(axis=1)
    kernel = np.array([1, 2, 3, 4, 3, 2, 1]) / 16
    level = 10 * np.log10(np.convolve(np.pad(power, len(kernel) // 2, mode="edge"), kernel, "valid") + rule["floor"])
    before, after = round(rule["rise"] / rule["step"]), round(rule["fall"] / rule["step"])
    view = np.lib.stride_tricks.sliding_window_view
    quiet = 10 * math.log10(rule["floor"])
    rises = level - view(np.pad(level, (before, 0), constant_values=quiet), before + 1).min(axis=1)
    falls = level - view(np.pad(level, (0, after), mode="edge"), after + 1).min(axis=1)
    return float(np.minimum(rises, falls).max())


def _high_pass(samples: np.ndarray, rate: int, edge: float) -> np.ndarray:
    """Butterworth's filter of the fourth order, by its frequency response (bilinear transform); it rings for 0.1 s."""
    size = len(samples) + rate // 2
    with np.errstate(divide="ignore"):
        below = math.tan(math.pi * edge / rate) / np.tan(np.pi * np.arange(1, size // 2 + 1) / size)
    poles = [2 * math.cos(math.pi / 8), 2 * math.cos(3 * math.pi / 8)]
    response = np.zeros(size // 2 + 1, np.complex128)
    response[1:] = 1 / ((1 - poles[0] * 1j * below - below**2) * (1 - poles[1] * 1j * below - below**2))
    filtered: np.ndarray = np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)]
    return filtered


class Package:
    """The model of a folder.

    Args:
        folder: As ``sousa_bench.export`` wrote it.
        threads: Of the graph; None: as many as onnxruntime takes.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.name = folder.resolve().name
        self.task: dict[str, Any] = self.facts["task"]
        self.listening: dict[str, Any] = self.facts["listening"]
        self.strokes: dict[str, float] | None = self.listening["strokes"]
        self.several: bool = self.task["several"]
        self.confidence: dict[str, Any] | None = self.facts["confidence"]
        said = self.facts["preprocessing"]
        self.rate: int = said["sample_rate"]
        self.size: float = said["max_duration"]
        self.shortest: float = said["min_duration"]
        self.whole = said.get("windows") is not None
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # int8 weights become float32 once, here
        graph, names = str(folder / self.facts["onnx"]["file"]), self.facts["onnx"]
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.input, self.output = names["input"], names["output"]

    def answer(self, path: Path, top: int) -> dict[str, Any]:
        """What is heard in a file, as JSON; what is wrong with it stands there, too.

        Args:
            path: The file.
            top: Classes beside the best one.
        """
        recording = Recording(path, self.rate)
        starts: list[int] = []
        rows: list[np.ndarray | None] = []
        silent = True
        size, hop = round(self.size * self.rate), round(self.size / 2 * self.rate)
        slack = 0 if self.whole else round(self.size / 4 * self.rate)
        waiting = windows(recording.blocks(), size, hop, slack)
        try:
            while batch := list(itertools.islice(waiting, BATCH)):
                starts += [start for start, _ in batch]
                clips = [clip for _, clip in batch]
                rows += self._rows(clips)
                silent = silent and all(self._is_silent(clip) for clip in clips)
        except BadFile as error:
            facts: dict[str, Any] = {"sample_rate": recording.rate or None, "channels": recording.channels or None}
            return self._record(path, "error", str(error), **facts, notes=recording.notes)
        return self._heard(recording, [start / self.rate for start in starts], rows, silent, top)

    def _rows(self, clips: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """(classes,) probabilities of each window; None where nothing is heard."""
        heard = [len(clip) >= round(self.shortest * self.rate) and self._is_heard(clip) for clip in clips]
        asked = [clip for clip, yes in zip(clips, heard, strict=True) if yes]
        if not asked:
            return [None] * len(clips)
        waveform = np.stack(asked).astype(np.float32) / np.float32(FULL_SCALE)
        try:
            logits = np.asarray(self.session.run([self.output], {self.input: waveform})[0])
        except Exception as error:  # onnxruntime has no class of its own that all its errors share
            raise BadFile(f"makes onnxruntime fail ({type(error).__name__}: {error})") from error
        if not np.isfinite(logits).all():
            raise BadFile("makes the model answer with numbers that are not finite: the graph is damaged")
        rows = iter(self._probabilities(logits))
        return [next(rows) if yes else None for yes in heard]

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if self.several:
            return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _is_silent(self, clip: np.ndarray) -> bool:
        return max(int(clip.max()), -int(clip.min())) < self.listening["silence"] * FULL_SCALE

    def _is_heard(self, clip: np.ndarray) -> bool:
        if self._is_silent(clip):
            return False
        return self.strokes is None or contrast(clip, self.rate, self.strokes) >= self.strokes["contrast"]

    def _heard(
        self, recording: Recording, starts: list[float], rows: list[np.ndarray | None], silent: bool, top: int
    ) -> dict[str, Any]:
        seconds, heard = recording.seconds, [row for row in rows if row is not None]
        notes = list(recording.notes)
        if len(rows) == 1 and seconds >= self.size + CUT_NOTED:
            usual = "" if self.whole else ", as in training"
            notes.append(f"the first {self.size:g} s of {seconds:.1f} were heard{usual}")
        facts: dict[str, Any] = {
            "seconds": round(seconds, 3),
            "sample_rate": recording.rate,
            "channels": recording.channels,
            "windows": len(rows),
            "heard": len(heard),
            "notes": notes,
        }
        if seconds < self.shortest:
            reason = f"{seconds * 1000:.3g} ms, and the least is {self.shortest * 1000:g} ms"
            return self._record(recording.path, "too_short", reason, **facts)
        if not heard:
            reason = "silence" if silent else "a steady sound, in which nothing is struck"
            return self._record(recording.path, "no_drum" if self.strokes else "no_sound", reason, **facts)
        mean: np.ndarray = np.stack(heard).mean(axis=0, dtype=np.float64)
        facts |= {"probabilities": mean, "top": top}
        if len(starts) > 1:
            facts["timeline"] = self._timeline(starts, seconds, rows)
        if self._accepted(mean):
            return self._record(recording.path, "ok", None, **facts)
        reason = f"no {self.task['noun']} has a probability above {percent(self.listening['likely'])}"
        return self._record(recording.path, "none", reason, **facts)

    def _record(
        self,
        path: Path,
        status: str,
        reason: str | None,
        *,
        seconds: float | None = None,
        sample_rate: int | None = None,
        channels: int | None = None,
        windows: int = 0,
        heard: int = 0,
        probabilities: np.ndarray | None = None,
        top: int = 0,
        timeline: Sequence[dict[str, Any]] = (),
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        best: Sequence[Any] = [] if probabilities is None else np.argsort(-probabilities, kind="stable")[:top].tolist()
        return {
            "file": str(path),
            "status": status,
            "reason": reason,
            "seconds": seconds,
            "sample_rate": sample_rate,
            "channels": channels,
            **self._said(probabilities),
            "top": [self._named(number, probabilities) for number in best],
            "windows": windows,
            "drum_windows" if self.strokes else "heard_windows": heard,
            "timeline": list(timeline),
            "notes": list(notes),
        }

    def _said(self, probabilities: np.ndarray | None) -> dict[str, Any]:
        if probabilities is None:
            empty = dict.fromkeys((self.task["noun"], "name", "family", "probability", "confident"))
            return empty | ({"accepted": None} if self.several else {})
        first = self._judged(int(probabilities.argmax()), probabilities)
        if not self.several:
            return first
        return first | {"accepted": [self._judged(n, probabilities) for n in self._accepted(probabilities)]}

    def _judged(self, number: int, probabilities: np.ndarray) -> dict[str, Any]:
        """A class with whether it is a confident answer; None where the package doesn't say when it is."""
        confident = None
        if self.confidence is not None:
            threshold = self.confidence["threshold"]
            confident = threshold is not None and bool(probabilities[number] >= threshold)
        return {**self._named(number, probabilities), "confident": confident}

    def _named(self, number: int, probabilities: Any) -> dict[str, Any]:
        name = self.task["classes"][number]
        return {
            self.task["noun"]: name,
            "name": self.task["names"].get(name, name),
            "family": self.task["families"].get(name),
            "probability": float(f"{probabilities[number]:.7g}"),
        }

    def _accepted(self, probabilities: np.ndarray) -> list[int]:
        """Numbers of the classes that are said to be heard: one, or of several labels each of a high probability."""
        order = np.argsort(-probabilities, kind="stable")
        count = int((probabilities > self.listening["likely"]).sum()) if self.several else 1
        return [int(number) for number in order[:count]]

    def _timeline(self, starts: list[float], end: float, rows: list[np.ndarray | None]) -> list[dict[str, Any]]:
        """Stretches with one answer each; over every place the mean of the windows that cover it is taken."""
        parts: list[tuple[float, float, Any, Any]] = []
        oldest = 0
        for number, (begin, until) in enumerate(itertools.pairwise([*starts, end])):
            while starts[oldest] + self.size <= (begin + until) / 2 and oldest < number:
                oldest += 1
            over = rows[oldest : number + 1]
            heard = [row for row in over if row is not None]
            named = 2 * len(heard) > len(over)
            mean: np.ndarray | None = np.stack(heard).mean(axis=0, dtype=np.float64) if named else None
            labels = None if mean is None else frozenset(self._accepted(mean))
            if parts and parts[-1][2] == labels:
                start, middle, _, before = parts.pop()
                if mean is not None:
                    first, second = middle - start, until - begin
                    mean = (before * first + mean * second) / max(first + second, 1e-9)
                begin = start
            parts.append((begin, until, labels, mean))
        return [{"start": round(a, 3), "end": round(b, 3), **self._said(mean)} for a, b, _, mean in parts]

    def heading(self) -> list[str]:
        """What is said of the model, once."""
        return [f"Model: {self.name}", *filter(None, (self.facts["about"], self.facts["confidence_text"]))]

    def lines(self, record: dict[str, Any]) -> list[str]:
        """A file's answer for people."""
        made = [f"{record['file']}  {self._text(record, record['top'])}"]
        for part in record["timeline"]:
            made.append(f"  {clock(part['start']):>9} – {clock(part['end'])}  {self._text(part, [part])}")
        return made + [f"  ({note})" for note in record["notes"]]

    def _text(self, part: dict[str, Any], best: Sequence[dict[str, Any]]) -> str:
        if part["probability"] is None:
            nothing = "no drum" if self.strokes else "no sound"
            named = "too short" if part.get("status") == "too_short" else nothing
            return f"{named} ({part['reason']})" if part.get("reason") else named
        if self.several and not part["accepted"]:
            return f"none (most probable: {_texts(best)})"
        return _texts(part["accepted"] if self.several else [part, *best[1:]])


def _texts(items: Sequence[dict[str, Any]]) -> str:
    """Classes with their probabilities; a mark is behind an answer that is not confident."""
    doubt = {False: " ?"}
    return ", ".join(
        f"{item['name']} {percent(item['probability'])}{doubt.get(item.get('confident', True), '')}" for item in items
    )


def percent(probability: float) -> str:
    """``91 %``, ``4.3 %``, ``< 0.1 %``."""
    if probability < 0.001:
        return "< 0.1 %"
    return f"{100 * probability:.0f} %" if probability >= 0.095 else f"{100 * probability:.1f} %"


def clock(seconds: float) -> str:
    """``0:07.5``, ``12:00.0``, ``1:00:00.0``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{tenths / 10:04.1f}"
    return text if not hours else f"{hours}:{minutes:02}:{tenths / 10:04.1f}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def positive(text: str) -> int:
    """A whole number above 0, of the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 1 where a file got no answer."""
    parser = argparse.ArgumentParser(
        description="Say what is heard in audio files: WAV, FLAC, OGG, MP3 and what else libsndfile reads, at any "
        "sample rate, with any number of channels, of any length.",
        epilog="Exit code: 0; 1 where a file could not be read (the others still get their answer); 2 for a wrong "
        "command line.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="classes of each answer (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
    options = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parent
    try:
        package = Package(folder, options.threads)
    except Exception as error:  # of JSON, of a key that is missing, and whatever onnxruntime raises of a graph
        print(f"error: {folder}: is no whole package, copy it again ({type(error).__name__}: {error})", file=sys.stderr)
        return 1
    if not options.json:
        print(_printable("\n".join(package.heading())), flush=True)
    answers, code = [], 0
    for file in options.files:
        answers.append(package.answer(file, options.top))
        failed = answers[-1]["status"] == "error"
        code = max(code, int(failed))
        if options.json:
            continue
        if failed:
            print(_printable(f"error: {file} {answers[-1]['reason']}"), file=sys.stderr, flush=True)
        else:
            print(_printable("\n".join(package.lines(answers[-1]))), flush=True)
    if options.json:
        model = {"name": package.name, "about": package.facts["about"], "confidence": package.confidence}
        print(json.dumps({"model": model, "files": answers}, indent=2, allow_nan=False))
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
