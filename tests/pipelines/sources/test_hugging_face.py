"""Hugging Face's parquet files: their records and labels, and the errors about damaged or contradictory files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.sources import open_source
from imgtool.wordnet import orders
from imgtool.wordnet.errors import ImageError, SourceError, TruncatedSourceError

WNIDS = orders.ilsvrc2012_wnids()
INDEX = {wnid: i for i, wnid in enumerate(WNIDS)}
WORDS = ["tench, Tinca tinca", *(f"word {i}" for i in range(998)), "toilet tissue, toilet paper, bathroom tissue"]


def write(path: Path, rows, names=None, image="image", label="label", **options) -> None:
    """Writes rows of (bytes, path, label) as the library ``datasets`` does: 100 rows per group, with its metadata."""
    table = pa.table(
        {
            image: pa.array(
                [{"bytes": data, "path": name} for data, name, _ in rows],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            label: pa.array([number for _, _, number in rows], pa.int64()),
        }
    )
    if names:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=100, **options)


def found_in(path) -> dict[str, dict[str, tuple]]:
    source = open_source(path)
    assert source.layout == "hugging-face"
    with contextlib.closing(LocatorReader(source.root)) as reader:
        return {s: {r.key: (r.wnids, reader.read(r.locator)) for r in source.records(s)} for s in source.splits}


@pytest.fixture(scope="module")
def images(mini) -> dict[str, list[tuple[str, str, bytes]]]:
    """Real images as (key, wnid, bytes), by split."""
    source = open_source(mini)
    with contextlib.closing(LocatorReader(source.root)) as reader:
        return {
            split: [(r.key, r.wnids[0], reader.read(r.locator)) for r in source.records(split)]
            for split in source.splits
        }


def test_imagenet_1k(images, tmp_path):
    """A clone of ILSVRC/imagenet-1k: folder data/, the wnid at the end of each name, an unlabelled test split."""
    rows = {
        split: [(data, f"{key}_{wnid}.JPEG", INDEX[wnid]) for key, wnid, data in those]
        for split, those in images.items()
    }
    write(tmp_path / "data/train-00000-of-00002.parquet", rows["train"][:230], WORDS)
    write(tmp_path / "data/train-00001-of-00002.parquet", rows["train"][230:], WORDS)
    write(tmp_path / "data/validation-00000-of-00001.parquet", rows["val"], WORDS)
    test = [(rows["val"][i][0], f"ILSVRC2012_test_0000000{i + 1}.JPEG", -1) for i in range(3)]
    write(tmp_path / "data/test-00000-of-00001.parquet", test, WORDS)
    (tmp_path / ".git/lfs").mkdir(parents=True)
    (tmp_path / ".git/lfs/train-x.parquet").write_bytes(b"x")
    (tmp_path / "data/logo.png").write_bytes(b"x")
    source = open_source(tmp_path)
    assert (source.splits, source.wnids) == (("train", "val", "test"), WNIDS)
    found = found_in(tmp_path)
    for split, those in images.items():
        assert found[split] == {key: ((wnid,), data) for key, wnid, data in those}
    assert {key: wnids for key, (wnids, _) in found["test"].items()} == {
        f"ILSVRC2012_test_0000000{i}": () for i in (1, 2, 3)
    }
    record = next(iter(source.records("val")))
    assert str(record.locator) == "data/validation-00000-of-00001.parquet!row 0"


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_prepare_stores_the_same_as_from_the_archives(drawn, tmp_path, compression):
    archives = open_source(drawn)
    with contextlib.closing(LocatorReader(archives.root)) as reader:
        for split in archives.splits:
            rows = [
                (reader.read(r.locator), f"{r.key}_{r.wnids[0]}.JPEG", INDEX[r.wnids[0]])
                for r in archives.records(split)
            ]
            write(tmp_path / "hf" / f"{split}.parquet", rows, WORDS, compression=compression)
    write(tmp_path / "hf/test.parquet", [(b"", None, -1), (None, None, -1)], WORDS)
    summary = prepare(tmp_path / "hf", tmp_path / "out", workers=1)
    assert summary.stored == {"train": 80, "val": 20, "test": 0}
    rows = {split: pq.read_table(tmp_path / f"out/{split}.parquet").to_pylist() for split in ("train", "test")}
    assert all(row["status"].startswith("skipped:") for row in rows["test"])
    hashes = {row["key"]: (row["wnids"], row["source_xxh3"], row["stored_xxh3"]) for row in rows["train"]}
    prepare(drawn, tmp_path / "archives", workers=1)
    for row in pq.read_table(tmp_path / "archives/train.parquet").to_pylist():
        assert hashes[row["key"]] == (row["wnids"], row["source_xxh3"], row["stored_xxh3"])


def labels(path) -> list[tuple[str, tuple[str, ...]]]:
    return [(r.key, r.wnids) for r in open_source(path).records("train")]


def test_labels_without_paths(tmp_path):
    """Class names that are wnids; ILSVRC2012's order, by its names or by 1000 labels; other names; no names."""
    path = tmp_path / "train-00000-of-00001-1359597a978bc4fa.parquet"
    rows = [(b"x", None, 1), (b"y", None, 0)]
    key = path.stem
    for names, expected in (
        (["n02124075", "n01443537"], ["n01443537", "n02124075"]),
        (WORDS, [WNIDS[1], WNIDS[0]]),
        (["cat", "ant"], ["ant", "cat"]),
        ([f"class {i}" for i in range(1000)], ["class 1", "class 0"]),
        (None, ["001", "000"]),
    ):
        write(path, rows, names)
        assert labels(path) == [(f"{key}_000000", (expected[0],)), (f"{key}_000001", (expected[1],))]
    write(path, [*rows, (b"z", None, 999)])
    assert [wnids for _, wnids in labels(path)] == [(WNIDS[1],), (WNIDS[0],), (WNIDS[999],)]
    assert open_source(path).wnids == WNIDS


