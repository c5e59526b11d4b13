"""Labels and columns of parquet files as people write them: texts, nulls, several images, paths alone."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.dataset.verify import verify
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError, TruncatedSourceError


def image(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20 + number, 20), (number * 50 % 256, 9, 99)).save(out, "JPEG")
    return out.getvalue()


def write(path, labels, kind=None, names=None, paths=None, **columns):
    """Writes a row of an image and a label per label; a list is the labels, None no column of labels."""
    count = len(labels) if labels is not None else 3
    images = [{"bytes": image(i), "path": paths[i] if paths else f"{i}.jpg"} for i in range(count)]
    table = {"image": images} | ({} if labels is None else {"label": pa.array(labels, kind)}) | columns
    table = pa.table(table)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def classes(source, split="train"):
    return [r.wnids[0] if r.wnids else r.locator.packing.partition(":")[2] for r in source.records(split)]


MISSING = "the row has no label"


@pytest.mark.parametrize(
    ("labels", "kind", "found", "wnids"),
    [
        (["dog", "cat", "dog"], pa.string(), ["dog", "cat", "dog"], ["cat", "dog"]),
        (["dog", None, " ", "cat"], pa.large_string(), ["dog", MISSING, MISSING, "cat"], ["cat", "dog"]),
        (["n02124075", "n01443537"], pa.string(), ["n02124075", "n01443537"], ["n01443537", "n02124075"]),
        (["1", "10", "2"], pa.string(), ["001", "010", "002"], [f"{i:03d}" for i in range(11)]),
        (["0", "-1"], pa.string(), ["000", MISSING], ["000"]),
        ([1, None, -1, -7, 0], pa.int64(), ["001", *[MISSING] * 3, "000"], ["000", "001"]),
        ([1.0, None, float("nan"), 0.0], pa.float64(), ["001", MISSING, MISSING, "000"], ["000", "001"]),
        (["dog", "cat", None], pa.dictionary(pa.int32(), pa.string()), ["dog", "cat", MISSING], ["cat", "dog"]),
        ([0, 1], pa.uint16(), ["000", "001"], ["000", "001"]),
    ],
)
def test_labels(tmp_path, labels, kind, found, wnids):
    source = open_source(write(tmp_path / "train.parquet", labels, kind))
    assert (classes(source), source.wnids) == (found, wnids)


def test_texts_of_several_files(tmp_path):
    """Each file has its own distinct texts; the classes are those of all."""
    write(tmp_path / "train-00000-of-00002.parquet", ["dog", "cat"])
    write(tmp_path / "train-00001-of-00002.parquet", ["owl", "dog"])
    write(tmp_path / "validation-00000-of-00001.parquet", ["owl"])
    source = open_source(tmp_path)
    assert source.wnids == ["cat", "dog", "owl"]
    assert (classes(source), classes(source, "val")) == (["dog", "cat", "owl", "dog"], ["owl"])
    write(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(SourceError, match=r"test\.parquet: its labels are numbers"):
        open_source(tmp_path)


def test_wnids_in_paths_of_rows_with_texts(tmp_path):
    paths = ["n02124075_1.JPEG", "n01443537_2.JPEG"]
    source = open_source(write(tmp_path / "train.parquet", ["cat", "fish"], paths=paths))
    assert classes(source) == ["n02124075", "n01443537"]


@pytest.mark.parametrize("names", [None, ["ant", "bee", "cow", "dog"]])
def test_rows_without_a_label_make_a_whole_data_set(tmp_path, names):
    labels = [None if i % 7 == 0 else -1 if i % 7 == 3 else i % 4 for i in range(28)]
    write(tmp_path / "in/train-00000-of-00001.parquet", labels, pa.int64(), names)
    summary = prepare(tmp_path / "in", tmp_path / "out", Settings(max_side=64), workers=1)
    assert (summary.stored, summary.tally.skipped) == ({"train": 20}, 8)
    assert verify(tmp_path / "out").faults == []
    assert len(Dataset(tmp_path / "out").wnids) == 4


@pytest.mark.parametrize("name", ["", " "])
def test_a_class_without_a_name_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match="class 1 has no name"):
        open_source(write(tmp_path / "train.parquet", [0, 1], pa.int64(), ["ant", name]))


def test_a_label_out_of_range_is_refused_before_anything_is_written(tmp_path):
    write(tmp_path / "in/train.parquet", [0, 2], pa.int64(), ["ant", "bee"])
    with pytest.raises(SourceError, match=r"row 1: its label is 2 \(no class\), but there are 2 classes"):
        prepare(tmp_path / "in", tmp_path / "out", workers=1)
    assert not (tmp_path / "out/train").exists()


@pytest.mark.parametrize("labels", [[None, None], [-1, -1]])
def test_no_label_at_all_is_refused(tmp_path, labels):
    with pytest.raises(SourceError, match="none of its 2 rows has a label"):
        open_source(write(tmp_path / "train.parquet", labels, pa.int64()))


def test_a_test_split_may_lack_the_column_of_labels(tmp_path):
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", None)
    assert [(r.key, r.wnids, r.locator.packing[:8]) for r in open_source(tmp_path).records("test")] == [
        (str(i), (), "parquet:") for i in range(3)
    ]
    write(tmp_path / "validation.parquet", None)
    with pytest.raises(SourceError, match=r"validation\.parquet: has no column"):
        open_source(tmp_path)


def test_the_only_file_cut_off(tmp_path):
    path = write(tmp_path / "train-00000-of-00001.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-300])
    for src in (path, tmp_path):
        with pytest.raises(TruncatedSourceError, match=r"is truncated: it ends at byte \d+ without a footer"):
            open_source(src)


@pytest.mark.parametrize(
    "column",
    [
        {"image": ["a/0.jpg", "a/1.jpg"]},
        {"image": pa.array([{"path": "0.jpg"}, {"path": "1.jpg"}])},
        {"image": pa.array([{"bytes": None, "path": "0.jpg"}, {"bytes": None, "path": "1.jpg"}])},
        {"file_name": ["a/0.jpg", "a/1.jpg"]},
        {"image": pa.array([{"bytes": None}] * 2, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))},
    ],
)
def test_paths_without_bytes_are_named(tmp_path, column):
    pq.write_table(pa.table({**column, "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(SourceError, match=f"its column {next(iter(column))} .*the paths of images, not their bytes"):
        open_source(tmp_path)


def test_several_columns_of_images(tmp_path, said):
    struct = [{"bytes": image(i), "path": None} for i in range(2)]
    source = open_source(write(tmp_path / "a/train.parquet", [0, 1], mask=struct))
    assert said(source) == ["the images are those of the column image.bytes, not of mask"]
    pq.write_table(pa.table({"left": struct, "right": struct, "label": [0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(SourceError, match="several columns of images, left and right; rename one of them to image"):
        open_source(tmp_path / "train.parquet")


@pytest.mark.parametrize("hidden", [".cache/train.parquet", "data/.tmp/train.parquet", ".train.parquet"])
def test_hidden_files_are_left_out(tmp_path, hidden):
    write(tmp_path / "train.parquet", [0, 1])
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).write_bytes(b"x")
    assert classes(open_source(tmp_path)) == ["000", "001"]


def test_names_of_files(tmp_path, said):
    """Without a split's name all files are train; with some, the others are counted."""
    write(tmp_path / "a/0000.parquet", [0, 1])
    write(tmp_path / "a/0001.parquet", [1])
    assert classes(open_source(tmp_path / "a")) == ["000", "001", "001"]
    write(tmp_path / "b/my_train.parquet", [0, 1])
    write(tmp_path / "b/my_eval.parquet", [1])
    assert open_source(tmp_path / "b").splits == ("train", "val")
    write(tmp_path / "b/more.parquet", [1])
    assert said(open_source(tmp_path / "b")) == [
        "parquet files that are not named for a split, passed over: 1 (more.parquet)"
    ]
    assert open_source(tmp_path / "b").passed_over.counts == {"parquet file that is not named for a split": 1}


