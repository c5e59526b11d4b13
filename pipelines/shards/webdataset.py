"""WebDataset shards: a tar with NAME.jpg and NAME.cls for each sample, and the index file that DALI's reader needs.

The webdataset package and DALI's ``fn.readers.webdataset(paths, index_paths, ext=["jpg", "cls"])`` read them. The tar
is plain ustar. The index has format v1.2 of DALI's wds2idx: one line per sample, with the extension, offset, size and
name of each component.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import codec
from imgtool.wordnet.errors import DatasetError

BLOCK = 512
RECORD = 20 * BLOCK  # tar pads archives to a multiple of this
INDEX_VERSION = "v1.2"
MAX_NAME = 80
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")


class WebDatasetWriter:
    """Writes samples one by one to ``path`` and ``index_path``; both are valid only after :meth:`close`.

    The bytes are a function of the added samples alone: no times, no owners. Keeps one index line per sample in memory.
    """

    def __init__(self, path: str | Path, index_path: str | Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed in close()
        self._index_path = Path(index_path)
        self._at = 0
        self._lines: list[str] = []
        self._names: set[str] = set()

    def add(self, key: str, data: bytes, label: int) -> int:
        """Appends a JPEG and its label (decimal digits); returns its position in the shard.

        The name is the key, with characters that WebDataset or DALI cannot take replaced: a sample's name ends at the
        first dot, and the index separates fields by spaces. A repeated name gets the position as a suffix; otherwise
        two samples would be read as one.
        """
        position = len(self._lines)
        name = _NOT_ALLOWED.sub("_", key)[:MAX_NAME] or "_"
        while name in self._names:
            name = f"{name}-{position}"
        self._names.add(name)
        components = []
        for ending, content in (("jpg", data), ("cls", b"%d" % label)):
            member = f"{name}.{ending}"
            self._file.write(_header(member, len(content)) + content + bytes(-len(content) % BLOCK))
            components.append(f"{ending} {self._at + BLOCK} {len(content)} {member}")
            self._at += BLOCK + -(-len(content) // BLOCK) * BLOCK
        self._lines.append(" ".join(components))
        return position

    def close(self) -> None:
        """Writes the end of the archive and the index, and syncs both to disk."""
        end = self._at + 2 * BLOCK
        self._file.write(bytes(2 * BLOCK + -end % RECORD))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with open(self._index_path, "w", encoding="ascii") as index:
            index.write("\n".join([f"{INDEX_VERSION} {len(self._lines)}", *self._lines, ""]))
            index.flush()
            os.fsync(index.fileno())

    def abort(self) -> None:
        """Closes the tar without completing it; there is no index."""
        self._file.close()


def _header(name: str, size: int) -> bytes:
    """Makes a ustar header: regular file, mode 644, owner 0, time 0."""
    header = b"".join(
        (
            name.encode("ascii").ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            b"%011o\0" % size,
            b"00000000000\0",
            b"        ",  # the checksum is computed with spaces in its own place
            b"0".ljust(101, b"\0"),
            b"ustar\x0000",
        )
    ).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


class WebDatasetReader:
    """A shard and its index, the tar memory-mapped. All offsets and sizes are checked against the tar's length.

    ``offset``, ``size`` (uint64 [N], bytes), ``label`` (int64 [N]) and ``raw`` (uint8 [N], always 0) describe its
    samples; ``buffer`` is the whole tar. Raises DatasetError if the tar or the index is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        index = self.path.with_suffix(".idx")
        try:
            lines = index.read_bytes().decode("ascii").splitlines()
            with open(self.path, "rb") as file:
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DatasetError(f"{error.filename or self.path}: {error.strerror}; prepare again") from error
        except ValueError as error:  # an empty file cannot be mapped; an index is ASCII
            raise DatasetError(f"{self.path}: the shard or its index is damaged ({error}); prepare again") from None
        try:
            version, count = lines[0].split()
            rows = [line.split() for line in lines[1:]]
            if version != INDEX_VERSION or int(count) != len(rows):
                raise ValueError(f"its first line is {lines[0]!r}, but it lists {len(rows)} samples")
            images = _extents(rows, 0, "jpg", len(self.buffer))
            labels = _extents(rows, 4, "cls", len(self.buffer))
            self.label: npt.NDArray[np.int64] = np.array(
                [int(self.buffer[at : at + min(size, 20)]) for at, size in labels.tolist()], np.int64
            )
        except (ValueError, IndexError, OverflowError) as error:
            raise DatasetError(f"{index}: is not the index of {self.path.name} ({error}); prepare again") from None
        self.offset: npt.NDArray[np.uint64] = images[:, 0].astype(np.uint64)
        self.size: npt.NDArray[np.uint64] = images[:, 1].astype(np.uint64)
        self.raw: npt.NDArray[np.uint8] = np.zeros(len(self.size), np.uint8)

    def __len__(self) -> int:
        return len(self.offset)

    def read(self, position: int) -> bytes:
        """Returns the stored bytes of a sample."""
        at = int(self.offset[position])
        return self.buffer[at : at + int(self.size[position])]

    def pixels(self, position: int) -> codec.Pixels:
        """Decodes a sample, uint8 [H, W, 3]. Raises ImageError."""
        return codec.decode(self.read(position), exif=False)


def _extents(rows: list[list[str]], column: int, ending: str, length: int) -> npt.NDArray[np.int64]:
    """Reads offset and size of each sample's component from ``column`` on, int64 [N, 2].

    Raises ValueError if one is missing, or is outside of the ``length`` bytes of the tar.
    """
    if any(row[column] != ending for row in rows):
        raise ValueError(f"a sample has no .{ending}")
    out = np.array([(int(row[column + 1]), int(row[column + 2])) for row in rows], np.int64).reshape(-1, 2)
    if len(out) and (out.min() < 0 or int((out[:, 0].astype(object) + out[:, 1]).max()) > length):
        raise ValueError("a sample is outside the file")
    return out
