"""The ONNX graph: waveform → logits, with everything between them inside."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx
import torch
from onnx import TensorProto, helper
from onnx.compose import merge_models

import sousa_bench
from sousa_bench.data.augmentation import FULL_SCALE
from sousa_bench.errors import UserError
from sousa_bench.export.onnx_fourier import compute_kernels
from sousa_bench.export.onnx_network import PaddedClips
from sousa_bench.models.base import AudioModel

OPSET = 18
"""What torch's exporter writes best; onnxruntime reads it since 1.14 (2023)."""

INPUT, OUTPUT = "waveform", "logits"
_TALKERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


@dataclass(frozen=True)
class Grid:
    """How a clip is cut and padded.

    Attributes:
        step: Samples of a quantum.
        most: Samples that are kept of a longer clip.
    """

    step: int
    most: int

    @property
    def longest(self) -> int:
        """Samples of the longest padded clip."""
        return self.padded(self.most)

    def padded(self, samples: int) -> int:
        """Samples of a clip once it is cut and padded."""
        return max(-(-min(samples, self.most) // self.step), 1) * self.step


def waveform_graph(model: AudioModel, grid: Grid, facts: Mapping[str, str]) -> onnx.ModelProto:
    """Write a finished model as an ONNX graph of :data:`OPSET`.

    Args:
        model: In evaluation mode, without PEFT's wrapper.
        grid: How its clips were cut and padded.
        facts: Written into the file's metadata.

    Returns:
        A model of ``waveform`` (batch, samples) float32 → ``logits`` (batch, classes) float32.
    """
    core = padded_graph(model, grid)
    before = preparation(grid, core.ir_version)
    merged = merge_models(before, core, [("padded", "padded"), ("length", "length")])
    whole = helper.make_model(
        merged.graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=core.ir_version,
        producer_name="sousa_bench",
        producer_version=sousa_bench.__version__,
    )
    whole.graph.name = model.name
    for node in whole.graph.node:  # Where in the source each node comes from, with the paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    compute_kernels(whole)
    helper.set_model_props(whole, dict(facts))
    onnx.checker.check_model(whole, full_check=True)
    return whole


def preparation(grid: Grid, ir_version: int) -> onnx.ModelProto:
    """A graph that cuts a waveform to ``grid.most``, rounds it to 16 bits and pads it to the grid.

    Its outputs are ``padded`` (batch, samples) and ``length`` (1,), the samples before padding.
    """
    scalars = {"full_scale": FULL_SCALE, "lowest": -FULL_SCALE, "highest": FULL_SCALE - 1}
    places = {"zero": [0], "one": [1], "most": [grid.most], "step": [grid.step], "step_less_one": [grid.step - 1]}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in scalars.items()]
    constants += [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in {**places, "no_pads": [0, 0, 0]}.items()
    ]
    nodes = [
        helper.make_node("Slice", [INPUT, "zero", "most", "one"], ["cut"]),
        helper.make_node("Mul", ["cut", "full_scale"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "lowest", "highest"], ["clipped"]),
        helper.make_node("Div", ["clipped", "full_scale"], ["sixteen_bit"]),
        helper.make_node("Shape", ["cut"], ["length"], start=1),
        helper.make_node("Add", ["length", "step_less_one"], ["raised"]),
        helper.make_node("Div", ["raised", "step"], ["steps"]),
        helper.make_node("Mul", ["steps", "step"], ["size"]),
        helper.make_node("Sub", ["size", "length"], ["beyond"]),
        helper.make_node("Concat", ["no_pads", "beyond"], ["pads"], axis=0),
        helper.make_node("Pad", ["sixteen_bit", "pads"], ["padded"]),
    ]
    graph = helper.make_graph(
        nodes,
        "preparation",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", "samples"])],
        [
            helper.make_tensor_value_info("padded", TensorProto.FLOAT, ["batch", "padded_samples"]),
            helper.make_tensor_value_info("length", TensorProto.INT64, [1]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=ir_version)


def padded_graph(model: AudioModel, grid: Grid) -> onnx.ModelProto:
    """What PyTorch writes of :class:`PaddedClips`: ``padded`` and ``length`` → ``logits``.

    Raises:
        UserError: The model does what no graph can.
    """
    clips = PaddedClips(model, grid.longest)
    samples = min(2 * grid.step, grid.longest)
    example = (torch.zeros(2, samples), torch.tensor([samples - 1]))
    free = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                clips,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=["padded", "length"],
                output_names=[OUTPUT],
                dynamic_shapes=({0: free, 1: free}, None),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"model={model.name} can't be written as an ONNX graph: {reason}") from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecated calls, and of each operator that it has no use for."""
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
