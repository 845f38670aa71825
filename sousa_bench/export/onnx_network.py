"""A trained model in the form that can become a graph, with the same numbers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sousa_bench.errors import UserError
from sousa_bench.export.onnx_frontends import ConvolvedEfficientATFrontend, ConvolvedFbank, ConvolvedLogMel
from sousa_bench.models.ast import AstBackbone
from sousa_bench.models.base import AudioModel, Divisible
from sousa_bench.models.beats import BeatsFrontend
from sousa_bench.models.beats_network import BeatsBackbone, PositionalConvolution, RelativePositionBias
from sousa_bench.models.efficientat import EfficientATFrontend
from sousa_bench.models.fbank import KaldiFbank
from sousa_bench.models.htsat_frontend import LogMel
from sousa_bench.peft.block_reader import BlockReader


class PaddedClips(nn.Module):
    """Clips of one length that are already padded → logits: the part of the graph that PyTorch writes.

    Args:
        model: Without PEFT's wrapper; it is copied.
        longest: Samples of the longest padded clip.

    Raises:
        UserError: The model cuts such a clip.
    """

    def __init__(self, model: AudioModel, longest: int) -> None:
        super().__init__()
        own = copy.deepcopy(model).float().cpu().eval()
        frames = own.frontend(torch.zeros(1, longest), torch.tensor([longest]))[0].shape[1]
        if isinstance(own.backbone, Divisible) and not own.backbone.divisible(frames):
            raise UserError(
                f"model={model.name} can't be written as an ONNX graph for clips of {longest / model.sample_rate:g} s: "
                "such clips don't go through it whole, and a graph is one pass; train with data.max_duration=10"
            )
        self.frontend = convolved(own.frontend)
        self.backbone = plain_weights(own.backbone)
        network = self.backbone.network if isinstance(self.backbone, BlockReader) else self.backbone
        if isinstance(network, AstBackbone):
            _any_columns(network, frames)
        if isinstance(network, BeatsBackbone):
            _fixed_buckets(network, frames)

    def forward(self, waveform: Tensor, length: Tensor) -> Tensor:
        """Compute logits.

        Args:
            waveform: (batch, samples) float32, zeros from ``length`` on.
            length: (1,) int64: samples of every clip.

        Returns:
            (batch, classes) float32.
        """
        return self.backbone(*self.frontend(waveform, length.expand(waveform.shape[0])))


def convolved(frontend: nn.Module) -> nn.Module:
    """The front end with convolutions for its Fourier transforms."""
    if isinstance(frontend, EfficientATFrontend):
        return ConvolvedEfficientATFrontend(frontend)
    for name, module in list(frontend.named_children()):
        if isinstance(module, KaldiFbank):
            setattr(frontend, name, ConvolvedFbank(module))
        elif isinstance(module, LogMel):
            setattr(frontend, name, ConvolvedLogMel(module))
    return frontend


def plain_weights(backbone: nn.Module) -> nn.Module:
    """The backbone with its weight-normalised convolution's weights computed once."""
    for module in backbone.modules():
        if isinstance(module, PositionalConvolution):
            # Taken off, the weight norm would leave the model that this one was copied from without its weight, too.
            conv = module.conv
            plain = nn.Conv1d(
                conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, groups=conv.groups
            )
            plain.load_state_dict({"weight": conv.weight.detach(), "bias": conv.bias.detach()})
            module.conv = plain
    return backbone


class FixedPositionBias(nn.Module):
    """BEATs' relative-position bias with its table's rows looked up beforehand.

    A bucket is a logarithm rounded down: computed in the graph, another library's last bit could choose its neighbour.

    Args:
        source: The bias.
        tokens: Of the longest clip.
    """

    def __init__(self, source: RelativePositionBias, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        with torch.no_grad():
            self.register_buffer("by_offset", source.table(source.buckets(tokens)).t().contiguous())

    def forward(self, length: int) -> Tensor:
        """As :meth:`RelativePositionBias.forward`."""
        position = torch.arange(length)
        return self.by_offset[:, position[None, :] - position[:, None] + self.tokens - 1].unsqueeze(0)  # type: ignore[index]


def _fixed_buckets(backbone: BeatsBackbone, frames: int) -> None:
    patch = backbone.config.input_patch_size
    tokens = (frames // patch) * (BeatsFrontend.bins // patch)
    backbone.encoder.relative_attention_bias = FixedPositionBias(  # type: ignore[assignment]
        backbone.encoder.relative_attention_bias, tokens
    )


def _any_columns(backbone: AstBackbone, frames: int) -> None:
    """Where some clips have more columns than AST's position table and some fewer, both are computed, one is taken."""
    rows, whole = backbone.grid
    patches = backbone.trunk.embeddings.patch_embeddings(torch.zeros(1, frames, backbone.trunk.config.num_mel_bins))
    if patches.shape[1] // rows < whole:
        return
    table = backbone.trunk.embeddings.position_embeddings.detach()
    grid = table[:, 2:].transpose(1, 2).unflatten(2, (rows, whole))

    def positions(columns: int) -> Tensor:
        index = (torch.arange(columns) + whole // 2 - columns // 2).clamp(0, whole - 1)
        cut, wide = grid[..., index], F.interpolate(grid, size=(rows, columns), mode="bilinear")
        chosen = torch.where(torch.full((1,), columns) < whole, cut, wide)
        return torch.cat((table[:, :2], chosen.flatten(2).transpose(1, 2)), dim=1)

    backbone.__dict__["positions"] = positions
