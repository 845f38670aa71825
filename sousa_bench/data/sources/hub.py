"""The hub's Parquet layout on the Hugging Face hub itself."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd

from sousa_bench.data.sources.labelled import Reading
from sousa_bench.data.sources.parquet_shards import Shard, Shards, choose_shards, read_rows
from sousa_bench.errors import DataError, first_line
from sousa_bench.system.deadline import within
from sousa_bench.system.files import replaced

log = logging.getLogger("sousa_bench.data")

PATIENCE = 8.0
"""Seconds after which a hub that hasn't answered counts as out of reach."""

Answer = TypeVar("Answer")


class HubRepository(Shards):
    """A dataset on the hub: lists of clips come over the network, audio only for the shards that are needed.

    What was once fetched is used again without a network: the shards from the hub's own cache folder (`HF_HOME`), the
    list of clips from ours.

    Args:
        hub_id: `owner/name`.
        revision: Branch, tag or commit.
        cache: See `Shards`.
        reading: See `Shards`.
    """

    def __init__(self, hub_id: str, revision: str, cache: Path, reading: Reading | None = None) -> None:
        super().__init__(cache, reading)
        self.hub_id = hub_id
        self.revision = revision
        self.place = f"hub dataset {hub_id}"
        self._snapshot: Path | None = None

    @cached_property
    def _listing(self) -> tuple[str, list[Shard]]:
        """Commit and files; the last known ones where the hub can't be reached."""
        kept = self.cache / "hub" / f"{self.hub_id.replace('/', '--')}@{self.revision.replace('/', '--')}.json"
        try:
            commit, files = within(PATIENCE, self._ask)
        except DataError:
            raise
        except Exception as error:
            if not kept.is_file():
                raise self._unreachable(error) from error
            content = json.loads(kept.read_text(encoding="utf-8"))
            log.info("The hub can't be reached; using what is known of %s at %s", self.hub_id, content["commit"][:8])
            return content["commit"], [Shard(name, size) for name, size in content["files"]]
        with replaced(kept) as draft:
            draft.write_text(json.dumps({"commit": commit, "files": [[f.name, f.size] for f in files]}), "utf-8")
        return commit, files

    def _ask(self) -> tuple[str, list[Shard]]:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            info = HfApi().dataset_info(self.hub_id, revision=self.revision, files_metadata=True, timeout=PATIENCE)
        except GatedRepoError as error:
            raise DataError(f"{self.place} is gated: accept its terms on the hub, then run `hf auth login`.") from error
        except RevisionNotFoundError as error:
            raise DataError(f"{self.place} has no revision {self.revision!r} (data.revision).") from error
        except RepositoryNotFoundError as error:
            raise DataError(
                f"{self.place} doesn't exist, or isn't open to you (data.hub_id; `hf auth login` for a private one)."
            ) from error
        files = [Shard(file.rfilename, int(file.size or 0)) for file in info.siblings or []]
        return str(info.sha), files

    def _unreachable(self, error: BaseException) -> DataError:
        return DataError(
            f"{self.place} can't be reached ({first_line(error)[:160]}). Ways out: data.root=FOLDER or the variable "
            "SOUSA_ROOT for a copy on this machine, data=synthetic for data without a download, or a working network."
        )

    @cached_property
    def shards(self) -> list[Shard]:
        """See `Shards.shards`."""
        shards = choose_shards(self._listing[1])
        if not shards:
            names = ", ".join(file.name for file in self._listing[1][:8])
            raise DataError(f"{self.place} holds no train-*.parquet shards; it holds: {names}.")
        return shards

    def read_shards(self) -> list[pd.DataFrame]:
        """See `Shards.read_shards`."""
        from huggingface_hub import HfFileSystem

        commit = self._listing[0]
        system = HfFileSystem()
        log.info("Reading the list of clips of %s from %d shards, without their audio", self.place, len(self.shards))

        def rows(shard: Shard) -> pd.DataFrame:
            with system.open(f"datasets/{self.hub_id}@{commit}/{shard.name}", block_size=1 << 16) as file:
                return read_rows(file, shard.name, shard.split)

        with ThreadPoolExecutor(16) as pool:
            return self._or_unreachable(lambda: list(pool.map(rows, self.shards)))

    def fetch(self, table: pd.DataFrame) -> None:
        """Download the shards that hold the clips of `table`, those that aren't here yet."""
        from huggingface_hub import snapshot_download, try_to_load_from_cache

        commit = self._listing[0]
        names = sorted(set(table["shard"]))
        absent = [
            name
            for name in names
            if not isinstance(try_to_load_from_cache(self.hub_id, name, revision=commit, repo_type="dataset"), str)
        ]
        if absent:
            self._check_disk(sum(self._size[name] for name in absent), len(absent))
        self._snapshot = Path(
            self._or_unreachable(
                lambda: snapshot_download(
                    self.hub_id,
                    repo_type="dataset",
                    revision=commit,
                    allow_patterns=names,
                    local_files_only=not absent,
                )
            )
        )

    def _check_disk(self, needed: int, count: int) -> None:
        from huggingface_hub.constants import HF_HUB_CACHE

        folder = next(path for path in (Path(HF_HUB_CACHE), *Path(HF_HUB_CACHE).parents) if path.is_dir())
        free = shutil.disk_usage(folder).free
        log.info("Downloading %d of %d shards, %.1f GB, to %s", count, len(self.shards), needed / 1e9, HF_HUB_CACHE)
        if needed > free:
            raise DataError(
                f"The {count} shards needed of {self.place} take {needed / 1e9:.1f} GB; {folder} has "
                f"{free / 1e9:.1f} GB free. Take a smaller data=tiny|mini|small, or point HF_HOME to a larger disk."
            )

    def _or_unreachable(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except DataError:
            raise
        except Exception as error:
            raise self._unreachable(error) from error

    def path(self, shard: str) -> Path:
        """See `Shards.path`."""
        assert self._snapshot is not None, "fetch() comes first"
        return self._snapshot / shard
