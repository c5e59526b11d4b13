"""A prepared data set: dataset.json and the files that it names."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from imgtool.pipelines.dataset.selection import targets_of
from imgtool.pipelines.shards import FORMATS
from imgtool.pipelines.storage.folders import is_url
from imgtool.wordnet.errors import DatasetError
from imgtool.wordnet.graph.label_map import LabelMap

FORMAT = 1
INFO = "dataset.json"
STATE = ".prepare.json"
"""This file exists until prepare has finished."""
CLASS_TABLE = "labels.parquet"


class Dataset:
    """The data set that ``imgtool prepare`` wrote to ``path``; a ``label_map`` replaces its classes by other targets.

    Raises DatasetError if there is none, if it has another format version or is incomplete; InputError if the label map
    does not know its classes.
    """

    def __init__(self, path: str | Path, label_map: LabelMap | None = None) -> None:
        if is_url(path):
            raise DatasetError(
                f"{path}: a URL cannot be memory-mapped; copy the data set to this machine and give its path"
            )
        self.path = Path(path)
        self.label_map = label_map
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
            raise DatasetError(
                f"{file}: is not a data set's description; delete the folder and prepare again"
            ) from None
        if version != FORMAT:
            raise DatasetError(f"{file}: has format version {version}, this imgtool reads {FORMAT}; prepare again")
        if not self.info["complete"] and not any(split["samples"] for split in self.info["splits"].values()):
            raise DatasetError(
                f"{self.path}: is empty: {self.info['problem']}. Repair the source and run imgtool prepare again"
            )
        if not self.info["complete"]:
            raise DatasetError(
                f"{self.path}: is incomplete: {self.info['problem']}. Repair the source and rerun imgtool prepare, "
                "or rerun it with --accept-truncated to use the intact part"
            )
        # int64 [stored classes]: the label map's target of each class, -1 where it is dropped
        self.target_of_class = None if label_map is None else targets_of(self.stored_wnids, label_map)
        digest = xxhash.xxh3_64(text)
        if label_map is not None:
            digest.update(json.dumps(label_map.to_dict()).encode())
        self.fingerprint = digest.hexdigest()

    def _why_missing(self) -> str:
        if (self.path / STATE).exists():
            return f"{self.path}: prepare has not finished; run the same imgtool prepare again"
        if (self.path / CLASS_TABLE).exists():
            return f"{self.path}: {INFO} is missing; delete the folder and prepare again"
        return f"{self.path}: no data set here ({INFO} is missing); imgtool prepare --src … --out {self.path} makes one"

    @cached_property
    def class_table(self) -> pa.Table:
        """The class table: one row per stored class, in class-index order."""
        try:
            return pq.read_table(self.path / CLASS_TABLE)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(_unreadable(self.path / CLASS_TABLE, error)) from error

    def manifest(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Reads the manifest of a split: one row per sample, stored or skipped; all columns or only these.

        Raises DatasetError.
        """
        file = self.path / f"{split}.parquet"
        try:
            return pq.read_table(file, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(_unreadable(file, error)) from error

    @cached_property
    def stored_wnids(self) -> list[str]:
        """The wnids that the shards' labels index, whatever the label map."""
        return list(self.class_table["wnid"].to_pylist())

    @cached_property
    def wnids(self) -> list[str]:
        """The wnids by class index, in sorted order; with a label map its target names."""
        return self.stored_wnids if self.label_map is None else list(self.label_map.names)

    @cached_property
    def names(self) -> list[str]:
        """A unique display name for each class index."""
        return list(self.class_table["name"].to_pylist()) if self.label_map is None else list(self.label_map.names)

    @property
    def num_classes(self) -> int:
        return len(self.wnids)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.info["splits"])

    def num_samples(self, split: str) -> int:
        """Returns the number of samples in the split's shards, without those that the label map drops."""
        samples = int(self._split(split)["samples"])
        if self.target_of_class is None:
            return samples
        labels = self._stored_labels(split)
        return int((self.target_of_class[labels[labels >= 0]] >= 0).sum() + (labels < 0).sum())

    def num_unlabelled(self, split: str) -> int:
        """Returns the number of samples in the split's shards that have no label."""
        return int((self._stored_labels(split) < 0).sum())

    def _stored_labels(self, split: str) -> npt.NDArray[np.int64]:
        """The stored class indices of the split's samples."""
        self._split(split)
        rows = self.manifest(split, ["class_index", "position"])
        return np.asarray(rows.filter(pc.is_valid(rows["position"]))["class_index"], np.int64)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the shards: "beton", "wds" or both."""
        return FORMATS[self.info["settings"]["format"]]

    def shards(self, split: str, ending: str = ".beton") -> list[Path]:
        """Returns the split's shards of one format in order: .beton, or .tar for WebDataset.

        The list is empty if the data set does not have that format. Raises DatasetError if there is no such split.
        """
        files = [file["path"] for shard in self._split(split)["shards"] for file in shard["files"]]
        return [self.path / path for path in files if path.endswith(ending)]

    def _split(self, split: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.info["splits"][split]
        except KeyError:
            raise DatasetError(f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}") from None
        return found


def _unreadable(file: Path, error: Exception) -> str:
    cause = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
    return f"{file}: {cause}; run the same imgtool prepare again"
