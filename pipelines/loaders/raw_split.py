"""A split of a raw data set, read in batches without preparing it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.codec.transform import ValTransform
from imgtool.pipelines.dataset import INFO, STATE
from imgtool.pipelines.loaders.base import Batch, to_device
from imgtool.pipelines.records import Record, from_table, to_table
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.folders import is_url, open_folder
from imgtool.pipelines.threads import available_cpus, prefetch_map
from imgtool.wordnet.errors import DatasetError, ImageError


def is_raw(path: str | Path) -> bool:
    """Whether ``path`` exists and is not a prepared data set, finished or not."""
    if is_url(path):
        return open_folder(path).size(INFO) is None
    return Path(path).exists() and not any((Path(path) / name).exists() for name in (INFO, STATE))


class RawSplit:
    """The labelled images of one split of any source that `open_source` opens: a folder of class folders, a tar, ….

    ``wnids`` are the source's classes in sorted order, named as their folders. ``keys`` are the images' names in the
    source's order, ``labels`` (int64) their positions in ``wnids``. A compressed tar is unpacked into a temporary
    folder, which :meth:`close` removes. Class folders, a table or WebDataset tars that are one split count as the
    requested one.

    Raises SourceError if the layout is unknown, DatasetError if the split is missing or empty, or has images without a
    label.
    """

    def __init__(self, path: str | Path, split: str) -> None:
        self.path, self.split = path, split
        self._spool = tempfile.TemporaryDirectory(prefix="imgtool-")
        try:
            self._source = source = open_source(path, Path(self._spool.name))
            single = source.layout in ("class-folders", "table", "webdataset") and len(source.splits) == 1
            if split not in source.splits and not single:
                raise DatasetError(f"{path}: has no split {split!r}; it has {', '.join(source.splits)}")
            self._records = to_table(source.records(split if split in source.splits else source.splits[0]))
            self.wnids, self.keys = source.wnids, list(self._records["key"].to_pylist())
            if not self.keys:
                raise DatasetError(f"{path}: the split {split!r} is empty")
            position = {wnid: index for index, wnid in enumerate(self.wnids)}
            self.labels = np.array([position[r.wnids[0]] if r.wnids else -1 for r in from_table(self._records)])
            if (self.labels < 0).any():
                first = self.keys[int(np.argmax(self.labels < 0))]
                raise DatasetError(
                    f"{path}: the split {split!r} has {(self.labels < 0).sum():,} images without a label, {first} for "
                    "one: nothing to measure against"
                )
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, indices: Sequence[int]) -> Iterator[bytes]:
        """Yields the file contents of these images in this order. Raises ImageError if one cannot be read."""
        with LocatorReader(self._source.root) as reader:
            for data in reader.read_many(record.locator for record in from_table(self._records.take(indices))):
                if isinstance(data, ImageError):
                    raise data
                yield data

    def batches(
        self, transform: ValTransform, batch_size: int, device: torch.device, workers: int | None = None
    ) -> Iterator[Batch]:
        """Yields all images in order, uint8 [N, 3, imgsz, imgsz] channels_last, with their labels, int64 [N].

        ``workers`` threads decode up to two batches ahead. Raises ImageError if an image cannot be decoded, because
        accuracy over fewer images is not comparable.
        """
        return to_device(self._on_cpu(transform, batch_size, workers or available_cpus()), device)

    def _on_cpu(self, transform: ValTransform, batch_size: int, workers: int) -> Iterator[Batch]:
        def decode(read: tuple[Record, bytes | ImageError]) -> codec.Pixels:
            if isinstance(read[1], ImageError):
                raise read[1]
            return transform.decode(read[1])

        with LocatorReader(self._source.root) as reader:
            data = reader.read_many(record.locator for record in from_table(self._records))
            pairs = zip(from_table(self._records), data, strict=True)
            pixels: list[codec.Pixels] = []
            done = 0
            with closing(prefetch_map(pairs, decode, workers, 2 * batch_size)) as decoded:
                for (record, _), crop in decoded:
                    if isinstance(crop, ImageError):
                        raise ImageError(f"{self.path}: {record.locator}: {crop}")
                    pixels.append(crop)
                    if len(pixels) == batch_size or done + len(pixels) == len(self):
                        # NHWC in memory is NCHW in channels_last format
                        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
                        yield images, torch.from_numpy(self.labels[done : done + len(pixels)])
                        done, pixels = done + len(pixels), []

    def close(self) -> None:
        self._spool.cleanup()

    def __enter__(self) -> RawSplit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
