"""The samples of a split over all its shards, as columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from imgtool.pipelines import codec
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.dataset.manifest import UNLABELLED
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.shards.webdataset import WebDatasetReader
from imgtool.wordnet.errors import DatasetError


class Samples:
    """Sample i of the split is at ``position[i]`` in shard ``shard[i]``.

    ``offset``, ``size`` (uint64, bytes), ``width``, ``height`` (int32, pixels), ``label`` (int64) and ``raw`` (uint8: 1
    for RGB pixels, 0 for JPEG) are columns of length N; ``buffers`` are the memory-mapped shards. Raises DatasetError
    if the shards are damaged or contradict dataset.json.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.split = dataset, split
        readers: list[BetonReader] | list[WebDatasetReader]
        if "beton" in dataset.formats:
            readers = [BetonReader(path) for path in dataset.shards(split)]
        else:
            readers = [WebDatasetReader(path) for path in dataset.shards(split, ".tar")]
        if not readers:
            raise DatasetError(f"{dataset.path}: split {split} has no samples")
        self.paths = [reader.path for reader in readers]
        self.buffers = [reader.buffer for reader in readers]
        lengths = [len(reader) for reader in readers]
        self.shard = np.repeat(np.arange(len(readers), dtype=np.int32), lengths)
        self.position: npt.NDArray[np.int64] = np.concatenate([np.arange(n) for n in lengths])
        self.offset = np.concatenate([reader.offset for reader in readers])
        self.size = np.concatenate([reader.size for reader in readers])
        self.width, self.height = self._dimensions(readers)
        self.label = np.concatenate([reader.label for reader in readers])
        self.raw = np.concatenate([reader.raw for reader in readers])
        last = len(dataset.stored_wnids) - 1
        first = UNLABELLED if split == "test" else 0
        if len(self.label) and not first <= self.label.min() <= self.label.max() <= last:
            raise DatasetError(f"{dataset.path}: split {split} has a label outside 0..{last}")
        if dataset.target_of_class is not None:
            self._map_labels(dataset.target_of_class)
        expected = dataset.num_samples(split)
        if len(self.label) != expected:
            raise DatasetError(
                f"{dataset.path}: split {split} has {len(self.label)} samples in its shards, {expected} in dataset.json"
            )

    def _dimensions(self, readers: list[BetonReader] | list[WebDatasetReader]) -> npt.NDArray[np.int32]:
        """Width and height of each sample, int32 [2, N]: from the .beton files, for tar files from the manifest."""
        of_beton = [(reader.width, reader.height) for reader in readers if isinstance(reader, BetonReader)]
        if of_beton:
            return np.concatenate(of_beton, axis=1)
        rows = self.dataset.manifest(self.split).select(["shard", "position", "width", "height", "bytes"])
        rows = rows.filter(pc.is_valid(rows["position"])).sort_by([("shard", "ascending"), ("position", "ascending")])
        if rows.num_rows != len(self.size) or (np.asarray(rows["bytes"]).astype(np.uint64) != self.size).any():
            raise DatasetError(
                f"{self.dataset.path}: the manifest of split {self.split} does not match its shards; prepare again"
            )
        return np.stack([np.asarray(rows["width"]), np.asarray(rows["height"])]).astype(np.int32)

    def _map_labels(self, target_of_class: npt.NDArray[np.int64]) -> None:
        """Replaces labels by the label map's targets and leaves out the samples of dropped classes."""
        target = np.where(self.label == UNLABELLED, UNLABELLED, target_of_class[self.label])
        kept = (target >= 0) | (self.label == UNLABELLED)
        for column in ("shard", "position", "offset", "size", "width", "height", "raw"):
            setattr(self, column, getattr(self, column)[kept])
        self.label = target[kept]

    def __len__(self) -> int:
        return len(self.label)

    def data(self, sample: int) -> memoryview:
        """Returns the stored bytes of a sample without a copy."""
        at = int(self.offset[sample])
        return memoryview(self.buffers[self.shard[sample]])[at : at + int(self.size[sample])]

    def pixels(self, sample: int) -> codec.Pixels:
        """Decodes a whole sample, uint8 [H, W, 3]. Raises ImageError if it is damaged."""
        if self.raw[sample]:
            return np.frombuffer(self.data(sample), np.uint8).reshape(self.height[sample], self.width[sample], 3)
        data = bytes(self.data(sample))
        codec.check(data)
        return codec.decode(data, exif=False)

    def name(self, sample: int) -> str:
        """Returns a sample's shard, position and original file name, for messages."""
        path, position = self.paths[self.shard[sample]], int(self.position[sample])
        try:
            rows = self.dataset.manifest(self.split).select(["key", "shard", "position"]).to_pylist()
            number = int(path.stem)
            key = next(r["key"] for r in rows if r["shard"] == number and r["position"] == position)
        except (DatasetError, StopIteration):
            key = "unknown key"
        return f"{path}, sample {position} ({key})"
