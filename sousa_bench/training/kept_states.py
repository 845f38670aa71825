"""What no training changes of a split, in files beside the decoded clips: features, and states of frozen parts."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sousa_bench.data.cache_folder import filled_by_one, size_text
from sousa_bench.models.base import AudioModel, State, inside
from sousa_bench.peft.block_reader import BlockReader
from sousa_bench.peft.injection import WRAPPED
from sousa_bench.system.files import replaced
from sousa_bench.system.processor import kind

if TYPE_CHECKING:
    from sousa_bench.data.datamodule import Clips

log = logging.getLogger("sousa_bench.data")

FORMAT = b"3"
CHECKSUM = "crc32"
OUR_CODE = ("augmented_clips.py", "clip_features.py", "frozen_part.py", "inputs.py", "kept_states.py")
"""Files of this room on which a state's bits depend."""
WRAPPERS = ("peft.", "sousa_bench.peft.")
"""Whose modules stand around a network, or within what is ``above``; a :class:`BlockReader` says what is kept."""
PLAIN = (bool, int, float, str, tuple)
"""Attributes of a module that may decide a state, as a front end's longest clip does."""
GROUPS = 16
"""Groups of clips in a file: what an interruption may cost."""
PATIENCE = 600.0
"""Seconds that a run waits for another's file: whoever has it in hand may have been stopped."""
UNUSED_DAYS = 30
"""After so many without a reader a file goes when another is made."""


