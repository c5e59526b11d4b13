"""A split's samples over all its shards, as columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.wordnet.errors import DatasetError


class Samples:
    """Sample i of the split is number ``position[i]`` of shard ``shard[i]``.

    ``offset``, ``size`` (uint64), ``width``, ``height`` (int32) and ``label`` (int64) are columns of length N;
    ``buffers`` the memory-mapped shards.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.split = dataset, split
        readers = [BetonReader(path) for path in dataset.shards(split)]
        if not readers:
            raise DatasetError(f"{dataset.path}: split {split} holds no samples")
        self.paths = [reader.path for reader in readers]
        self.buffers = [reader.buffer for reader in readers]
        lengths = [len(reader) for reader in readers]
        self.shard = np.repeat(np.arange(len(readers), dtype=np.int32), lengths)
        self.position: npt.NDArray[np.int64] = np.concatenate([np.arange(n) for n in lengths])
        self.offset = np.concatenate([reader.offset for reader in readers])
        self.size = np.concatenate([reader.size for reader in readers])
        self.width = np.concatenate([reader.width for reader in readers])
        self.height = np.concatenate([reader.height for reader in readers])
        self.label = np.concatenate([reader.label for reader in readers])
        last = len(dataset.stored_wnids) - 1
        if len(self.label) and not 0 <= self.label.min() <= self.label.max() <= last:
            raise DatasetError(f"{dataset.path}: split {split} has a label outside 0..{last}")
        if dataset.target_of_class is not None:
            self._gather(dataset.target_of_class)
        expected = dataset.num_samples(split)
        if len(self.label) != expected:
            raise DatasetError(
                f"{dataset.path}: split {split} has {len(self.label)} samples in its shards, {expected} in dataset.json"
            )

    def _gather(self, target_of_class: npt.NDArray[np.int64]) -> None:
        """Leaves out the samples of dropped classes and gives the others their target's label."""
        target = target_of_class[self.label]
        kept = target >= 0
        for column in ("shard", "position", "offset", "size", "width", "height"):
            setattr(self, column, getattr(self, column)[kept])
        self.label = target[kept]

    def __len__(self) -> int:
        return len(self.label)

    def data(self, sample: int) -> memoryview:
        """The stored bytes of a sample, without a copy."""
        at = int(self.offset[sample])
        return memoryview(self.buffers[self.shard[sample]])[at : at + int(self.size[sample])]

    def name(self, sample: int) -> str:
        """Where a sample lies, for messages: its shard, position and original file name."""
        path, position = self.paths[self.shard[sample]], int(self.position[sample])
        try:
            rows = self.dataset.manifest(self.split).select(["key", "shard", "position"]).to_pylist()
            number = int(path.stem)
            key = next(r["key"] for r in rows if r["shard"] == number and r["position"] == position)
        except (DatasetError, StopIteration):
            key = "unknown key"
        return f"{path}, sample {position} ({key})"
