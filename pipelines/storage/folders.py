"""One interface for the files below a local folder or an fsspec URL (``s3://bucket/prefix``).

Files are named relative to this root, read at any byte and written atomically. Sources and prepared data sets access
storage through this interface alone, so they need not know where they are stored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from imgtool.pipelines.storage.atomic import atomic_write
from imgtool.pipelines.storage.passed_over import DANGLING, LOOP, SPECIAL, UNREADABLE, PassedOver
from imgtool.wordnet.errors import ImgtoolError, first_line


class RandomAccessFile(Protocol):
    """A file that can be read at any offset, from any thread."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Returns ``size`` bytes at ``offset``; fewer only at the end of the file."""
        ...

    def close(self) -> None: ...


class Folder(Protocol):
    """The files below a root, named by their relative path with forward slashes.

    ``url`` is the root's path or URL; ``remote`` says whether it is a URL. Reading a missing file raises
    FileNotFoundError. Other failures raise OSError or, from a remote store, ImgtoolError.
    """

    url: str
    remote: bool

    def open(self, name: str) -> RandomAccessFile: ...
    def read(self, name: str) -> bytes:
        """Returns the whole content of a small file."""
        ...

    def size(self, name: str) -> int | None:
        """Returns a file's size in bytes, None if there is no such file."""
        ...

    def kind(self, name: str = "") -> str:
        """Returns "file" or "folder"; without a name, for the root. Raises FileNotFoundError with the cause."""
        ...

    def walk(self, below: str = "", passed_over: PassedOver | None = None) -> Iterator[tuple[str, int]]:
        """Yields name and size of each file below a subfolder, sorted by the parts of the path.

        Links are followed. ``passed_over`` gets the links that lead nowhere or in a circle, devices, pipes, the folders
        that cannot be read, and the names of all folders. Without it, a folder that cannot be read raises OSError.
        """
        ...

    def atomic_write(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a local path to write to. On success the whole file appears under its name; else nothing does."""
        ...

    def local_path(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a local path to read the file from: its own, or that of a copy that is removed afterwards."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with its content. Does nothing if there is none."""
        ...


def is_url(path: str | Path) -> bool:
    return "://" in str(path)


def open_folder(path: str | Path) -> Folder:
    """Returns the folder at a local path or URL. It need not exist yet."""
    return RemoteFolder(str(path)) if is_url(path) else LocalFolder(path)


def join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}" if is_url(root) else os.path.join(root, name)


def write_text(folder: Folder, name: str, text: str) -> None:
    """Writes a small text file atomically."""
    with folder.atomic_write(name) as path:
        path.write_text(text, encoding="utf-8")


class LocalFile:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:  # pread returns at most 2 GiB, and may return less on a network disk
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        os.close(self._descriptor)


class BytesFile:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        pass


class ReadAheadFile:
    """Buffers a file that is read mostly forwards: reads close to the last one are served from blocks of ``BLOCK``
    bytes, other reads fetch only what is requested. Not thread-safe.
    """

    BLOCK = 1 << 16

    def __init__(self, file: RandomAccessFile) -> None:
        self._file = file
        self.size = file.size
        self._block, self._block_offset, self._last = b"", 0, 0

    def read(self, offset: int, size: int) -> bytes:
        begin = offset - self._block_offset
        if not 0 <= begin <= begin + size <= len(self._block):
            near = 0 <= offset - self._last <= self.BLOCK
            self._block, self._block_offset, begin = self._file.read(offset, max(size, self.BLOCK * near)), offset, 0
        self._last = offset
        return self._block[begin : begin + size]

    def close(self) -> None:
        self._file.close()


