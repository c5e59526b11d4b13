"""What prepare says and how it ends: nothing stored, splits and classes without samples, images that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from imgtool import wordnet
from imgtool.cli import main
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import DatasetError, ImgtoolError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folders(tmp_path, draw_image, encoded):
    """folders(SPLIT/CLASS/NAME → bytes, or None for a drawn image) makes a folder of class folders."""

    def make(images: dict[str, bytes | None]) -> Path:
        for number, (name, data) in enumerate(images.items()):
            path = tmp_path / "folders" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(draw_image(80, 60, number)) if data is None else data)
        return tmp_path / "folders"

    return make


def test_expired_links_only(folders, tmp_path):
    """Every image is an HTML page: a failure that names the cause, for prepare, its rerun, verify and train."""
    html = b"<html>gone"
    root, out = folders({"train/a/1.jpg": html, "train/a/2.jpg": html, "train/b/1.jpg": html}), tmp_path / "out"
    for _ in range(2):
        result = run("prepare", "--src", root, "--out", out, "--workers", 1)
        assert result.exit_code == 1
        assert "none of its 3 images could be stored: not an image (3, the first is train/" in result.output
    rows = pq.read_table(out / "train.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["skipped:not an image"] * 3
    assert [len(row["wnids"]) for row in rows] == [1, 1, 1], "what is no image is of no further class"
    assert run("verify", out).exit_code == 2
    with pytest.raises(DatasetError, match="is empty: no image could be stored: not an image"):
        Dataset(out)
    repaired = folders({"train/a/1.jpg": None, "train/b/1.jpg": None})
    assert prepare(repaired, out, workers=1).stored == {"train": 2}
    assert run("verify", out).exit_code == 0


def test_all_too_small(folders, tmp_path):
    root = folders({"train/a/1.jpg": None, "train/b/1.jpg": b""})
    with pytest.raises(ImgtoolError, match=r"(?=.*empty \(1, )(?=.*smaller than 99 pixels \(1, the .* train/a/1)"):
        prepare(root, tmp_path / "out", Settings(skip_smaller=99), workers=1)


def test_many_causes_are_not_all_named(tmp_path):
    from imgtool.pipelines.prepare.commit import first_causes
    from imgtool.pipelines.storage.folders import open_folder

    status = ["ok", *(f"skipped:cause {i}: detail {j}" for i in range(5) for j in range(2))]
    table = pa.table({"status": status, "source": [f"{i}.jpg" for i in range(11)]})
    pq.write_table(table, tmp_path / "train.parquet")
    causes = first_causes(open_folder(tmp_path), ["train"])
    assert causes == (
        "cause 0 (2, the first is 1.jpg), cause 1 (2, the first is 3.jpg), cause 2 (2, the first is 5.jpg), "
        "2 more causes"
    )


def test_a_split_without_samples_is_named(folders, tmp_path):
    root = folders({"train/a/1.jpg": None, "train/b/1.jpg": None, "val/a/1.jpg": b"text", "val/b/2.jpg": b"text"})
    result = run("prepare", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 0
    assert "no image of val could be stored: not an image (2, the first is val/" in result.output


def test_classes_without_samples_are_named(folders, tmp_path):
    names = {f"train/{c}/1.jpg": None if c in "xy" else b"text" for c in "abcdefgxy"}
    summary = prepare(folders(names), tmp_path / "out", workers=1)
    assert "7 of 9 classes have no sample in train: a, b, c, d, e, …" in summary.notes


def test_images_that_no_selected_class_has_are_counted(drawn, tmp_path):
    result = run("prepare", "--src", drawn, "--out", tmp_path / "out", "--classes", "animal.n.01", "--workers", 1)
    assert "80 images of other classes are left out by --classes: 64 train, 16 val" in result.output
    h = wordnet.load(open_source(drawn).wnids)
    h.labelmap({"animal": "animal.n.01"}).save(tmp_path / "map.json")
    arguments = ["prepare", "--src", drawn, "--out", tmp_path / "two", "--labelmap", tmp_path / "map.json"]
    planned = json.loads(run(*arguments, "--dry-run", "--json").stdout)
    assert planned["notes"] == ["80 images of other classes are left out by --labelmap: 64 train, 16 val"]


def test_notes_of_images_that_grow(folders, tmp_path, draw_image, encoded):
    root = folders({f"train/{c}/{i}.jpg": encoded(draw_image(64, 64, i), quality=40) for c in "ab" for i in range(5)})
    arguments = ["prepare", "--src", root, "--workers", 1]
    result = run(*arguments, "--out", tmp_path / "out")
    assert "% of the source's bytes: --store fit copies" in result.output
    result = run(*arguments, "--out", tmp_path / "fit", "--store", "fit")
    assert "of the source's bytes" not in result.output
