"""Images by their place in a parquet file, with pyarrow's own reading as oracle, and in files that lie."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from imgtool.pipelines.archives import parquet, parquet_pages, snappy
from imgtool.pipelines.archives.parquet_pages import Damaged
from imgtool.pipelines.records import Locator
from imgtool.pipelines.storage.folders import LocalFile
from imgtool.wordnet.errors import ImageError

SOUND = list(itertools.product(["none", "snappy", "zstd", "lz4"], [True, False], ["1.0", "2.0"]))
CODECS = ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]


class MemoryFile:
    """A file whose reads are counted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.reads, self.bytes_read = data, len(data), 0, 0

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0 and size >= 0
        found = self.data[offset : offset + size]
        self.reads, self.bytes_read = self.reads + 1, self.bytes_read + len(found)
        return found

    def close(self) -> None:
        pass


def table(values: list[bytes | None], nullable_struct: bool = True) -> pa.Table:
    inner = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [v if v is None and nullable_struct else {"bytes": v, "path": "x"} for v in values]
    return pa.table({"image": pa.array(rows, inner), "label": pa.array(range(len(values)), pa.int64())})


def write(values: pa.Table, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(values, sink, **options)
    return sink.getvalue()


def locators(file: MemoryFile, step: int = 64) -> list[Locator]:
    opened = pq.ParquetFile(io.BytesIO(file.data))
    leaves = {opened.schema.column(i).path: i for i in range(opened.metadata.num_columns)}
    index = leaves.get("image.bytes", leaves.get("image"))
    level, found = opened.schema.column(index).max_definition_level, []
    for group in range(opened.metadata.num_row_groups):
        column = parquet.column_of(opened.metadata, group, index, level, file.size)
        found += [Locator("f", "row", *place) for place in parquet.places(file, column, step)]
    return found


def contents(file: MemoryFile, step: int = 64) -> list[bytes]:
    found = locators(file, step)
    read = {i: unpack(file, locator) for i, locator in reversed(list(enumerate(found)))}  # in another order than stored
    assert all(not locator.size or locator.size == len(read[i]) for i, locator in enumerate(found))
    return [read[i] for i in range(len(found))]


def unpack(file: MemoryFile, locator: Locator) -> bytes:
    return parquet.unpack(file, locator) if locator.packing else file.read(locator.offset, locator.size)


# what compresses, what does not, and mixtures of both: headers alike, then noise
NOISE = np.random.default_rng(0).bytes(200_000)
VALUE = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda n: b"\xff\xd8header" * 9 + NOISE[n : n + n // 2], st.integers(0, 9000)),
    st.builds(lambda n, seed: bytes([seed]) * n, st.integers(0, 3000), st.integers(0, 255)),
    st.builds(lambda n: NOISE[:n], st.sampled_from([65_530, 65_536, 70_000, 140_000])),
)


@settings(max_examples=250)
@given(
    values=st.lists(st.none() | VALUE | VALUE, max_size=40),
    nullable_struct=st.booleans(),
    codec=st.sampled_from(CODECS),
    use_dictionary=st.booleans(),
    version=st.sampled_from(["1.0", "2.0"]),
    page_size=st.sampled_from([1, 100, 5000, 1 << 20]),
    batch=st.sampled_from([1, 3, 1024]),
    group=st.sampled_from([1, 7, 100]),
    dictionary_size=st.sampled_from([10, 2000, 1 << 20]),
    step=st.sampled_from([16, 4096, 1 << 22]),
)
def test_places_are_pyarrows_values(
    values, nullable_struct, codec, use_dictionary, version, page_size, batch, group, dictionary_size, step
):
    data = write(
        table(values, nullable_struct),
        compression=codec,
        use_dictionary=use_dictionary,
        data_page_version=version,
        data_page_size=page_size,
        write_batch_size=batch,
        row_group_size=group,
        dictionary_pagesize_limit=dictionary_size,
    )
    expected = [row["bytes"] if row else None for row in pq.read_table(io.BytesIO(data))["image"].to_pylist()]
    assert expected == values
    assert contents(MemoryFile(data), step) == [value or b"" for value in values]


@pytest.mark.parametrize(("codec", "version"), list(itertools.product(CODECS, ["1.0", "2.0"])))
def test_required_and_plain_columns(codec, version):
    """Columns without levels, and a dictionary of few values that are used often."""
    values = [NOISE[i % 5 * 1000 : i % 7 * 1500 + i % 5 * 1000] for i in range(300)]
    schema = pa.schema([pa.field("image", pa.binary(), nullable=False)])
    for use_dictionary in (True, False):
        options = {"compression": codec, "data_page_version": version, "use_dictionary": use_dictionary}
        data = write(pa.table({"image": values}, schema=schema), **options)
        assert contents(MemoryFile(data)) == values


@pytest.mark.parametrize("codec", ["none", "snappy"])
def test_an_image_of_a_large_page_costs_what_it_is_long(codec):
    """A row group of 100 images is one page of 11 MB, or one dictionary: neither is read for one of them."""
    values = [b"header" * 100 + np.random.default_rng(i).bytes(110_000) for i in range(100)]
    for use_dictionary in (True, False):
        file = MemoryFile(write(table(values), compression=codec, use_dictionary=use_dictionary))
        found = locators(file, step=1024)
        assert file.bytes_read < 100 * 8000, "the index passes over the images"
        assert [locator.size for locator in found] == [len(value) for value in values]
        file.bytes_read = file.reads = 0
        for locator, value in zip(found, values, strict=True):
            assert unpack(file, locator) == value
        assert file.reads == 100
        assert file.bytes_read <= sum(map(len, values)) + (100 * 2 * snappy.BLOCK if codec == "snappy" else 0)


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_an_encoding_that_is_not_read_is_named(encoding):
    data = write(table([b"a", b"b"]), use_dictionary=False, column_encoding={"image.bytes": encoding})
    with pytest.raises(Damaged, match=encoding):
        locators(MemoryFile(data))


def test_a_page_that_claims_too_much_is_refused_before_memory_is_taken():
    for size, packed in ((2 << 30, 1000), (1 << 30, 1000), (65 << 20, 1000), ((1 << 30) + 1, 1 << 30)):
        with pytest.raises(Damaged, match="smaller row groups"):
            parquet._unpacked(MemoryFile(b""), 0, packed, size, "zstd")


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd", "brotli", "lz4_raw"])
def test_a_page_of_another_size_is_damaged(codec):
    packed = pa.Codec(codec).compress(b"hello" * 100, asbytes=True)
    file = MemoryFile(packed)
    assert bytes(parquet._unpacked(file, 0, len(packed), 500, codec)) == b"hello" * 100
    for size in (400, 499, 501, 600):
        with pytest.raises(Damaged):
            parquet._unpacked(file, 0, len(packed), size, codec)
    for cut in range(1, 5):
        with pytest.raises(Damaged):
            parquet._unpacked(MemoryFile(packed[:-cut]), 0, len(packed) - cut, 500, codec)


def test_pages_are_kept_within_bounds():
    values = [NOISE[i : i + 100] for i in range(40)]
    file = MemoryFile(write(table(values), compression="zstd", use_dictionary=False, row_group_size=2))
    found = locators(file)
    file.reads = 0
    assert [parquet.unpack(file, locator) for locator in found] == values
    assert file.reads == 20, "both images of a page from one reading"
    assert len(parquet._kept) <= parquet.KEPT
    with pytest.raises(ImageError):  # another file's page at the same place is not this one's
        parquet.unpack(MemoryFile(bytes(len(file.data))), found[-1])


@settings(max_examples=200)
@given(
    data=st.lists(st.binary(max_size=60) | st.integers(0, 70_000).map(lambda n: NOISE[:n]), max_size=8).map(b"".join),
    ends=st.lists(st.floats(0, 1), max_size=8),
)
def test_sparse_reading_is_snappys(data, ends):
    """Whatever is asked for, forward, equals the whole stream's; so do the blocks around a part."""
    packed = pa.Codec("snappy").compress(data, asbytes=True)
    sparse = snappy.Sparse(snappy.Window(MemoryFile(packed), 0, len(packed), 16), 0, len(packed))
    assert sparse.size == len(data)
    places = sorted(int(end * len(data)) for end in ends)
    for at in places:
        size = min(4, len(data) - at)
        assert not size or sparse.read(at, size) == data[at : at + size]
    for at, end in itertools.pairwise(places):
        if at < end:
            part = sparse.part(at, end - at)
            blocks = snappy.decompress(packed[part.offset : part.offset + part.packed], part.size)
            assert blocks[part.skip : part.skip + end - at] == data[at:end]


def test_copies_of_copies():
    """A stream made by hand: overlapping copies, and copies of them, of every kind of element."""
    stream = b"\x1e" + b"\x04ab" + bytes([(5 - 4) << 2 | 1, 2]) + bytes([(8 - 1) << 2 | 2, 4, 0])
    stream += bytes([(9 - 1) << 2 | 3, 7, 0, 0, 0]) + b"\x14zyxwvu"
    (size, _) = snappy.varint(stream)
    whole = pa.Codec("snappy").decompress(stream, size, asbytes=True)
    sparse = snappy.Sparse(snappy.Window(MemoryFile(stream), 0, len(stream), 1), 0, len(stream))
    assert b"".join(sparse.read(at, 1) for at in range(size)) == whole


@st.composite
def damaged_streams(draw):
    """Streams of literals and copies with up to three bytes changed: about half of them can still be read."""
    text = b"".join(draw(st.lists(st.sampled_from([b"abcd" * 5, b"xyz", b"hello ", b"q" * 70]), min_size=1)))
    stream = bytearray(pa.Codec("snappy").compress(text, asbytes=True))
    for _ in range(draw(st.integers(0, 3))):
        stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream)


