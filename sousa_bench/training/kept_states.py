"""What the frozen part of a network makes of a split, in a file beside the decoded clips: later runs read it."""

from __future__ import annotations

import hashlib
import inspect
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sousa_bench.data.cache_folder import size_text
from sousa_bench.models.base import AudioModel, State, inside
from sousa_bench.system.files import replaced

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import Clips

log = logging.getLogger("sousa_bench.data")

FORMAT = b"1"
CHECKSUM = "crc32"
OUR_CODE = ("frozen_part.py", "inputs.py", "kept_states.py")
"""Files of this room on which a state's bits depend."""


class KeptStates:
    """Reads and writes the states of whole splits.

    A file is that of the same clips, grouped and padded in the same way, under the same weights (but the head's), code,
    library, device, precision and number of threads: what is read has the bits that would have been computed.

    Args:
        model: The model, before anything takes its head's place.
        until: Features and mask → the state before the head.
    """

    def __init__(self, model: AudioModel, until: Callable[..., State]) -> None:
        self._model = model
        self._until = until
        self._identity: bytes | None = None

    def read(self, clips: Clips, groups: np.ndarray) -> dict[int, State]:
        """The state of each piece of a split; empty where there is no file, or it is damaged."""
        path = self._path(clips)
        if not path.is_file():
            return {}
        device = next(self._model.parameters()).device
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                if (file.metadata() or {}).get(CHECKSUM) != _checksum(tensors):
                    raise ValueError("its checksum is wrong")
            return _of_pieces({name: tensor.to(device) for name, tensor in tensors.items()}, groups)
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            log.warning("The cache file %s is damaged (%s): its clips go through the network again", path, error)
            return {}

    def write(self, clips: Clips, groups: np.ndarray, states: Mapping[int, State]) -> None:
        """Keep the states of all pieces of a split, where the cache has room for them."""
        tensors = {}
        for group in np.unique(groups):
            members = [states[int(i)] for i in np.flatnonzero(groups == group)]
            for number, parts in enumerate(zip(*members, strict=True)):
                present = [part for part in parts if part is not None]
                if present:
                    tensors[f"{group}.{number}"] = torch.cat(present).cpu().contiguous()
                else:
                    tensors[f"{group}.{number}"] = torch.empty(0)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        path = self._path(clips)
        if not clips.kept.room(size):
            log.info("No room in %s to keep what %s makes of the clips (%s)", path.parent, self._name, size_text(size))
            return
        try:
            with replaced(path) as draft:
                save_file(tensors, draft, metadata={CHECKSUM: _checksum(tensors)})
        except (OSError, SafetensorError) as error:
            log.warning("What %s makes of the clips can't be kept in %s: %s", self._name, path.parent, error)
            return
        log.info(
            "Kept what %s makes of %s %s clips: %s, in %s", self._name, len(clips), clips.split, size_text(size), path
        )

    @property
    def _name(self) -> str:
        return f"{self._model.name} ({self._model.variant})"

    def _path(self, clips: Clips) -> Path:
        if self._identity is None:
            self._identity = _identity(self._model, self._until)
        pieces = clips.pieces
        heard = (clips.lengths, pieces.clip, pieces.start, pieces.padded)
        parts = [self._identity, clips.kept.content, *(np.asarray(part, np.int64).tobytes() for part in heard)]
        return clips.kept.folder / f"{_digest(parts).hexdigest()}.safetensors"


def _of_pieces(tensors: Mapping[str, Tensor], groups: np.ndarray) -> dict[int, State]:
    parts = 1 + max(int(name.partition(".")[2]) for name in tensors)
    found: dict[int, State] = {}
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        own = [tensors.get(f"{group}.{number}") for number in range(parts)]
        if any(part is None or len(part) not in (0, len(members)) for part in own):
            raise ValueError("it lacks clips")
        for row, i in enumerate(members):
            found[int(i)] = tuple(part[row : row + 1] if part is not None and len(part) else None for part in own)
    return found


@torch.no_grad()
def _identity(model: AudioModel, until: Callable[..., State]) -> bytes:
    """What decides a state besides the clip: weights, code, numbers, and how this process computes."""
    device = next(model.parameters()).device
    head = [f"backbone.{model.head_name}"]
    classes = {type(module) for name, module in model.named_modules() if not inside(name, head)}
    files = {Path(found) for each in classes if (found := inspect.getsourcefile(each))}
    files |= {Path(__file__).with_name(name) for name in OUR_CODE}
    code = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    machine = (
        torch.__version__,
        device.type,
        torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type),
    )
    tensors = [
        (name, tensor)
        for named in (model.named_parameters(), model.named_buffers())
        for name, tensor in named
        if not inside(name, head)
    ]
    rate = model.sample_rate  # two clips, the second padded: what no tensor says of front end and network
    noise = 0.1 * torch.randn(2, rate, generator=torch.Generator().manual_seed(0)).to(device)
    lengths = torch.tensor([rate, rate // 2], device=device)
    noise[1, rate // 2 :] = 0
    state = [part for part in until(*model.features(noise, lengths)) if part is not None]
    parts = [FORMAT, *code, repr(machine).encode()]
    parts += [part for name, tensor in tensors for part in (name.encode(), _bytes(tensor))]
    return _digest([*parts, *map(_bytes, state)]).digest()


def _digest(parts: Iterable[bytes]) -> hashlib.blake2b:
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8))
        made.update(part)
    return made


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(_bytes(tensors[name]), zlib.crc32(name.encode(), found))
    return f"{found:08x}"
