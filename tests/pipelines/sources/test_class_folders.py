"""Class folders: Imagenette, ILSVRC2012 extracted, Kaggle's tree, and folders of any name."""

from __future__ import annotations

import shutil
import tarfile

import pytest
from PIL import Image

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError, TruncatedSourceError

SMALL = Settings(max_side=64)


def bytes_of(source, record) -> bytes:
    with LocatorReader(source.root) as reader:
        return reader.read(record.locator)


@pytest.fixture(scope="module")
def extracted(drawn, tmp_path_factory):
    """The drawn archives, extracted: train/WNID, and the validation images in val without class folders."""
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


def test_class_folders_equal_the_archives(extracted, drawn, tmp_path):
    """train/WNID and val/WNID, as in Imagenette: labels and bytes equal the archives'; other files are left out."""
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


def test_validation_images_without_class_folders(extracted, drawn, tmp_path):
    """Labelled by the development kit in the same folder, or by its ground truth alone."""
    truth = labels_of(open_source(drawn), "val")
    with pytest.raises(SourceError, match=r"val/ILSVRC2012_val_\d+\.JPEG is in no class folder, and no label file"):
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
    for wrong in ("x", "1001"):  # skipping such a line would shift the labels of all later images
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


def test_contradictory_class_folders_are_refused(extracted, tmp_path):
    root = tmp_path / "a"
    shutil.copytree(extracted / "train", root / "train")
    (root / "val/n99999999").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "val/n99999999/1.png")
    with pytest.raises(SourceError, match="n99999999 is not among the 10 folders"):
        list(open_source(root).records("val"))
    deep = next((root / "train").iterdir()) / "deeper"
    deep.mkdir()
    Image.new("RGB", (8, 8)).save(deep / "1.png")
    with pytest.raises(SourceError, match=r"deeper/ is a subfolder of a class folder"):
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


@pytest.mark.parametrize("form", ["folder", "tar", "tgz"])
def test_imagenette(tar_of, mini, tmp_path, form):
    """Imagenette's layout and file names, with real images."""
    images = {}
    with LocatorReader(str(mini)) as reader:
        for number, record in enumerate(list(open_source(mini).records("train"))[:30]):
            split = "val" if number % 3 == 2 else "train"
            wnid = ["n01440764", "n02102040"][number % 2]
            images[f"imagenette2-320/{split}/{wnid}/{record.key}.JPEG"] = reader.read(record.locator)
    images["imagenette2-320/noisy_imagenette.csv"] = b"path,noisy_labels_0\n"
    if form == "folder":
        path = tmp_path / "imagenette2-320"
        for name, data in images.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    else:
        path = tmp_path / f"imagenette2-320.{form}"
        path.write_bytes(tar_of(images, "w:gz" if form == "tgz" else "w"))
    summary = prepare(path, tmp_path / "out", SMALL)
    assert summary.stored == {"train": 20, "val": 10}
    assert Dataset(tmp_path / "out").wnids == ["n01440764", "n02102040"]
