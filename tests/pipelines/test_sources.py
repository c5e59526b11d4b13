"""Raw layouts: which records they yield, on drawn and on real archives."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import pytest
from PIL import Image

from imgtool.pipelines.records import LocatorReader
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError, TruncatedSourceError


def bytes_of(source, record) -> bytes:
    with LocatorReader(source.root) as reader:
        return reader.read(record.locator)


def test_drawn_archives(drawn):
    source = open_source(drawn)
    assert source.layout == "ilsvrc2012"
    assert source.splits == ("train", "val")
    assert source.wnids == sorted(source.wnids)
    train, val = (list(source.records(split)) for split in source.splits)
    assert (len(train), len(val)) == (80, 20)
    for record in train:
        assert record.key.startswith(record.wnids[0] + "_")
        assert record.locator.member == f"{record.wnids[0]}.tar/{record.key}.JPEG"
    with tarfile.open(drawn / "ILSVRC2012_img_val.tar") as archive:
        for record in val[:3]:
            assert bytes_of(source, record) == archive.extractfile(record.locator.member).read()


def test_the_mini_archives_have_the_published_labels(mini, facts):
    """Class index = position among the sorted wnids; the devkit's IDs are another order."""
    source = open_source(mini)
    assert source.wnids == (facts / "ilsvrc2012_wnids.txt").read_text().split()
    ids = json.loads((facts / "ilsvrc2012_id_by_wnid.json").read_text())
    assert source.ilsvrc2012_ids == ids
    train, val = (list(source.records(split)) for split in source.splits)
    assert (len(train), len(val)) == (500, 100)
    assert all(r.key.split("_")[0] == r.wnids[0] for r in train)
    with tarfile.open(mini / "ILSVRC2012_devkit_t12.tar.gz") as devkit:
        truth = devkit.extractfile("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt").read().split()
    for record in val:
        assert ids[record.wnids[0]] == int(truth[int(record.key.rpartition("_")[2]) - 1])
    # The validation pictures are among the training ones: the labels of the two must agree.
    label_of = {bytes_of(source, r): r.wnids for r in train}
    agreed = [label_of[data] == r.wnids for r in val if (data := bytes_of(source, r)) in label_of]
    assert len(agreed) == 100
    assert all(agreed)


def test_without_a_devkit_the_published_classes_stand(drawn, tmp_path):
    shutil.copy(drawn / "ILSVRC2012_img_train.tar", tmp_path)
    source = open_source(tmp_path)
    assert len(source.wnids) == 1000
    assert source.splits == ("train",)


def test_validation_without_a_devkit_is_refused(drawn, tmp_path):
    shutil.copy(drawn / "ILSVRC2012_img_val.tar", tmp_path)
    with pytest.raises(SourceError, match="put ILSVRC2012_devkit_t12"):
        open_source(tmp_path)


def test_a_truncated_train_tar_yields_what_is_whole(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "cut")
    whole = list(open_source(drawn).records("train"))
    path = tmp_path / "cut" / "ILSVRC2012_img_train.tar"
    cut = whole[50].locator.offset + 10
    with open(path, "r+b") as file:
        file.truncate(cut)
    found = []
    with pytest.raises(TruncatedSourceError, match="is truncated"):
        for record in open_source(tmp_path / "cut").records("train"):
            found.append(record)
    assert found == whole[:50]


def test_a_class_tar_outside_the_devkit_is_named(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "odd")
    with tarfile.open(tmp_path / "odd" / "ILSVRC2012_img_train.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("n99999999.tar"))
    with pytest.raises(SourceError, match=r"n99999999\.tar is not one of the devkit's 10 classes"):
        list(open_source(tmp_path / "odd").records("train"))


def test_a_broken_devkit_is_named(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "odd")
    (tmp_path / "odd" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"\x1f\x8b junk")
    with pytest.raises(SourceError, match="download it again"):
        open_source(tmp_path / "odd")


def make_tiny(root, wnids=("n02124075", "n01443537"), pictures=3):
    """A small Tiny-ImageNet tree, its wnids.txt not sorted."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 199)).save(buffer, "JPEG")
    (root / "val/images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    annotations = ""
    for number, wnid in enumerate(wnids):
        images = root / "train" / wnid / "images"
        images.mkdir(parents=True)
        boxes = ""
        for i in range(pictures):
            (images / f"{wnid}_{i}.JPEG").write_bytes(buffer.getvalue())
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


def test_a_truncated_tiny_imagenet_keeps_what_is_labelled(tmp_path):
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


def test_a_picture_without_annotation_is_named(tmp_path):
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


def test_an_archive_instead_of_its_folder(drawn):
    with pytest.raises(SourceError, match=f"--src {drawn}"):
        open_source(drawn / "ILSVRC2012_img_train.tar")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"x" * 1024)])
def test_what_is_no_source_is_said_in_one_line(tmp_path, make):
    path = tmp_path / "x.tar"
    make(path)
    with pytest.raises(SourceError) as error:
        open_source(path)
    assert "x.tar" in str(error.value)
    assert "\n" not in str(error.value)
