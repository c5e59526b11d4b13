"""The options of prepare: which samples, splits and wnids they select, and when they stop it."""

from __future__ import annotations

import collections
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
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.prepare import Limits, prepare
from imgtool.pipelines.prepare.commit import MAX_WNIDS
from imgtool.pipelines.prepare.plan import _holdout, make_plan
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import ImgtoolError, InputError


def rows_of(out: Path, split: str) -> list[dict]:
    return pq.read_table(out / f"{split}.parquet").to_pylist()


@pytest.fixture
def folders(tmp_path, draw_image, encoded):
    """folders(CLASS/NAME → bytes, or None for a drawn image) makes a folder of class folders."""

    def make(images: dict[str, bytes | None]) -> Path:
        root = tmp_path / "folders"
        for number, (name, data) in enumerate(images.items()):
            path = root / "train" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(draw_image(80, 60, number)) if data is None else data)
        return root

    return make


def test_a_limit_takes_random_samples_of_each_split(drawn, tmp_path):
    prepare(drawn, tmp_path / "out", Settings(max_side=64, limit=12), workers=1)
    prepare(drawn, tmp_path / "more", Settings(max_side=64, limit=15), workers=1)
    for split in ("train", "val"):
        some = {row["key"] for row in rows_of(tmp_path / "out", split)}
        assert len(some) == 12
        assert some < {row["key"] for row in rows_of(tmp_path / "more", split)}, "a larger limit adds samples"
        assert len({key.split("_")[0] for key in some}) > 3 or split == "val"


def test_a_holdout_is_taken_from_every_class(drawn, tmp_path):
    prepare(drawn, tmp_path / "out", Settings(max_side=64, holdout=20), workers=1)
    dataset = Dataset(tmp_path / "out")
    assert dataset.splits == ("train", "minival", "val")
    train, held = rows_of(tmp_path / "out", "train"), rows_of(tmp_path / "out", "minival")
    assert (len(train), len(held)) == (60, 20)
    assert not {row["key"] for row in train} & {row["key"] for row in held}
    assert set(collections.Counter(row["class_index"] for row in held).values()) == {2}
    assert sum(dataset.class_table["train_count"].to_pylist()) == 60
    with pytest.raises(InputError, match="train has only 80 samples"):
        prepare(drawn, tmp_path / "more", Settings(holdout=80), workers=1)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.data())
def test_a_holdout_is_proportional(labels, data):
    import numpy as np

    count = data.draw(st.integers(1, len(labels) - 1))
    held = _holdout(np.array(labels), count)
    assert held.sum() == count
    for label, n in collections.Counter(labels).items():
        mine = held[np.array(labels) == label]
        assert abs(mine.sum() - n * count / len(labels)) < 1
        assert not (mine[1:] & ~mine[:-1]).any(), "the first samples of each class"


def test_a_fraction_of_each_class_becomes_val(folders, tmp_path):
    counts = {"a": 20, "b": 4, "c": 1}
    root = folders({f"{c}/{i}.jpg": None for c, count in counts.items() for i in range(count)})
    summary = prepare(root, tmp_path / "out", Settings(max_side=64, val_fraction=0.1), workers=1)
    assert summary.stored == {"train": 22, "val": 3}
    rows = {split: rows_of(tmp_path / "out", split) for split in ("train", "val")}
    assert collections.Counter(row["wnids"][0] for row in rows["val"]) == {"a": 2, "b": 1}  # never the last of a class
    assert not {row["source"] for row in rows["train"]} & {row["source"] for row in rows["val"]}
    assert Dataset(tmp_path / "out").class_table["val_count"].to_pylist() == [2, 1, 0]
    assert not any("no split val" in note for note in summary.notes)
    prepare(root, tmp_path / "again", Settings(max_side=64, val_fraction=0.1), workers=2)
    assert rows_of(tmp_path / "again", "val") == rows["val"]


def test_what_val_fraction_cannot_do(drawn, folders, tmp_path):
    with pytest.raises(InputError, match="--val-fraction makes the split val from train, but the source has it"):
        prepare(drawn, tmp_path / "out", Settings(val_fraction=0.1), workers=1)
    with pytest.raises(InputError, match="only one of them"):
        Settings(val_fraction=0.1, holdout=5)
    with pytest.raises(InputError, match=r"--val-fraction 1: "):
        Settings(val_fraction=1.0)
    with pytest.raises(InputError, match="only one sample"):
        prepare(folders({"a/1.jpg": None, "b/1.jpg": None}), tmp_path / "out", Settings(val_fraction=0.5), workers=1)


def test_a_data_set_without_val_says_how_to_get_one(folders, tmp_path):
    root = folders({f"{c}/{i}.jpg": None for c in "ab" for i in range(4)})
    summary = prepare(root, tmp_path / "out", Settings(max_side=64), workers=1)
    assert summary.notes == ["no split val, which training needs: prepare with --val-fraction 0.1"]
    summary = prepare(root, tmp_path / "held", Settings(max_side=64, holdout=2), workers=1)
    assert summary.notes[0].endswith("or imgtool train --val-split minival")


def test_an_image_of_several_classes_keeps_all_its_wnids(folders, tmp_path, draw_image, encoded):
    same = encoded(draw_image(90, 70, 5))
    root = folders({"n02084071/a.jpg": same, "n02121808/b.jpg": same, "n02121808/c.jpg": None, "n01503061/d.jpg": same})
    summary = prepare(root, tmp_path / "out", workers=1)
    wnids = {row["key"]: row["wnids"] for row in rows_of(tmp_path / "out", "train")}
    assert wnids == {
        "a": ["n02084071", "n01503061", "n02121808"],
        "b": ["n02121808", "n01503061", "n02084071"],
        "c": ["n02121808"],
        "d": ["n01503061", "n02084071", "n02121808"],
    }
    assert summary.tally.multi_class == 3
    (tmp_path / "out/train/00000.beton").unlink()
    prepare(root, tmp_path / "out", workers=1)
    assert {row["key"]: row["wnids"] for row in rows_of(tmp_path / "out", "train")} == wnids