class KeptStates:
    """Reads what earlier runs kept of whole splits, and computes and keeps what lacks.

    A file holds a part of a split: of the same clips, grouped and padded in the same way, under the same weights, code,
    library, processor or GPU, precision and number of threads, so that what is read has the bits that would have been
    computed. Runs that want the same at once share the work: each takes the parts that no other has in hand.

    Args:
        model: The model.
        what: What is kept, for messages.
        until: Features and mask → what is kept of them.
        above: Gives the dotted names, inside the model, of the modules on which it doesn't depend.
    """

    def __init__(
        self, model: AudioModel, what: str, until: Callable[..., State], above: Callable[[], Sequence[str]]
    ) -> None:
        self._model = model
        self._what = what
        self._until = until
        self._above = above
        self._identity: bytes | None = None

    def of(
        self, clips: Clips, groups: np.ndarray, compute: Callable[[np.ndarray], State], size: int
    ) -> dict[int, State]:
        """The state of each piece of a split; where the cache has no room for all, of those that it holds.

        Args:
            clips: The split.
            groups: (pieces,) number of each piece's group.
            compute: Pieces of one group → their states.
            size: Most bytes that the states of all pieces take.
        """
        found: dict[int, State] = {}
        absent = []
        for members in _parts(groups):
            path = self._path(clips, members)
            if (states := self._read(path, members, groups)) is None:
                absent.append((members, path))
            else:
                found |= states
        pieces = sum(len(members) for members, _ in absent)
        if absent and not self._room(clips, pieces, size * pieces // len(groups)):
            return found
        for seconds in (0, PATIENCE):
            taken = []
            for members, path in absent:
                with contextlib.ExitStack() as held:
                    try:
                        held.enter_context(
                            filled_by_one(path.with_suffix(".lock"), f"computing {self._what}", seconds=seconds)
                        )
                    except Timeout:
                        if not seconds:
                            taken.append((members, path))
                            continue
                        log.warning("Another process holds %s.lock for too long: it may be stopped", path.stem)
                    except OSError as error:
                        log.warning("%s can't be locked: %s", path, error)
                    found |= self._made(path, members, groups, compute, clips.kept.room)
            absent = taken
        return found

    def _room(self, clips: Clips, pieces: int, size: int) -> bool:
        """Whether the cache takes so much; it is told, and what nobody reads any more goes."""
        folder = clips.kept.folder
        what = f"{self._what} of {pieces:,} {clips.split} clips ({size_text(size)})"
        try:
            folder.mkdir(exist_ok=True)
            _remove_unused(folder)
            if not os.access(folder, os.W_OK):
                raise PermissionError("not writable")
        except OSError as error:
            log.warning("%s can't be kept in %s: %s", what, folder, error)
            return False
        if not clips.kept.room(size):
            log.info("No room in %s to keep %s", folder, what)
            return False
        log.info("Computing %s once for all runs, in %s", what, folder)
        return True

    def _made(
        self,
        path: Path,
        members: np.ndarray,
        groups: np.ndarray,
        compute: Callable[[np.ndarray], State],
        room: Callable[[int], bool],
    ) -> dict[int, State]:
        """What another process has computed meanwhile, or else what this one computes now."""
        if (states := self._read(path, members, groups)) is not None:
            return states
        tensors = {}
        for group in np.unique(groups[members]):
            for number, part in enumerate(compute(members[groups[members] == group])):
                tensors[f"{group}.{number}"] = torch.empty(0) if part is None else part.cpu().contiguous()
        if not room(state_bytes(tuple(tensors.values()))):  # other runs have filled it meanwhile
            log.info("No room in %s to keep more of %s", path.parent, self._what)
            return _of_pieces(tensors, members, groups, self._device)
        try:
            with replaced(path) as draft:
                save_file(tensors, draft, metadata={CHECKSUM: _checksum(tensors)})
        except (OSError, SafetensorError) as error:
            log.warning("%s can't be kept in %s: %s", self._what, path.parent, error)
        return _of_pieces(tensors, members, groups, self._device)

    def _read(self, path: Path, members: np.ndarray, groups: np.ndarray) -> dict[int, State] | None:
        """What a file holds; None where there is none, or it is damaged."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                if (file.metadata() or {}).get(CHECKSUM) != _checksum(tensors):
                    raise ValueError("its checksum is wrong")
            found = _of_pieces(tensors, members, groups, self._device)
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            log.warning("The cache file %s is damaged (%s): its clips go through the network again", path, error)
            return None
        with contextlib.suppress(OSError):  # another user's, or read-only
            os.utime(path)
        return found

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    def _path(self, clips: Clips, members: np.ndarray) -> Path:
        if self._identity is None:
            self._identity = _identity(self._model, self._until, self._above())
        pieces = clips.pieces
        heard = (members, clips.lengths, pieces.clip, pieces.start, pieces.padded)
        parts = [self._identity, clips.kept.content, *(np.asarray(part, np.int64).tobytes() for part in heard)]
        return clips.kept.folder / f"{_digest(parts).hexdigest()}.safetensors"


def state_bytes(state: State) -> int:
    """Bytes of a state's tensors."""
    return sum(part.numel() * part.element_size() for part in state if part is not None)


def _parts(groups: np.ndarray) -> list[np.ndarray]:
    """Positions of the pieces of each file."""
    numbers = groups // GROUPS
    return [np.flatnonzero(numbers == number) for number in np.unique(numbers)]


def _remove_unused(folder: Path) -> None:
    """Nothing tells what nobody wants any more but that nobody reads it."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removes it, or another user owns it
            if path.stat().st_mtime < oldest:
                path.unlink()


def _of_pieces(
    tensors: Mapping[str, Tensor], members: np.ndarray, groups: np.ndarray, device: torch.device
) -> dict[int, State]:
    parts = 1 + max(int(name.partition(".")[2]) for name in tensors)
    found: dict[int, State] = {}
    for group in np.unique(groups[members]):
        inside_it = members[groups[members] == group]
        own = [tensors.get(f"{group}.{number}") for number in range(parts)]
        if any(part is None or len(part) not in (0, len(inside_it)) for part in own):
            raise ValueError("it lacks clips")
        rows = [part.to(device) if part is not None and len(part) else None for part in own]
        for row, i in enumerate(inside_it):
            found[int(i)] = tuple(None if part is None else part[row : row + 1] for part in rows)
    return found


def _unwrapped(name: str) -> str:
    """A module's or tensor's name as it is without PEFT's wrapper."""
    return name.replace(f"backbone.{WRAPPED}", "backbone.")


@torch.no_grad()
def _identity(model: AudioModel, until: Callable[..., State], above: Sequence[str]) -> bytes:
    """What decides a state besides the clip: weights, code, numbers, and how this process computes."""
    device = next(model.parameters()).device
    modules = [
        (_unwrapped(f"{name}."), module)
        for name, module in model.named_modules()
        if not inside(name, above)
        and (isinstance(module, BlockReader) or not type(module).__module__.startswith(WRAPPERS))
    ]
    plain = [
        f"{name}{key}={value!r}"
        for name, module in modules
        for key, value in sorted(vars(module).items())
        if key != "training" and isinstance(value, PLAIN)
    ]
    files = {Path(found) for _, each in modules if (found := inspect.getsourcefile(type(each)))}
    files |= {Path(__file__).with_name(name) for name in OUR_CODE}
    code = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    machine = (
        torch.__version__,
        device.type,
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else (kind(), torch.backends.cpu.get_cpu_capability()),
    )
    computing: tuple[Any, ...] = ()
    if tuple(above) != ("backbone",):  # front ends compute in float32, and the same in any number of threads
        autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        computing = (torch.get_num_threads(), autocast)
    tensors = [
        (_unwrapped(name), tensor)
        for named in (model.named_parameters(), model.named_buffers())
        for name, tensor in named
        if not inside(name, above)
    ]
    rate = model.sample_rate  # two clips, the second padded: what no tensor says of front end and network
    noise = 0.1 * torch.randn(2, rate, generator=torch.Generator().manual_seed(0)).to(device)
    lengths = torch.tensor([rate, rate // 2], device=device)
    noise[1, rate // 2 :] = 0
    state = [part for part in until(*model.features(noise, lengths)) if part is not None]
    parts: list[bytes | memoryview] = [FORMAT, *code, repr((machine, computing, plain)).encode()]
    parts += [part for name, tensor in tensors for part in (name.encode(), _bytes(tensor))]
    return _digest([*parts, *map(_bytes, state)]).digest()


def _digest(parts: Iterable[bytes | memoryview]) -> hashlib.blake2b:
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8))
        made.update(part)
    return made


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(_bytes(tensors[name]), zlib.crc32(name.encode(), found))
    return f"{found:08x}"
