"""What stands in a head's place where it is fitted without steps: its inputs handed on, and the votes of neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.errors import PeftError
from sousa_bench.models.base import AudioModel, Divisible, State
from sousa_bench.peft.targets import last_layer

KEPT = ("mean", "scale", "features", "labels")
INNER = "network"
"""The name of what gives the features, inside a backbone whose training clips vote."""


class HandOn(nn.Module):
    """Hands on what a layer takes (of a convolution, all that lies under its kernel) in place of what it makes of it.

    What a network then gives as logits are the features in which its real logits are linear: whatever mean over time
    or tokens follows the layer is in them.

    Args:
        layer: The layer that it takes the place of.
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.convolution: dict[str, tuple[int, ...]] | None = None
        if not isinstance(layer, nn.Linear):
            if layer.groups > 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
                raise PeftError(
                    "the head's last layer is a convolution in groups, or padded in another way than by zeros"
                )
            wide = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
            names = ("kernel_size", "dilation", "padding", "stride")
            if isinstance(layer, nn.Conv1d):
                neutral = (1, 1, 0, 1)
                wide = [(first, *sizes) for first, sizes in zip(neutral, wide, strict=True)]
            self.convolution = dict(zip(names, wide, strict=True))
            self.flat = isinstance(layer, nn.Conv1d)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's, with a channel (of a linear layer a column) for each of its weights' inputs."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))  # as the layer would round it
        if self.convolution is None:
            return x
        x = x.unsqueeze(2) if self.flat else x
        numbers = zip(x.shape[2:], *self.convolution.values(), strict=True)
        sizes = [
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, dilation, pad, stride in numbers
        ]
        patches = F.unfold(x, **self.convolution)
        return patches if self.flat else patches.unflatten(2, sizes)


@contextmanager
def handing_on(model: AudioModel) -> Iterator[None]:
    """Let a model give, in place of its logits, what the head's last layer takes."""
    place = last_layer(model)
    layer = model.backbone.get_submodule(place)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    model.backbone.set_submodule(place, HandOn(layer))
    try:
        yield
    finally:
        model.backbone.set_submodule(place, layer)


class NearestNeighbours(Divisible):
    """A backbone whose logits are the votes of the training clips that lie nearest by cosine similarity.

    Each of the k nearest votes for its label with the weight exp(similarity / temperature) (Wu et al. 2018,
    arXiv:1805.01978, section 3.4), of features that are standardised beforehand: the similarities of raw ones are all
    close to 1 where a network's features have a large mean. So that no class has the chance 0, one neighbour more
    votes, as near as the nearest, which holds each class in its share of the training clips (each class counted once
    more than it occurs).

    Args:
        network: (features, padding mask) → what the head's last layer would take, (batch, columns).
        memory: ``mean`` and ``scale`` (columns,) of the training clips' features; ``features`` (clips, columns), those
            standardised and of length 1; ``labels``, (clips,) class numbers, or (clips, classes) of 0 and 1 where a
            clip may have several; ``k``, the number of neighbours.
        temperature: Of the weights.
        classes: Number of classes.
    """

    mean: Tensor
    scale: Tensor
    features: Tensor
    labels: Tensor
    targets: Tensor
    prior: Tensor

    def __init__(self, network: nn.Module, memory: Mapping[str, Tensor], temperature: float, classes: int) -> None:
        super().__init__()
        self.network = network
        self.k, self.temperature = int(memory["k"]), temperature
        for name in KEPT:
            self.register_buffer(name, memory[name])
        self.several = self.labels.ndim > 1
        targets = (self.labels if self.several else F.one_hot(self.labels.long(), classes)).float()
        other = 2 if self.several else classes
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("prior", (targets.sum(0) + 1) / (len(targets) + other), persistent=False)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Features (batch, frames, bins) → logits (batch, classes), whose softmax or sigmoid are the chances."""
        return self.votes(self.network(features, padding_mask))

    def divisible(self, frames: int) -> bool:
        """See :class:`sousa_bench.models.base.Divisible`."""
        return isinstance(self.network, Divisible) and self.network.divisible(frames)

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        state: State = self.network.until(place, features, padding_mask)  # type: ignore[operator]
        return state

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        return self.votes(self.network.onward(place, state))  # type: ignore[operator]

    def votes(self, rows: Tensor) -> Tensor:
        """(batch, columns), as the network gives them → logits (batch, classes) float32; no autocast rounds in it."""
        with torch.autocast(rows.device.type, enabled=False):
            return self.logits(self.nearest(rows, self.k), self.k)

    def nearest(self, rows: Tensor, most: int, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The training clips most similar to rows (batch, columns): similarities and positions, both (batch, most).

        Args:
            rows: As the network gives them.
            most: How many.
            without: (batch,) the position of a clip that does not count for each row.
        """
        similarities = directions(rows, self.mean, self.scale) @ self.features.t()
        if without is not None:
            similarities[torch.arange(len(rows), device=rows.device), without] = -torch.inf
        found = similarities.topk(most)
        return found.values, found.indices

    def logits(self, nearest: tuple[Tensor, Tensor], k: int) -> Tensor:
        """What the first ``k`` of :meth:`nearest` vote: (batch, classes)."""
        similarities, positions = (part[:, :k] for part in nearest)
        weights = ((similarities - similarities[:, :1]) / self.temperature).exp()  # the nearest weighs 1
        votes = (weights.unsqueeze(1) @ self.targets[positions]).squeeze(1) + self.prior
        chances = votes / (weights.sum(1, keepdim=True) + 1)
        return chances.logit() if self.several else chances.log()

    def memory(self) -> dict[str, Tensor]:
        """What is saved."""
        return {**{name: getattr(self, name) for name in KEPT}, "k": torch.tensor(self.k)}


