"""Image files by path, folder, pattern and URL."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest

from imgtool.pipelines.sources.image_files import ImageFile, check_exists, expand
from imgtool.wordnet.errors import ImageError, InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.jpg", "p/a.PNG", "p/deep/c.jpeg", "p/.hidden.jpg", "p/notes.txt", "p/odd[1].jpg", "p/none/x.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    return tmp_path


def names(name: str) -> list[str]:
    return [file.name for file in expand(name)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p", ["p/a.PNG", "p/b.jpg", "p/deep/c.jpeg", "p/odd[1].jpg"]),
        ("p/*.jpg", ["p/b.jpg", "p/odd[1].jpg"]),
        ("p/**", ["p/a.PNG", "p/b.jpg", "p/deep/c.jpeg", "p/odd[1].jpg"]),
        ("**/*.jpeg", ["p/deep/c.jpeg"]),
        ("p/odd[1].jpg", ["p/odd[1].jpg"]),
        ("p/notes.txt", ["p/notes.txt"]),
        ("-", ["-"]),
    ],
)
def test_paths_folders_and_patterns(folder: Path, name: str, expected: list[str]) -> None:
    assert names(name) == expected


def test_missing_images(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no image nowhere\.jpg"):
        check_exists("nowhere.jpg")
    for name in ("p/none", "p/*.gif"):
        check_exists(name)
        with pytest.raises(InputError, match="no image in p/"):
            names(name)
    with pytest.raises(ImageError, match=r"cannot read nowhere\.jpg: No such file"):
        ImageFile("nowhere.jpg").read()
    with pytest.raises(ImageError, match=r"cannot read memory://nowhere/a\.jpg"):
        next(expand("memory://nowhere/a.jpg")).read()


def test_urls(folder: Path) -> None:
    store = fsspec.filesystem("memory")
    for name in ("/box/x/b.jpg", "/box/x/a.jpg", "/box/y/c.png", "/box/readme.txt"):
        store.pipe_file(name, name.encode())
    try:
        everything = ["memory:///box/x/a.jpg", "memory:///box/x/b.jpg", "memory:///box/y/c.png"]
        assert names("memory://box") == everything
        assert names("memory://box/**/*.jpg") == everything[:2]
        assert [file.read() for file in expand("memory://box/*/c.png")] == [b"/box/y/c.png"]
        assert ImageFile("memory://box/x/a.jpg").read() == b"/box/x/a.jpg"
        with pytest.raises(InputError, match="no image in memory://box/z"):
            names("memory://box/z*")
    finally:
        store.rm("/box", recursive=True)


def test_a_zip_at_a_url(folder: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in ("one.jpg", "in/two.jpg", "notes.txt"):
            archive.writestr(name, name)
    url = f"file://{folder}/a.zip"
    assert names(f"zip://*.jpg::{url}") == [f"zip://one.jpg::{url}"]
    (found,) = expand(f"zip://in/*::{url}")
    assert found.read() == ImageFile(found.name).read() == b"in/two.jpg"
