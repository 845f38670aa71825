"""The variant that a config leaves open and a file of weights tells. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sousa_bench.config.run_config import RunConfig
from sousa_bench.models import official_file, packed_file

LEFT_NULL = {"official": ("official", "clap"), "embedded": ("tiny",)}
"""Weights → variants that followed before the others did: their runs keep the identity that they had, with null."""


def with_variant(config: RunConfig) -> RunConfig:
    """The variant written down, so that the run is the one with ``model.variant`` spelt out, and its record says it."""
    model = config.values.get("model")
    variant = followed(model) if isinstance(model, Mapping) else None
    return config if variant is None else config.having("model.variant", variant)


def followed(model: Mapping[str, Any]) -> str | None:
    """What takes the place of ``variant: null`` in a model's node; None where it stays."""
    told = official_file.variant_told(model) or packed_file.variant_told(model)
    return None if told in LEFT_NULL.get(str(model.get("weights")), ()) else told