def directions(rows: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """(any, columns) → float32, standardised and of length 1."""
    return F.normalize((rows.float() - mean) / scale, dim=1)


def remembered(rows: Tensor, labels: Tensor, k: int) -> dict[str, Tensor]:
    """The ``memory`` of :class:`NearestNeighbours` of training clips.

    Args:
        rows: (clips, columns) float64.
        labels: (clips,), or (clips, classes) of 0 and 1.
        k: Number of neighbours.
    """
    deviation = rows.std(0, correction=0)
    scale = torch.where(deviation > 1e-9 * deviation.max(), deviation, torch.inf)  # a constant one says nothing
    mean, scale = rows.mean(0).float(), scale.float()
    kept = labels.to(torch.uint8) if labels.ndim > 1 else labels
    return {
        "mean": mean,
        "scale": scale,
        "features": directions(rows, mean, scale),
        "labels": kept,
        "k": torch.tensor(k),
    }


def let_vote(model: AudioModel, memory: Mapping[str, Tensor], temperature: float, classes: int) -> NearestNeighbours:
    """Put training clips in the place of a model's head.

    Args:
        model: Its backbone is replaced, without its head's last layer.
        memory: See :class:`NearestNeighbours`.
        temperature: Of the weights.
        classes: Number of classes.

    Raises:
        PeftError: They can't be those of this model.
    """
    place, backbone = last_layer(model), model.backbone
    layer = backbone.get_submodule(place)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    if not _fits(memory, layer.weight[0].numel(), classes):
        raise PeftError(f"these are no neighbours for model={model.name} ({model.variant}) of {classes} classes")
    backbone.set_submodule(place, HandOn(layer))
    own = {name: tensor.to(layer.weight.device) for name, tensor in memory.items()}
    model.backbone = voting = NearestNeighbours(backbone, own, temperature, classes)
    model.head_name = f"{INNER}.{model.head_name}"
    return voting.train(backbone.training)


def _fits(memory: Mapping[str, Tensor], columns: int, classes: int) -> bool:
    if memory.keys() != {*KEPT, "k"}:
        return False
    features, labels, k = memory["features"], memory["labels"], memory["k"]
    shapes = all(memory[name].shape == (columns,) for name in ("mean", "scale")) and features.shape[1:] == (columns,)
    numbers = 0 < int(k) <= len(features) and labels.shape in ((len(features),), (len(features), classes))
    return shapes and numbers and 0 <= int(labels.min()) <= int(labels.max()) < max(2, classes)
