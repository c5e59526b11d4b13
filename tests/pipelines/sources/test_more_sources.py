"""Test archives, bounding boxes, ImageNet-21k, compressed archives, MD5 sums, ReaL labels, Imagenette."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from imgtool.cli import main
from imgtool.pipelines.annotations.real import read_real
from imgtool.pipelines.annotations.voc import parse
from imgtool.pipelines.archives import checksums
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.prepare import Limits, prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import InputError, SourceError, TruncatedSourceError

SMALL = Settings(max_side=64)


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_xxh3(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def voc(*boxes: tuple) -> bytes:
    objects = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for wnid, a, b, c, d in boxes
    )
    return f"<annotation><filename>y</filename><size><width>9</width></size>{objects}</annotation>".encode()


@pytest.fixture
def archives(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "ILSVRC2012"))


@pytest.mark.parametrize("name", ["ILSVRC2012_img_test_v10102019.tar", "ILSVRC2012_img_test.tar"])
def test_the_test_archive_has_no_labels(archives, tmp_path, name):
    images = list(members_of(archives / "ILSVRC2012_img_val.tar").values())[:5]
    data = {f"test/ILSVRC2012_test_{n:08d}.JPEG": image for n, image in enumerate(images, 1)}
    (archives / name).write_bytes(tar_of(data))
    assert open_source(archives).splits == ("train", "val", "test")
    out = tmp_path / "out"
    prepare(archives, out, Settings(max_side=64, format="both"), workers=1)
    rows = pq.read_table(out / "test.parquet").to_pylist()
    assert {row["key"] for row in rows} == {f"ILSVRC2012_test_{n:08d}" for n in range(1, 6)}
    assert {(tuple(row["wnids"]), row["class_index"]) for row in rows} == {((), -1)}
    with open_loader(out, "test", batch_size=5, image_size=32) as loader:
        assert [labels.tolist() for _, labels in loader] == [[-1] * 5]
    assert sum(Dataset(out).class_table["val_count"].to_pylist()) == 20
    with pytest.raises(SourceError, match="one archive of several"):
        open_source(archives / name)


@pytest.mark.parametrize("nested", [False, True], ids=["folders", "class tars"])
def test_boxes_come_from_the_boxes_archives(archives, tmp_path, nested):
    train = [record.key for record in open_source(archives).records("train")]
    boxes = {key: voc((key[:9], 1, 2, 30 + i, 40), (key[:9], 3, 4, 5, 6)) for i, key in enumerate(train[:7])}
    files = {f"Annotation/{key[:9]}/{key}.xml": data for key, data in boxes.items()}
    if nested:
        by_class: dict[str, dict[str, bytes]] = {}
        for name, data in files.items():
            by_class.setdefault(name.split("/")[1], {})[name] = data
        files = {f"{wnid}.tar.gz": tar_of(inside, "w:gz") for wnid, inside in by_class.items()}
    (archives / "ILSVRC2012_bbox_train_v2.tar.gz").write_bytes(tar_of(files, "w:gz"))
    val = {"val/ILSVRC2012_val_00000003.xml": voc(("n01440764", 7, 8, 9, 10)), "val/ILSVRC2012_val_00000004.xml": b"<a"}
    (archives / "ILSVRC2012_bbox_val_v3.tgz").write_bytes(tar_of(val, "w:gz"))
    summary = prepare(archives, tmp_path / "out", SMALL, workers=1)
    rows = {row["key"]: row["boxes"] for row in pq.read_table(tmp_path / "out/train.parquet").to_pylist()}
    for i, key in enumerate(train):
        assert [tuple(box.values()) for box in rows[key]] == (
            [(key[:9], 1, 2, 30 + i, 40), (key[:9], 3, 4, 5, 6)] if i < 7 else []
        )
    rows = {row["key"]: row["boxes"] for row in pq.read_table(tmp_path / "out/val.parquet").to_pylist()}
    assert [tuple(box.values()) for box in rows["ILSVRC2012_val_00000003"]] == [("n01440764", 7, 8, 9, 10)]
    assert summary.notes == [
        "1 annotations cannot be read, the first is val/ILSVRC2012_val_00000004.xml: their boxes are left out"
    ]
    (archives / "ILSVRC2012_bbox_val_v3.tgz").write_bytes(b"a page that says no")
    with pytest.raises(SourceError, match=r"ILSVRC2012_bbox_val_v3\.tgz: cannot be read"):
        prepare(archives, tmp_path / "other", SMALL, workers=1)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode), st.integers(0, 200))
def test_a_damaged_annotation_is_a_value_error(junk, at):
    whole = voc(("n01440764", 1, 2, 3, 4))
    for data in (junk, whole[:at] + junk + whole[at:], b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + whole):
        try:
            parse(data)
        except ValueError:
            continue


def test_an_annotation_with_entities_is_refused():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'
    with pytest.raises(ValueError, match="document type"):
        parse(bomb)


@pytest.mark.parametrize("labels", ["ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv"])
def test_validation_labels_without_a_devkit(archives, labels, facts):
    truth = {record.key: record.wnids for record in open_source(archives).records("val")}
    ids = json.loads((facts / "ilsvrc2012_id_by_wnid.json").read_text())
    (archives / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    if labels.endswith("txt"):
        (archives / labels).write_text("".join(f"{ids[truth[key][0]]}\n" for key in sorted(truth)))
    else:
        lines = [f"{key},{wnid} 1 2 3 4 \n" for key, (wnid,) in truth.items()]
        (archives / labels).write_text("ImageId,PredictionString\n" + "".join(lines))
    source = open_source(archives)
    assert {record.key: record.wnids for record in source.records("val")} == truth
    assert len(source.wnids) == 1000


def test_kaggles_annotations_give_boxes(drawn, tmp_path):
    root = tmp_path / "ILSVRC"
    for name, data in members_of(drawn / "ILSVRC2012_img_train.tar").items():
        folder = root / "Data/CLS-LOC/train" / name.removesuffix(".tar")
        folder.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder, filter="data")
    some = next((root / "Data/CLS-LOC/train").glob("*/*"))
    annotation = root / "Annotations/CLS-LOC/train" / some.parent.name / f"{some.stem}.xml"
    annotation.parent.mkdir(parents=True)
    annotation.write_bytes(voc((some.parent.name, 5, 6, 7, 8)))
    records = {record.key: record for record in open_source(root).records("train")}
    assert [tuple(box) for box in records[some.stem].boxes] == [(some.parent.name, 5, 6, 7, 8)]
    (tmp_path / "LOC_train_solution.csv").write_text(
        f"ImageId,PredictionString\n{some.stem},{some.parent.name} 1 2 3 4 \n"
    )
    records = {record.key: record for record in open_source(tmp_path).records("train")}
    assert [tuple(box) for box in records[some.stem].boxes] == [(some.parent.name, 1, 2, 3, 4)]


@pytest.fixture
def whole21k(mini, tmp_path) -> Path:
    """Real class tars under the name and layout of winter21, an empty class among them."""
    with tarfile.open(mini / "ILSVRC2012_img_train.tar") as archive:
        members = {}
        for member in archive:
            members[f"winter21_whole/{member.name}"] = archive.extractfile(member).read()
            if len(members) == 40:
                break
    members["winter21_whole/n00007846.tar"] = b""
    path = tmp_path / "winter21_whole.tar"
    path.write_bytes(tar_of(members))
    return path


def test_imagenet21k(whole21k, mini, tmp_path):
    source = open_source(whole21k)
    assert (source.layout, source.splits, len(source.wnids)) == ("imagenet-21k", ("train",), 41)
    records = list(source.records("train"))
    assert len(records) == 40
    assert all(record.key.startswith(record.wnids[0]) for record in records)
    same = {record.key: record for record in open_source(mini).records("train")}
    with LocatorReader(source.root) as ours, LocatorReader(str(mini)) as theirs:
        for record in records:
            assert ours.read(record.locator) == theirs.read(same[record.key].locator)
    folder = tmp_path / "tars"
    folder.mkdir()
    for name, data in members_of(whole21k).items():
        (folder / Path(name).name).write_bytes(data)
    prepare(folder, tmp_path / "a", SMALL)
    prepare(whole21k, tmp_path / "b", SMALL)
    for name in ("train/00000.beton", "labels.parquet"):
        assert file_xxh3(tmp_path / "a" / name) == file_xxh3(tmp_path / "b" / name)
    assert sorted(Dataset(tmp_path / "b").wnids)[0] == "n00007846"


@pytest.mark.parametrize("ending, mode", [("tar.gz", "gz"), ("tgz", "gz"), ("tar.bz2", "bz2"), ("tar.xz", "xz")])
def test_a_compressed_archive_makes_the_same_shards(whole21k, tmp_path, ending, mode):
    import bz2
    import lzma

    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[mode]
    path = tmp_path / f"winter21_whole.{ending}"
    path.write_bytes(pack(whole21k.read_bytes()))
    with pytest.raises(SourceError, match="--spool"):
        open_source(path)
    prepare(whole21k, tmp_path / "plain", SMALL)
    prepare(path, tmp_path / "packed", SMALL, spool=tmp_path / "spool")
    assert list((tmp_path / "spool").rglob("*.tar")), "the user's own folder is left to them"
    plain, packed = contents(tmp_path / "plain"), contents(tmp_path / "packed")
    assert plain.keys() == packed.keys()
    assert {k: v for k, v in plain.items() if "train/" in k} == {k: v for k, v in packed.items() if "train/" in k}
    prepare(path, tmp_path / "inside", SMALL)
    assert contents(tmp_path / "inside") == packed
    assert not (tmp_path / "inside/.source").exists()


def test_a_cut_or_false_gzip(whole21k, tmp_path):
    path = tmp_path / "winter21_whole.tar.gz"
    packed = gzip.compress(whole21k.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TruncatedSourceError, match=r"winter21_whole\.tar.* is truncated"):
        prepare(path, tmp_path / "out", SMALL)
    assert 5 < prepare(path, tmp_path / "out", SMALL, limits=Limits(accept_truncated=True)).stored["train"] < 35
    path.write_bytes(b"not gzip at all")
    with pytest.raises(SourceError, match="is damaged or not compressed"):
        prepare(path, tmp_path / "other", SMALL)


@pytest.mark.parametrize("form", ["folder", "tar", "tgz"])
def test_imagenette(mini, tmp_path, form):
    """Its layout and its file names, with real images."""
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


def test_md5_sums(archives, monkeypatch, tmp_path):
    sums = {
        name: hashlib.md5((archives / name).read_bytes()).hexdigest()
        for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz")
    }
    monkeypatch.setattr(checksums, "PUBLISHED", sums)
    monkeypatch.setattr(checksums, "SIZES", {})
    seen: list[tuple[int, int]] = []
    assert checksums.check_md5(archives, lambda done, total: seen.append((done, total))) == list(sums)
    assert seen[-1][0] == seen[-1][1] == sum((archives / name).stat().st_size for name in sums)
    with open(archives / "ILSVRC2012_img_train.tar", "r+b") as file:
        file.write(b"x")
    with pytest.raises(SourceError, match=r"ILSVRC2012_img_train\.tar has md5 \w+, the published one"):
        checksums.check_md5(archives)
    with pytest.raises(SourceError, match="no md5 sum is published"):
        checksums.check_md5(tmp_path / "nothing")


def test_md5_on_the_command_line(archives, tmp_path):
    """The drawn archives are not the published ones: their size says so at once, and nothing is made."""
    arguments = ["prepare", "--src", str(archives), "--out", str(tmp_path / "out"), "--check-md5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "ILSVRC2012_img_train.tar has" in result.output and "147,897,477,120" in result.output
    assert not (tmp_path / "out").exists()


def test_published_sums_are_the_known_ones(facts):
    readme = (facts / "README.md").read_text()
    assert all(md5 in readme for md5 in checksums.PUBLISHED.values())


def test_real_labels_are_kept(archives, facts, tmp_path):
    real = json.loads((facts / "real.json").read_text())
    wnids = (facts / "ilsvrc2012_wnids.txt").read_text().split()
    labels = read_real(facts / "real.json")
    assert len(labels) == 50_000 - 3_163
    result = CliRunner().invoke(
        main,
        ["prepare", "--src", str(archives), "--out", str(tmp_path / "out"), "--labels", str(facts / "real.json")],
    )
    assert result.exit_code == 0, result.output
    own = {record.key: record.wnids[0] for record in open_source(archives).records("val")}
    for row in pq.read_table(tmp_path / "out/val.parquet").to_pylist():
        expected = [wnids[i] for i in real[int(row["key"][-8:]) - 1]]
        assert row["wnids"] == [own[row["key"]], *(wnid for wnid in expected if wnid != own[row["key"]])]
    assert Dataset(tmp_path / "out").info["settings"]["real"]
    again = CliRunner().invoke(main, ["prepare", "--src", str(archives), "--out", str(tmp_path / "out")])
    assert again.exit_code == 2 and "other ReaL labels" in again.output


@pytest.mark.parametrize("content", ["{}", "[[1], 2]", "[[1000]]", "[[true]]", "no json", None])
def test_other_files_are_no_real_labels(tmp_path, content):
    if content is not None:
        (tmp_path / "real.json").write_text(content)
    with pytest.raises(InputError, match=r"real\.json"):
        read_real(tmp_path / "real.json")
