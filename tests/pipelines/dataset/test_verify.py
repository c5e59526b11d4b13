"""verify: an untouched data set has no faults; every kind of damage is found and reported, all in one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
from click.testing import CliRunner

from imgtool.cli import main
from imgtool.pipelines.codec import Recoded
from imgtool.pipelines.dataset.verify import verify
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import DatasetError


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "data"
    prepare(drawn, out, Settings(max_side=120, format="both"), workers=1)
    return out


@pytest.fixture
def data(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def faults(data: Path, **options) -> list[str]:
    return [f"{fault.location}: {fault.problem}" for fault in verify(data, **options).faults]


def overwrite(path: Path, at: int, value: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(value)


def edit(path: Path, change: Callable[[list[dict]], object]) -> None:
    """Rewrites a parquet file with its rows changed."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


@pytest.mark.parametrize("deep", [False, True])
def test_an_untouched_data_set_has_no_faults(whole, deep):
    found = verify(whole, deep=deep)
    assert found.faults == []
    assert (found.samples, found.shards) == (100, 2)
    result = CliRunner().invoke(main, ["verify", str(whole), *(["--deep"] if deep else [])])
    assert (result.exit_code, "undamaged, 100 samples, 2 shards" in result.output) == (0, True)


def test_a_flipped_bit_in_an_image(data):
    shard = BetonReader(data / "train/00000.beton")
    at = int(shard.offset[5]) + int(shard.size[5]) // 2
    overwrite(data / "train/00000.beton", at, bytes([shard.buffer[at] ^ 1]))
    found = faults(data)
    assert len(found) == 2
    assert found[0].startswith("train/00000.beton: its bytes have changed")
    assert found[1].startswith("train/00000.beton, sample 5 (n") and "its bytes do not match" in found[1]


def test_damage_in_a_shards_metadata(data):
    rows = pq.read_table(data / "train.parquet").sort_by("position")
    label = rows["class_index"][0].as_py()
    wrong = (label + 1) % 10
    overwrite(data / "train/00000.beton", 24 + 2 * 1041 + 16, wrong.to_bytes(8, "little"))
    assert any(f"its label is {wrong}, the manifest says {label}" in fault for fault in faults(data))
    overwrite(data / "val/00000.beton", 0, b"\xff")
    assert any("val/00000.beton" in fault and "format version" in fault for fault in faults(data))


def test_files_lost_cut_and_unnamed(data):
    (data / "train/00000.tar").unlink()
    with open(data / "val/00000.tar", "r+b") as file:
        file.truncate(5000)
    (data / "train/00001.beton").write_bytes(b"of another run")
    (data / "val/00000.beton.1234.tmp").touch()
    found = "\n".join(faults(data))
    assert "train/00000.tar: No such file or directory; run the same imgtool prepare again" in found
    assert "val/00000.tar: has 5000 bytes instead of" in found
    assert "train/00001.beton: is not named in dataset.json; remove it" in found
    assert "val/00000.beton.1234.tmp: is not named" in found


def test_two_shards_swapped(data):
    for name in ("beton", "tar", "idx"):
        a, b = data / f"train/00000.{name}", data / f"val/00000.{name}"
        a.rename(data / "x")
        b.rename(a)
        (data / "x").rename(b)
    found = faults(data)
    assert sum("instead of" in fault or "its bytes have changed" in fault for fault in found) == 6


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda rows: rows[3].update(class_index=(rows[3]["class_index"] + 1) % 10), "its label is"),
        (lambda rows: rows[3].update(class_index=99), "class index outside 0..9"),
        (lambda rows: rows.pop(3), "has 79 samples and 0 skipped ones, dataset.json says 80 and 0"),
        (lambda rows: rows[3].update(position=rows[4]["position"]), "at other positions"),
        (lambda rows: rows[3].update(width=1), "its width is"),
        (lambda rows: rows[3].update(stored_xxh3=1), "its bytes do not match"),
        (lambda rows: rows[3].update(position=None), "no position"),
    ],
)
def test_a_wrong_manifest(data, change, expected):
    edit(data / "train.parquet", change)
    assert any(expected in fault for fault in faults(data))


