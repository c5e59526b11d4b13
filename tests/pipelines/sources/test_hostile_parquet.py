"""Parquet files made to crash pyarrow or to fill memory. Each test reads them in a child process with limits."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import sys
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgtool.pipelines.archives import parquet
from imgtool.pipelines.archives.parquet import Damaged
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import Locator
from imgtool.pipelines.sources.parquet_columns import read_columns
from imgtool.pipelines.storage.folders import BytesFile
from imgtool.pipelines.storage.isolated import ChildDied, Isolated
from imgtool.wordnet.errors import ImageError, SourceError

sys.path.insert(0, os.path.dirname(__file__))
from in_a_child import crash, crash_instead, fill_memory, read

ROWS = 12
NAMES = json.dumps({"info": {"features": {"label": {"names": ["n01440764", "n01443537"]}}}})


def small(compression: str, dictionary: bool, version: str, labels: list) -> bytes:
    images = pa.array([{"bytes": bytes([i]) * 40, "path": f"n01440764_{i}.JPEG"} for i in range(ROWS)])
    table = pa.table({"image": images, "label": labels}).replace_schema_metadata({"huggingface": NAMES})
    out = io.BytesIO()
    pq.write_table(
        table, out, compression=compression, use_dictionary=dictionary, data_page_version=version, row_group_size=5
    )
    return out.getvalue()


FILES = [
    small(compression, dictionary, version, labels)
    for compression in ("none", "snappy", "zstd", "gzip")
    for dictionary in (True, False)
    for version in ("1.0", "2.0")
    for labels in ([0, 1] * 6, ["a", "b"] * 6)
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(footer, len(data) - 8) if rng.random() < 0.6 else rng.randrange(4, footer)
        new = rng.choice(
            (b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\x0f", b"\0", b"\x15", bytes([rng.randrange(256)]))
        )
        out[at : at + len(new)] = new
    return bytes(out)


def test_a_child_that_dies_is_replaced():
    with Isolated() as child:
        assert child.call(read, BytesFile(FILES[0])) == ROWS
        for _ in range(2):
            with pytest.raises(ChildDied):
                child.call(crash, BytesFile(b""))
        with pytest.raises(MemoryError):
            child.call(fill_memory, BytesFile(b""))
        assert child.call(read, BytesFile(FILES[0])) == ROWS


def test_an_error_of_reading_the_file_is_raised_as_it_is():
    class Broken(BytesFile):
        def read(self, offset: int, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    with Isolated() as child, pytest.raises(OSError, match="Input/output"):
        child.call(read, Broken(FILES[0]))


def test_a_mutated_file_is_read_or_refused():
    rng, found, begin = random.Random(0), Counter(), time.monotonic()
    with Isolated() as child:
        while found.total() < 1500 and time.monotonic() - begin < 30:
            data = mutated(rng.choice(FILES), rng)
            try:
                child.call(read_columns, BytesFile(data), "x.parquet", False)
            except (Damaged, ChildDied) as error:
                found[type(error).__name__] += 1
                continue
            child.call(read, BytesFile(data))  # a file whose columns can be read crashes nobody
            found["read"] += 1
    assert found["read"] > 50 and found["Damaged"] > 50


def one_value(value: bytes, rows: int, compression: str = "zstd") -> bytes:
    """A file whose images are all the one value of a dictionary."""
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    out = io.BytesIO()
    table = pa.table({"image": images, "label": [0, 1] * (rows // 2)})
    pq.write_table(table, out, compression=compression, store_schema=False, dictionary_pagesize_limit=1 << 30)
    return out.getvalue()


def test_a_value_that_is_repeated_fills_no_memory():
    """One value of 60 MB for each of 200 rows has 2 kB."""
    with Isolated() as child:
        assert child.call(read, BytesFile(one_value(bytes(60 << 20), 200))) == 0  # compressed beyond measure
        assert child.call(read, BytesFile(one_value(os.urandom(1 << 20), 200))) == 200


def texts(length: int, rows: int) -> bytes:
    labels = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * length]))
    out = io.BytesIO()
    table = pa.table({"image": [os.urandom(8) for _ in range(rows)], "label": labels})
    pq.write_table(table, out, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30)
    return out.getvalue()


def test_a_label_that_is_repeated_fills_no_memory():
    with Isolated() as child:
        with pytest.raises((Damaged, ChildDied)):
            child.call(read, BytesFile(texts(10 << 20, 10_000)))
        assert child.call(read, BytesFile(texts(100, 10_000))) == 10_000


@pytest.mark.parametrize("field", [2, 3, 4])
def test_a_page_that_states_too_much_is_refused(field):
    """The first page's header has its type, sizes and, in a structure, the number of values, each as 0x15 and a number:
    the one of ``field`` becomes the largest of 32 bits."""
    data = small("none", False, "1.0", [0, 1] * 6)
    locators = list(read_columns(BytesFile(data), "x.parquet", False).locators())
    at = locators[0].offset
    header, _ = parquet._structure(data, at)
    end = at
    for _ in range(field):
        end = data.index(b"\x15", end) + 1
    length = next(i for i in range(1, 6) if data[end + i - 1] < 128)
    wrong = data[:end] + b"\xfe\xff\xff\xff\x0f" + data[end + length :]
    assert header != parquet._structure(wrong, at)[0]
    with pytest.raises(Damaged):
        parquet.largest_page(BytesFile(wrong), at, 5)
    assert parquet.largest_page(BytesFile(data), at, 5) > 200


def test_a_source_names_the_file_that_crashes_its_reader(tmp_path, monkeypatch):
    from imgtool.pipelines.sources import hugging_face

    monkeypatch.setattr(hugging_face, "read_columns", crash_instead)
    (tmp_path / "train.parquet").write_bytes(FILES[0])
    with pytest.raises(SourceError, match=r"train\.parquet: is damaged: it crashes its reader"):
        hugging_face.HuggingFace(str(tmp_path), ["train.parquet"])


def test_a_locator_of_another_file_is_an_error_of_the_image():
    file = BytesFile(FILES[0])
    for packing in ("parquet:9:0:image.bytes", "parquet:0:99:image.bytes", "parquet:0:0:none"):
        (found,) = parquet.read(file, [Locator("x", "row 0", 4, 0, packing)], parquet.footer(file))
        assert isinstance(found, ImageError)


def test_a_file_that_is_replaced_while_it_is_in_use_is_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(FILES[0][:100])
    with LocatorReader(str(tmp_path)) as reader, pytest.raises(SourceError, match=r"train\.parquet"):
        reader.read(Locator("train.parquet", "row 0", 4, 0, "parquet:0:0:image.bytes"))
