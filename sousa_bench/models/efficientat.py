"""EfficientAT: Efficient Large-Scale Audio Tagging (Schmid et al. 2023, arXiv 2211.04772)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sousa_bench.errors import WeightsError
from sousa_bench.models.assembly import assemble
from sousa_bench.models.base import AudioModel
from sousa_bench.models.efficientat_frontend import EfficientATFrontend
from sousa_bench.models.efficientat_network import EfficientATBackbone, InvertedResidual
from sousa_bench.models.heads import head_of
from sousa_bench.models.weight_files import check_weights
from sousa_bench.models.weights import CheckpointSource, Loaded, load_official, pick_variant, seeded

__all__ = ["EfficientATBackbone", "EfficientATFrontend", "build"]


def build(
    *,
    variants: Mapping[str, Mapping[str, Any]],
    head: str,
    targets: Mapping[str, Any],
    num_classes: int | None = 40,
    name: str = "efficientat",
    variant: str | None = None,
    weights: str = "random",
    checkpoint: str | None = None,
    seed: int = 0,
    refuses: Mapping[str, str] | None = None,
) -> AudioModel:
    """EfficientAT with the weights that were asked for.

    Args:
        variants: Name → ``width`` (channel multiplier) and ``checkpoint`` (address of its official file, or None).
        num_classes: Classes; the file's own head is kept when it has as many, else the last layer is new. None: as
            many as the file has, or AudioSet's 527.
        head: Dotted name, inside the backbone, of the module that makes the logits.
        targets: Fields of :class:`sousa_bench.models.base.Targets`.
        name: Model name in results.
        variant: One of ``variants``; None is ``official`` with official weights and ``tiny`` without.
        weights: ``official``, ``random`` or ``embedded``.
        checkpoint: Official file: a path, URL or hub address; None is the variant's published one.
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
    loaded = _load(variant, numbers, checkpoint) if weights == "official" else None
    num_classes, fresh = head_of({} if loaded is None else loaded.state, head, num_classes)
    with seeded(seed):
        backbone = EfficientATBackbone(float(numbers["width"]), num_classes)
    if loaded is not None:
        _check_width(loaded, backbone, variant, variants)
    return assemble(
        name=name,
        variant=variant,
        frontend=EfficientATFrontend(),
        backbone=backbone,
        head=head,
        targets=targets,
        weights=weights,
        seed=seed,
        official=lambda: (own_keys(backbone, loaded.state), loaded.info),  # type: ignore[union-attr]
        checkpoint=checkpoint,
        fresh=fresh,
    )


def own_keys(backbone: EfficientATBackbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official file's tensors under the backbone's keys; keys that it doesn't know stay as they are."""
    own = {official_key(backbone, key): key for key in backbone.state_dict()}
    return {own.get(key, key): value for key, value in state.items()}


def official_key(backbone: EfficientATBackbone, key: str) -> str:
    """Official name of one of the backbone's keys: parts of a block are numbered there, not named."""
    match = re.fullmatch(r"features\.(\d+)\.block\.(\w+)\.(.+)", key)
    if match is None:
        return key
    block = backbone.features[int(match[1])]
    assert isinstance(block, InvertedResidual)
    place = [name for name, _ in block.block.named_children()].index(match[2])
    inner = "conc_se_layers.0." if match[2] == "squeeze_excitation" else ""
    return f"features.{match[1]}.block.{place}.{inner}{match[3]}"


def _load(variant: str, numbers: Mapping[str, Any], checkpoint: str | None) -> Loaded:
    address = numbers.get("checkpoint")
    if address is None and checkpoint is None:
        raise WeightsError(
            f"There are no official weights of model=efficientat model.variant={variant}: "
            "use model.variant=official or another published width, or weights=random."
        )
    return load_official(CheckpointSource(url=address, license="MIT"), checkpoint)


def _check_width(
    loaded: Loaded, backbone: EfficientATBackbone, variant: str, variants: Mapping[str, Mapping[str, Any]]
) -> None:
    """Say which variant a file of another width belongs to, rather than list 300 shapes."""
    found = loaded.state.get("classifier.2.weight")
    if found is None or found.shape == backbone.classifier[2].weight.shape:
        return
    fitting = [n for n, v in variants.items() if EfficientATBackbone.embedding_size(v["width"]) == found.shape[1]]
    hint = f"it is that of model.variant={fitting[-1]}" if fitting else "no variant has this width"
    raise WeightsError(
        f"{loaded.info.origin} has {found.shape[1]} embedding channels, "
        f"model.variant={variant} has {backbone.classifier[2].in_features}: {hint}."
    )
