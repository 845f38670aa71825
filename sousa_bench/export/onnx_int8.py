"""int8 weights in a graph: a quarter of the network's bytes, and what that costs on the run's own test clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from sousa_bench.data.datamodule import Clips
from sousa_bench.errors import UserError
from sousa_bench.export.verification import CheckError, logits, open_session
from sousa_bench.inference.predictor import Predictor
from sousa_bench.results.metrics import Scores, metrics_of
from sousa_bench.task import CLIP, Task, counted
from sousa_bench.training.evaluated_clips import SplitData, data_node

MOST_LOSS = 1.0
"""Points of accuracy, or of mean average precision, that int8 weights may cost."""
MOST_PIECES = 400
"""Clips, or windows of long ones, that are compared, spread evenly; the AST of published size takes a second each."""
LARGEST = 127
FRONTEND = "frontend."
"""How the tensors of the front end are called; of them a rounded mel bank alone would cost most answers."""


def int8_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the weights of convolutions and matrix products are int8, with one scale an output channel.

    Each is made float again by a DequantizeLinear of the weight's name; what flows through the network stays float32.
    Scales are symmetric, so that 0 stays 0. Biases, normalisations, tables that are looked up and the front end stay,
    and so do convolutions that hear one input channel each (depthwise ones, patches of a spectrogram): few weights,
    whose rounding moves the logits more than that of all others together (docs/export.md).
    onnxruntime.quantization has no such kind for convolutions: its dynamic and static kinds round what flows, too,
    which docs/export.md compares.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            axes.setdefault(node.input[1], _output_axis(node))
    weights = [
        each
        for each in graph.initializer
        if each.name in axes
        and each.data_type == TensorProto.FLOAT
        and len(each.dims) > 1
        and not (axes[each.name] == 0 and each.dims[1] == 1)
        and not each.name.startswith(FRONTEND)
    ]
    for place, tensor in enumerate(weights):
        graph.initializer.remove(tensor)
        axis = axes[tensor.name] % len(tensor.dims)
        values = numpy_helper.to_array(tensor)
        scale = np.abs(values).max(axis=tuple(i for i in range(values.ndim) if i != axis), keepdims=True) / LARGEST
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        names = [f"{tensor.name}.int8", f"{tensor.name}.scale"]
        whole = np.rint(values / scale).astype(np.int8)
        graph.initializer.extend(map(numpy_helper.from_array, (whole, scale.reshape(-1)), names))
        graph.node.insert(place, helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis))
    onnx.checker.check_model(made, full_check=True)
    return made


def _output_axis(node: onnx.NodeProto) -> int:
    """Which axis of a node's weight its output channels are on."""
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else -1


def own_test_clips(predictor: Predictor) -> Clips:
    """The test clips of a run, decoded.

    Raises:
        UserError: They aren't there any more, aren't those that the run was tested on, or it was trained on them.
    """
    assert predictor.run is not None
    if predictor.run.config["data"].get("refit") == "all":
        raise UserError(
            f"{predictor.place}: --int8 is checked on the run's own test clips, and this run was trained on them "
            "(data.refit=all); export without --int8"
        )
    try:
        data = SplitData.of("test", data_node(predictor.run, []))
        data.prepare((predictor.sample_rate,))
        tested_on = (predictor.run.result.get("data") or {}).get("test_fingerprint")
        if data.task.digest != predictor.task.digest or data.test_fingerprint != tested_on:
            raise UserError(f"the test clips of {data.source.place}, or their labels, are others today.")
        return Clips(data, "test", predictor.sample_rate, predictor.quantum)
    except (OSError, UserError) as error:
        raise UserError(
            f"{predictor.place}: --int8 is checked on the run's own test clips, and they can't be had: {error} Bring "
            "them back, or export without --int8"
        ) from error


def compare(graph: Path, rounded: Path, clips: Clips, place: Path | str) -> dict[str, Any]:
    """What int8 weights cost, on so many clips as make up to :data:`MOST_PIECES` pieces.

    Args:
        graph: With float32 weights.
        rounded: With int8 weights.
        clips: See :func:`own_test_clips`.
        place: The run's folder, for a message.

    Returns:
        What ``config.json`` says of it under ``onnx.int8``.

    Raises:
        CheckError: It is more than :data:`MOST_LOSS`, or a clip can't be read any more.
    """
    count = max(1, len(clips) * MOST_PIECES // max(MOST_PIECES, len(clips.pieces)))
    chosen = np.linspace(0, len(clips) - 1, count).round().astype(np.int64)
    task = clips.task
    exact, rough = (_clip_logits(file, clips, chosen) for file in (graph, rounded))
    metric = metrics_of(task)[0]
    before, after = (
        float(metric.compute(Scores(torch.from_numpy(rows), clips.labels[chosen]))) for rows in (exact, rough)
    )
    loss = round(100 * (before - after), 4)
    same = (_decisions(exact, task) == _decisions(rough, task)).all(axis=1).mean()
    if not loss <= MOST_LOSS:
        raise CheckError(
            f"{place}: int8 weights cost {loss:.2f} points of {task.score} on {counted(len(chosen), CLIP)} of the "
            f"run's test split ({before:.4f} → {after:.4f}), and {MOST_LOSS:g} may be lost; no package was written: "
            "export without --int8"
        )
    return {
        "metric": f"test_{metric.name}",
        "clips": len(chosen),
        "float32": before,
        "int8": after,
        "points_lost": loss,
        "points_allowed": MOST_LOSS,
        "same_answers": float(same),
        "bytes": rounded.stat().st_size,
        "float32_bytes": graph.stat().st_size,
    }


def _clip_logits(graph: Path, clips: Clips, chosen: np.ndarray) -> np.ndarray:
    """(chosen clips, classes) float32."""
    session = open_session(graph)
    pieces = np.flatnonzero(np.isin(clips.pieces.clip, chosen))
    try:
        rows = [logits(session, [clips.heard(int(piece))]) for piece in pieces]
    except OSError as error:
        raise CheckError(f"a test clip can't be read: {error}; no package was written: export it again") from error
    return clips.pieces.mean(pieces, np.concatenate(rows))[1]


def _decisions(rows: np.ndarray, task: Task) -> np.ndarray:
    """(clips, 1) best class, or (clips, classes) of a probability above 0.5."""
    return rows > 0 if task.several else rows.argmax(axis=1)[:, None]
