"""Where a model's weights come from, and proof that they fit: hub id, URL or file, hashed, strict about every key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sousa_bench.errors import UserError, WeightsError
from sousa_bench.models import packed_file, weight_files
from sousa_bench.models.base import AudioModel, PackedHead, WeightsInfo, inside
from sousa_bench.models.checkpoint_formats import read
from sousa_bench.models.download import from_hub, from_url
from sousa_bench.models.published import EMBEDDED, FURTHER, HEADER, NOTHING, CheckpointSource
from sousa_bench.system.files import sha256
from sousa_bench.task import Task

MOST_KEYS = 8
"""Of a file that doesn't fit, in the message."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint file that was read.

    Attributes:
        state: Key in the official file → tensor, memory-mapped where the container allows it.
        info: Origin and hash, for the result file.
        extra: What else the file holds (BEATs: ``cfg``, ``label_dict``; safetensors: its header's metadata).
        path: The file.
    """

    state: dict[str, Tensor]
    info: WeightsInfo
    extra: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw on the CPU from this seed inside the block, and leave the global generators as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def load_official(source: CheckpointSource, checkpoint: str | None = None) -> Loaded:
    """Fetch (if need be) and read an official checkpoint in its official container.

    Args:
        source: Where it is published; used when ``checkpoint`` is None.
        checkpoint: A local file or folder, ``http(s)://…`` (optionally ``#sha256=<hex>``), ``owner/name`` or
            ``hf://owner/name/file@revision``.

    Returns:
        Tensors under the official keys, :class:`WeightsInfo` of kind ``official``, and the rest of the file.

    Raises:
        WeightsError: It can't be had (said within 10 s where the network is dead), its hash is wrong, or it is no
            checkpoint.
    """
    address = checkpoint or source.address
    path, origin = resolve(address, source)
    state, extra = read(path)
    license_ = source.license if checkpoint is None else None
    return Loaded(state, WeightsInfo("official", origin, sha256(path), license_), extra, path)


def load_packed(name: str, weights: str, variant: str | None = None, checkpoint: str | None = None) -> Loaded:
    """Read a model's weights of :mod:`sousa_bench.pretrain`.

    The file holds the backbone's own state dict in half precision, and in its metadata, as JSON under :data:`HEADER`,
    among others ``model``, ``variant``, ``license`` and the head's ``task``; they are what ``extra`` is.

    Args:
        name: The model's name.
        weights: ``embedded``, or ``further`` for what began at a published checkpoint.
        variant: The one that it must be of; None: whichever it is.
        checkpoint: Such a file, or a folder of them; None: what the package ships.

    Raises:
        WeightsError: There is none, or it is of another model or variant, or began at something else.
    """
    path = weight_files.embedded_file(name, checkpoint)
    if not path.is_file():
        if checkpoint is not None:
            raise WeightsError(weight_files.packed_missing(weights, checkpoint, path))
        raise WeightsError(weight_files.embedded_not_shipped(name))
    state, extra = read(path)
    if HEADER not in extra:
        raise WeightsError(weight_files.not_packed(weights, str(checkpoint), path))
    try:
        facts = packed_file.facts_in(extra)
    except ValueError as error:
        raise WeightsError(f"{path}: its metadata are not those of sousa_bench.pretrain ({error})") from error
    if objection := packed_file.objection(facts, name, weights, variant, checkpoint or path):
        raise WeightsError(objection)
    published = facts.get(packed_file.PUBLISHED)
    seen = EMBEDDED if published is None else f"{published.get('pretraining') or 'not known'}, then {FURTHER}"
    info = WeightsInfo(weights, path.name, sha256(path), facts.get("license"), seen, published)
    return Loaded(state, info, facts, path)


def packed_head(packed: Loaded, place: str) -> PackedHead | None:
    """The head's last layer, ``place``, of what :func:`load_packed` read; None where the file has none.

    Raises:
        WeightsError: What the file says of its task can't be.
    """
    content = packed.extra.get(packed_file.TASK)
    if content is None:
        return None
    try:
        task = Task.from_dict(content, packed.path)
    except UserError as error:
        raise WeightsError(str(error)) from error
    inner = {key.removeprefix(f"{place}."): tensor for key, tensor in packed.state.items() if inside(key, (place,))}
    return PackedHead(task, inner, packed.extra.get(packed_file.QUANTUM), packed.extra.get(packed_file.MAX_DURATION))


def take_packed_head(model: AudioModel, head: PackedHead) -> None:
    """Let a model start from the last layer that came with its weights, and not from a new one.

    Raises:
        WeightsError: It doesn't fit.
    """
    layer = model.backbone.get_submodule(model.fresh[0])
    apply_state(layer, head.state, origin=f"the head in {model.weights.origin}")
    model.fresh, model.weights = (), replace(model.weights, own_head=True)


def random_info(seed: int, module: nn.Module) -> WeightsInfo:
    """What the result file says of random weights: the seed, and the hash of the tensors that it gave."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return WeightsInfo("random", f"seed {seed}", digest.hexdigest(), pretraining=NOTHING)


def apply_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    origin: str,
    fresh: Sequence[str] = (),
) -> None:
    """Copy tensors into a module; nothing may be missing, left over or of another shape.

    Args:
        module: Receives the values in its own dtypes (a float counter of an averaged file becomes an integer again).
        state: Tensors under the module's keys.
        origin: Named in the error.
        fresh: Key prefixes of the module that keep the values they have (a new head); their keys in ``state``, if
            there are any, belong to another task and are passed over.

    Raises:
        WeightsError: Counts missing keys, unexpected ones and differing shapes, and lists the first of each.
    """
    own = module.state_dict()
    wanted = {key for key in own if not inside(key, fresh)}
    given = {key for key in state if not inside(key, fresh)}
    shapes = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in sorted(wanted & given)
        if state[key].shape != own[key].shape
    ]
    problems = {
        "missing": sorted(wanted - given),
        "unexpected": sorted(given - wanted),
        "of another shape": shapes,
    }
    if any(problems.values()):
        raise WeightsError(_mismatch(origin, problems))
    with torch.no_grad():
        for key in wanted:
            own[key].copy_(state[key])


def _mismatch(origin: str, problems: Mapping[str, Sequence[str]]) -> str:
    counts = ", ".join(f"{len(keys)} {what}" for what, keys in problems.items() if keys)
    lines = [f"The weights of {origin} don't fit this model (keys: {counts}):"]
    for what, keys in problems.items():
        more = ", …" if len(keys) > MOST_KEYS else ""
        lines += [f"  {what} ({len(keys)}): {', '.join(keys[:MOST_KEYS])}{more}"] if keys else []
    lines.append("Use the checkpoint of this model and model.variant, or weights=random.")
    return "\n".join(lines)


def resolve(address: str, source: CheckpointSource) -> tuple[Path, str]:
    """Local path of a checkpoint, downloaded where it is not here yet, and what to call it in the result.

    Raises:
        WeightsError: No such file, or the download failed; the message names the ways out.
    """
    if address.startswith(("http://", "https://")):
        return from_url(address), address.split("#")[0]
    if reason := weight_files.no_checkpoint(address):
        raise WeightsError(reason)
    path = weight_files.checkpoint_file(address)
    if path.is_file():
        return path, path.name
    hub = weight_files.HUB_ID.fullmatch(address)
    assert hub is not None, address
    return from_hub(hub["repo"], hub["file"] or source.file, hub["revision"]), address
