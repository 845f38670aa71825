"""The sound of some test clips, for the page, where the data are at hand.

A result says what its clips were, and may be foreign. It chooses no place to read from: the clips are looked for among
the synthetic ones in this machine's own cache, and in the folder that the command names. They are taken where the
fingerprint of the test clips is the result's, so that no other sound than the tested one is heard.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sousa_bench.errors import first_line
from sousa_bench.results.result import read_result
from sousa_bench.system.foreign import clean

if TYPE_CHECKING:
    from sousa_bench.analysis.study import Study
    from sousa_bench.data import SousaData

MOST = 12
"""Clips with a sound: with ``SECONDS`` and ``RATE`` no more than 2.6 MB of the page."""

SECONDS = 5.0
RATE = 16_000

PLACES = ("root", "hub_id", "revision", "layout", "cache_dir", "workers")
"""Keys of a result's data that would choose what is read, fetched or imported; not taken over."""


@dataclass(frozen=True)
class ClipSounds:
    """Sounds of clips.

    Attributes:
        addresses: FLAC files as data addresses, by the number of the clip set and the clip's name.
        problems: Why the folder that the command names gave none, a line each.
    """

    addresses: Mapping[tuple[int, str], str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def clip_sounds(study: Study, folder: Path | None) -> ClipSounds:
    """The beginnings of the first ``MOST`` clips that all mishear.

    Args:
        study: The study.
        folder: Where the data lie, if the command says so.
    """
    shown = study.misheard.table.head(MOST)
    addresses: dict[tuple[int, str], str] = {}
    problems: dict[str, None] = {}
    for number in map(int, shown["clip_set"].unique() if len(shown) else ()):
        clips = shown[shown["clip_set"] == number]
        result = Path(study.table["path"].iloc[study.clip_sets[number].rows[0]])
        wanted = dict(zip(clips["clip"], clips["true_class"], strict=True))
        try:
            found, reasons = _data(result, folder)
            if found is not None:
                addresses |= {(number, name): sound for name, sound in _sounds(found, wanted)}
        except Exception as error:  # a sound is an extra: nothing that a result says of its data may cost the report
            reasons = [first_line(error)] if folder is not None else []
        problems |= dict.fromkeys(map(clean, reasons))
    return ClipSounds(addresses, tuple(problems))


def _data(result: Path, folder: Path | None) -> tuple[SousaData | None, list[str]]:
    """The data that a result was tested on, or why those in the folder aren't."""
    content = read_result(result)
    node = (content.get("resolved_config") or {}).get("data") or {}
    tested = (content.get("data") or {}).get("test_fingerprint")
    reasons = []
    for places in _places(node, folder):
        from sousa_bench.data import SousaData

        known = [key for key in inspect.signature(SousaData).parameters if key in node and key not in PLACES]
        try:
            data = SousaData(**{key: node[key] for key in known} | places)
            if data.test_fingerprint == tested:
                return data, []
            reasons.append("it holds other clips than those that were tested")
        except Exception as error:  # of data as a foreign result describes them, anything may come
            reasons.append(first_line(error))
    return None, reasons[-1:] if folder is not None else []  # the folder comes last


def _places(node: Mapping[str, Any], folder: Path | None) -> Iterator[dict[str, Any]]:
    """Where the data may lie, as keys of theirs: in the cache, where they were written already, and in the folder."""
    if node.get("synthetic") and _is_written(node["synthetic"]):
        yield {}
    if folder is not None:
        yield {"root": str(folder), "synthetic": None}


def _is_written(recipe: Any) -> bool:
    from sousa_bench.data.cache_folder import cache_root
    from sousa_bench.data.sources.synthetic_source import SyntheticFolder, synthetic_folder

    try:
        return SyntheticFolder.fits(synthetic_folder(recipe, cache_root()))
    except Exception:  # a foreign recipe
        return False


def _sounds(data: SousaData, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and sound of the clips whose names and true classes are wanted, of those that can be decoded."""
    from sousa_bench.data.decode import BadClip, decode

    clips = data.chosen()
    names, task = clips["sample_id"].tolist(), data.task
    there = [place for place, name in enumerate(names) if name in wanted]
    there = [place for place in there if task.display(clips["class"].iloc[place]) == wanted[names[place]]]
    for place, audio in data.source.audio(clips, np.array(there, dtype=np.int64)):
        try:
            yield names[place], flac(decode(audio, [RATE], SECONDS)[0][RATE], RATE)
        except BadClip:
            continue


def flac(clip: NDArray[np.int16], rate: int) -> str:
    """(samples,) at ``rate`` Hz as a FLAC file in a data address."""
    import soundfile as sf

    file = BytesIO()
    sf.write(file, clip, rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode()