def test_the_files_beside_the_parquet_files_are_counted(tmp_path):
    write(tmp_path / "train-0.parquet", [0, 1])
    for name in ("README.md", "a.zip", "labels.csv", "images/1.jpg", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image(1) if name.endswith("jpg") else b"x")
    assert open_source(tmp_path).passed_over.counts == {
        "not an image": 2,
        "archive that is not unpacked": 1,
        "image beside the parquet files": 1,
        "hidden": 1,
    }


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([True, False]), r"its column label is of the type bool; write one label per row"),
        (pa.array([[0], [1, 2]]), r"its column label is of the type list<.*write one label per row"),
        (pa.array([0.0, 1.5]), r"its column label has the label 1\.5; labels are whole numbers"),
        (pa.array([0.0, float("inf")]), r"its column label has the label inf; labels are whole numbers"),
        (pa.array([0, 1 << 63], pa.uint64()), r"its column label has the label 9223372036854775808; labels are whole"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, said):
    rows = [{"bytes": image(i), "path": None} for i in range(2)]
    pq.write_table(pa.table({"image": rows, "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(SourceError, match=rf"train\.parquet: {said}"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"PAR1" + bytes(100) + b"PAR1", b"PAR1" * 9])
def test_a_footer_of_other_bytes(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"train\.parquet: is damaged or not a parquet file; download it again"):
        open_source(tmp_path)


def test_an_unlabelled_test_split_alone(tmp_path):
    """Its classes may be named in the file; a data set without classes is refused."""
    path = write(tmp_path / "test.parquet", [-1, -1], names=["cat", "dog"])
    assert open_source(path).wnids == ["cat", "dog"]
    write(tmp_path / "test.parquet", None)
    with pytest.raises(SourceError, match=r"none of its 3 rows has a label .* beside those of test"):
        open_source(tmp_path)


def test_sparse_numbers_are_ids(tmp_path):
    """As in tables of labels: three ids up to 2,000,000 are three classes."""
    rows = [{"bytes": b"x", "path": f"{i}.jpg"} for i in range(3)]
    pq.write_table(pa.table({"image": rows, "label": [100_000, 2_000_000, 999_999]}), tmp_path / "train.parquet")
    source = open_source(tmp_path / "train.parquet")
    assert source.wnids == ["100000", "2000000", "999999"]
    assert [record.wnids for record in source.records("train")] == [("100000",), ("2000000",), ("999999",)]