class LocalFolder:
    """A folder in the local file system, network mounts included. File names are UTF-8, whatever the locale."""

    remote = False

    def __init__(self, path: str | Path) -> None:
        self.url = str(path)

    def _path_of(self, name: str) -> Path:
        return Path(self.url, os.fsdecode(name.encode("utf-8", "surrogateescape")))

    def open(self, name: str) -> RandomAccessFile:
        return LocalFile(str(self._path_of(name)))

    def read(self, name: str) -> bytes:
        return self._path_of(name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return self._path_of(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def kind(self, name: str = "") -> str:
        path = self._path_of(name)
        return "folder" if stat.S_ISDIR(path.stat().st_mode) else "file"

    def walk(self, below: str = "", passed_over: PassedOver | None = None) -> Iterator[tuple[str, int]]:
        root = os.path.realpath(self._path_of(below))
        parents = Path(root).parents if os.path.isdir(root) else ()
        yield from self._walk(below, passed_over, tuple(_identity(str(parent)) for parent in parents))

    def _walk(
        self, below: str, passed_over: PassedOver | None, above: tuple[tuple[int, int], ...], is_link: bool = False
    ) -> Iterator[tuple[str, int]]:
        """``above`` identifies the folders above, to which a link must not lead back."""
        path = str(self._path_of(below))
        try:
            here = _identity(path)
            if is_link and here in above:
                if passed_over is not None:
                    passed_over.add(LOOP, below)
                return
            with os.scandir(path) as entries:
                named = [(os.fsencode(entry.name).decode("utf-8", "surrogateescape"), entry) for entry in entries]
        except PermissionError:
            if passed_over is None or not below:
                raise
            passed_over.add(UNREADABLE, below)
            return
        for base, entry in sorted(named, key=lambda pair: pair[0]):
            name = f"{below}/{base}" if below else base
            kind, size = _kind(entry)
            if kind == "folder":
                if passed_over is not None and not entry.is_symlink():
                    passed_over.folders.add(name)
                yield from self._walk(name, passed_over, (*above, here), entry.is_symlink())
            elif kind == "file":
                yield name, size
            elif passed_over is not None:
                passed_over.add(kind, name)

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        path = self._path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            yield temporary

    @contextlib.contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        yield self._path_of(name)

    def remove(self, name: str) -> None:
        path = self._path_of(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _kind(entry: os.DirEntry[str]) -> tuple[str, int]:
    """Returns "folder" or "file" and the size, else the reason to pass the entry over. Links are followed."""
    try:
        if entry.is_dir():
            return "folder", 0
        if entry.is_file():
            return "file", entry.stat().st_size
    except OSError as error:  # a link in a circle, or through a folder that cannot be read
        if not entry.is_symlink():
            raise
        return (LOOP if error.errno == errno.ELOOP else DANGLING), 0
    return (DANGLING if entry.is_symlink() and not os.path.exists(entry.path) else SPECIAL), 0


class RemoteFile:
    def __init__(self, fs: Any, path: str, size: int) -> None:
        self._fs, self._path, self.size = fs, path, size

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        with remote_errors(self._path):
            data: bytes = self._fs.cat_file(self._path, start=offset, end=end)
            return data

    def close(self) -> None:
        pass


class RemoteFolder:
    """A prefix of an object store, accessed through fsspec. Object stores write objects atomically."""

    remote = True

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        with remote_errors(url):
            self._fs, self._root = fsspec.core.url_to_fs(self.url)

    def _url_of(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _path_of(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def open(self, name: str) -> RandomAccessFile:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(2, "No such file", f"{self.url}/{name}")
        return RemoteFile(self._fs, self._path_of(name), size)

    def read(self, name: str) -> bytes:
        with remote_errors(self._url_of(name)):
            data: bytes = self._fs.cat_file(self._path_of(name))
            return data

    def size(self, name: str) -> int | None:
        with remote_errors(self._url_of(name)):
            try:
                self._fs.invalidate_cache()  # other machines may write here too
                found = self._fs.info(self._path_of(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def kind(self, name: str = "") -> str:
        with remote_errors(self._url_of(name)):
            self._fs.invalidate_cache()
            return "file" if self._fs.info(self._path_of(name))["type"] == "file" else "folder"

    def walk(self, below: str = "", passed_over: PassedOver | None = None) -> Iterator[tuple[str, int]]:
        with remote_errors(self._url_of(below)):
            self._fs.invalidate_cache()
            found = self._fs.find(self._path_of(below), detail=True)
        top = len(self._root) + 1
        for path in sorted(found, key=lambda p: p.split("/")):
            if found[path]["type"] == "file" and not path.endswith("/"):  # consoles mark folders by such objects
                yield path[top:], int(found[path]["size"])

    @contextlib.contextmanager
    def atomic_write(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="imgtool-") as folder:
            path = Path(folder) / os.path.basename(name)
            yield path
            with remote_errors(self._url_of(name)):
                self._fs.put_file(str(path), self._path_of(name))

    @contextlib.contextmanager
    def local_path(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="imgtool-") as folder:
            path = Path(folder) / os.path.basename(name)
            with remote_errors(self._url_of(name)):
                self._fs.get_file(self._path_of(name), str(path))
            yield path

    def remove(self, name: str) -> None:
        with remote_errors(self._url_of(name)):
            self._fs.invalidate_cache()
            if self._fs.exists(self._path_of(name)):
                self._fs.rm(self._path_of(name), recursive=True)


@contextlib.contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turns any exception of a store's client library into an error of one line that names ``url`` and the cause.

    What is missing raises FileNotFoundError, everything else ImgtoolError. Errors of the local disk remain.
    """
    try:
        yield
    except ImgtoolError:
        raise
    except FileNotFoundError as error:
        # The HTTP client reports a refused connection so; a missing key of S3 is reported by its name alone.
        cause = error.strerror or first_line(error.__cause__ or error)
        cause = "no such file or folder in the store" if cause in url or cause == "Not Found" else cause
        raise FileNotFoundError(errno.ENOENT, cause, url) from error
    except ImportError as error:
        extra = "; install imgtool[s3]" if url.startswith(("s3://", "s3a://")) else ""
        raise ImgtoolError(f"{url}: {first_line(error)}{extra}") from error
    except OSError as error:
        if error.filename:
            raise
        raise ImgtoolError(f"{url}: {error.strerror or first_line(error)}") from error
    except Exception as error:
        raise ImgtoolError(f"{url}: {type(error).__name__}: {first_line(error)}") from error
