"""Bounding boxes from ILSVRC2012's annotation archives, Kaggle's annotation files and Kaggle's table."""

from __future__ import annotations

import io
import tarfile

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.pipelines.annotations.voc import parse
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import SourceError

SMALL = Settings(max_side=64)


def voc(*boxes: tuple) -> bytes:
    objects = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for wnid, a, b, c, d in boxes
    )
    return f"<annotation><filename>y</filename><size><width>9</width></size>{objects}</annotation>".encode()


@pytest.mark.parametrize("nested", [False, True], ids=["folders", "class tars"])
def test_boxes_from_the_annotation_archives(tar_of, archives, tmp_path, nested):
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
    (note,) = summary.notes
    assert note.startswith("1 annotations") and "val/ILSVRC2012_val_00000004.xml" in note
    (archives / "ILSVRC2012_bbox_val_v3.tgz").write_bytes(b"a page that says no")
    with pytest.raises(SourceError, match=r"ILSVRC2012_bbox_val_v3\.tgz: cannot be read"):
        prepare(archives, tmp_path / "other", SMALL, workers=1)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode), st.integers(0, 200))
def test_a_damaged_annotation_raises_value_error(junk, at):
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_annotations_of_any_encoding(encoding):
    text = "\n<?xml version='1.0' encoding='ENC'?>\r\n<!-- é -->" + voc(("n01440764", 1, 2, 3, 4)).decode()
    expected = parse(voc(("n01440764", 1, 2, 3, 4)))
    assert parse(text.replace("ENC", encoding.removesuffix("-sig")).encode(encoding)) == expected != ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_entities_are_refused_in_any_encoding(encoding):
    text = "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>"
    with pytest.raises(ValueError):
        parse(text.encode(encoding))


def test_boxes_from_kaggles_files(members_of, drawn, tmp_path):
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
