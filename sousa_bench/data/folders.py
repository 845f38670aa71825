"""Where the caches lie."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from sousa_bench.errors import DataError

CACHE_VARIABLE = "SOUSA_BENCH_CACHE"


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds every cache of this project.

    Args:
        cache_dir: `data.cache_dir`; None: the variable `SOUSA_BENCH_CACHE`; else the user's cache folder.

    Raises:
        DataError: The folder can't be made.
    """
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("sousa_bench", appauthor=False)
    folder = Path(chosen).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} can't be made ({error.strerror}): choose another with data.cache_dir=FOLDER "
            f"or the variable {CACHE_VARIABLE}."
        ) from error
    return folder


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 where there is none."""
    total = 0
    stack = [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # another process cleans up
            continue
    return total
