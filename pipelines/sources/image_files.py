"""Image files as a user names them: paths, folders, glob patterns, fsspec URLs, standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from imgtool.pipelines.records import IMAGE_SUFFIXES, MAX_BYTES
from imgtool.pipelines.storage.folders import LocalFolder, is_url, join, remote_errors
from imgtool.wordnet.errors import ImageError, ImgtoolError, InputError

STDIN = "-"
_MAGIC = "*?["  # the characters that make a name a glob pattern


@dataclass(frozen=True)
class ImageFile:
    """One file: a path, a URL, or "-" for standard input.

    ``fs`` and ``path`` are a URL's fsspec file system and the path in it. They are resolved when the file is read,
    unless given.
    """

    name: str
    fs: Any = None
    path: str = ""

    def read(self) -> bytes:
        """Returns the file's bytes. Raises ImageError that names the file if it cannot be read or is too large."""
        try:
            data = self._read()
        except OSError as error:
            raise ImageError(f"cannot read {self.name}: {error.strerror or error}") from error
        except ImageError:
            raise
        except ImgtoolError as error:
            raise ImageError(f"cannot read {error}") from error
        if len(data) > MAX_BYTES:
            raise ImageError(f"cannot read {self.name}: more than {MAX_BYTES} bytes are too many for an image")
        return data

    def _read(self) -> bytes:
        if self.name == STDIN:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        if not is_url(self.name):
            with open(self.name, "rb") as local:
                return local.read(MAX_BYTES + 1)
        with remote_errors(self.name):
            fs, path = (self.fs, self.path) if self.fs is not None else _resolve(self.name)
            remote: IO[bytes]
            with fs.open(path, "rb") as remote:
                return remote.read(MAX_BYTES + 1)


def check_exists(name: str) -> None:
    """Raises InputError for a path that does not exist, before any work begins. URLs and patterns are not checked."""
    if name != STDIN and not is_url(name) and not os.path.lexists(name) and not _has_magic(name):
        raise InputError(f"there is no image {name}; give a file, folder, pattern or URL of images")


def expand(name: str) -> Iterator[ImageFile]:
    """Yields the image files that a name stands for, in sorted order.

    A file stands for itself, whatever its name. A folder stands for the files below it, and a pattern (``*``, ``?``,
    ``[…]``, ``**`` for any folders) for the files that match it, in both cases only those that have an image suffix and
    are not hidden. All may be URLs, also chained ones (``zip://*.jpg::s3://bucket/a.zip``); http(s) URLs are always
    files. A folder is listed while its files are yielded, a pattern before. Raises InputError if there is no image.
    """
    found = False
    try:
        for file in _remote(name) if is_url(name) else _local(name):
            found = True
            yield file
    except OSError as error:
        raise InputError(f"{error.filename or name}: {error.strerror or error}") from error
    if not found:
        raise InputError(f"there is no image in {name}: no file has a suffix among {', '.join(IMAGE_SUFFIXES)}")


def _local(name: str) -> Iterator[ImageFile]:
    if name != STDIN and os.path.isdir(name):
        yield from (ImageFile(join(name, below)) for below in _images(f for f, _ in LocalFolder(name).walk()))
    elif name == STDIN or os.path.lexists(name) or not _has_magic(name):
        yield ImageFile(name)  # "a[1].jpg" may be a file's name
    else:
        matches = sorted(path for path in glob.iglob(name, recursive=True) if os.path.isfile(path))
        yield from map(ImageFile, _images(matches))


def _remote(url: str) -> Iterator[ImageFile]:
    first, chained, rest = url.partition("::")
    with remote_errors(url):
        fs, path = _resolve(url)
        is_web = first.startswith(("http://", "https://"))
        if is_web or (first.lower().endswith(IMAGE_SUFFIXES) and not _has_magic(path)):
            yield ImageFile(url, fs, path)  # the suffix says that it is a file: no request to the store
            return
        if _has_magic(path):
            names = sorted(fs.glob(path))
        elif fs.isdir(path):
            names = sorted(fs.find(path), key=lambda found: found.split("/"))
        else:
            yield ImageFile(url, fs, path)
            return
        for found in _images(names):
            yield ImageFile(f"{fs.unstrip_protocol(found)}{chained}{rest}", fs, found)


def _resolve(url: str) -> tuple[Any, str]:
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    return fs, path


def _has_magic(name: str) -> bool:
    return any(character in name for character in _MAGIC)


def _images(names: Iterable[str]) -> Iterator[str]:
    return (n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not os.path.basename(n).startswith("."))
