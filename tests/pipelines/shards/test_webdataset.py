"""WebDataset shards: webdataset, DALI and tar read them; their index equals that of wds2idx; damage is reported."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.shards.beton import BetonReader
from imgtool.pipelines.shards.webdataset import WebDatasetReader, WebDatasetWriter
from imgtool.wordnet.errors import DatasetError

KEYS = ["n01440764_18", "a.b.c", "a.b.c", "a_b_c", "ünïcode/né", "with space", "x" * 300, "x" * 300, "", ".hidden"]


def write(folder: Path, samples: list[tuple[str, bytes, int]], name: str = "00000") -> Path:
    writer = WebDatasetWriter(folder / f"{name}.tar", folder / f"{name}.idx")
    assert [writer.add(*sample) for sample in samples] == list(range(len(samples)))
    writer.close()
    return folder / f"{name}.tar"


@pytest.fixture
def samples(draw_image, encoded) -> list[tuple[str, bytes, int]]:
    return [(key, encoded(draw_image(64 + i, 48, i)), i * 7 - 1) for i, key in enumerate(KEYS)]


def test_read_back_by_our_reader(samples, tmp_path):
    reader = WebDatasetReader(write(tmp_path, samples))
    assert [reader.read(i) for i in range(len(reader))] == [data for _, data, _ in samples]
    assert reader.label.tolist() == [label for *_, label in samples]


def test_the_same_bytes_each_time(samples, tmp_path):
    (tmp_path / "again").mkdir()
    first, again = write(tmp_path, samples), write(tmp_path / "again", samples)
    assert first.read_bytes() == again.read_bytes()
    assert first.with_suffix(".idx").read_bytes() == again.with_suffix(".idx").read_bytes()


def test_read_back_by_tar(samples, tmp_path):
    path = write(tmp_path, samples)
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
    assert list(members) == listed
    assert list(members.values())[::2] == [data for _, data, _ in samples]
    assert path.stat().st_size % 10240 == 0


def test_read_back_by_webdataset(samples, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    paths = [str(write(tmp_path, samples, "00000")), str(write(tmp_path, samples[:3], "00001"))]
    found = list(webdataset.WebDataset(paths, shardshuffle=False))
    expected = samples + samples[:3]
    assert [(s["jpg"], int(s["cls"])) for s in found] == [(data, label) for _, data, label in expected]
    assert found[0]["__key__"] == "n01440764_18"


def test_read_back_by_dali(samples, tmp_path):
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    paths = [str(write(tmp_path, samples, "00000")), str(write(tmp_path, samples[:3], "00001"))]

    @dali.pipeline_def(batch_size=len(samples) + 3, num_threads=1, device_id=None)
    def pipeline():
        indexes = [path.replace(".tar", ".idx") for path in paths]
        images, labels = dali.fn.readers.webdataset(
            paths=paths, index_paths=indexes, ext=["jpg", "cls"], missing_component_behavior="error"
        )
        return images, labels

    pipe = pipeline()
    pipe.build()
    images, labels = pipe.run()
    found = [(bytes(images.at(i)), int(bytes(labels.at(i)))) for i in range(len(samples) + 3)]
    assert found == [(data, label) for _, data, label in samples + samples[:3]]


def test_the_index_equals_that_of_dali(samples, tmp_path):
    pytest.importorskip("wds2idx", reason="DALI is not installed")
    path = write(tmp_path, samples)
    subprocess.run([sys.executable, "-m", "wds2idx", path, tmp_path / "theirs.idx"], check=True, capture_output=True)
    assert (tmp_path / "theirs.idx").read_text() == path.with_suffix(".idx").read_text()


@pytest.fixture(scope="module")
def both(drawn, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("both") / "data"
    prepare(drawn, out, Settings(max_side=100, format="both"), workers=1)
    return out


@pytest.fixture(scope="module")
def wds_only(drawn, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wds") / "data"
    prepare(drawn, out, Settings(max_side=100, format="wds"), workers=1)
    return out


def test_both_formats_hold_the_same_samples(both):
    dataset = Dataset(both)
    assert dataset.formats == ("beton", "wds")
    for split in dataset.splits:
        for beton, tar in zip(dataset.shards(split), dataset.shards(split, ".tar"), strict=True):
            ours, theirs = BetonReader(beton), WebDatasetReader(tar)
            assert [ours.read(i) for i in range(len(ours))] == [theirs.read(i) for i in range(len(theirs))]
            np.testing.assert_array_equal(ours.label, theirs.label)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_loader_reads_either_format(both, wds_only, split):
    assert not Dataset(wds_only).shards("train")
    options = {"batch_size": 16, "image_size": 64, "seed": 3, "num_workers": 2}
    with open_loader(both, split, **options) as ours, open_loader(wds_only, split, **options) as theirs:
        for (x, y), (x2, y2) in zip(ours, theirs, strict=True):
            assert torch.equal(x, x2) and torch.equal(y, y2)


def test_an_aborted_shard_has_no_index(samples, tmp_path):
    writer = WebDatasetWriter(tmp_path / "a.tar", tmp_path / "a.idx")
    writer.add(*samples[0])
    writer.abort()
    with pytest.raises(DatasetError, match=r"a\.idx: No such file"):
        WebDatasetReader(tmp_path / "a.tar")


@settings(max_examples=150)
@given(st.data())
def test_damage_raises_dataset_errors_only(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = write(folder, [("a", b"\xff\xd8image", 3), ("b", b"\xff\xd8another", 4)])
    target = data.draw(st.sampled_from([path, path.with_suffix(".idx")]))
    content = bytearray(target.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 6)) if content else 0):
        content[data.draw(st.integers(0, min(len(content), 1600) - 1))] = data.draw(st.integers(0, 255))
    target.write_bytes(content if data.draw(st.booleans()) else data.draw(st.binary(max_size=200)))
    try:
        reader = WebDatasetReader(path)
    except DatasetError:
        return
    assert all(len(reader.read(i)) == reader.size[i] for i in range(len(reader)))
