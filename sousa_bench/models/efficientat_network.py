"""EfficientAT's MobileNetV3 (Schmid et al. 2023, arXiv 2211.04772): log-mel features → logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sousa_bench.models.base import Divisible, State, place_number
from sousa_bench.models.efficientat_channels import LAST_CHANNELS, embedding_size, round_channels

# kernel, expanded channels, output channels, squeeze-excitation, hard swish, stride: MobileNetV3-Large
# (Howard et al. 2019, arXiv 1905.02244, table 1, with EfficientAT's 64-channel second block and undilated tail).
BLOCKS: tuple[tuple[int, int, int, bool, bool, int], ...] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, LAST_CHANNELS, True, True, 2),
    (5, 960, LAST_CHANNELS, True, True, 1),
    (5, 960, LAST_CHANNELS, True, True, 1),
)
STEM_CHANNELS = 16
HEAD_CHANNELS = 1280
# Of the official model; torchvision's own MobileNetV3 has the same, PyTorch's defaults are 1e-5 and 0.1.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: nn.Module | None) -> nn.Sequential:
    """Convolution without bias, BatchNorm and, if given, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM),
    ]
    return nn.Sequential(*layers, *([act] if act is not None else []))


class SqueezeExcitation(nn.Module):
    """Channel gate with a plain sigmoid (MobileNetV3 itself has a hard one) on two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = round_channels(channels // 4)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frequency, time) → the same, each channel scaled by a number in 0..1."""
        gate = self.gate(self.fc2(torch.relu(self.fc1(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, squeeze-excitation, project 1×1; residual where the shapes allow it."""

    def __init__(self, inputs: int, kernel: int, expanded: int, outputs: int, se: bool, hs: bool, stride: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expanded != inputs:
            layers["expand"] = conv_norm(inputs, expanded, 1, 1, 1, _activation(hs))
        layers["depthwise"] = conv_norm(expanded, expanded, kernel, stride, expanded, _activation(hs))
        if se:
            layers["squeeze_excitation"] = SqueezeExcitation(expanded)
        layers["project"] = conv_norm(expanded, outputs, 1, 1, 1, None)
        self.block = nn.Sequential(layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frequency, time) → (batch, outputs, frequency / stride, time / stride)."""
        out = self.block(x)
        return x + out if self.residual else out


class EfficientATBackbone(Divisible):
    """EfficientAT from features to logits.

    Args:
        width: Channel multiplier: 1.0 is ``mn10``, 0.4 is ``mn04``.
        num_classes: Classes of the head.
        dropout: Before the last linear layer.
    """

    def __init__(self, width: float, num_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        channels = round_channels(STEM_CHANNELS * width)
        layers: list[nn.Module] = [conv_norm(1, channels, 3, 2, 1, _activation(True))]
        for kernel, expanded, outputs, se, hs, stride in BLOCKS:
            out = round_channels(outputs * width)
            layers.append(InvertedResidual(channels, kernel, round_channels(expanded * width), out, se, hs, stride))
            channels = out
        layers.append(conv_norm(channels, embedding_size(width), 1, 1, 1, _activation(True)))
        hidden = nn.Linear(embedding_size(width), round_channels(HEAD_CHANNELS * width))
        self.features = nn.Sequential(*layers)
        # Names and places as in the official file: classifier.2 and classifier.5 are its two linear layers.
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            hidden,
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden.out_features, num_classes),
        )
        self.gradient_checkpointing = False
        self._initialise()
        nn.init.kaiming_normal_(hidden.weight)
        # Channels last is 1.5 to 2 times as fast in training, on the CPU too; the maps follow the kernels' layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.gradient_checkpointing = True

    def maps(self, features: Tensor) -> Tensor:
        """Features (batch, frames, bins) → last feature maps (batch, channels, bins / 32, frames / 32)."""
        return self._through(self.features, features.transpose(1, 2).unsqueeze(1))

    def _through(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        for block in blocks:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))
            else:
                x = block(x)
        return x

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            features: (batch, frames, bins).
            padding_mask: Not used: the official model pools over everything, and a clip's padding is silence.

        Returns:
            Logits (batch, classes).
        """
        return self.classifier(self.maps(features))

    def until(self, place: str | None, features: Tensor, padding_mask: Tensor | None = None) -> State:
        """See :class:`sousa_bench.models.base.Divisible`."""
        if place is None:
            return (self.classifier[:-1](self.maps(features)),)
        return (self._through(list(self.features)[: place_number(place)], features.transpose(1, 2).unsqueeze(1)),)

    def onward(self, place: str | None, state: State) -> Tensor:
        """See :class:`sousa_bench.models.base.Divisible`."""
        (x,) = state
        assert x is not None
        if place is None:
            return self.classifier[-1](x)
        x = x.contiguous(memory_format=torch.channels_last)
        return self.classifier(self._through(list(self.features)[place_number(place) :], x))

    def _initialise(self) -> None:
        """Random start that keeps the scale of the maps even while BatchNorm's statistics are frozen at 0 and 1.

        MobileNetV3's own start counts on BatchNorm: by its fan-out a depthwise kernel is so small that, with frozen
        statistics, nothing of the input is left after a few blocks.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)


def _activation(hard_swish: bool) -> nn.Module:
    return nn.Hardswish(inplace=True) if hard_swish else nn.ReLU(inplace=True)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a checkpointed block's first pass and of its recomputation."""
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics as they are: the recomputation must not count a batch twice."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
