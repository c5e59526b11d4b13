"""Label files made to crash a source, to keep it busy for ever or to fill memory: refused in a line, or read."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtool.pipelines.records import to_table
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import ImgtoolError, SourceError

BYTES = st.sampled_from([b"\0", b"\xff", b"-", b"9", b"\x80", b'"', b"{", b"\n", "²".encode()]) | st.binary(max_size=5)
EDITS = st.lists(st.tuples(st.floats(0, 1), BYTES), min_size=1, max_size=4)
IN_ANY_FOLDER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TINY = {
    "wnids.txt": b"n01440764\nn01443537\n",
    "train/n01440764/images/n01440764_0.JPEG": b"\xff\xd8\xff",
    "train/n01440764/n01440764_boxes.txt": b"n01440764_0.JPEG\t1\t2\t3\t4\n",
    "val/images/val_0.JPEG": b"\xff\xd8\xff",
    "val/val_annotations.txt": b"val_0.JPEG\tn01443537\t1\t2\t3\t4\n",
}


def edited(data: bytes, edits: list[tuple[float, bytes]]) -> bytes:
    for place, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + len(new) :]
    return data


def listed(path) -> int:
    source = open_source(path)
    return sum(len(to_table(source.records(split))) for split in source.splits)


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize(
    "corner", ["²", "--5", "5-", "-", "9" * 5000, "2147483648", "99999999999", "1e400", "nan", "inf"]
)
@pytest.mark.parametrize("name", ["train/n01440764/n01440764_boxes.txt", "val/val_annotations.txt"])
def test_a_corner_that_is_no_number_of_32_bits_is_refused(tmp_path, name, corner):
    assert listed(write(tmp_path / "whole", TINY)) == 2
    line = TINY[name].replace(b"\t3", b"\t" + corner.encode())
    with pytest.raises(SourceError, match=rf"{name}, line 1: expected"):
        listed(write(tmp_path / "damaged", {**TINY, name: line}))


@IN_ANY_FOLDER
@given(st.sampled_from([name for name in TINY if name.endswith(".txt")]), EDITS)
def test_a_mutated_tiny_imagenet_is_read_or_refused(tmp_path, name, edits):
    write(tmp_path, {**TINY, name: edited(TINY[name], edits)})
    with contextlib.suppress(ImgtoolError):
        listed(tmp_path)


TABLES = {
    "labels.csv": b"path,label,split\na.jpg,cat,train\nb.jpg,dog,val\n",
    "labels.json": b'[{"path": "a.jpg", "label": 1}, {"path": "b.jpg", "label": 0}]',
    "labels.jsonl": b'{"path": "a.jpg", "label": "cat"}\n{"path": "b.jpg", "label": "dog"}\n',
}


@IN_ANY_FOLDER
@given(st.sampled_from(list(TABLES)), EDITS)
def test_a_mutated_table_is_read_or_refused(tmp_path_factory, name, edits):
    root = write(tmp_path_factory.mktemp("table"), {"a.jpg": b"\xff\xd8\xff", "b.jpg": b"\xff\xd8\xff"})
    with contextlib.suppress(ImgtoolError):
        listed(write(root, {name: edited(TABLES[name], edits)}))


@pytest.mark.parametrize(
    "rows",
    [
        [{"path": "a.jpg", "label": "\ud800"}, {"path": "\ud800.jpg", "label": "\udc80x"}],
        [{"path": "a.jpg", "label": 1e400}, {"path": ["b.jpg"], "label": 1}],
        [{"path": "a.jpg", "label": 10**400}],
        [{"path": "a.jpg", "label": ["x"]}],
        [{"path": "a.jpg", "label": "x", "split": {"a": "\ud800"}}],
        [{f"k{i}": 0, "path": "a.jpg", "label": "x"} for i in range(20_000)],
        [{}] * 1000,
    ],
)
@pytest.mark.parametrize("name", ["labels.json", "labels.jsonl"])
def test_objects_of_any_content(tmp_path, name, rows):
    text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
    write(tmp_path, {"a.jpg": b"\xff\xd8\xff", name: text.encode()})
    begin = time.process_time()
    with contextlib.suppress(ImgtoolError):
        listed(tmp_path)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '[{"path": "a.jpg", "label": ' + "[" * 900 + "]" * 900 + "}]"]
)
def test_deeply_nested_json_is_refused(tmp_path, text):
    write(tmp_path, {"a.jpg": b"\xff\xd8\xff", "labels.json": text.encode()})
    with pytest.raises(SourceError):
        listed(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"label": ' + "[" * 900 + "]" * 900 + "}", '"\\ud800"', "1e400", "[" * 10**5, "9" * 5000]
)
def test_samples_of_any_json(make_tar, text):
    path = make_tar({"1.jpg": None, "1.json": text, "2.jpg": None, "2.json": '{"label": 1}'}, "train-0000")
    with contextlib.suppress(ImgtoolError):
        listed(path)
