"""Tiny-ImageNet as a folder and as a tar, whole, truncated and contradictory."""

from __future__ import annotations

import io
import tarfile

import pytest
from PIL import Image

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError, TruncatedSourceError


def bytes_of(source, record) -> bytes:
    with LocatorReader(source.root) as reader:
        return reader.read(record.locator)


def make_tiny(root, wnids=("n02124075", "n01443537"), images=3):
    """Writes a small Tiny-ImageNet tree whose wnids.txt is not sorted."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 199)).save(buffer, "JPEG")
    (root / "val/images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    annotations = ""
    for number, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        boxes = ""
        for i in range(images):
            (folder / f"{wnid}_{i}.JPEG").write_bytes(buffer.getvalue())
            boxes += f"{wnid}_{i}.JPEG\t{i}\t1\t60\t62\n"
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
        (root / "val/images" / f"val_{number}.JPEG").write_bytes(buffer.getvalue())
        annotations += f"val_{number}.JPEG\t{wnid}\t0\t{number}\t50\t51\n"
    (root / "val/val_annotations.txt").write_text(annotations)
    (root / "test/images").mkdir(parents=True)
    (root / "test/images/test_0.JPEG").write_bytes(buffer.getvalue())


def test_tiny_imagenet_as_folder_and_as_tar(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    make_tiny(root)
    with tarfile.open(tmp_path / "tiny.tar", "w") as archive:
        archive.add(root, "tiny-imagenet-200")
    sources = [open_source(root), open_source(tmp_path / "tiny.tar")]
    for source in sources:
        assert source.layout == "tiny-imagenet"
        assert source.wnids == ["n01443537", "n02124075"]
        train = {r.key: r for r in source.records("train")}
        assert len(train) == 6
        assert train["n02124075_2"].wnids == ("n02124075",)
        assert tuple(train["n02124075_2"].boxes[0]) == ("n02124075", 2, 1, 60, 62)
        val = {r.key: r for r in source.records("val")}
        assert val["val_1"].wnids == ("n01443537",)
        assert tuple(val["val_1"].boxes[0])[1:] == (0, 1, 50, 51)
        assert bytes_of(source, val["val_1"])[:2] == b"\xff\xd8"


def test_a_truncated_tar_yields_only_labelled_images(tmp_path):
    root = tmp_path / "tiny"
    make_tiny(root)
    path = tmp_path / "tiny.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("wnids.txt", "train", "val/images", "val/val_annotations.txt"):
            archive.add(root / name, f"tiny/{name}")
    whole = {split: list(open_source(path).records(split)) for split in ("train", "val")}
    with open(path, "r+b") as file:
        file.truncate(whole["val"][1].locator.offset + 10)
    source = open_source(path)
    for split, expected in (("train", whole["train"]), ("val", [])):
        found = []
        with pytest.raises(TruncatedSourceError, match=r"tiny\.tar is truncated"):
            for record in source.records(split):
                found.append(record)
        assert found == expected


def test_an_image_without_a_label_is_named(tmp_path):
    make_tiny(tmp_path / "t")
    (tmp_path / "t/val/val_annotations.txt").write_text("val_0.JPEG\tn02124075\t0\t0\t50\t51\n")
    with pytest.raises(SourceError, match=r"val/images/val_1\.JPEG has no line"):
        list(open_source(tmp_path / "t").records("val"))


def test_a_malformed_line_is_named(tmp_path):
    make_tiny(tmp_path / "t")
    (tmp_path / "t/val/val_annotations.txt").write_text("val_0.JPEG\tn02124075\t0\tzero\t50\t51\n")
    with pytest.raises(SourceError, match="line 1"):
        list(open_source(tmp_path / "t").records("val"))


def test_the_real_tiny_imagenet(tiny):
    source = open_source(tiny)
    assert len(source.wnids) == 100
    train, val = (list(source.records(split)) for split in source.splits)
    assert (len(train), len(val)) == (20_000, 5_000)
    assert len({r.wnids[0] for r in val}) == 100
    assert all(len(r.boxes) == 1 for r in train + val)


SORTED = {"wnids.txt": "\ufeffn02124075\nn01443537\n", "words.txt": "n01443537\tgoldfish\n"}


@pytest.mark.parametrize("train", ["train/{0}/images/{0}_0.JPEG", "train/{0}/{0}_0.JPEG"])
@pytest.mark.parametrize("val", ["val/{0}/images/val_0.JPEG", "val/{0}/val_0.JPEG"])
def test_images_sorted_into_class_folders(make_tree, listed, train, val, said):
    files = {name.format(wnid): None for name in (train, val) for wnid in ("n01443537", "n02124075")}
    source = open_source(make_tree({**SORTED, **files, "test/images/test_0.JPEG": None}))
    assert (source.layout, source.splits) == ("tiny-imagenet", ("train", "val"))
    for split in source.splits:
        assert sorted(listed(source)[split].values()) == ["n01443537", "n02124075"]
    assert said(source) == []
    assert source.passed_over.first["test image without a label"] == "test/images/test_0.JPEG"


def test_validation_images_sorted_and_annotated(tmp_path, listed):
    """val_annotations.txt may remain beside the class folders, or label images that are not in a folder images."""
    root = tmp_path / "t"
    make_tiny(root)
    (root / "val/n02124075").mkdir()
    (root / "val/images/val_0.JPEG").rename(root / "val/n02124075/val_0.JPEG")
    (root / "val/images/val_1.JPEG").rename(root / "val/val_1.JPEG")
    source = open_source(root)
    assert listed(source)["val"] == {"val/n02124075/val_0.JPEG": "n02124075", "val/val_1.JPEG": "n01443537"}
    (root / "val/n02124075").rename(root / "val/n01443537")
    with pytest.raises(SourceError, match=r"val/n01443537/val_0\.JPEG: its annotation says n02124075"):
        list(open_source(root).records("val"))


def test_sorted_test_images_are_the_split_test(make_tree, listed):
    files = {f"{split}/{wnid}/0.JPEG": None for split in ("train", "test") for wnid in ("n01443537", "n02124075")}
    source = open_source(make_tree({**SORTED, **files}))
    assert sorted(listed(source)["test"].values()) == ["n01443537", "n02124075"]


def test_what_tiny_imagenet_lacks_is_said(make_tree, said):
    source = open_source(make_tree({**SORTED, "train/n01443537/images/0.JPEG": None, "logo.png": None}))
    assert source.wnids == ["n01443537", "n02124075"]
    assert said(source) == ["classes of wnids.txt without training images: 1 (n02124075)"]
    assert source.passed_over.first["image outside the splits' folders"] == "logo.png"


def test_annotations_of_missing_images_and_unknown_classes_have_rows(tmp_path, listed):
    root = tmp_path / "t"
    make_tiny(root)
    with (root / "val/val_annotations.txt").open("a") as file:
        file.write("gone.JPEG\tn02124075\t0\t0\t1\t1\nother.JPEG\tn09999999\t0\t0\t1\t1\n")
    (root / "val/images/val_0.JPEG").rename(root / "val/images/other.JPEG")
    assert listed(open_source(root))["val"] == {
        "val/images/val_1.JPEG": "n01443537",
        "val/images/other.JPEG": "!its class n09999999 is not in wnids.txt",
        "val/images/val_0.JPEG": "!no such image in the source",
        "val/images/gone.JPEG": "!no such image in the source",
    }
    summary = prepare(root, tmp_path / "out", workers=1)
    assert (summary.stored, summary.tally.skipped) == ({"train": 6, "val": 1}, 3)


@pytest.mark.parametrize(
    "text",
    ["n02124075 cat\nn01443537 goldfish, fish\n", "n01443537 n02124075", "n01443537,goldfish\r\n\r\nn02124075,cat\r\n"],
)
def test_names_after_the_wnids(make_tree, text):
    files = {f"train/{wnid}/images/0.JPEG": None for wnid in ("n01443537", "n02124075")}
    assert open_source(make_tree({"wnids.txt": text, **files})).wnids == ["n01443537", "n02124075"]


@pytest.mark.parametrize("name", ["valid", "Val", "validation"])
def test_other_names_of_the_splits(make_tree, listed, name):
    files = {f"{split}/{wnid}/0.JPEG": None for split in ("train", name) for wnid in ("n01443537", "n02124075")}
    assert sorted(listed(open_source(make_tree({**SORTED, **files})))["val"].values()) == ["n01443537", "n02124075"]
    flat = {"train/n01443537/images/0.JPEG": None, f"{name}/images/1.JPEG": None}
    flat[f"{name}/val_annotations.txt"] = "1.JPEG\tn02124075\t0\t0\t1\t1\n"
    source = open_source(make_tree({**SORTED, **flat}, "flat"))
    assert listed(source)["val"] == {f"{name}/images/1.JPEG": "n02124075"}
    with pytest.raises(SourceError, match="two folders of the split val"):
        open_source(make_tree({**SORTED, **flat, "dev/images/1.JPEG": None}, "two"))