@settings(max_examples=300)
@given(data=damaged_streams() | st.binary(max_size=120))
def test_a_damaged_stream_is_opaque_or_snappys(data):
    with contextlib.suppress(snappy.Opaque):
        sparse = snappy.Sparse(snappy.Window(MemoryFile(data), 0, len(data), 8), 0, len(data))
        assume(sparse.size <= 1 << 20)
        found = b"".join(sparse.read(at, 1) for at in range(sparse.size))
        assume(found)
        sparse.part(0, sparse.size)
        event("read")
        assert found == pa.Codec("snappy").decompress(data, sparse.size, asbytes=True)


@settings(max_examples=200)
@given(width=st.integers(0, 20), data=st.data())
def test_the_hybrid_encoding(width, data):
    """Runs and packed groups by an encoder of a few lines, and cut anywhere."""
    numbers, encoded = [], b""
    for _ in range(data.draw(st.integers(0, 5))):
        if data.draw(st.booleans()):
            value, length = data.draw(st.integers(0, 2**width - 1)), data.draw(st.integers(1, 20))
            numbers += [value] * length
            encoded += bytes([length << 1]) + value.to_bytes((width + 7) // 8, "little")
        else:
            group = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=8, max_size=8))
            numbers += group
            encoded += b"\x03" + sum(n << i * width for i, n in enumerate(group)).to_bytes(width, "little")
    assert parquet_pages.hybrid(encoded, width, len(numbers)).tolist() == numbers
    with contextlib.suppress(Damaged):
        cut = encoded[: data.draw(st.integers(0, len(encoded)))]
        assert parquet_pages.hybrid(cut, width, len(numbers)).tolist() == numbers


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_any_bytes_as_a_header(data):
    with contextlib.suppress(Damaged):
        header = parquet_pages.page_header(data)
        assert header.size <= len(data)


