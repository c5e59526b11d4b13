"""Raw layouts: which records they yield, on drawn and on real archives."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import pytest
from PIL import Image

from imgtool.pipelines.archives.reader import LocatorReader
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
    # The validation images are among the training ones: the labels of the two must agree.
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


def make_tiny(root, wnids=("n02124075", "n01443537"), images=3):
    """A small Tiny-ImageNet tree, its wnids.txt not sorted."""
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


def test_an_image_without_annotation_is_named(tmp_path):
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


@pytest.fixture(scope="module")
def extracted(drawn, tmp_path_factory):
    """The drawn archives, extracted: train/WNID, and the validation images flat in val."""
    root = tmp_path_factory.mktemp("extracted") / "imagenet"
    for record_split in ("train", "val"):
        source = open_source(drawn)
        for record in source.records(record_split):
            folder = root / record_split / (record.wnids[0] if record_split == "train" else "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{record.key}.JPEG").write_bytes(bytes_of(source, record))
    return root


def labels_of(source, split):
    return {r.key: r.wnids for r in source.records(split)}


def test_class_folders(extracted, drawn, tmp_path):
    """train/WNID and val/WNID, as Imagenette has it: the archives' labels, images, nothing that is no image."""
    archives = open_source(drawn)
    root = tmp_path / "imagenette2"
    shutil.copytree(extracted / "train", root / "train")
    truth = labels_of(archives, "val")
    for key, (wnid,) in truth.items():
        (root / "val" / wnid).mkdir(parents=True, exist_ok=True)
        shutil.copy(extracted / f"val/{key}.JPEG", root / "val" / wnid)
    (root / "noisy_imagenette.csv").write_text("path,noisy\n")
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / archives.wnids[0] / "._hidden.JPEG").write_bytes(b"x")
    with tarfile.open(tmp_path / "imagenette2.tar", "w") as archive:
        archive.add(root, "imagenette2")
    for path in (root, tmp_path / "imagenette2.tar"):
        source = open_source(path)
        assert (source.layout, source.splits) == ("class-folders", ("train", "val"))
        assert source.wnids == archives.wnids
        for split in source.splits:
            assert labels_of(source, split) == labels_of(archives, split)
        record = next(iter(source.records("val")))
        assert bytes_of(source, record) == (extracted / f"val/{record.key}.JPEG").read_bytes()


def test_folders_of_any_name(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "001.png")
    (tmp_path / "readme.txt").write_text("mine")
    source = open_source(tmp_path)
    assert (source.wnids, source.splits) == (["cats", "dogs"], ("train",))
    assert [(r.key, r.wnids, str(r.locator)) for r in source.records("train")] == [
        ("001", ("cats",), "cats/001.png"),
        ("001", ("dogs",), "dogs/001.png"),
    ]
    from imgtool.pipelines.dataset import Dataset
    from imgtool.pipelines.prepare import prepare

    out = tmp_path.with_name("out")
    assert prepare(tmp_path, out, workers=1).stored == {"train": 2}
    assert Dataset(out).names == ["cats", "dogs"]


def test_extracted_with_flat_validation(extracted, drawn, tmp_path):
    """Labelled by the development kit beside, or by its ground truth alone."""
    truth = labels_of(open_source(drawn), "val")
    with pytest.raises(SourceError, match="is in no class folder, and nothing states its class"):
        list(open_source(extracted).records("val"))
    root = tmp_path / "imagenet"
    shutil.copytree(extracted, root)
    kit = "ILSVRC2012_devkit_t12.tar.gz"
    shutil.copy(drawn / kit, root)
    assert labels_of(open_source(root), "val") == truth
    with tarfile.open(root / kit) as archive:
        name = "ILSVRC2012_validation_ground_truth.txt"
        (root / name).write_bytes(archive.extractfile(f"ILSVRC2012_devkit_t12/data/{name}").read())
    (root / kit).unlink()
    assert labels_of(open_source(root), "val") == truth
    lines = (root / name).read_text()
    for wrong in ("x", "1001"):  # a line that is passed over would shift the labels of all images behind it
        (root / name).write_text(f"{wrong}\n{lines}")
        with pytest.raises(SourceError, match=f"{name}: .*{wrong}"):
            list(open_source(root).records("val"))


def test_kaggles_tree(extracted, drawn, tmp_path):
    truth = labels_of(open_source(drawn), "val")
    shutil.copytree(extracted, tmp_path / "ILSVRC/Data/CLS-LOC")
    (tmp_path / "ILSVRC/Data/CLS-LOC/test").mkdir()
    shutil.copy(
        next((extracted / "val").iterdir()), tmp_path / "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG"
    )
    lines = [f"{key},{wnid} 1 2 30 40 {wnid} 5 6 7 8 \n" for key, (wnid,) in truth.items()]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))
    shutil.move(tmp_path / "ILSVRC/Data/CLS-LOC/val", tmp_path / "aside")
    assert open_source(tmp_path).splits == ("train", "test")
    shutil.move(tmp_path / "aside", tmp_path / "ILSVRC/Data/CLS-LOC/val")
    source = open_source(tmp_path)
    assert source.splits == ("train", "val", "test")
    assert len(source.wnids) == 10
    assert labels_of(source, "val") == truth
    assert [(record.key, record.wnids) for record in source.records("test")] == [("ILSVRC2012_test_00000001", ())]
    assert labels_of(source, "train") == labels_of(open_source(drawn), "train")
    record = next(iter(source.records("val")))
    assert [tuple(box) for box in record.boxes] == [(record.wnids[0], 1, 2, 30, 40), (record.wnids[0], 5, 6, 7, 8)]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01 x\n")
    with pytest.raises(SourceError, match=r"LOC_val_solution\.csv, line 2"):
        list(open_source(tmp_path).records("val"))


def test_class_folders_that_do_not_fit(extracted, tmp_path):
    root = tmp_path / "a"
    shutil.copytree(extracted / "train", root / "train")
    (root / "val/n99999999").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "val/n99999999/1.png")
    with pytest.raises(SourceError, match="n99999999 is not among the 10 train folders"):
        list(open_source(root).records("val"))
    deep = next((root / "train").iterdir()) / "deeper"
    deep.mkdir()
    Image.new("RGB", (8, 8)).save(deep / "1.png")
    with pytest.raises(SourceError, match="lies deeper than a class folder"):
        open_source(root)


def test_a_truncated_tar_of_class_folders(extracted, tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(extracted / "train", "train")
    whole = list(open_source(path).records("train"))
    with open(path, "r+b") as file:
        file.truncate(whole[-3].locator.offset + 5)
    found = []
    with pytest.raises(TruncatedSourceError, match=r"a\.tar is truncated"):
        for record in open_source(path).records("train"):
            found.append(record)
    assert [r.key for r in found] == [r.key for r in whole[:-3]]
