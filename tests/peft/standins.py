"""Two small models with the traits that PEFT meets in the real ones: a transformer, and a CNN with BatchNorm and SE."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from sousa_bench.models.base import AudioModel, Frontend, PerToken, Targets, TokenGrid, WeightsInfo


class Frames(Frontend):
    def __init__(self, bins: int) -> None:
        super().__init__()
        self.sample_rate, self.pad_value, self.bins = 16000, 0.0, bins

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        frames = waveform.shape[1] // self.bins
        return waveform[:, : frames * self.bins].reshape(len(waveform), frames, self.bins), None


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        return self.out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, 2)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    beside_tokens: Mapping[str, PerToken] = {}

    def __init__(self, bins: int, dim: int, classes: int, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(bins, dim)
        self.blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def token_grid(self, block: str) -> TokenGrid:
        return TokenGrid(3)  # of 12 tokens

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(features))).mean(1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.expand, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise, self.bn2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.se = SqueezeExcitation(wide)
        self.project, self.bn3 = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.hardswish(self.bn1(self.expand(x)))
        y = self.se(functional.hardswish(self.bn2(self.depthwise(y))))
        return x + self.bn3(self.project(y))


class Cnn(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.Hardswish())
        self.features = nn.Sequential(*(Inverted(channels) for _ in range(3)))
        self.classifier = nn.Sequential(
            nn.Linear(channels, 32), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(32, classes)
        )

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return self.classifier(self.features(self.stem(features.unsqueeze(1))).mean((2, 3)))


def build(name: str, num_classes: int, seed: int = 0, bins: int = 32) -> AudioModel:
    """The ``_target_`` of a stand-in's config, as ``conf/model`` has one for each real model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone: nn.Module = Transformer(bins, 32, num_classes) if name == "transformer" else Cnn(16, num_classes)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # one batch's statistics, as if pretrained
        backbone.train()(torch.randn(16, 12, bins))
    digest = hashlib.sha256()
    for tensor in backbone.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    if name == "transformer":
        targets = Targets(
            groups={
                "attention": [r"blocks\.\d+\.attention\.(query|key|value|out)"],
                "mlp": [r"blocks\.\d+\.mlp\.fc[12]"],
            },
            feedforward=[r"blocks\.\d+\.mlp\.fc2"],
            blocks=[rf"blocks\.{index}" for index in range(3)],
        )
    else:
        targets = Targets(
            groups={
                "pointwise": [r"features\.\d+\.(expand|project)"],
                "squeeze_excitation": [r"features\.\d+\.se\.fc[12]"],
                "depthwise": [r"features\.\d+\.depthwise"],
            },
            feedforward=[r"features\.\d+\.project"],
            blocks=[rf"features\.{index}" for index in range(3)],
        )
    return AudioModel(
        name=name,
        variant="tiny",
        frontend=Frames(bins),
        backbone=backbone,
        head_name="head" if name == "transformer" else "classifier.3",
        targets=targets,
        weights=WeightsInfo("random", f"seed {seed}", digest.hexdigest()),
    )