def test_paths_state_the_classes_if_names_do_not(tmp_path):
    path = tmp_path / "train.parquet"
    write(path, [(b"x", "n02124075_7.JPEG", 0), (b"y", "a_n01443537.JPEG", 1), (b"z", "z.JPEG", 0)], ["cat", "fish"])
    assert labels(path) == [("n02124075_7", ("n02124075",)), ("a", ("n01443537",)), ("z", ("n02124075",))]
    assert open_source(path).wnids == ["n01443537", "n02124075"]


@pytest.mark.parametrize(
    ("row", "names", "message"),
    [
        ((b"x", f"a_{WNIDS[6]}.JPEG", 5), WORDS, f"row 1: its label is 5 ({WNIDS[5]}), but its path says {WNIDS[6]}"),
        (
            (b"x", f"a_{WNIDS[6]}.JPEG", 0),
            ["n01440764"],
            f"row 1: its label is 0 (n01440764), but its path says {WNIDS[6]}",
        ),
        ((b"x", None, 1000), WORDS, "row 1: its label is 1000 (no class), but there are 1000 classes"),
        ((b"x", "b_n99999999.JPEG", -1), WORDS, "row 1: its label is -1 (n99999999), but its path says n99999999"),
        ((b"x", f"{WNIDS[6]}_1.JPEG", 0), None, f"row 1: its label is 0 (n01440764), but its path says {WNIDS[6]}"),
    ],
)
def test_a_contradictory_label_is_named(tmp_path, row, names, message):
    path = tmp_path / "train.parquet"
    write(path, [(b"x", "n01440764_1.JPEG", 0), row], names)
    with pytest.raises(SourceError) as error:
        labels(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_other_columns(tmp_path):
    """Columns img and fine_label, as in CIFAR; a binary column; splits as folders; null labels."""
    write(tmp_path / "a/train/0000.parquet", [(b"x", None, 0), (b"y", None, None)], ["c"], "img", "fine_label")
    assert [wnids for _, wnids in labels(tmp_path / "a")] == [("c",), ()]
    plain = pa.table({"jpg": pa.array([b"one", b"two"], pa.large_binary()), "cls": pa.array([1, 0], pa.uint8())})
    pq.write_table(plain, tmp_path / "plain.parquet")
    assert found_in(tmp_path / "plain.parquet")["train"] == {
        "plain_000000": (("001",), b"one"),
        "plain_000001": (("000",), b"two"),
    }
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a cat"]}), tmp_path / "odd.parquet")
    with pytest.raises(SourceError, match=r"odd\.parquet: has no column .* image \(binary\), caption \(string\)"):
        open_source(tmp_path / "odd.parquet")
    pq.write_table(pa.table({"image": [[b"x"]], "label": [1]}), tmp_path / "odd.parquet")
    with pytest.raises(SourceError, match=r"image \(list<"):
        open_source(tmp_path / "odd.parquet")


def test_missing_files_are_reported_after_the_complete_records(tmp_path):
    names = ["a", "b"]
    for part, rows in ((0, [(b"x", "x", 0)]), (2, [(b"y", "y", 1)])):
        write(tmp_path / f"train-{part:05d}-of-00004.parquet", rows, names)
    whole = (tmp_path / "train-00000-of-00004.parquet").read_bytes()
    (tmp_path / "train-00001-of-00004.parquet").write_bytes(whole[:-1])
    found = []
    with pytest.raises(
        TruncatedSourceError, match=r"1 of 4 train files are missing.*00001-of-00004\.parquet is truncated"
    ):
        for record in open_source(tmp_path).records("train"):
            found.append(record.key)
    assert found == ["x", "y"]
    assert labels(tmp_path / "train-00002-of-00004.parquet") == [("y", ("b",))], (
        "a file that is given alone is the whole data set"
    )


def test_unusable_files_are_reported_in_one_line(tmp_path):
    path = tmp_path / "train.parquet"
    for data, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"hello", "train.parquet"),
        (b"", "train.parquet"),
        (b"PAR1" + b"x" * 100 + b"PAR1", "train.parquet"),
    ):
        path.write_bytes(data)
        for src in (path, tmp_path):
            with pytest.raises(SourceError, match=message) as error:
                list(open_source(src).records("train"))
            assert "\n" not in str(error.value)
    write(path, [(b"x", None, 0)], ["a"])
    write(tmp_path / "validation.parquet", [(b"x", None, 0)], ["b"])
    with pytest.raises(SourceError, match="different class names"):
        open_source(tmp_path)
    write(tmp_path / "other/train.parquet", [(b"x", None, 0)], ["a"])
    with pytest.raises(SourceError, match=r"several sets of train files, in \., other"):
        open_source(tmp_path)
    write(path, [(b"x", None, 0)], ["crane", "crane"])
    with pytest.raises(SourceError, match=r"two .* 'crane'"):
        open_source(path)


