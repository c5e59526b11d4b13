"""The zip index, compared with Python's zipfile; data sets in zips; and damaged or malicious archives."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.archives import zip as zips
from imgtool.pipelines.archives.links import Links
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import MAX_BYTES, Locator
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.folders import LocalFile
from imgtool.pipelines.storage.passed_over import PassedOver
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

NAMES = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyzé世_0123456789. ", min_size=1, max_size=30).filter(lambda s: s.strip(".")),
    min_size=1,
    max_size=4,
).map("/".join)
METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


class Pipe(io.BytesIO):
    """Not seekable, so that zipfile writes sizes after the data (data descriptors)."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_) -> int:
        raise OSError

    def tell(self) -> int:
        raise OSError


def make(files, methods=(zipfile.ZIP_DEFLATED,), *, pipe=False, zip64=False, comment=b"") -> bytes:
    buffer = Pipe() if pipe else io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for i, (name, data) in enumerate(files.items()):
            info = zipfile.ZipInfo(name)
            info.compress_type = methods[i % len(methods)]
            with archive.open(info, "w", force_zip64=zip64) as file:
                file.write(data)
    return buffer.getvalue()


def scan(data: bytes, path: Path) -> list[Locator]:
    path.write_bytes(data)
    with contextlib.closing(LocalFile(str(path))) as file:
        return list(zips.scan(file, path.name, Links(PassedOver())))


def contents(data: bytes, path: Path) -> dict[str, bytes]:
    with contextlib.closing(LocatorReader(str(path.parent))) as reader:
        return {found.member: reader.read(found) for found in scan(data, path)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("zip") / "a.zip"


@settings(max_examples=150)
@given(
    files=st.dictionaries(NAMES, st.binary(max_size=1500) | st.integers(0, 9000).map(bytes), max_size=6),
    methods=st.lists(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), min_size=1, max_size=2),
    pipe=st.booleans(),
    zip64=st.booleans(),
    comment=st.binary(max_size=40),
    before=st.binary(max_size=50),
)
def test_members_equal_those_of_zipfile(path, files, methods, pipe, zip64, comment, before):
    data = before + make(files, methods, pipe=pipe, zip64=zip64, comment=comment)
    assert contents(data, path) == files
    if b"PK" not in comment + before:  # zipfile would mistake these for records
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert {info.filename: archive.read(info) for info in archive.infolist()} == files


def test_a_comment_that_looks_like_an_end_record(path):
    assert contents(make({"a": b"x"}, comment=b"PK\5\6" + bytes(18) + b"x"), path) == {"a": b"x"}


def test_more_members_than_16_bits_count(path):
    """With a zip64 end record, and as from a writer without zip64 that lets the count overflow."""
    files = {f"{i}.JPEG": b"%d" % i for i in range(66_000)}
    data = make(files, [zipfile.ZIP_STORED])
    found = scan(data, path)
    assert [m.member for m in found] == list(files)
    with contextlib.closing(LocatorReader(str(path.parent))) as reader:
        assert [reader.read(m) for m in (found[0], found[65_535], found[-1])] == [b"0", b"65535", b"65999"]
    end = zips.END64.unpack(data[-98:-42])
    overflown = data[:-98] + zips.END.pack(b"PK\5\6", 0, 0, end[6] % 65536, end[7] % 65536, end[8], end[9], 0)
    assert scan(overflown, path) == found


