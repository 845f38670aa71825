"""The variant that a config leaves open and an official file tells. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from sousa_bench.config.config_errors import resolved
from sousa_bench.models.official_file import variant_told
from sousa_bench.peft.options import plain

LEFT_NULL = ("official", "clap")
"""Variants that followed from a file before the others did: their runs keep the identity that they had, with null."""


def take_variant(config: DictConfig) -> None:
    """Write down the variant, so that the run is the one with ``model.variant`` spelt out, and its record says it."""
    model = config.get("model")
    if not isinstance(model, DictConfig):
        return
    with resolved():
        variant = followed(plain(model))
    if variant is not None:
        model.variant = variant


def followed(model: Mapping[str, Any]) -> str | None:
    """What takes the place of ``variant: null`` in a model's node; None where it stays."""
    told = variant_told(model)
    return None if told in LEFT_NULL else told
