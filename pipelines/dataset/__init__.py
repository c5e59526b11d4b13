"""A prepared data set: dataset.json and what it names."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from imgtool.pipelines.dataset.selection import classes_of
from imgtool.pipelines.shards import FORMATS
from imgtool.pipelines.storage.folders import is_url
from imgtool.wordnet.errors import DatasetError
from imgtool.wordnet.graph.label_map import LabelMap

FORMAT = 1
INFO = "dataset.json"
STATE = ".prepare.json"
"""There while prepare has not finished."""
LABELS = "labels.parquet"


class Dataset:
    """The data set that ``imgtool prepare`` left at ``path``, its classes gathered by ``labelmap`` where one is given.

    Raises DatasetError if there is none, it is of another format version, or it is incomplete; InputError if the label
    map does not know its classes.
    """

    def __init__(self, path: str | Path, labelmap: LabelMap | None = None) -> None:
        if is_url(path):
            raise DatasetError(f"{path}: is not on this machine; copy it here first, its files are read by memory map")
        self.path = Path(path)
        self.labelmap = labelmap
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
        self.target_of_class = None if labelmap is None else classes_of(self.stored_wnids, labelmap)
        digest = xxhash.xxh3_64(text)
        if labelmap is not None:
            digest.update(json.dumps(labelmap.to_dict()).encode())
        self.fingerprint = digest.hexdigest()

    def _why_missing(self) -> str:
        if (self.path / STATE).exists():
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
        file = self.path / f"{split}.parquet"
        try:
            return pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{file}: cannot be read: {error}") from error

    @cached_property
    def stored_wnids(self) -> list[str]:
        """The classes that the shards' labels count, whatever the label map."""
        return list(self.labels["wnid"].to_pylist())

    @cached_property
    def wnids(self) -> list[str]:
        """The classes, class index = position: in sorted order, or the label map's targets by name."""
        return self.stored_wnids if self.labelmap is None else list(self.labelmap.names)

    @cached_property
    def names(self) -> list[str]:
        """A unique name to show for each class."""
        return list(self.labels["name"].to_pylist()) if self.labelmap is None else list(self.labelmap.names)

    @property
    def num_classes(self) -> int:
        return len(self.wnids)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.info["splits"])

    def num_samples(self, split: str) -> int:
        """How many samples the split's shards hold, those that the label map drops not counted."""
        samples = int(self._split(split)["samples"])
        if self.target_of_class is None:
            return samples
        counts = np.array(self.labels[f"{split}_count"].to_pylist())
        return int(counts[self.target_of_class >= 0].sum())

    @property
    def formats(self) -> tuple[str, ...]:
        """ "beton", "wds" or both."""
        return FORMATS[self.info["settings"]["format"]]

    def shards(self, split: str, ending: str = ".beton") -> list[Path]:
        """The split's shards of one kind (.beton, or .tar of WebDataset), in order; none if it was not made so."""
        files = [file["path"] for shard in self._split(split)["shards"] for file in shard["files"]]
        return [self.path / path for path in files if path.endswith(ending)]

    def _split(self, split: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.info["splits"][split]
        except KeyError:
            raise DatasetError(f"{self.path}: no split {split!r}; it has {', '.join(self.splits)}") from None
        return found
