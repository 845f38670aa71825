"""SOUSA's clips: where they come from, which of them a run uses, and their waveforms."""

from sousa_bench.data.sousa import SousaData, fingerprint

__all__ = ["SousaData", "fingerprint"]
