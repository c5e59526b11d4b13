"""Archives made to crash their reader, to keep it busy for ever or to fill memory: refused in a line, or read."""

from __future__ import annotations

import bz2
import contextlib
import io
import itertools
import struct
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.archives import compressed, file_tree, magic, sparse, tar
from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.links import Links
from imgtool.pipelines.storage.folders import BytesFile
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.wordnet.errors import ImageError, ImgtoolError, SourceError

EDITS = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from([b"\0", b"\xff", b"-", b"9", b"\x80", "²".encode()]) | st.binary(max_size=5)
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[float, bytes]]) -> bytes:
    for place, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + len(new) :]
    return data


def with_checksum(header: bytes) -> bytes:
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    return header[:148] + b"%06o\0 " % total + header[156:]


def small_tar(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name in ("train/a/1.jpg", "train/b/" + 90 * "n" + ".jpg"):
            info = tarfile.TarInfo(name)
            info.size = 700
            info.pax_headers = {"size": "700", "comment": "x"} if form == tarfile.PAX_FORMAT else {}
            archive.addfile(info, io.BytesIO(bytes(700)))
        link = tarfile.TarInfo("train/b/2.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/1.jpg"
        archive.addfile(link)
    return out.getvalue()


TARS = [small_tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def pax_tar(records: bytes) -> bytes:
    header = tarfile.TarInfo("a.jpg")
    header.size = 3
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, len(records)
    blocks = (extended.tobuf(tarfile.USTAR_FORMAT), records, header.tobuf(tarfile.USTAR_FORMAT), b"abc", bytes(1024))
    return b"".join(block + bytes(-len(block) % 512) for block in blocks)


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return str(length).encode() + body


def scanned(data: bytes) -> list[tar.Member]:
    found = list(itertools.islice(tar.scan(BytesFile(data), "x.tar"), len(data)))
    assert len(found) <= len(data) // 512, "a member has a header"
    return found


@pytest.mark.parametrize("size", ["-5", "²", "٣", "1_0", "0x3", "9" * 5000, "9" * 18, "", " 3", "1e2"])
def test_a_pax_size_that_is_none_is_damage(size):
    with pytest.raises(ImgtoolError, match=r"damaged|truncated"):
        scanned(pax_tar(record("size", size)))


@pytest.mark.parametrize("length", ["9" * 5000, "²", "-3", "0", "1", "2"])
def test_a_pax_record_of_no_length_ends_the_header(length):
    assert [member.size for member in scanned(pax_tar(f"{length} size=9\n".encode()))] == [3]


@pytest.mark.parametrize(
    "field", [b"-0000001000\0", "²²²".encode().ljust(12, b"\0"), b"\xff" * 12, b"\x80" + b"\xff" * 11]
)
def test_a_size_that_is_none_is_damage(field):
    header = bytearray(TARS[0][:512])
    header[124:136] = field
    with pytest.raises(ImgtoolError, match=r"damaged|truncated|not a tar"):
        scanned(with_checksum(bytes(header)) + TARS[0][512:])


@pytest.mark.parametrize("size", ["-1", "²", "9" * 30, "9" * 5000, "1_0"])
def test_a_sparse_size_that_is_none_is_damage(size):
    with pytest.raises(SourceError, match="sparse member"):
        scanned(pax_tar(record("GNU.sparse.realsize", size) + record("GNU.sparse.map", "0,3")))
    with pytest.raises(SourceError, match="sparse member"):
        scanned(pax_tar(record("GNU.sparse.size", "3") + record("GNU.sparse.map", f"0,{size}")))


def test_many_pax_records_take_no_quadratic_time():
    records = record("GNU.sparse.offset", "0") * 30_000
    begin = time.process_time()
    with contextlib.suppress(SourceError):
        scanned(pax_tar(records + record("GNU.sparse.size", "3")))
    assert time.process_time() - begin < 5


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TARS), EDITS, st.booleans())
def test_a_mutated_tar_is_read_or_refused(data, edits, fix):
    data = edited(data, edits)
    if fix:  # headers whose checksum is right are read further
        data = b"".join(
            with_checksum(data[at : at + 512]) if data[at + 257 : at + 262] == b"ustar" else data[at : at + 512]
            for at in range(0, len(data), 512)
        )
    with contextlib.suppress(ImgtoolError):
        for member in scanned(data):
            assert 0 <= member.offset <= len(data) and 0 <= member.size < sparse.MAX_SIZE


def small_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/1.jpg", b"\xff\xd8\xff" * 100, zipfile.ZIP_DEFLATED)
        archive.writestr("b/é.jpg", b"\xff\xd8\xff" * 100)
        archive.comment = b"comment"
    return out.getvalue()


@settings(max_examples=300, deadline=None)
@given(EDITS)
def test_a_mutated_zip_is_read_or_refused(edits):
    file = BytesFile(edited(small_zip(), edits))
    with contextlib.suppress(ImgtoolError):
        for locator in zips.scan(file, "x.zip", Links(PassedOver())):
            with contextlib.suppress(ImageError):
                zips.unpack(file, locator)
            zips.head(file, locator, 512)


def test_members_that_share_bytes_are_refused():
    data = small_zip()
    at = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", at + 4)
    entry, end = data[at:second], data.index(b"PK\5\6")
    directory = b"".join(entry.replace(b"a/1", b"%03d" % i) for i in range(50))
    record = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, len(directory), at, 0)
    assert end > second
    with pytest.raises(SourceError, match="share bytes"):
        list(zips.scan(BytesFile(data[:at] + directory + record), "x.zip", Links(PassedOver())))


def test_a_text_that_expands_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(file_tree, "SMALL_TEXT", 1 << 12)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wnids.txt", b"a\n" * (1 << 16))
        archive.writestr("words.txt", b"a\n" * (1 << 10))
    tree = FileTree(str(tmp_path), "x.zip")
    assert tree.read_text("words.txt").startswith("a")
    with pytest.raises(SourceError, match=r"wnids\.txt"):
        tree.read_text("wnids.txt")


def test_a_compressed_tar_that_expands_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "SMALL_TAR", 1 << 16)
    path = tmp_path / "x.tar.bz2"
    path.write_bytes(bz2.compress(bytes(1 << 24)))
    with pytest.raises(SourceError, match="expands"), compressed.unpacked(path, tmp_path / "spool"):
        pass
    assert [found.name for found in tmp_path.iterdir()] == ["x.tar.bz2"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([zlib.compress(TARS[0], wbits=31), bz2.compress(TARS[0])]), EDITS)
def test_a_mutated_compressed_tar_is_unpacked_or_refused(tmp_path_factory, data, edits):
    folder: Path = tmp_path_factory.mktemp("compressed")
    (folder / "x.tar.gz").write_bytes(edited(data, edits))
    with contextlib.suppress(ImgtoolError), compressed.unpacked(folder / "x.tar.gz", folder / "spool") as path:
        scanned(path.read_bytes())


def test_the_first_bytes_of_a_file_are_recognised_in_linear_time():
    begin = time.process_time()
    for head in (b"<!---->" * 73, b"<?xml " + b" " * 500, b"<!-- " * 100, b" " * 512, b"<?xml?>" + b"<!---->\n" * 63):
        assert magic.image_kind(head) == ""
    assert time.process_time() - begin < 1
    assert magic.image_kind(b"<?xml version='1.0'?><!-- a --> <!-- b -- c --><svg >") == "SVG"