def test_entries_beyond_4_gib(path):
    """Sizes and offsets in the zip64 extra field, in a sparse file."""
    gap = 5 << 30
    name = b"n01440764/far.JPEG"
    local = zips.LOCAL.pack(b"PK\3\4", 45, 0, 0, 0, 0, 0, 5, 5, len(name), 0) + name + b"hello"
    extra = struct.pack("<HHHHQ", 9, 0, 1, 8, gap)
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0x3610A686, 5, 5, len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF
    )
    directory = gap + len(local)
    size = len(entry + name + extra)
    end64 = zips.END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, directory)
    with open(path, "wb") as file:
        file.seek(gap)
        file.write(local + entry + name + extra + end64)
        file.write(zips.LOCATOR64.pack(b"PK\6\7", 0, directory + size, 1))
        file.write(zips.END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    with contextlib.closing(LocalFile(str(path))) as file:
        (found,) = zips.scan(file, "a.zip", Links(PassedOver()))
        assert (found.offset, zips.unpack(file, found)) == (gap, b"hello")
    path.unlink()


def test_a_long_local_header_needs_a_second_read(path):
    data = bytearray(make({"a": b"hello" * 100}, [zipfile.ZIP_STORED]))
    struct.pack_into("<H", data, 28, 1000)  # the local header's extra field, which the directory does not have
    data[31:31] = bytes(1000)
    end = data.rindex(b"PK\5\6")
    struct.pack_into("<L", data, end + 16, struct.unpack_from("<L", data, end + 16)[0] + 1000)
    assert contents(bytes(data), path) == {"a": b"hello" * 100}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\..\\x", "C:/x", ".."])
def test_members_outside_the_archive_are_refused(path, name):
    with pytest.raises(SourceError, match="points outside"):
        scan(make({name: b"x"}), path)


def test_folders_and_links_are_skipped_and_the_last_of_several_members_counts(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/", b"")
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("file", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("file", "second")
    assert contents(buffer.getvalue(), path) == {"file": b"second"}


def test_names_that_are_not_ascii(path):
    """Without the UTF-8 flag a name is in code page 437 if DOS made it, and what the file system had if Unix did."""
    plain = bytearray(make({"café": b"x"}))
    entry = plain.index(b"PK\1\2")
    for at in (6, entry + 8):
        struct.pack_into("<H", plain, at, 0)
    for system, name in ((0, "caf├⌐"), (10, "caf├⌐"), (3, "café"), (19, "café")):
        plain[entry + 5] = system
        assert [m.member for m in scan(bytes(plain), path)] == [name]
    for at in (30, entry + 46):
        plain[at : at + 5] = b"caf\xe9s"
    assert [m.member for m in scan(bytes(plain), path)] == ["cafés"]


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, 1, "'member.JPEG' is encrypted"),
        (10, 9, "'member.JPEG' .* method 9"),
        (42, 9999, "offset of member 'member.JPEG' is impossible"),
    ],
)
def test_a_member_that_cannot_be_read_is_named(path, offset, value, message):
    data = bytearray(make({"member.JPEG": b"x" * 100}))
    struct.pack_into("<H", data, data.index(b"PK\1\2") + offset, value)
    with pytest.raises(SourceError, match=message):
        scan(bytes(data), path)


def test_volumes_are_refused(path):
    data = bytearray(make({"a": b"x"}))
    struct.pack_into("<H", data, len(data) - 18, 1)
    with pytest.raises(SourceError, match="volume of several"):
        scan(bytes(data), path)


def test_a_bomb_is_not_inflated(path):
    """Whether it states its size, a smaller size, or an impossible size."""
    bomb = make({"bomb": bytes(MAX_BYTES + 1)})
    (found,) = scan(bomb, path)
    assert found.size == MAX_BYTES + 1
    understated = bytearray(bomb)
    for at in (22, understated.index(b"PK\1\2") + 24):
        struct.pack_into("<L", understated, at, 1000)
    with pytest.raises(ImageError, match="too many for an image"):
        contents(bomb, path)
    with pytest.raises(ImageError, match="stated size and checksum"):
        contents(bytes(understated), path)
    huge = bytearray(make({"a": b"x"}))
    struct.pack_into("<L", huge, huge.index(b"PK\1\2") + 24, 4_000_000_000)
    with pytest.raises(SourceError, match="member 'a' is impossible"):
        scan(bytes(huge), path)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_damaged_member_raises_image_error(path, method):
    data = make({"a": b"0123456789" * 50}, [method])
    (found,) = scan(data, path)
    for at in range(31, data.index(b"PK\1\2")):
        broken = bytearray(data)
        broken[at] ^= 0x55
        path.write_bytes(broken)
        with contextlib.closing(LocalFile(str(path))) as file:
            try:
                assert zips.unpack(file, found) == b"0123456789" * 50  # the unused bits of the last byte
            except ImageError as error:
                assert "damaged" in str(error)
            else:
                assert (method, at) == (zipfile.ZIP_DEFLATED, data.index(b"PK\1\2") - 1)


def test_damaged_label_files_are_refused(drawn, tmp_path):
    data = make({"train/n01440764/images/a.JPEG": b"x", "wnids.txt": b"n01440764\n"}, [zipfile.ZIP_STORED])
    (tmp_path / "tiny.zip").write_bytes(data.replace(b"n01440764\n", b"n01440765\n"))
    with pytest.raises(SourceError, match=r"tiny\.zip: wnids\.txt: the archive is damaged"):
        open_source(tmp_path / "tiny.zip")


def test_truncation_is_reported_wherever_it_is(path):
    data = make({f"{i}.JPEG": bytes([i]) * 50 for i in range(4)}, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    for cut in range(4, len(data)):
        with pytest.raises(TruncatedSourceError, match=r"a\.zip is truncated: it ends at byte"):
            scan(data[:cut], path)


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_bytes_raise_imgtool_errors_only(path, data):
    """What a damaged archive still yields has bytes of the original, under whatever name."""
    files = {"a/" + "n" * 40: b"x" * 700, "b": b"yz" * 20, "c": b""}
    good = bytearray(make(files, [8, 0], zip64=data.draw(st.booleans()), comment=b"c" * 5))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SourceError, TruncatedSourceError, ImageError):
        assert set(contents(bytes(good), path).values()) <= set(files.values())


