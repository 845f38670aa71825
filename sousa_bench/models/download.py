"""Fetch a file from the hub or a URL: progress bar, verified hash, and a deadline where the network is dead."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from sousa_bench.errors import WeightsError, first_line
from sousa_bench.models.weight_files import HUB_ID
from sousa_bench.system.deadline import within
from sousa_bench.system.files import sha256

CONNECT_SECONDS = 8.0
"""Time that a first answer may take. Name look-ups block beyond any socket timeout, hence a deadline of our own."""

STALL_SECONDS = 60.0
WAYS_OUT = (
    "Ways out: model.checkpoint=FILE with a copy fetched elsewhere; or, to train without it, weights=embedded, small "
    "ones that the package has for some models, or weights=random."
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Folder of downloaded weights: ``$SOUSA_BENCH_CACHE/weights``, else the user's cache folder."""
    from platformdirs import user_cache_path

    root = os.environ.get("SOUSA_BENCH_CACHE")
    return (Path(root).expanduser() if root else user_cache_path("sousa_bench")) / "weights"


def on_disk(address: str) -> Path | None:
    """The copy of a published file that an earlier run fetched, in the hub's cache or this package's; no network.

    Args:
        address: URL, or hub id with its file.
    """
    if address.startswith(("http://", "https://")):
        path = _kept_at(address.partition("#")[0])
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    hub = HUB_ID.fullmatch(address)
    assert hub is not None, address
    cached = try_to_load_from_cache(hub["repo"], hub["file"], revision=hub["revision"])
    return Path(cached) if isinstance(cached, str) else None


def from_hub(repo: str, file: str, revision: str | None = None) -> Path:
    """A file of a hub repository, from the hub's cache where it is there already.

    The hub states the SHA-256 of every large file; the copy here is hashed and compared.

    Args:
        repo: ``owner/name``.
        file: Path inside the repository.
        revision: Branch, tag or commit; None is the main branch.

    Raises:
        WeightsError: No answer within :data:`CONNECT_SECONDS`, no such file, or another hash.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    what = f"{repo}/{file}"
    cached = try_to_load_from_cache(repo, file, revision=revision)
    if isinstance(cached, str):
        return _verified(Path(cached), _blob_hash(Path(cached)), what)
    try:
        url = hf_hub_url(repo, file, revision=revision)
        facts = within(CONNECT_SECONDS, lambda: get_hf_file_metadata(url, timeout=CONNECT_SECONDS))
        path = Path(hf_hub_download(repo, file, revision=revision))
    # The hub's client raises errors of its own and of whichever HTTP library it uses; all mean the same to the user.
    except Exception as error:
        raise WeightsError(f"The weights {what} can't be had from the hub: {_reason(error)}. {WAYS_OUT}") from error
    etag = facts.etag or ""
    return _verified(path, etag if _SHA256.fullmatch(etag) else _blob_hash(path), what)


def _blob_hash(path: Path) -> str | None:
    """The hub's cache names a large file by its SHA-256."""
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def from_url(url: str) -> Path:
    """A file at a URL, kept in :func:`cache_folder`; ``#sha256=<hex>`` states its hash.

    Raises:
        WeightsError: No answer within :data:`CONNECT_SECONDS`, a failed or cut download, or another hash.
    """
    from filelock import FileLock

    address, _, fragment = url.partition("#")
    expected = fragment.removeprefix("sha256=") or None
    path = _kept_at(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if not path.is_file():
            _download(address, path)
    return _verified(path, expected, address)


def _kept_at(address: str) -> Path:
    name = unquote(Path(urlparse(address).path).name) or "checkpoint"
    return cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def _download(address: str, path: Path) -> None:
    from tqdm import tqdm

    part = path.with_name(path.name + ".part")
    try:
        response: Any = within(CONNECT_SECONDS, lambda: urllib.request.urlopen(address, timeout=STALL_SECONDS))  # noqa: S310 - http(s), see weights.py
        total = int(response.headers.get("Content-Length") or 0)
        with (
            response,
            part.open("wb") as out,
            tqdm(total=total or None, unit="B", unit_scale=True, desc=path.name) as bar,
        ):
            while block := response.read(1 << 20):
                out.write(block)
                bar.update(len(block))
        if total and part.stat().st_size != total:
            raise OSError(f"{part.stat().st_size} of {total} bytes arrived")
        part.replace(path)
    except (OSError, ValueError) as error:
        part.unlink(missing_ok=True)
        raise WeightsError(f"The weights at {address} can't be had: {_reason(error)}. {WAYS_OUT}") from error


def _verified(path: Path, expected: str | None, what: str) -> Path:
    if expected is None:
        return path
    found = sha256(path)
    if found != expected.lower():
        raise WeightsError(
            f"{what}: the file {path} has SHA-256 {found}, not {expected}: delete it and fetch it again."
        )
    return path


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and error.reason:
        return str(error.reason)
    return first_line(error)