def test_a_placeholder_of_many_classes_does_not_list_them_all(folders, tmp_path, draw_image, encoded):
    """A copy in each class: the number of listed wnids grows with the number of images, not with its square."""
    copies = 2 * MAX_WNIDS
    placeholder, rare = encoded(draw_image(40, 30, 1)), encoded(draw_image(40, 30, 2))
    images = {f"{c:03d}/{name}.jpg": placeholder for c in range(copies) for name in "pq"}
    root = folders({**images, "000/r.jpg": rare, "001/s.jpg": rare})
    arguments = ["prepare", "--src", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(main, arguments)
    wnids = {(row["wnids"][0], row["key"]): row["wnids"] for row in rows_of(tmp_path / "out", "train")}
    assert wnids.pop(("000", "r")) == ["000", "001"]
    assert wnids.pop(("001", "s")) == ["001", "000"]
    assert len(wnids) == 2 * copies
    assert all(names == [first] for (first, _), names in wnids.items())
    assert f"{2 * copies} images are copies of one that is in more than {MAX_WNIDS} classes" in result.output
    assert "2 images belong to several classes" in result.output


def test_images_of_as_many_classes_as_are_listed(folders, tmp_path, draw_image, encoded):
    image = encoded(draw_image(40, 30, 1))
    root = folders({f"{c:03d}/p.jpg": image for c in range(MAX_WNIDS)})
    tally = prepare(root, tmp_path / "out", workers=1).tally
    assert (tally.multi_class, tally.placeholders) == (MAX_WNIDS, 0)


def test_images_of_val_that_are_in_train_are_counted(mini, tmp_path):
    summary = prepare(mini, tmp_path / "out", Settings(max_side=64))
    assert summary.tally.also_in_train == 100


def test_skip_smaller(folders, tmp_path, draw_image, encoded):
    root = folders(
        {"a/small.jpg": encoded(draw_image(100, 39)), "a/fits.jpg": encoded(draw_image(40, 40)), "b/c.jpg": None}
    )
    prepare(root, tmp_path / "out", Settings(skip_smaller=40), workers=1)
    status = {row["key"]: row["status"] for row in rows_of(tmp_path / "out", "train")}
    assert status == {"small": "skipped:smaller than 40 pixels", "fits": "ok", "c": "ok"}


@pytest.mark.parametrize("workers", [1, 2])
def test_limits_of_skipped_samples(folders, tmp_path, workers):
    root = folders({f"{c}/{i}.jpg": b"no image" if i == 3 else None for c in "abc" for i in range(6)})
    with pytest.raises(ImgtoolError, match=r"3 \(train/\w/3.jpg\): not an image.* are kept"):
        prepare(root, tmp_path / "out", limits=Limits(strict=True), workers=workers)
    with pytest.raises(ImgtoolError, match=r"3 samples.* --max-skipped 2.* 3 \("):
        prepare(root, tmp_path / "out", limits=Limits(max_skipped=2), workers=workers)
    assert prepare(root, tmp_path / "out", limits=Limits(max_skipped=3), workers=workers).tally.skipped == 3
    # A rerun does not accept a data set with more skipped samples than its limit.
    with pytest.raises(ImgtoolError, match="3 samples cannot be stored"):
        prepare(root, tmp_path / "out", limits=Limits(strict=True), workers=workers)


def test_a_member_too_large_for_an_image_is_not_read(tmp_path, drawn):
    """A sparse archive with a member of one terabyte: skipped because of the size in its header."""
    shutil.copytree(drawn, tmp_path / "source")
    path = tmp_path / "source" / "ILSVRC2012_img_val.tar"
    with tarfile.open(path) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]
    with open(path, "wb") as file:
        for member, data in members[:3]:
            info = tarfile.TarInfo(member.name)
            info.size = len(data)
            file.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512))
        info = tarfile.TarInfo("ILSVRC2012_val_00000004.JPEG")
        info.size = 1 << 40
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(1 << 40, io.SEEK_CUR)
        file.write(bytes(1024))
    prepare(tmp_path / "source", tmp_path / "out", workers=1)
    status = {row["key"]: row["status"] for row in rows_of(tmp_path / "out", "val")}
    assert status.pop("ILSVRC2012_val_00000004") == "skipped:1099511627776 bytes are too many for an image"
    assert len(status) == 3


def test_a_dry_run_estimates_the_output(drawn, tmp_path):
    arguments = ["prepare", "--src", str(drawn), "--out", str(tmp_path / "out"), "--max-side", "100"]
    result = CliRunner().invoke(main, [*arguments, "--dry-run", "--json"])
    plan = json.loads(result.stdout)
    assert not (tmp_path / "out").exists()
    made = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert plan["total"]["samples"] == sum(made["stored"].values()) == 100
    assert plan["total"]["bytes_in"] == made["bytes_in"]
    assert plan["total"]["bytes_out"] == pytest.approx(made["bytes_out"], rel=0.1)
    assert plan["total"]["shards"] == 2
    text = CliRunner().invoke(main, [*arguments, "--dry-run"]).output
    assert "80 samples" in text and "nothing was written" in text


def test_a_plan_takes_little_memory(drawn):
    """The records are stored as columns, about 150 bytes each, so that 14 million of them fit into memory."""
    plan = make_plan(open_source(drawn), Settings())
    split = plan.splits["train"]
    assert split.records.nbytes / len(split) < 200
