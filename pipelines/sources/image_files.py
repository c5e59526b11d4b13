"""Image files as a user names them: paths, folders, patterns, URLs of any fsspec kind, standard input."""

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
_MAGIC = "*?["


@dataclass(frozen=True)
class ImageFile:
    """One file: a path, a URL, or "-" for standard input. A URL's ``fs`` and ``at`` there are found when it is read,
    unless they are known already."""

    name: str
    fs: Any = None
    at: str = ""

    def read(self) -> bytes:
        """Its bytes. Raises ImageError, naming it, where it cannot be read or is too large for an image."""
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
            fs, at = (self.fs, self.at) if self.fs is not None else _resolve(self.name)
            remote: IO[bytes]
            with fs.open(at, "rb") as remote:
                return remote.read(MAX_BYTES + 1)


def check(name: str) -> None:
    """Raises InputError for a path of which nothing is there: told before work begins. URLs are not looked at."""
    if name != STDIN and not is_url(name) and not os.path.lexists(name) and not _has_magic(name):
        raise InputError(f"there is no image {name}")


def expand(name: str) -> Iterator[ImageFile]:
    """The image files that a name stands for, one after the other, in sorted order.

    A file stands for itself, whatever it is called; a folder for all below it, a pattern (``*``, ``?``, ``[…]``, ``**``
    for any folders) for all files it matches, that end like images and are not hidden. Both may be URLs, chained too
    (``zip://*.jpg::s3://bucket/a.zip``). http(s) has no folders and patterns. A pattern's names are listed before the
    first is given; a folder is listed as it goes. Raises InputError where there is none.
    """
    found = False
    try:
        for file in _remote(name) if is_url(name) else _local(name):
            found = True
            yield file
    except OSError as error:
        raise InputError(f"{error.filename or name}: {error.strerror or error}") from error
    if not found:
        raise InputError(f"there is no image in {name}: none of its files ends in {', '.join(IMAGE_SUFFIXES)}")


def _local(name: str) -> Iterator[ImageFile]:
    if name != STDIN and os.path.isdir(name):
        yield from (ImageFile(join(name, below)) for below in _images(f for f, _ in LocalFolder(name).walk()))
    elif name == STDIN or os.path.lexists(name) or not _has_magic(name):
        yield ImageFile(name)  # "a[1].jpg" may well be a file
    else:
        matches = sorted(path for path in glob.iglob(name, recursive=True) if os.path.isfile(path))
        yield from map(ImageFile, _images(matches))


def _remote(url: str) -> Iterator[ImageFile]:
    first, chained, rest = url.partition("::")
    with remote_errors(url):
        fs, at = _resolve(url)
        is_web = first.startswith(("http://", "https://"))
        if is_web or (first.lower().endswith(IMAGE_SUFFIXES) and not _has_magic(at)):
            yield ImageFile(url, fs, at)  # a store is not asked what the name says already
            return
        if _has_magic(at):
            names = sorted(fs.glob(at))
        elif fs.isdir(at):
            names = sorted(fs.find(at), key=lambda path: path.split("/"))
        else:
            yield ImageFile(url, fs, at)
            return
        for found in _images(names):
            yield ImageFile(f"{fs.unstrip_protocol(found)}{chained}{rest}", fs, found)


def _resolve(url: str) -> tuple[Any, str]:
    import fsspec

    fs, at = fsspec.core.url_to_fs(url)
    return fs, at


def _has_magic(name: str) -> bool:
    return any(sign in name for sign in _MAGIC)


def _images(names: Iterable[str]) -> Iterator[str]:
    return (n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not os.path.basename(n).startswith("."))
