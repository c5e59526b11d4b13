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


@pytest.mark.parametrize(
    "files",
    [
        ["train/cat/1.jpg", "train/dog/2.jpg"],
        ["cat/1.jpg", "dog/2.jpg"],
        ["cat/1.jpg"],
        ["a/cat/1.jpg", "a/dog/2.jpg", "b.jpg"],
    ],
)
def test_a_stray_tar_hides_no_class_folders(make_folder, make_tar, files):
    path = make_folder(dict.fromkeys(files))
    make_tar(samples("cls", [0]), "source/backup")
    with pytest.raises(SourceError, match=r"WebDataset tars \(backup\.tar\) and class folders .*move the others"):
        open_source(path)


def test_the_files_beside_the_tars_are_counted(make_folder, make_tar, listed):
    path = make_folder({"z.zip": "PK", "1.tar.gz": "x", "loose.jpg": None, "junk.bin": "x", ".hidden": "x"})
    make_tar(samples("cls", [0, 1]) | {".DS_Store": "x"}, "source/train-0")
    make_tar(samples("cls", [1]), "source/val-0").rename(path / "val-0.TAR")
    source = open_source(path)
    assert {split: list(found.values()) for split, found in listed(source).items()} == {
        "train": ["000", "001"],
        "val": ["001"],
    }
    assert source.passed_over.counts == {
        "archive that is not unpacked": 2,
        "image beside the tars": 1,
        "not an image": 1,
        "hidden": 2,
    }


def test_the_further_files_of_samples_are_counted(make_tar, listed):
    """Each file is an image, the label of one, or counted."""
    files = samples("cls", [0, 1]) | {"00000.png": None, "00000.seg.png": None, "00000.json": "{}", "notes.md": "x"}
    files |= {"sub.tar": "x", "gone.cls": "1", "unlabelled.jpg": None}
    source = open_source(make_tar(files, "set"))
    assert listed(source)["train"] == {
        "00000.jpg": "000",
        "00001.jpg": "001",
        "unlabelled.jpg": "!the sample has no label",
    }
    counts = source.passed_over.counts
    assert counts == {
        "further image of a sample": 2,
        "further file of a sample": 1,
        "not an image": 1,
        "archive that is not unpacked": 1,
        "file of a sample without an image": 1,
    }
    assert 3 + 2 + sum(counts.values()) == len(files)  # images, their labels, and the rest


def test_names_with_dots(make_tar, listed):
    """The name ends where image and label begin to differ, whatever the other samples' names are."""
    files = {f"img.{i}.{ending}": None if ending == "jpg" else str(i) for i in range(3) for ending in ("jpg", "cls")}
    files |= {"x.jpg": None, "x.cls": "1", "img.9.jpg": None, "img.0.seg.png": None, "y.2.png": None, "y.3.png": None}
    source = open_source(make_tar(files, "set"))
    none = "!the sample has no label"
    assert listed(source)["train"] == {
        **{"img.0.jpg": "000", "img.1.jpg": "001", "img.2.jpg": "002", "x.jpg": "001"},
        **{"img.9.jpg": none, "y.2.png": none, "y.3.png": none},
    }
    assert [r.key for r in source.records("train")] == ["img.0", "img.1", "img.2", "x", "img.9", "y.2", "y.3"]
    assert source.passed_over.counts == {"further image of a sample": 1}


def test_images_of_unknown_ending(make_tar, listed):
    source = open_source(make_tar(samples("cls", [0, 1], "image") | samples("cls", [1], "bin", 2), "set"))
    assert listed(source)["train"] == {"00000.image": "000", "00001.image": "001", "00002.bin": "001"}


def test_a_field_that_the_first_sample_lacks(make_tar, listed):
    source = open_source(make_tar(samples("json", [{"caption": "x"}, {"label": "a"}, {"label": "b"}]), "set"))
    assert list(listed(source)["train"].values()) == ["!the sample has no label", "a", "b"]


@pytest.mark.parametrize("empty", ["train-1", "val-0", "a"])
def test_an_empty_shard(make_tar, tmp_path, empty):
    """The other shards' samples are listed; the last split reports a shard whose samples are unknown."""
    make_tar(samples("cls", [0, 1]), "set/train-0")
    (tmp_path / f"set/{empty}.tar").touch()
    source, found = open_source(tmp_path / "set"), []
    assert source.splits == ("train",)
    with pytest.raises(TruncatedSourceError, match=rf"set/{empty}\.tar is truncated"):
        for record in source.records("train"):
            found.append(record.key)
    assert found == ["00000", "00001"]


def test_a_shard_that_is_no_tar(make_tar, tmp_path):
    make_tar(samples("cls", [0, 1]), "set/train-1")
    (tmp_path / "set/train-0.tar").write_text("<html>" * 200)
    with pytest.raises(SourceError, match=r"set/train-0\.tar is not a tar archive; download it again, or move it"):
        open_source(tmp_path / "set")


def test_a_class_folder_with_sidecars_is_no_webdataset(make_tree):
    files = {"cat/1.jpg": None, "cat/1.json": '{"width": 4}', "cat/2.jpg": None, "cat/2.json": '{"width": 4}'}
    source = open_source(make_tree(files))
    assert (source.layout, source.wnids) == ("class-folders", ["cat"])


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
