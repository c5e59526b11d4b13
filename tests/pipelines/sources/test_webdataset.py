"""WebDataset tars: imgtool's, img2dataset's and others', alone and in a folder."""

from __future__ import annotations

import json

import pytest

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SMALL = Settings(max_side=64)


def samples(ending: str, labels: list, image: str = "jpg", start: int = 0) -> dict:
    """Images and, in files with this ending, their labels; None is an image without a label."""
    files: dict = {}
    for number, label in enumerate(labels, start):
        files[f"{number:05d}.{image}"] = None
        if label is not None:
            files[f"{number:05d}.{ending}"] = json.dumps(label) if ending == "json" else str(label)
    return files


@pytest.mark.parametrize(
    ("files", "labels", "wnids"),
    [
        (samples("cls", [1, 0, 1]), ["001", "000", "001"], ["000", "001"]),
        (samples("cls", [0, 2], "png"), ["000", "002"], ["000", "001", "002"]),
        (samples("cls", ["dog", "cat\n"], "webp"), ["dog", "cat"], ["cat", "dog"]),
        (samples("cls", ["n02124075", "n01443537"], "jpeg"), ["n02124075", "n01443537"], ["n01443537", "n02124075"]),
        (samples("json", [{"label": 1, "url": "x"}, {"label": 0, "url": "y"}]), ["001", "000"], ["000", "001"]),
        (samples("json", [{"class_name": "dog"}, {"class_name": "cat"}]), ["dog", "cat"], ["cat", "dog"]),
        (samples("json", ["dog", "cat"]), ["dog", "cat"], ["cat", "dog"]),
        (samples("txt", ["dog", "cat", "dog", "cat"]), ["dog", "cat", "dog", "cat"], ["cat", "dog"]),
        (samples("txt", [3, 0]), ["003", "000"], ["000", "001", "002", "003"]),
        (samples("cls", [1, None, -1, 0]), ["001", *["!the sample has no label"] * 2, "000"], ["000", "001"]),
        (samples("cls", ["\ufeffdog", "cat"]), ["dog", "cat"], ["cat", "dog"]),
    ],
)
def test_labels(make_tree, listed, files, labels, wnids):
    """In one tar, and unpacked."""
    source = open_source(make_tree(files))
    assert (source.layout, source.splits, source.wnids) == ("webdataset", ("train",), wnids)
    assert list(listed(source)["train"].values()) == labels


def test_class_indices_of_the_1000_classes(make_tree, listed):
    assert "n01443537" in listed(open_source(make_tree(samples("cls", [1, 999]))))["train"].values()


def test_shards_in_a_folder(make_tar, listed, tmp_path):
    for name, labels in (("train-0000", [0, 1]), ("train-0001", [1]), ("val-0000", [0])):
        make_tar(samples("cls", labels), f"set/{name}")
    source = open_source(tmp_path / "set")
    assert source.splits == ("train", "val")
    assert [len(found) for found in listed(source).values()] == [2, 1]  # names repeat from shard to shard
    assert [r.wnids for r in source.records("train")] == [("000",), ("001",), ("001",)]
    assert open_source(tmp_path / "set/val-0000.tar").splits == ("val",)


@pytest.mark.parametrize("names", [["imagenet-train-000", "imagenet-validation-000"], ["train/000", "val/000"]])
def test_names_of_splits(make_tar, tmp_path, names):
    for name in names:
        make_tar(samples("cls", [0, 1]), f"set/{name}")
    assert open_source(tmp_path / "set").splits == ("train", "val")


def test_shards_without_a_name_of_a_split_are_train(make_tar, tmp_path):
    for name in ("00000", "00001"):
        make_tar(samples("cls", [0, 1]), f"set/{name}")
    source = open_source(tmp_path / "set")
    assert (source.splits, len(list(source.records("train")))) == (("train",), 4)


def test_img2dataset(make_tar, tmp_path, said):
    """Its JSON has the columns that it was asked to keep; its parquet stands beside; dead links have no image."""
    meta = {"url": "x", "caption": "a photo", "status": "success", "width": 3}
    files = samples("json", [{**meta, "label": "dog"}, {**meta, "label": "cat"}])
    files["00002.json"] = json.dumps({"status": "failed_to_download", "label": "cat"})
    files |= {"00000.txt": "a photo", "00001.txt": "another"}
    make_tar(files, "set/00000")
    (tmp_path / "set/00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "set/00000_stats.json").write_text("{}")
    source = open_source(tmp_path / "set")
    assert [r.wnids for r in source.records("train")] == [("dog",), ("cat",)]
    assert "the classes of the images are those in the field label of their .json files" in said(source)
    assert "samples without an image, beside those of train: 1 (00002)" in said(source)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (samples("txt", ["a red dog", "two cats", "a blue dog", "a bird"]), "a red dog.*captions and not classes"),
        (samples("json", [{"url": "x", "caption": "y"}] * 2), "without a label .*url, caption"),
        (samples("json", [{"label": [1, 2]}] * 2), "label is not one label"),
        (samples("cls", ["", ""]), "none of its samples has a label"),
    ],
)
def test_samples_without_classes_are_refused(make_tar, files, said):
    with pytest.raises(SourceError, match=said) as error:
        open_source(make_tar(files, "set"))
    assert "\n" not in str(error.value)


def test_damaged_json_is_named(make_tar):
    files = samples("json", [{"label": 0}, {"label": 1}]) | {"00001.json": "{"}
    with pytest.raises(SourceError, match=r"00001\.json.*is not JSON"):
        open_source(make_tar(files, "set"))


def test_a_truncated_shard(make_tar, tmp_path):
    path = make_tar(samples("cls", [0, 1, 0]), "set/train-0")
    make_tar(samples("cls", [1]), "set/train-1")
    whole = list(open_source(tmp_path / "set").records("train"))
    with open(path, "r+b") as file:
        file.truncate(whole[2].locator.offset + 5)
    found = []
    with pytest.raises(TruncatedSourceError, match=r"train-0\.tar is truncated"):
        for record in open_source(tmp_path / "set").records("train"):
            found.append(record.wnids)
    assert found == [("000",), ("001",), ("001",)]


def test_other_files_of_a_sample(make_tar, listed):
    files = samples("cls", [0, 1]) | {"00000.seg.png": None, "00000.json": "{}", "._00000.jpg": "x"}
    assert list(listed(open_source(make_tar(files, "set")))["train"]) == ["00000.jpg", "00001.jpg"]


def test_a_tar_of_class_folders_with_sidecars_is_no_webdataset(make_tar):
    files = {
        f"train/{name}/{i}.{e}": None if e == "jpg" else "{}" for i, name in enumerate("ab") for e in ("jpg", "json")
    }
    assert open_source(make_tar(files, "set")).layout == "class-folders"


def test_shards_that_imgtool_prepared(mini, tmp_path):
    """Class indices come from the class table beside the shards."""
    first, second = tmp_path / "first", tmp_path / "second"
    settings = Settings(max_side=64, format="both", limit=40)
    stored = prepare(mini, first, settings, workers=1).stored
    assert prepare(first, second, Settings(max_side=64), workers=1).stored == stored
    a, b = Dataset(first), Dataset(second)
    assert a.wnids == b.wnids
    for split in ("train", "val"):
        rows = [
            {
                key: index
                for key, index in zip(
                    d.manifest(split)["key"].to_pylist(), d.manifest(split)["class_index"].to_pylist(), strict=True
                )
            }
            for d in (a, b)
        ]
        assert rows[0] == rows[1]
