"""BEATs: Audio Pre-Training with Acoustic Tokenizers (Chen et al. 2022, arXiv 2212.09058)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sousa_bench.models.assembly import assemble
from sousa_bench.models.base import AudioModel
from sousa_bench.models.beats_checkpoint import SOURCE, config_from, config_of, own_keys
from sousa_bench.models.beats_frontend import BeatsFrontend
from sousa_bench.models.beats_network import BeatsBackbone, BeatsConfig
from sousa_bench.models.heads import head_of
from sousa_bench.models.weight_files import check_weights
from sousa_bench.models.weights import load_official, pick_variant, seeded

__all__ = ["BeatsBackbone", "BeatsConfig", "BeatsFrontend", "build"]


def build(
    *,
    variants: Mapping[str, Mapping[str, Any]],
    head: str,
    targets: Mapping[str, Any],
    num_classes: int | None = 40,
    name: str = "beats",
    variant: str | None = None,
    weights: str = "random",
    checkpoint: str | None = None,
    seed: int = 0,
    refuses: Mapping[str, str] | None = None,
) -> AudioModel:
    """BEATs with the weights that were asked for.

    Args:
        variants: Name → fields of :class:`BeatsConfig`.
        num_classes: Classes; a fine-tuned file's own head is kept when it has as many, else the head is new. None: as
            many as the file has, or AudioSet's 527.
        head: Dotted name, inside the backbone, of the module that makes the logits.
        targets: Fields of :class:`sousa_bench.models.base.Targets`.
        name: Model name in results.
        variant: One of ``variants``; None is ``official`` with official weights and ``tiny`` without.
        weights: ``official``, ``random`` or ``embedded``.
        checkpoint: Official file, pretrained or fine-tuned: a path, URL or hub address; None is the published one.
        seed: Of the random weights, and of a new head.
        refuses: Methods that don't fit this model; read by the sweep before anything is built.

    Returns:
        The model, in training mode.

    Raises:
        ConfigError: An unknown variant or kind of weights.
        WeightsError: The weights can't be had or don't fit.
    """
    check_weights(weights, checkpoint)
    variant, numbers = pick_variant(weights, variant, variants)
    config = config_from(numbers)
    loaded = load_official(SOURCE, checkpoint) if weights == "official" else None
    state: dict[str, Tensor] = {}
    if loaded is not None:
        config = config_of(loaded, config)
        state = own_keys(loaded, config.encoder_layers)
    num_classes, fresh = head_of(state, head, num_classes)
    with seeded(seed):
        backbone = BeatsBackbone(config, num_classes)
    return assemble(
        name=name,
        variant=variant,
        frontend=BeatsFrontend(config.input_patch_size),
        backbone=backbone,
        head=head,
        targets=targets,
        weights=weights,
        seed=seed,
        official=lambda: (state, loaded.info),  # type: ignore[union-attr]
        checkpoint=checkpoint,
        fresh=fresh,
    )
