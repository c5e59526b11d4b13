"""Sparse members of tars, as GNU tar writes them in each of its formats."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.archives import sparse
from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.wordnet.errors import ImageError, ImgtoolError

FORMATS = {
    "gnu": ["--format=gnu"],
    "0.0": ["--format=pax", "--sparse-version=0.0"],
    "0.1": ["--format=pax", "--sparse-version=0.1"],
    "1.0": ["--format=pax", "--sparse-version=1.0"],
}


def write_holes(path: Path, pieces: int, end: int = 0) -> None:
    """Writes a file of this many pieces of 4 KiB, each after a hole of 64 KiB, and a hole at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for i in range(pieces):
            file.seek(65536, 1)
            file.write(bytes([i % 255 + 1]) * 4096)
        file.truncate(file.tell() + end)


def pack(tmp_path: Path, form: str) -> Path:
    files = {"x/one.jpg": 1, "x/many.jpg": 30, "y/more.jpg": 200, "y/" + "n" * 120 + ".jpg": 5, "y/none.jpg": 0}
    for name, pieces in files.items():
        write_holes(tmp_path / "s" / name, pieces, end=70_000)
    (tmp_path / "s/x/plain.jpg").write_bytes(b"plain" * 999)
    command = ["tar", "-S", *FORMATS[form], "-cf", str(tmp_path / "a.tar"), "x", "y"]
    try:
        done = subprocess.run(command, cwd=tmp_path / "s", capture_output=True)
    except FileNotFoundError:
        pytest.skip("tar is not installed")
    if done.returncode:
        pytest.skip("this tar does not write sparse members")
    return tmp_path / "a.tar"


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_those_that_were_packed(tmp_path, form):
    archive = pack(tmp_path, form)
    tree = FileTree(str(tmp_path), "a.tar")
    names = {str(path.relative_to(tmp_path / "s")): path for path in (tmp_path / "s").rglob("*.jpg")}
    assert set(tree.files) == set(names)
    assert any(locator.packing for locator in tree.files.values()) == (archive.stat().st_size < 4 << 20)
    with LocatorReader(str(tmp_path)) as reader:
        for name, path in names.items():
            assert reader.read(tree.files[name]) == path.read_bytes()
        read = reader.read_many(tree.files[name] for name in tree.files)
        assert all(data == names[name].read_bytes() for name, data in zip(tree.files, read, strict=True))
        heads = reader.heads(tree.files.values(), 100)
        assert all(head == names[name].read_bytes()[:100] for name, head in zip(tree.files, heads, strict=True))


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_archives_raise_imgtool_errors_only(tmp_path, form):
    good = pack(tmp_path, form).read_bytes()
    starts = [at for at in range(0, len(good), 512) if good[at + 257 : at + 262] == b"ustar"][:12]

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(starts), st.integers(0, 1535), st.integers(0, 255))
    def check(start: int, offset: int, value: int) -> None:
        data = bytearray(good)
        data[start + offset] = value
        header = data[start : start + 512]
        total = sum(header) - sum(header[148:156]) + 256
        data[start + 148 : start + 156] = b"%06o\0 " % total
        (tmp_path / "a.tar").write_bytes(data)
        try:
            tree = FileTree(str(tmp_path), "a.tar")
            with LocatorReader(str(tmp_path)) as reader:
                for locator in tree.files.values():
                    reader.read(locator)
        except ImgtoolError:
            pass

    check()


@settings(max_examples=200)
@given(pieces=st.lists(st.integers(-5, 300), max_size=8), stored=st.integers(0, 400), size=st.integers(0, 400))
def test_only_possible_maps_are_accepted(pieces, stored, size):
    pairs = list(zip(pieces[::2], pieces[1::2], strict=False))
    possible = (
        len(pieces) % 2 == 0
        and all(offset >= 0 and length >= 0 and offset + length <= size for offset, length in pairs)
        and all(a + n <= b for (a, n), (b, _) in itertools.pairwise(pairs))
        and sum(length for _, length in pairs) <= stored
    )
    try:
        sparse.packing(pieces, stored, size)
    except sparse.Damaged:
        assert not possible
    else:
        assert possible


def test_a_huge_member_is_not_read(tmp_path):
    write_holes(tmp_path / "s/x/huge.jpg", 1, end=1 << 30)
    subprocess.run(["tar", "-S", "-cf", str(tmp_path / "a.tar"), "x"], cwd=tmp_path / "s", check=True)
    [locator] = FileTree(str(tmp_path), "a.tar").files.values()
    with LocatorReader(str(tmp_path)) as reader, pytest.raises(ImageError, match="too many for an image"):
        reader.read(locator)