@settings(max_examples=200)
@given(head=st.binary(max_size=200), tail=st.binary(max_size=60), sizes=st.tuples(*[st.integers(0, 2**64 - 1)] * 4))
def test_random_bytes_raise_imgtool_errors_only(path, head, tail, sizes):
    end64 = zips.END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, sizes[0], sizes[0], sizes[1] % 300, sizes[2] % 300)
    end = zips.END.pack(b"PK\5\6", 0, 0, *[sizes[0] % 3] * 2, sizes[1] % 300, sizes[2] % 300, len(tail))
    marker = zips.LOCATOR64.pack(b"PK\6\7", 0, sizes[3], 1)
    for data in (head, head + end + tail, head + b"PK\1\2" + tail + end64 + marker + end + tail):
        with contextlib.suppress(SourceError, TruncatedSourceError, ImageError):
            contents(data, path)


def zipped(root: Path, out: Path, methods, top="") -> Path:
    with zipfile.ZipFile(out, "w") as archive:
        for i, file in enumerate(sorted(root.rglob("*"))):
            name = f"{top}{file.relative_to(root)}" + ("/" if file.is_dir() else "")
            archive.write(file, name, methods[i % len(methods)])
    return out


def records_of(source) -> dict[str, dict[str, tuple]]:
    with contextlib.closing(LocatorReader(source.root)) as reader:
        return {
            split: {r.key: (r.wnids, reader.read(r.locator), r.boxes) for r in source.records(split)}
            for split in source.splits
        }


@pytest.mark.parametrize("methods", [[0], [8], [0, 8]], ids=["stored", "deflated", "mixed"])
def test_kaggles_zip(mini, tmp_path, methods):
    """Real images in the layout of Kaggle's archive have the labels and bytes that the ILSVRC2012 archives give."""
    archives = open_source(mini)
    truth = {split: {r.key: r for r in archives.records(split)} for split in archives.splits}
    root = tmp_path / "kaggle"
    solution = "ImageId,PredictionString\n"
    expected: dict[str, dict[str, tuple]] = {"train": {}, "val": {}}
    with contextlib.closing(LocatorReader(archives.root)) as reader:
        for split, records in truth.items():
            for key, record in records.items():
                (wnid,) = record.wnids
                file = root / f"ILSVRC/Data/CLS-LOC/{split}/{wnid if split == 'train' else '.'}/{key}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(reader.read(record.locator))
                expected[split][key] = (record.wnids, file.read_bytes())
                if split == "val":
                    solution += f"{key},{wnid} 1 2 30 40 \n"
    (root / "LOC_val_solution.csv").write_text(solution)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} name\n" for wnid in archives.wnids))
    out = zipped(root, tmp_path / "imagenet-object-localization-challenge.zip", methods)
    source = open_source(out)
    found = records_of(source)
    assert {split: {key: row[:2] for key, row in rows.items()} for split, rows in found.items()} == expected
    assert all(tuple(box) == (row[0][0], 1, 2, 30, 40) for row in found["val"].values() for box in row[2])
    assert all(len(row[2]) == 1 for row in found["val"].values())


def test_tiny_imagenet_zip(tiny, tmp_path):
    out = tmp_path / "tiny-imagenet-200.zip"
    with tarfile.open(tiny) as tar, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in tar:
            if member.isfile():
                archive.writestr(f"tiny-imagenet-200/{member.name.partition('/')[2]}", tar.extractfile(member).read())
        archive.writestr("__MACOSX/tiny-imagenet-200/._wnids.txt", b"\0")
    found, expected = open_source(out), open_source(tiny)
    assert (found.layout, found.wnids, found.splits) == (expected.layout, expected.wnids, expected.splits)
    with LocatorReader(found.root) as ours, LocatorReader(expected.root) as theirs:
        for split in expected.splits:
            left, right = list(found.records(split)), list(expected.records(split))
            assert [r[:2] + r[3:] for r in left] == [r[:2] + r[3:] for r in right]
            for a, b in list(zip(left, right, strict=True))[::50]:
                assert ours.read(a.locator) == theirs.read(b.locator)


def test_prepare_from_a_zip(drawn, tmp_path):
    """A zip yields the same samples as the archives; a truncated zip raises TruncatedSourceError."""
    from imgtool.pipelines.prepare import prepare

    archives = open_source(drawn)
    with contextlib.closing(LocatorReader(archives.root)) as reader:
        for split in archives.splits:
            for record in archives.records(split):
                file = tmp_path / "own" / split / record.wnids[0] / f"{record.key}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(reader.read(record.locator))
    out = zipped(tmp_path / "own", tmp_path / "own.zip", [8, 0], "own/")
    assert prepare(out, tmp_path / "data", workers=1).stored == {"train": 80, "val": 20}
    with open(out, "r+b") as file:
        file.truncate(out.stat().st_size - 1)
    with pytest.raises(TruncatedSourceError, match=r"own\.zip is truncated"):
        open_source(out)