def test_a_header_nested_without_end():
    with pytest.raises(Damaged):
        parquet_pages.page_header(b"\x1c" * 10_000)


@pytest.fixture(
    scope="module", params=itertools.product(["none", "snappy", "zstd", "gzip"], [True, False], ["1.0", "2.0"])
)
def sound(request) -> bytes:
    codec, use_dictionary, version = request.param
    values = [None if i % 5 == 4 else b"head" * 20 + NOISE[i * 100 : i * 120] for i in range(30)]
    options = {"use_dictionary": use_dictionary, "data_page_version": version, "row_group_size": 15}
    return write(table(values), compression=codec, **options)


@settings(max_examples=60)
@given(data=st.data())
def test_bad_pages_raise_our_errors_only(sound, data):
    """The footer is whole, what it describes is not."""
    end = len(sound) - 8 - struct.unpack("<L", sound[-8:-4])[0]
    bad = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 6))):
        # headers lie at the beginning and among the rest: both shall be met
        at = data.draw(st.one_of(st.integers(4, 60), st.integers(4, end - 1)))
        bad[at] = data.draw(st.integers(0, 255))
    file = MemoryFile(bytes(bad))
    try:
        found = locators(file)
    except Damaged:
        return
    for locator in found:
        with contextlib.suppress(ImageError):
            unpack(file, locator)


def test_a_local_file_is_read_alike(tmp_path: Path):
    values = [NOISE[i * 10 : i * 2000] for i in range(60)]
    (tmp_path / "a.parquet").write_bytes(write(table(values)))
    with contextlib.closing(LocalFile(str(tmp_path / "a.parquet"))) as file:
        found = locators(MemoryFile((tmp_path / "a.parquet").read_bytes()))
        assert [unpack(file, locator) for locator in found] == values
