"""The tar index, compared with Python's tarfile, and on truncated and damaged archives."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.archives import tar
from imgtool.pipelines.storage.folders import LocalFile
from imgtool.pipelines.storage.passed_over import litter
from imgtool.wordnet.errors import ImgtoolError, SourceError, TruncatedSourceError

NAMES = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyzé_0123456789.", min_size=1, max_size=90).filter(lambda s: not litter(s)),
    min_size=1,
    max_size=4,
).map("/".join)


def make(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def scan(data: bytes, path: Path, **options) -> list[tar.Member]:
    path.write_bytes(data)
    with contextlib.closing(LocalFile(str(path))) as file:
        return list(tar.scan(file, "a.tar", **options))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tar") / "a.tar"


@settings(max_examples=100)
@given(
    files=st.dictionaries(NAMES, st.binary(max_size=1500), min_size=1, max_size=6),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]),
)
def test_members_equal_those_of_tarfile(path, files, form):
    try:
        data = make(files, form)
    except ValueError:
        return  # ustar cannot hold every name
    members = scan(data, path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(m.name, m.offset_data, m.size, "") for m in archive if m.isfile()]
    assert [tuple(m) for m in members] == expected
    assert [data[m.offset : m.offset + m.size] for m in members] == list(files.values())


@settings(max_examples=100)
@given(st.data())
def test_a_truncated_archive_yields_its_complete_members_before_the_error(path, data):
    files = {f"{i}.JPEG": bytes([i]) * data.draw(st.integers(0, 2000)) for i in range(4)}
    whole = make(files)
    members = scan(whole, path)
    cut = data.draw(st.integers(0, members[-1].offset + (members[-1].size + 511) // 512 * 512))
    path.write_bytes(whole[:cut])
    found = []
    truncated = pytest.raises(TruncatedSourceError, match=r"a\.tar is truncated")
    with contextlib.closing(LocalFile(str(path))) as file, truncated:
        for member in tar.scan(file, "a.tar"):
            found.append(member)
    assert found == [m for m in members if m.offset + m.size <= cut]


def test_include_truncated_yields_the_incomplete_member(path):
    data = make({"a": b"x" * 700, "b": b"y" * 3000})
    path.write_bytes(data[:2600])
    found = []
    with contextlib.closing(LocalFile(str(path))) as file, pytest.raises(TruncatedSourceError):
        for member in tar.scan(file, "a.tar", include_truncated=True):
            found.append(member.name)
    assert found == ["a", "b"]


def test_a_tar_inside_a_tar(path):
    inner = make({"x.JPEG": b"inner"})
    outer = make({"before": b"1" * 600, "n01440764.tar": inner})
    member = scan(outer, path)[1]
    (found,) = scan(outer, path, start=member.offset, end=member.offset + member.size)
    assert outer[found.offset : found.offset + found.size] == b"inner"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x"])
def test_members_outside_the_archive_are_refused(path, name):
    with pytest.raises(SourceError, match="points outside"):
        scan(make({name: b"x"}), path)


def test_links_and_folders_are_skipped(path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("./file"))
    assert [m.name for m in scan(buffer.getvalue(), path)] == ["file"]


def test_base_256_sizes(path):
    """A member of 8 GiB or more, whose size does not fit into the octal field."""
    info = tarfile.TarInfo("big")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(TruncatedSourceError, match=f"big has {9 << 30} bytes"):
        scan(header, path)


def test_a_file_that_is_not_a_tar(path):
    with pytest.raises(SourceError, match="not a tar archive"):
        scan(b"hello" * 500, path)


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_bytes_raise_imgtool_errors_only(path, data):
    good = bytearray(make({"a/" + "n" * 120: b"x" * 700, "b": b"y" * 20}, tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        members = scan(bytes(good), path)
    except ImgtoolError:
        return
    assert all(m.offset + m.size <= len(good) for m in members)
