"""A prepared data set: dataset.json and what it names."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from imgtool.wordnet.errors import DatasetError

FORMAT = 1
INFO = "dataset.json"
LABELS = "labels.parquet"


class Dataset:
    """The data set that ``imgtool prepare`` left at ``path``.

    Raises DatasetError if there is none, it is of another format version, or it is incomplete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / INFO
        try:
            text = file.read_bytes()
            self.info: dict[str, Any] = json.loads(text)
            version = self.info["format"]
        except FileNotFoundError:
            raise DatasetError(self._why_missing()) from None
        except OSError as error:
            raise DatasetError(f"{file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            raise DatasetError(f"{file}: is not a data set's description; prepare it again") from None
        if version != FORMAT:
            raise DatasetError(f"{file}: format version {version}, this imgtool reads {FORMAT}; prepare it again")
        if not self.info["complete"]:
            raise DatasetError(
                f"{self.path}: is incomplete: {self.info['problem']}. Mend the source and rerun imgtool prepare, "
                "or rerun it with --accept-truncated to use what is whole"
            )
        self.fingerprint = xxhash.xxh3_64_hexdigest(text)

    def _why_missing(self) -> str:
        if (self.path / ".prepare.json").exists():
            return f"{self.path}: prepare has not finished; run the same imgtool prepare again"
        return f"{self.path}: no data set here ({INFO} is missing); imgtool prepare --src … --out {self.path} makes one"

    @cached_property
    def labels(self) -> pa.Table:
        """The label map: a row a class, in class-index order."""
        try:
            return pq.read_table(self.path / LABELS)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{self.path / LABELS}: cannot be read: {error}") from error

    def manifest(self, split: str) -> pa.Table:
        """The manifest of a split: a row a sample, stored or skipped."""
        return self.manifest_at(self.path, split)

    @staticmethod
    def manifest_at(path: Path, split: str) -> pa.Table:
        """The same of a data set that need not be complete."""
        try:
            return pq.read_table(path / f"{split}.parquet")
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path / split}.parquet: cannot be read: {error}") from error

    @cached_property
    def wnids(self) -> list[str]:
        """The classes in sorted order: class index = position."""
        return list(self.labels["wnid"].to_pylist())

    @cached_property
    def names(self) -> list[str]:
        """A unique name to show for each class."""
        return list(self.labels["name"].to_pylist())

    @property
    def num_classes(self) -> int:
        return int(self.info["classes"])

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.info["splits"])

    def num_samples(self, split: str) -> int:
        """How many samples the split's shards hold."""
        return int(self._split(split)["samples"])

    def shards(self, split: str) -> list[Path]:
        """The split's shards, in order."""
        return [self.path / shard["path"] for shard in self._split(split)["shards"]]

    def _split(self, split: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.info["splits"][split]
        except KeyError:
            raise DatasetError(f"{self.path}: no split {split!r}; it has {', '.join(self.splits)}") from None
        return found
