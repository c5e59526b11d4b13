"""Files by name below a root that is a local folder or an fsspec URL (``s3://bucket/prefix``): read at any byte,
written whole or not at all. Sources and prepared data sets see nothing else of where they lie."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from imgtool.pipelines.storage.atomic import replacing
from imgtool.wordnet.errors import ImgtoolError


class RandomFile(Protocol):
    """A file to read at any place, from any thread."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``; fewer only where the file ends."""
        ...

    def close(self) -> None: ...


class Folder(Protocol):
    """The files below a root, by their path with forward slashes. ``url`` names the root, ``remote`` says if it is one.

    Reading what is not there raises FileNotFoundError; other trouble is an OSError, or ImgtoolError of a remote store.
    """

    url: str
    remote: bool

    def open(self, name: str) -> RandomFile: ...
    def read(self, name: str) -> bytes:
        """The whole of a small file."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, None if there is none."""
        ...

    def walk(self, below: str = "") -> Iterator[tuple[str, int]]:
        """Name and size of each file, in sorted order of the path's parts."""
        ...

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a local path to write; on success the file appears whole under its name, else not at all."""
        ...

    def fetched(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a local path that holds the file: itself, or a copy for as long as it is needed."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file or a folder with all in it; nothing if there is none."""
        ...


def is_url(path: str | Path) -> bool:
    return "://" in str(path)


def open_folder(path: str | Path) -> Folder:
    """The folder at a local path or URL. It need not be there yet."""
    return RemoteFolder(str(path)) if is_url(path) else LocalFolder(path)


def join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}" if is_url(root) else os.path.join(root, name)


def write_text(folder: Folder, name: str, text: str) -> None:
    """Writes a small text file whole or not at all."""
    with folder.writing(name) as path:
        path.write_text(text, encoding="utf-8")


class LocalFile:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:  # a pread returns at most 2 GiB, or less on a network disk
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        os.close(self._descriptor)


class ReadAhead:
    """A file read mostly forwards: small steps are served from blocks, long ones read only what is asked for.

    For one thread at a time.
    """

    BLOCK = 1 << 16

    def __init__(self, file: RandomFile) -> None:
        self._file = file
        self.size = file.size
        self._block, self._at, self._last = b"", 0, 0

    def read(self, offset: int, size: int) -> bytes:
        begin = offset - self._at
        if not 0 <= begin <= begin + size <= len(self._block):
            near = 0 <= offset - self._last <= self.BLOCK
            self._block, self._at, begin = self._file.read(offset, max(size, self.BLOCK * near)), offset, 0
        self._last = offset
        return self._block[begin : begin + size]

    def close(self) -> None:
        self._file.close()


class LocalFolder:
    """A folder of this machine, or of a disk that several mount. Names are UTF-8, whatever the locale makes of them."""

    remote = False

    def __init__(self, path: str | Path) -> None:
        self.url = str(path)

    def _at(self, name: str) -> Path:
        return Path(self.url, os.fsdecode(name.encode("utf-8", "surrogateescape")))

    def open(self, name: str) -> RandomFile:
        return LocalFile(str(self._at(name)))

    def read(self, name: str) -> bytes:
        return self._at(name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return self._at(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def walk(self, below: str = "") -> Iterator[tuple[str, int]]:
        with os.scandir(self._at(below)) as entries:
            named = [(os.fsencode(entry.name).decode("utf-8", "surrogateescape"), entry) for entry in entries]
        for own, entry in sorted(named, key=lambda pair: pair[0]):
            name = f"{below}/{own}" if below else own
            if entry.is_dir():
                yield from self.walk(name)
            elif entry.is_file():
                yield name, entry.stat().st_size

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        path = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        yield self._at(name)

    def remove(self, name: str) -> None:
        path = self._at(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


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
    """A prefix of an object store, through fsspec. Objects appear whole by the store's own nature."""

    remote = True

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        with remote_errors(url):
            self._fs, self._root = fsspec.core.url_to_fs(self.url)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def open(self, name: str) -> RandomFile:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(2, "No such file", f"{self.url}/{name}")
        return RemoteFile(self._fs, self._at(name), size)

    def read(self, name: str) -> bytes:
        with remote_errors(f"{self.url}/{name}"):
            data: bytes = self._fs.cat_file(self._at(name))
            return data

    def size(self, name: str) -> int | None:
        with remote_errors(f"{self.url}/{name}"):
            try:
                self._fs.invalidate_cache()  # others write here too
                found = self._fs.info(self._at(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def walk(self, below: str = "") -> Iterator[tuple[str, int]]:
        with remote_errors(f"{self.url}/{below}"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._at(below), detail=True)
        top = len(self._root) + 1
        for path in sorted(found, key=lambda p: p.split("/")):
            yield path[top:], int(found[path]["size"])

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="imgtool-") as folder:
            path = Path(folder) / os.path.basename(name)
            yield path
            with remote_errors(f"{self.url}/{name}"):
                self._fs.put_file(str(path), self._at(name))

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="imgtool-") as folder:
            path = Path(folder) / os.path.basename(name)
            with remote_errors(f"{self.url}/{name}"):
                self._fs.get_file(self._at(name), str(path))
            yield path

    def remove(self, name: str) -> None:
        with remote_errors(f"{self.url}/{name}"):
            self._fs.invalidate_cache()
            if self._fs.exists(self._at(name)):
                self._fs.rm(self._at(name), recursive=True)


@contextlib.contextmanager
def remote_errors(where: str) -> Iterator[None]:
    """Errors of a store's own client library, whatever their class, as one line."""
    try:
        yield
    except (OSError, ImgtoolError):
        raise
    except ImportError as error:
        raise ImgtoolError(f"{where}: {error}; for s3:// install imgtool[s3]") from error
    except Exception as error:
        raise ImgtoolError(f"{where}: {type(error).__name__}: {error}") from error
