"""A small convolutional network for training from nothing: what one would do without pretrained weights.

Blocks of two 3 × 3 convolutions with BatchNorm and ReLU, a mean over frequency, then mean and maximum over time, are
those of PANNs (Kong et al. 2020, arXiv:1912.10211); each block halves frequency and time at its first convolution, not
by pooling at its end, at a quarter of the arithmetic. The front end is EfficientAT's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from sousa_bench.models.base import Divisible, State, place_number
from sousa_bench.models.efficientat import EfficientATFrontend
from sousa_bench.models.family import Family, initialise_head


@dataclass(frozen=True)
class Channels:
    """What a variant is (``conf/model/cnn.yaml``).

    Attributes:
        stem: Channels of the first convolution.
        blocks: Channels of each block.
    """

    stem: int
    blocks: Sequence[int]


class CnnBackbone(Divisible):
    """Log-mel features to logits.

    Args:
        numbers: Its channels.
        num_classes: Classes of the head.
        dropout: Before the head.
    """

    def __init__(self, numbers: Channels, num_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        sizes = [numbers.stem, *numbers.blocks]
        self.stem = nn.Sequential(*_conv_norm(1, numbers.stem, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(*_conv_norm(inputs, outputs, 2), *_conv_norm(outputs, outputs, 1))
            for inputs, outputs in pairwise(sizes)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sizes[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        initialise_head(self.head)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            features: (batch, frames, bins).
            padding_mask: Not used: a clip's padding is silence.

        Returns:
            Logits (batch, classes).
        """
        return self.onward(None, self.until(None, features))

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        x = self.stem(features.transpose(1, 2).unsqueeze(1))
        for block in self.blocks[: None if place is None else place_number(place)]:
            x = block(x)
        return (_pooled(x) if place is None else x,)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        (x,) = state
        assert x is not None
        if place is not None:
            for block in self.blocks[place_number(place) :]:
                x = block(x)
            x = _pooled(x)
        logits: Tensor = self.head(self.dropout(x))
        return logits


def _conv_norm(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _pooled(maps: Tensor) -> Tensor:
    """(batch, channels, frequency, time) → (batch, channels)."""
    over_time = maps.mean(2)
    return over_time.mean(2) + over_time.amax(2)


class Cnn(Family):
    """The small CNN; ``conf/model/cnn.yaml``."""

    numbers = Channels

    def frontend(self, numbers: Channels) -> EfficientATFrontend:
        """See :class:`Family`."""
        return EfficientATFrontend()

    def backbone(self, numbers: Channels, num_classes: int) -> CnnBackbone:
        """See :class:`Family`."""
        return CnnBackbone(numbers, num_classes)


build = Cnn().build