def test_from_a_store(images, tmp_path):
    """Over fsspec, indexing reads large blocks, and reading an image is one request."""
    fsspec = pytest.importorskip("fsspec")
    rows = [(data, f"{key}_{wnid}.JPEG", INDEX[wnid]) for key, wnid, data in images["train"][:150]]
    write(tmp_path / "train-00000-of-00001.parquet", rows, WORDS)
    fsspec.filesystem("memory").put_file(
        str(tmp_path / "train-00000-of-00001.parquet"), "/hf/train-00000-of-00001.parquet"
    )
    for src in ("memory://hf", "memory://hf/train-00000-of-00001.parquet"):
        found = found_in(src)["train"]
        assert found == {key: ((wnid,), data) for key, wnid, data in images["train"][:150]}


def sound(codec: str) -> bytes:
    sink = io.BytesIO()
    rows = [{"bytes": b"head" * 9 + bytes([i]) * i, "path": f"{i}.JPEG"} for i in range(12)]
    pq.write_table(
        pa.table({"image": rows, "label": [i % 3 for i in range(12)]}), sink, compression=codec, row_group_size=5
    )
    return sink.getvalue()


@settings(max_examples=150)
@given(data=st.data(), codec=st.sampled_from(["snappy", "zstd", "none"]))
def test_damaged_files_raise_imgtool_errors_only(tmp_path_factory, data, codec):
    good = bytearray(sound(codec))
    for _ in range(data.draw(st.integers(1, 5))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del good[data.draw(st.integers(0, len(good))) :]
    path = tmp_path_factory.getbasetemp() / "fuzz.parquet"
    path.write_bytes(good)
    try:
        source = open_source(path)
        records = list(source.records("train"))
    except (SourceError, TruncatedSourceError) as error:
        assert "\n" not in str(error)
        return
    with contextlib.closing(LocatorReader(source.root)) as reader:
        for record in records:
            with contextlib.suppress(ImageError):
                reader.read(record.locator)
