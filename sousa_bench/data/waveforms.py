"""One split's waveforms at one sample rate, as views of the cache's files."""

from __future__ import annotations

from typing import Any

import numpy as np

from sousa_bench.data.chunks import map_samples
from sousa_bench.errors import DataError


class WaveformStore:
    """Clips in a fixed order.

    Holds 20 bytes a clip; the samples stay on the disk and in the system's page cache, which all processes share. It
    can be pickled, and used on both sides of a fork.

    Args:
        sample_rate: Hz.
        paths: The cache files.
        chunk: (clips,) which of `paths` holds each clip.
        start: (clips,) first sample in that file.
        lengths: (clips,) samples, cut to the longest duration wanted.
    """

    def __init__(
        self, sample_rate: int, paths: list[str], chunk: np.ndarray, start: np.ndarray, lengths: np.ndarray
    ) -> None:
        self.sample_rate = sample_rate
        self.lengths = lengths.astype(np.int64)
        self._paths = paths
        self._chunk = chunk.astype(np.int32)
        self._start = start.astype(np.int64)
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, i: int) -> np.ndarray:
        """(lengths[i],) int16, a read-only view; 32768 is full scale.

        Raises:
            DataError: The cache was deleted meanwhile.
        """
        number = int(self._chunk[i])
        samples = self._maps.get(number)
        if samples is None:
            try:
                samples = self._maps[number] = map_samples(self._paths[number])
            except FileNotFoundError as error:
                raise DataError(
                    f"{self._paths[number]} is gone: the cache was deleted while it was in use. Start again; what is "
                    "missing is decoded anew."
                ) from error
        start = int(self._start[i])
        return samples[start : start + int(self.lengths[i])]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}
