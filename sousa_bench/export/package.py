"""Writes a run as a package: whole, checked, or not at all."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import onnx
from safetensors import SafetensorError
from safetensors.torch import save_file

from sousa_bench.data.datamodule import Clips
from sousa_bench.errors import UserError
from sousa_bench.export.description import GRAPH_FILE, model_card, package_config
from sousa_bench.export.onnx_graph import Grid, waveform_graph
from sousa_bench.export.onnx_int8 import compare, int8_weights, own_test_clips
from sousa_bench.export.verification import check
from sousa_bench.inference.predictor import PACKAGE_FILE, PACKAGE_WEIGHTS, Predictor, is_package
from sousa_bench.models.base import AudioModel
from sousa_bench.models.family import OUR_MODEL
from sousa_bench.peft.injection import finished
from sousa_bench.peft.options import BLOCKS, reads_blocks, trains_nothing
from sousa_bench.results.result import write_json
from sousa_bench.task import CLIP, counted

CARD_FILE = "README.md"
PREDICT_FILE = "predict.py"


class ExportError(UserError):
    """A run that can't be exported, or a destination that can't be written."""


def export(
    place: Path,
    destination: Path,
    *,
    command: str,
    metric: str | None = None,
    checkpoint: str | None = None,
    int8: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a run, or the best one of a sweep, as a package.

    Args:
        place: A run's folder or a sweep.
        destination: The package's folder.
        command: The command line, for the card.
        metric: What chooses the run of a sweep.
        checkpoint: Where the base weights are now, if they have moved.
        int8: Whether the graph's weights are int8.
        force: Replace an older package.
        say: Told what goes on.

    Returns:
        ``destination``.

    Raises:
        UserError: No such run, a method that doesn't merge, a failed check, int8 weights that
            cost too much, a destination that is in the way.
    """
    destination = destination.absolute()
    refuse(destination, force)
    if is_package(place):
        raise ExportError(f"{place}: is a package already; give a run's folder or a sweep")
    predictor = Predictor.open(place, metric=metric, checkpoint=checkpoint)
    assert predictor.run is not None
    target = str(predictor.description["model"].get("_target_"))
    if not OUR_MODEL.fullmatch(target):
        raise ExportError(
            f"{predictor.place}: model={predictor.model.name} can't be exported: a package opens without the module of "
            f"{target}, so only models of sousa_bench itself are exported; evaluate and predict take the run itself"
        )
    if trains_nothing(predictor.description["peft"]):
        raise ExportError(
            f"{predictor.place}: peft={predictor.description['peft']['name']} can't be exported: a package holds a "
            "network, and here the training clips vote in the place of its head; export a run of peft=probe, or take "
            "the run itself, as evaluate and predict do"
        )
    say(f"run {predictor.run.described}")
    clips = own_test_clips(predictor) if int8 else None
    model, added = finished_model(predictor)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise ExportError(f"{destination}: can't be written: {error}") from error
    try:
        _fill(draft, predictor, model, added, clips, command, say)
        _publish(draft, destination)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ExportError(f"{destination}: can't be written: {error}") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return destination


def refuse(destination: Path, force: bool) -> None:
    """Raise unless the destination is free, or an older package that may be replaced."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not is_package(destination):
        raise ExportError(f"{destination}: exists and is no package; choose another folder")
    if not force:
        raise ExportError(f"{destination}: exists; add --force to replace this package, or choose another folder")


def finished_model(predictor: Predictor) -> tuple[AudioModel, dict[str, Any] | None]:
    """A copy of the run's model without PEFT's wrapper; see :func:`sousa_bench.peft.injection.finished`.

    Raises:
        ExportError: The method doesn't merge.
    """
    try:
        backbone, added = finished(predictor.model.backbone)
    except NotImplementedError as error:
        method = predictor.description["peft"]["name"]
        raise ExportError(
            f"{predictor.place}: peft={method} can't be merged into the weights; export a run of another method"
        ) from error
    own = copy.copy(predictor.model)
    own._modules = {"frontend": copy.deepcopy(predictor.model.frontend), "backbone": backbone}
    return own.eval(), added


def _fill(
    draft: Path,
    predictor: Predictor,
    model: AudioModel,
    added: dict[str, Any] | None,
    clips: Clips | None,
    command: str,
    say: Callable[[str], None],
) -> None:
    assert predictor.run is not None
    config = package_config(predictor, predictor.run, command) | ({"added": added} if added else {})
    config |= {"reads": BLOCKS} if reads_blocks(predictor.description["peft"]) else {}
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, draft / PACKAGE_WEIGHTS, metadata={"format": "pt"})
    say("writing the ONNX graph …")
    rate = predictor.sample_rate
    grid = Grid(round(predictor.quantum * rate), round(predictor.max_duration * rate))
    said = {
        "labels": "\n".join(predictor.labels),
        "sample_rate": str(rate),
        "max_duration": str(predictor.max_duration),
    }
    graph, file = waveform_graph(model, grid, said), draft / GRAPH_FILE
    onnx.save(graph, file)
    write_json(draft / PACKAGE_FILE, config)
    say("checking it against PyTorch …")
    config["onnx"]["check"] = check(draft, file, predictor)
    if clips is not None:
        say("comparing int8 weights with float32 on test clips …")
        rounded = draft / f"int8.{GRAPH_FILE}"
        onnx.save(int8_weights(graph), rounded)
        cost = config["onnx"]["int8"] = compare(file, rounded, clips, predictor.place)
        say(
            f"int8 weights lose {cost['points_lost']:.2f} points of {clips.task.score} on "
            f"{counted(cost['clips'], CLIP)}: {cost['float32']:.4f} → {cost['int8']:.4f}"
        )
        rounded.replace(file)
    write_json(draft / PACKAGE_FILE, config)
    (draft / CARD_FILE).write_text(model_card(config), encoding="utf-8")
    program = resources.files("sousa_bench.export").joinpath("package_predict.py")
    (draft / PREDICT_FILE).write_bytes(program.read_bytes())
    draft.chmod(0o755)
    for file in draft.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone


def _publish(draft: Path, destination: Path) -> None:
    """Rename; an older package is put aside first, and taken back should that fail."""
    if not destination.exists():
        draft.replace(destination)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    destination.replace(aside)
    try:
        draft.replace(destination)
    except BaseException:
        aside.replace(destination)
        raise
    shutil.rmtree(aside, ignore_errors=True)