def test_a_wrong_class_table(data):
    edit(data / "labels.parquet", lambda rows: rows[0].update(train_count=3))
    assert any("labels.parquet: has 3 train samples of n" in fault for fault in faults(data))
    edit(data / "labels.parquet", lambda rows: rows.pop())
    assert any("does not have the 10 classes in order" in fault for fault in faults(data))
    (data / "labels.parquet").write_bytes(b"PAR1")
    (data / "val.parquet").unlink()
    found = "\n".join(faults(data))
    assert "labels.parquet" in found and "val.parquet" in found


def test_damage_with_matching_hashes_is_found_by_decoding(data):
    """Damage before the hash was taken: every hash matches."""
    path = data / "val/00000.beton"
    shard = BetonReader(path)
    at, size = int(shard.offset[2]), int(shard.size[2])
    broken = bytearray(shard.read(2))
    broken[size // 2 : size // 2 + 40] = b"\xff\xd9" + bytes(38)
    overwrite(path, at, bytes(broken))
    info = json.loads((data / "dataset.json").read_text())
    entry = info["splits"]["val"]["shards"][0]
    entry["files"] = [file for file in entry["files"] if file["path"].endswith(".beton")]
    entry["files"][0]["xxh3"] = file_xxh3(path)
    (data / "dataset.json").write_text(json.dumps(info))
    for name in ("tar", "idx"):
        (data / f"val/00000.{name}").unlink()
    digest = xxhash.xxh3_64_intdigest(bytes(broken))
    edit(data / "val.parquet", lambda rows: [r.update(stored_xxh3=digest) for r in rows if r["position"] == 2])
    assert faults(data) == []
    (found,) = faults(data, deep=True)
    assert found.startswith("val/00000.beton, sample 2 (ILSVRC2012_val_")


def test_the_command_prints_faults_and_exits_with_1(data):
    (data / "train/00000.idx").unlink()
    result = CliRunner().invoke(main, ["verify", str(data)])
    assert result.exit_code == 1
    assert "train/00000.idx: No such file" in result.output and "faults in 100 samples" in result.output
    as_json = json.loads(CliRunner().invoke(main, ["verify", str(data), "--json"]).stdout)
    assert {fault["where"] for fault in as_json["faults"]} >= {"train/00000.idx"}
    assert CliRunner().invoke(main, ["verify", str(data / "nothing")]).exit_code == 2


def test_an_incomplete_data_set_is_refused(data):
    info = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(info | {"complete": False, "problem": "cut"}))
    with pytest.raises(DatasetError, match="is incomplete: cut"):
        verify(data)


def test_real_images_verify(mini, tmp_path):
    prepare(mini, tmp_path / "out", Settings(store="fit"))
    assert verify(tmp_path / "out", deep=True).faults == []
    rows = pq.read_table(tmp_path / "out/train.parquet")
    assert pc.sum(pc.equal(rows["source_xxh3"], rows["stored_xxh3"])).as_py() > 300
    assert np.asarray(rows["width"]).max() <= 500


def test_damage_of_the_source_that_was_stored(encoded, draw_image, tmp_path, monkeypatch):
    """As versions stored it that passed damaged images on. The advice helps: this version stores them repaired."""
    source, out = tmp_path / "source", tmp_path / "out"
    for name in ("ant", "bee"):
        (source / "train" / name).mkdir(parents=True)
        (source / "train" / name / "whole.jpg").write_bytes(encoded(draw_image()))
    cut = encoded(draw_image(), quality=95)
    (source / "train/ant/cut.jpg").write_bytes(cut[: len(cut) * 6 // 10] + b"\xff\xd9")
    (source / "train/bee/no_end.jpg").write_bytes(cut[:-2])
    settings = Settings(max_side=0, store="original")
    with monkeypatch.context() as patch:
        passed = Recoded(b"", 320, 240, 320, 240, (), "passed")
        patch.setattr(Settings, "recode", lambda self, data: replace(passed, data=data))
        prepare(source, out, settings, workers=1)
    assert faults(out) == []
    found = faults(out, deep=True)
    assert len(found) == 2
    for fault, name in zip(sorted(found, key=lambda text: "no_end" in text), ("cut", "no_end"), strict=True):
        assert f"{name}.jpg" in fault and "so is its source" in fault and "delete it" in fault
    (out / "train/00000.beton").unlink()
    prepare(source, out, settings, workers=1)
    assert faults(out, deep=True) == []
    status = pq.read_table(out / "train.parquet")["status"].to_pylist()
    assert sorted(status) == ["ok", "ok", "ok", "repaired:damaged"]
