"""Small trees of images as folders, tars and zips."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Files = dict[str, bytes | str | None]
"""Content by path; None is an image, an empty folder if the path ends in a slash."""
MakeTree = Callable[..., Path]


def image(number: int) -> bytes:
    """A JPEG of one colour, different for each number."""
    out = io.BytesIO()
    colour = (number * 53 % 256, number * 97 % 256, number * 29 % 256)
    Image.new("RGB", (24 + number % 40, 20 + number // 40), colour).save(out, "JPEG")
    return out.getvalue()


def content_of(files: Files) -> dict[str, bytes]:
    return {
        name: image(number) if data is None else data.encode() if isinstance(data, str) else data
        for number, (name, data) in enumerate(files.items())
        if not name.endswith("/")
    }


@pytest.fixture(params=["folder", "tar", "zip"])
def make_tree(request: pytest.FixtureRequest, tmp_path: Path) -> MakeTree:
    """``make_tree(files, name)``: the path of a folder, a tar or a zip with these files."""

    def make(files: Files, name: str = "source") -> Path:
        return write_tree(tmp_path / name, files, request.param)

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeTree:
    """``make_folder(files, name)``: the path of a folder with these files."""
    return lambda files, name="source": write_tree(tmp_path / name, files)


@pytest.fixture
def make_tar(tmp_path: Path) -> MakeTree:
    """``make_tar(files, name)``: the path of a tar, NAME.tar, with these files."""

    def make(files: Files, name: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        return write_tree(tmp_path / name, files, "tar")

    return make


def write_tree(path: Path, files: Files, form: str = "folder") -> Path:
    content = content_of(files)
    if form == "folder":
        for name, data in content.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        for name in files:
            if name.endswith("/"):
                (path / name).mkdir(parents=True, exist_ok=True)
        return path
    path = path.with_name(f"{path.name}.{form}")
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def listed() -> Callable[..., dict[str, dict[str, str]]]:
    """``listed(source)``: for each split, the class of each image by its path: "-" without one, "!CAUSE" where the
    image cannot be stored."""
    return labels_by_path


def labels_by_path(source) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for split in source.splits:
        for record in source.records(split):
            kind, _, cause = record.locator.packing.partition(":")
            name = record.locator.member or record.locator.file
            label = f"!{cause}" if kind == "unreadable" else "".join(record.wnids) or "-"
            out.setdefault(split, {})[name] = label
    return out


@pytest.fixture
def said() -> Callable[..., list[str]]:
    """``said(source)``: its notes, without the line that counts the files that are no data."""
    return lambda source: [note for note in source.notes if "files are passed over" not in note]
