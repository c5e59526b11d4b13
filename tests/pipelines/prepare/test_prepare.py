"""prepare: its output, that the output does not depend on how it was made, and that every fault is recorded."""

from __future__ import annotations

import collections
import errno
import fcntl
import io
import itertools
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from imgtool.pipelines import codec
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.dataset import STATE, Dataset
from imgtool.pipelines.dataset.verify import verify
from imgtool.pipelines.prepare import Limits, plan, prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.prepare.shard_task import PARTS
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.pipelines.storage.lock import LOCK
from imgtool.wordnet.errors import DatasetError, ImgtoolError, SourceError, TruncatedSourceError

SMALL = Settings(max_side=120, shard_size=1)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_xxh3(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def rows_of(out: Path, split: str) -> dict[str, dict]:
    return {row["key"]: row for row in pq.read_table(out / f"{split}.parquet").to_pylist()}


@pytest.fixture
def faulty(drawn, tmp_path) -> Path:
    """The drawn source with faults in one class's tar: a truncated, an empty and a text file, a PNG and a CMYK JPEG."""
    root = tmp_path / "faulty"
    shutil.copytree(drawn, root)
    path = root / "ILSVRC2012_img_train.tar"
    with tarfile.open(drawn / path.name) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
    name, data = next(iter(members.items()))
    with tarfile.open(fileobj=io.BytesIO(data)) as inner:
        images = [(m.name, inner.extractfile(m).read()) for m in inner]
    good = images[0][1]
    png, cmyk = io.BytesIO(), io.BytesIO()
    Image.open(io.BytesIO(good)).save(png, "PNG")
    Image.open(io.BytesIO(good)).convert("CMYK").save(cmyk, "JPEG")
    replaced = {4: good[: len(good) // 2], 5: b"", 6: b"I am a text file", 7: png.getvalue(), 0: cmyk.getvalue()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as inner:
        for i, (member, image) in enumerate(images):
            info = tarfile.TarInfo(member)
            info.size = len(replaced.get(i, image))
            inner.addfile(info, io.BytesIO(replaced.get(i, image)))
    members[name] = buffer.getvalue()
    with tarfile.open(path, "w") as archive:
        for member, bytes_ in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(bytes_)
            archive.addfile(info, io.BytesIO(bytes_))
    return root


def test_the_output(drawn, drawn_data):
    dataset = Dataset(drawn_data)
    source = open_source(drawn)
    assert dataset.splits == ("train", "val")
    assert dataset.wnids == source.wnids
    assert len(set(dataset.names)) == 10
    assert (dataset.num_samples("train"), dataset.num_samples("val")) == (80, 20)
    for split in dataset.splits:
        rows = rows_of(drawn_data, split)
        records = {record.key: record for record in source.records(split)}
        assert rows.keys() == records.keys()
        shards = [BetonReader(path) for path in dataset.shards(split)]
        with LocatorReader(source.root) as reader:
            for key, row in rows.items():
                data = reader.read(records[key].locator)
                assert row["source"] == str(records[key].locator)
                assert (row["source_bytes"], row["source_xxh3"]) == (len(data), xxhash.xxh3_64_intdigest(data))
                assert row["wnids"] == list(records[key].wnids)
                assert dataset.wnids[row["class_index"]] == row["wnids"][0]
                shard, position = shards[row["shard"]], row["position"]
                stored = shard.read(position)
                assert (row["bytes"], row["stored_xxh3"]) == (len(stored), xxhash.xxh3_64_intdigest(stored))
                assert (row["width"], row["height"]) == (shard.width[position], shard.height[position])
                assert shard.label[position] == row["class_index"]
                assert max(row["width"], row["height"]) <= 500
    classes = dataset.class_table.to_pylist()
    assert [row["class_index"] for row in classes] == list(range(10))
    assert {(row["train_count"], row["val_count"]) for row in classes} == {(8, 2)}
    bee = next(row for row in classes if row["wnid"] == "n02206856")
    assert (bee["synset"], bee["ilsvrc2012_id"], bee["path"][0]) == ("bee.n.01", 630, "n00001740")


def test_dataset_json_describes_each_shard(drawn_data):
    info = json.loads((drawn_data / "dataset.json").read_text())
    for split in info["splits"].values():
        for shard in split["shards"]:
            for file in shard["files"]:
                path = drawn_data / file["path"]
                assert (path.stat().st_size, file_xxh3(path)) == (file["bytes"], file["xxh3"])
    left = {p.name for p in drawn_data.iterdir()}
    assert left == {"dataset.json", "labels.parquet", "report.html", "train", "train.parquet", "val", "val.parquet"}


def test_classes_are_mixed(drawn_data):
    """Samples are shuffled across classes: neighbours in a shard mostly have different labels."""
    labels = BetonReader(Dataset(drawn_data).shards("train")[0]).label
    assert (labels[1:] != labels[:-1]).mean() > 0.7


def test_one_worker_and_two_give_the_same_bytes(drawn, tmp_path):
    for workers in (1, 2):
        prepare(drawn, tmp_path / str(workers), SMALL, workers=workers)
    one, two = (contents(tmp_path / str(workers)) for workers in (1, 2))
    assert one == two
    assert sum(name.startswith("train/") for name in one) > 0


def without_huffman_tables(data: bytes) -> bytes:
    """A frame of Motion-JPEG, which leaves the standard tables (DHT segments) out."""
    at = 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xC4:
            data, end = data[:at] + data[end:], at
        at = end
    return data


@pytest.fixture
def mixed(tmp_path, draw_image, encoded) -> Path:
    """160 images of every kind in turn, in two splits: JPEGs of several codings, PNG, GIF, CMYK, damaged, no image."""
    image = draw_image(97, 66, 1)
    grey, cmyk = (Image.fromarray(image).convert(mode) for mode in ("L", "CMYK"))
    exif = Image.Exif()
    exif[0x0112] = 6
    coarse = encoded(image, quality=20, optimize=True)
    kinds = [
        encoded(image, quality=95),
        coarse,
        encoded(image, subsampling=0, optimize=True),
        encoded(image, progressive=True),
        encoded(image, restart_marker_blocks=3),
        encoded(grey, quality=80, optimize=True),
        encoded(cmyk),
        encoded(image, exif=exif),
        encoded(image, "PNG"),
        encoded(grey, "GIF"),
        coarse[: len(coarse) // 2],
        coarse[:300] + bytes(20) + coarse[320:],
        without_huffman_tables(encoded(image, quality=60)),
        b"I am a text file",
    ]
    for number in range(160):
        path = tmp_path / "mixed" / ("val" if number % 5 == 0 else "train") / "abc"[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kinds[number % len(kinds)])
    return tmp_path / "mixed"


@pytest.mark.parametrize("store", ["jpeg", "fit"])
def test_mixed_images_give_the_same_bytes_with_any_number_of_workers(mixed, tmp_path, monkeypatch, store):
    """Nothing that one image leaves in a process reaches the next one: each process sees others before it."""
    monkeypatch.setattr(plan, "MIN_SAMPLES", 16)
    monkeypatch.setattr(plan, "MIN_BYTES", 1000)
    for workers in (1, 2, 3):
        prepare(mixed, tmp_path / str(workers), Settings(max_side=80, store=store, format="both"), workers=workers)
    one, two, three = (contents(tmp_path / str(workers)) for workers in (1, 2, 3))
    assert one == two == three
    assert sum(name.endswith(".beton") for name in one) >= 8
    status = {row["status"].partition(":")[0] for row in rows_of(tmp_path / "1", "train").values()}
    assert status == {"ok", "repaired", "skipped"} or store == "jpeg"


def test_the_order_depends_on_the_seed(drawn, tmp_path):
    for seed in (0, 1):
        prepare(drawn, tmp_path / str(seed), Settings(max_side=64, seed=seed), workers=1)
    keys = [pq.read_table(tmp_path / str(seed) / "train.parquet")["key"].to_pylist() for seed in (0, 1)]
    assert keys[0] != keys[1]
    assert sorted(keys[0]) == sorted(keys[1])


def test_each_fault_has_a_row(faulty, tmp_path):
    summary = prepare(faulty, tmp_path / "out", SMALL, workers=1)
    rows = rows_of(tmp_path / "out", "train")
    assert len(rows) == 80
    status = {key: row["status"] for key, row in rows.items() if key.startswith("n02206856")}
    assert status["n02206856_1"] == "repaired:cmyk"
    assert status["n02206856_5"].startswith("skipped:truncated: the data ends at row")
    assert status["n02206856_6"] == "skipped:empty"
    assert status["n02206856_7"] == "skipped:not an image"
    assert status["n02206856_8"] == "repaired:png"
    for row in rows.values():
        assert (row["position"] is None) == row["status"].startswith("skipped")
        assert (row["stored_xxh3"] is None) == row["status"].startswith("skipped")
    assert summary.stored == {"train": 77, "val": 20}
    assert summary.tally.skipped == 3
    stored = sum(len(BetonReader(path)) for path in Dataset(tmp_path / "out").shards("train"))
    assert stored == 77


def test_a_truncated_archive_is_an_error_after_saving_the_intact_samples(drawn, tmp_path):
    root, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(drawn, root)
    path = root / "ILSVRC2012_img_train.tar"
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(TruncatedSourceError, match=r"is truncated.* saved in .*incomplete"):
        prepare(root, out, SMALL, workers=1)
    whole = len(rows_of(out, "train"))
    assert 20 < whole < 60
    with pytest.raises(DatasetError, match=r"is incomplete: ILSVRC2012_img_train\.tar"):
        Dataset(out)
    with pytest.raises(TruncatedSourceError):
        prepare(root, out, SMALL, workers=1)
    assert prepare(root, out, SMALL, workers=1, limits=Limits(accept_truncated=True)).stored["train"] == whole
    assert Dataset(out).num_samples("train") == whole


def test_a_repaired_source_replaces_the_output_of_the_truncated_one(drawn, tmp_path):
    root, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(drawn, root)
    path = root / "ILSVRC2012_img_train.tar"
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(TruncatedSourceError):
        prepare(root, out, SMALL, workers=1)
    shutil.copy(drawn / path.name, path)
    shutil.copytree(drawn, tmp_path / "fresh" / "source")
    prepare(root, out, SMALL, workers=1)
    prepare(tmp_path / "fresh" / "source", tmp_path / "other", SMALL, workers=1)
    assert contents(out) == contents(tmp_path / "other")


def test_a_rerun_does_nothing(drawn_data, drawn):
    before = {p: p.stat().st_mtime_ns for p in drawn_data.rglob("*")}
    assert prepare(drawn, drawn_data, workers=1).already_complete
    assert {p: p.stat().st_mtime_ns for p in drawn_data.rglob("*") if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_a_lost_shard_is_made_again(drawn, tmp_path):
    out = tmp_path / "out"
    prepare(drawn, out, SMALL, workers=1)
    before = contents(out)
    (out / "val/00000.beton").unlink()
    kept = (out / "train/00000.beton").stat().st_mtime_ns
    assert not prepare(drawn, out, SMALL, workers=1).already_complete
    assert contents(out) == before
    assert (out / "train/00000.beton").stat().st_mtime_ns == kept


def test_a_half_written_shard_is_discarded(drawn, tmp_path, monkeypatch):
    """An error in the middle leaves nothing under a final name, and no dataset.json."""
    out, count, recode = tmp_path / "out", itertools.count(), codec.recode

    def disk_full_later(data, **settings):
        if next(count) == 100:  # after the 64 + 20 images that planning recodes, in the first shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return recode(data, **settings)

    monkeypatch.setattr(codec, "recode", disk_full_later)
    with pytest.raises(ImgtoolError, match=r"No space left on device.* are kept"):
        prepare(drawn, out, SMALL, workers=1)
    assert not list(out.rglob("*.beton"))
    assert not list(out.rglob("*.tmp"))
    with pytest.raises(DatasetError, match="has not finished"):
        Dataset(out)
    monkeypatch.undo()
    assert prepare(drawn, out, SMALL, workers=1).stored == {"train": 80, "val": 20}


@pytest.mark.parametrize("change", [{"quality": 80}, {"max_side": 64}, {"seed": 3}])
def test_other_settings_are_refused(drawn, drawn_data, change):
    ((name, value),) = change.items()
    with pytest.raises(DatasetError, match=f"other settings \\({name} .* → {value}\\)"):
        prepare(drawn, drawn_data, Settings(**change), workers=1)


def test_another_source_is_refused(drawn, drawn_data, tmp_path):
    from imgtool.sample import write_sample

    write_sample(tmp_path / "other", train_count=4, val_count=1, seed=1)
    with pytest.raises(DatasetError, match="from another source"):
        prepare(tmp_path / "other", drawn_data, workers=1)


def test_an_output_folder_with_other_files_is_refused(drawn, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match="not empty and not a prepared data set"):
        prepare(drawn, tmp_path, workers=1)
    with pytest.raises(DatasetError, match="is a file"):
        prepare(drawn, tmp_path / "thesis.tex", workers=1)


def test_a_second_prepare_into_one_output_is_refused(drawn, tmp_path):
    (tmp_path / STATE).touch()
    descriptor = os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(DatasetError, match="another imgtool prepare"):
            prepare(drawn, tmp_path, workers=1)
    finally:
        os.close(descriptor)


def test_an_empty_source(tmp_path):
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w"):
        pass
    with pytest.raises(SourceError, match="no images"):
        prepare(tmp_path, tmp_path / "out", workers=1)


def test_a_shard_with_only_skipped_samples_is_left_out(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "source")
    with tarfile.open(tmp_path / "source/ILSVRC2012_img_train.tar", "w") as archive:
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as of_class:
            of_class.addfile(tarfile.TarInfo("n02206856_1.JPEG"))
        info = tarfile.TarInfo("n02206856.tar")
        info.size = len(inner.getvalue())
        archive.addfile(info, io.BytesIO(inner.getvalue()))
    summary = prepare(tmp_path / "source", tmp_path / "out", workers=1)
    assert summary.stored == {"train": 0, "val": 20}
    assert "no image of train could be stored: empty (1, the first is ILSVRC2012_img_train.tar!" in summary.notes[0]
    assert not list((tmp_path / "out/train").rglob("*.beton"))
    assert prepare(tmp_path / "source", tmp_path / "out", workers=1).already_complete


def test_the_real_mini_archives(mini, facts, tmp_path):
    """500 + 100 samples with the published class indices; none is skipped."""
    out = tmp_path / "mini"
    summary = prepare(mini, out, workers=2)
    assert summary.stored == {"train": 500, "val": 100}
    assert {status.split(":")[0] for status in summary.tally.status} == {"ok", "repaired"}
    index = {wnid: i for i, wnid in enumerate((facts / "ilsvrc2012_wnids.txt").read_text().split())}
    ids = json.loads((facts / "ilsvrc2012_id_by_wnid.json").read_text())
    dataset = Dataset(out)
    assert dataset.num_classes == 1000
    assert dataset.class_table["ilsvrc2012_id"].to_pylist() == [ids[w] for w in sorted(index)]
    for split in ("train", "val"):
        rows = rows_of(out, split)
        for row in rows.values():
            assert row["class_index"] == index[row["wnids"][0]]
            assert max(row["width"], row["height"]) <= 500
        labels = collections.Counter(row["class_index"] for row in rows.values())
        stored = np.concatenate([BetonReader(path).label for path in dataset.shards(split)])
        assert collections.Counter(stored.tolist()) == labels
    # the counts of the class table are those of the shards
    assert sum(dataset.class_table["train_count"].to_pylist()) == 500


def test_the_real_tiny_imagenet_is_cut_into_shards_for_several_workers(tiny, tmp_path):
    summary = prepare(tiny, tmp_path / "tiny", workers=2)
    assert summary.stored == {"train": 20_000, "val": 5_000}
    assert len(Dataset(tmp_path / "tiny").shards("train")) == 8
    assert not (tmp_path / "tiny" / PARTS).exists()
    row = next(iter(rows_of(tmp_path / "tiny", "val").values()))
    assert (row["width"], row["height"], len(row["boxes"])) == (64, 64, 1)


@pytest.mark.parametrize("name", ["labels.parquet", "train.parquet", "val.parquet"])
@pytest.mark.parametrize("left", [None, 0, 100, -30, "other"])
def test_a_lost_or_damaged_table_is_made_again(drawn, tmp_path, name, left):
    out = tmp_path / "out"
    prepare(drawn, out, SMALL, workers=1)
    before = contents(out)
    data = (out / name).read_bytes()
    (out / name).unlink()
    if left == "other":
        pq.write_table(pq.read_table(io.BytesIO(data)).slice(1), out / name)
    elif left is not None:
        (out / name).write_bytes(data[:left])
    assert any("prepare again" in fault.problem for fault in verify(out).faults)
    assert not prepare(drawn, out, SMALL, workers=1).already_complete
    assert contents(out) == before
    assert not verify(out).faults


@pytest.mark.parametrize("content", [None, "", "{"])
def test_without_its_description_a_data_set_must_be_deleted(drawn, tmp_path, content):
    """Which settings made the shards is not known: verify and prepare say the same, and it helps."""
    out = tmp_path / "out"
    prepare(drawn, out, SMALL, workers=1)
    before = contents(out)
    (out / "dataset.json").unlink()
    if content is not None:
        (out / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json.*delete .* and prepare again"):
        verify(out)
    with pytest.raises(DatasetError, match=r"dataset\.json.*delete the folder and prepare again"):
        prepare(drawn, out, SMALL, workers=1)
    shutil.rmtree(out)
    prepare(drawn, out, SMALL, workers=1)
    assert contents(out) == before


def test_damaged_rows_of_a_killed_prepare_are_made_again(drawn, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("imgtool.pipelines.prepare.run.commit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(drawn, out, SMALL, workers=1)
    rows = next((out / PARTS).glob("*.parquet"))
    rows.write_bytes(rows.read_bytes()[:-9])
    prepare(drawn, out, SMALL, workers=1)
    assert not verify(out).faults


def test_an_output_below_a_file_is_refused(drawn, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/out"):
        with pytest.raises(DatasetError, match=r"file: is a file; --out must be a folder"):
            prepare(drawn, out, SMALL, workers=1)


def test_a_changed_list_of_images_is_named(tmp_path):
    root, out = tmp_path / "source", tmp_path / "out"
    for name in ("ant", "bee"):
        for i in range(2):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (i, 5, 5)).save(root / name / f"{i}.jpg")
    prepare(root, out, workers=1)
    (root / "ant/0.jpg").rename(root / "ant/2.jpg")
    with pytest.raises(DatasetError, match="or the list of images of class-folders source has changed"):
        prepare(root, out, workers=1)
