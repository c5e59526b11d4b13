"""Annotations made to crash their reader, to keep it busy for ever or to fill memory: refused in a line, or read."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.annotations import voc
from imgtool.pipelines.annotations.devkit import DEVKITS, GROUND_TRUTH, META, read_devkit
from imgtool.pipelines.annotations.matlab import read_structures
from imgtool.pipelines.annotations.real import read_real_indices
from imgtool.pipelines.annotations.val_labels import read_ground_truth, read_solution
from imgtool.pipelines.annotations.voc import BoxAnnotations, parse
from imgtool.pipelines.storage.folders import open_folder
from imgtool.wordnet.errors import ImgtoolError, InputError, SourceError

BYTES = st.sampled_from([b"\0", b"\xff", b"-", b"9", b"\x80", b"\xff\xff\xff\x7f"]) | st.binary(max_size=5)
EDITS = st.lists(st.tuples(st.floats(0, 1), BYTES), min_size=1, max_size=4)
FIELDS = ("WNID", "ILSVRC2012_ID", "num_children")
NO_PIXEL = [
    "1e400",
    "inf",
    "-inf",
    "nan",
    "²",
    "٣",
    "9" * 5000,
    "2147483648",
    "-2147483649",
    "--5",
    "0x1",
    "",
    "1 2",
    "é",
]


def edited(data: bytes, edits: list[tuple[float, bytes]]) -> bytes:
    for place, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + len(new) :]
    return data


def meta(compress: bool) -> bytes:
    rows = [(1, "n01440764", 0), (2, "n01443537", 0), (3, "n00000001", 2)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    out = io.BytesIO()
    other = {"other": np.arange(3), "synsets": np.array(rows, kinds).reshape(-1, 1)}
    scipy.io.savemat(out, other, do_compression=compress)
    return out.getvalue()


METAS = [meta(False), meta(True)]


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("data", METAS, ids=["plain", "compressed"])
def test_the_structures_are_those_that_scipy_reads(data):
    assert [tuple(row.values()) for row in read_structures(data, "synsets", FIELDS)] == [
        ("n01440764", 1, 0),
        ("n01443537", 2, 0),
        ("n00000001", 3, 2),
    ]
    with pytest.raises(ValueError, match="no array"):
        read_structures(data, "none", FIELDS)
    with pytest.raises(ValueError, match="no field"):
        read_structures(data, "synsets", ("none",))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(METAS), EDITS)
def test_a_mutated_matlab_file_raises_value_error(data, edits):
    with contextlib.suppress(ValueError):
        read_structures(edited(data, edits), "synsets", FIELDS)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(METAS), EDITS, st.sampled_from(["meta", "tar", "gzip"]))
def test_a_mutated_devkit_is_read_or_refused(tmp_path_factory, data, edits, where):
    folder: Path = tmp_path_factory.mktemp("devkit")
    data = edited(data, edits) if where == "meta" else data
    data = tar_of({f"kit/{META}": data, f"kit/{GROUND_TRUTH}": b"1\n2\n2\n"})
    data = gzip.compress(edited(data, edits) if where == "tar" else data)
    (folder / DEVKITS[0]).write_bytes(edited(data, edits) if where == "gzip" else data)
    with contextlib.suppress(SourceError):
        read_devkit(open_folder(folder), DEVKITS[0])


@pytest.mark.parametrize("corner", NO_PIXEL)
def test_a_corner_that_is_no_number_of_32_bits_makes_no_box(corner):
    boxes = "<xmin>1</xmin><ymin>{}</ymin><xmax>3</xmax><ymax>4</ymax>"
    text = f"<annotation><object><name>x</name><bndbox>{boxes}</bndbox></object></annotation>"
    assert [tuple(box) for box in parse(text.format("12.0").encode())] == [("x", 1, 12, 3, 4)]
    with pytest.raises(ValueError):
        parse(text.format(corner).encode())
    with pytest.raises(SourceError, match="line 2"):
        read_solution(f"ImageId,PredictionString\na,n01440764 1 {corner} 3 4\n", "x.csv")
    if corner not in ("1 2", "٣"):
        with pytest.raises(SourceError):
            read_ground_truth(f"1\n{corner or 'x'}\n", "x.txt")


def test_texts_take_linear_time():
    begin = time.process_time()
    for text in ("<!--" * 200_000, "<a>" * 100_000, "<!-- -->" * 100_000, "<object>" * 50_000):
        with contextlib.suppress(ValueError):
            parse(text.encode())
    for cell in ("a" * 130_000, "a " * 60_000, "1 " * 60_000, '"' * 100_000):
        with contextlib.suppress(SourceError):
            read_solution(f"ImageId,PredictionString\na,{cell}\n", "x.csv")
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("declared", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8", "utf-8-sig"])
def test_no_document_type_in_any_encoding(encoding, declared):
    text = f"<?xml version='1.0' encoding='{declared}'?><!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>"
    with pytest.raises(ValueError):
        parse(text.encode(encoding))


XML = (
    b"<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    b"</object></annotation>"
)


@settings(max_examples=200, deadline=None)
@given(EDITS, st.sampled_from(["xml", "tar", "gzip"]))
def test_a_mutated_archive_of_boxes_is_read_or_refused(edits, where):
    inner = tar_of({"a/1.xml": edited(XML, edits) if where == "xml" else XML, "a/2.xml": XML})
    data = tar_of({"a.tar": inner, "b.tgz": gzip.compress(inner), "3.xml": XML})
    data = gzip.compress(edited(data, edits) if where == "tar" else data)
    with contextlib.suppress(SourceError):
        BoxAnnotations().add_tar(edited(data, edits) if where == "gzip" else data, "x.tgz")


def test_archives_of_boxes_are_bounded(monkeypatch):
    nested = tar_of({"1.xml": XML})
    for _ in range(5):
        nested = tar_of({"a.tar": nested})
    with pytest.raises(SourceError, match="tars in tars"):
        BoxAnnotations().add_tar(nested, "x.tar")
    bomb = gzip.compress(tar_of({"a.xml": XML, "b.txt": bytes(1 << 24)}))
    whole = BoxAnnotations()
    whole.add_tar(bomb, "x.tgz")
    assert whole.boxes.keys() == {"a"}
    monkeypatch.setattr(voc, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(SourceError, match="holds more than"):
        BoxAnnotations().add_tar(bomb, "x.tgz")
    monkeypatch.setattr(voc, "MAX_BOXES", 2)
    with pytest.raises(SourceError, match="more than 2"):
        BoxAnnotations().add_tar(tar_of({f"{i}.xml": XML for i in range(3)}), "x.tar")


REAL = b"[[1], [], [2, 999]]"


@settings(max_examples=200, deadline=None)
@given(EDITS)
def test_a_mutated_real_json_is_read_or_refused(tmp_path_factory, edits):
    path: Path = tmp_path_factory.mktemp("real") / "real.json"
    path.write_bytes(edited(REAL, edits))
    with contextlib.suppress(InputError):
        read_real_indices(path)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b"[[" + b"9" * 5000 + b"]]", b"[[1e400]]", b"[[true]]", b" " * (17 << 20)]
)
def test_a_hostile_real_json_is_refused(data, tmp_path):
    (tmp_path / "real.json").write_bytes(data)
    with pytest.raises(InputError, match=r"real\.json"):
        read_real_indices(tmp_path / "real.json")


@settings(max_examples=200, deadline=None)
@given(EDITS)
def test_a_mutated_table_is_read_or_refused(edits):
    data = b"ImageId,PredictionString\na,n01440764 1 2 3 4 \nb,n01443537 1 2 3 4 n01443537 5 6 7 8\n"
    with contextlib.suppress(ImgtoolError):
        read_solution(edited(data, edits).decode("latin-1"), "x.csv")
