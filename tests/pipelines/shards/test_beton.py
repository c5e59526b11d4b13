"""The .beton format, compared with a file that stock FFCV wrote (data/write_with_ffcv.py)."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines import codec
from imgtool.pipelines.shards.beton import METADATA_START, PAGE_SIZE, BetonReader, BetonWriter, page_size_for
from imgtool.wordnet.errors import DatasetError

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def ffcv_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("beton") / "ffcv.beton"
    path.write_bytes(lzma.decompress((Path(__file__).parent / "data/ffcv.beton.xz").read_bytes()))
    return path


def write(path: Path, samples: list[tuple[bytes, int, int, int]], page_size: int = 1 << 21) -> None:
    writer = BetonWriter(path, len(samples), page_size)
    for sample in samples:
        writer.add(*sample)
    writer.close()


def samples_of(reader: BetonReader) -> list[tuple[bytes, int, int, int]]:
    return [
        (reader.read(i), int(reader.width[i]), int(reader.height[i]), int(reader.label[i])) for i in range(len(reader))
    ]


def test_reads_what_ffcv_wrote(ffcv_file):
    reader = BetonReader(ffcv_file)
    assert reader.label.tolist() == [-50, 50, 150, 250, 350, 450, 550]
    assert list(zip(reader.width, reader.height, strict=True))[:2] == [(40, 30), (7000, 5000)]
    for i in range(len(reader)):
        info = codec.probe(reader.read(i))
        assert (info["width"], info["height"]) == (reader.width[i], reader.height[i])


def test_writes_the_bytes_that_ffcv_writes(ffcv_file, tmp_path):
    """The same samples give the same file, including pages, padding and allocation table."""
    write(tmp_path / "ours.beton", samples_of(BetonReader(ffcv_file)))
    assert (tmp_path / "ours.beton").read_bytes() == ffcv_file.read_bytes()


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=900_000), *[st.integers(1, 65535)] * 2, st.integers(-9, 9)), max_size=8
    )
)
def test_written_samples_are_read_back(tmp_path_factory, samples):
    path = tmp_path_factory.mktemp("b") / "a.beton"
    write(path, samples)
    reader = BetonReader(path)
    assert samples_of(reader) == samples
    for offset, size in zip(reader.offset.tolist(), reader.size.tolist(), strict=True):
        assert offset >> 21 == (offset + size - 1) >> 21, "a sample crosses a page"
        assert offset >= 1 << 21, "a sample overlaps the metadata"


def test_fewer_samples_than_the_capacity(tmp_path):
    writer = BetonWriter(tmp_path / "a.beton", capacity=10)
    writer.add(b"abc", 4, 5, 6)
    writer.close()
    assert samples_of(BetonReader(tmp_path / "a.beton")) == [(b"abc", 4, 5, 6)]


def test_a_sample_larger_than_a_page_is_refused(tmp_path):
    writer = BetonWriter(tmp_path / "a.beton", 1, 1 << 21)
    with pytest.raises(ValueError, match="does not fit a page"):
        writer.add(bytes(1 + (1 << 21)), 1, 1, 0)
    writer.abort()


def test_a_missing_file_and_a_file_of_another_format(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.beton"):
        BetonReader(tmp_path / "a.beton")
    (tmp_path / "a.beton").write_bytes(b"x" * 50)
    with pytest.raises(DatasetError, match=r"not a \.beton file"):
        BetonReader(tmp_path / "a.beton")


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_bytes_raise_dataset_errors_only(tmp_path_factory, ffcv_file, data):
    good = bytearray(ffcv_file.read_bytes())
    table = len(good) - 7 * 24
    places = st.one_of(st.integers(0, METADATA_START + 7 * 24), st.integers(table, len(good) - 1))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(places)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(good), table, METADATA_START + 5, 30]))
    path = tmp_path_factory.mktemp("b") / "bad.beton"
    path.write_bytes(good[:cut])
    try:
        reader = BetonReader(path)
    except DatasetError:
        return
    length = np.uint64(cut)
    assert (reader.offset + reader.size <= length).all()


def test_stock_ffcv_reads_our_shards(drawn_data):
    """Stock FFCV, if it is installed, reads the labels and images that the manifest states."""
    loader = pytest.importorskip("ffcv.loader", reason="stock FFCV is not installed here")
    decoders = pytest.importorskip("ffcv.fields.decoders")
    from imgtool.pipelines.dataset import Dataset

    dataset = Dataset(drawn_data)
    (path,) = dataset.shards("train")
    rows = [row for row in dataset.manifest("train").to_pylist() if row["position"] is not None]
    pipelines = {"image": [decoders.CenterCropRGBImageDecoder((64, 64), 1.0)], "label": [decoders.IntDecoder()]}
    seen = 0
    reader = BetonReader(path)
    order = loader.OrderOption.SEQUENTIAL
    for images, labels in loader.Loader(str(path), batch_size=16, num_workers=1, order=order, pipelines=pipelines):
        for image, label in zip(np.asarray(images), np.asarray(labels), strict=True):
            assert rows[seen]["class_index"] == label[0]
            pixels = codec.decode(reader.read(seen))
            height, width = pixels.shape[:2]
            side = min(width, height)
            box = ((width - side) // 2, (height - side) // 2, side, side)
            ours = codec.resize_crop(pixels, box, (64, 64)).astype(int)
            assert np.abs(ours - image).mean() < 8  # FFCV resizes with another filter
            seen += 1
    assert seen == len(rows)


@pytest.mark.parametrize(
    ("total", "largest", "page"),
    [
        (500, 100, 1 << 16),
        (1_000_000, 2_000, 1 << 17),
        (9_000_000, 100_000, 1 << 21),
        (9_000_000, 1 << 21, 1 << 21),
        (9_000_000, (1 << 21) + 1, 1 << 22),
        (8 << 20, 8 << 20, PAGE_SIZE),
        (32 << 20, 100_000, PAGE_SIZE),
        (256_000_000, 100_000, PAGE_SIZE),
    ],
)
def test_the_page_size_fits_the_samples(total, largest, page):
    assert page_size_for(total, largest) == page


@given(st.lists(st.integers(1, PAGE_SIZE), min_size=1, max_size=30))
def test_every_sample_fits_its_page(sizes):
    page = page_size_for(sum(sizes), max(sizes))
    assert max(sizes) <= page <= PAGE_SIZE
    assert page & (page - 1) == 0, "FFCV shifts by its binary logarithm"


def test_a_small_data_set_makes_a_small_file(drawn_data):
    """A page before the samples and at most one after them, each at most a quarter of them or 64 kB."""
    for split in ("train", "val"):
        (path,) = (drawn_data / split).glob("*.beton")
        reader = BetonReader(path)
        samples = int(reader.size.sum())
        assert path.stat().st_size < 2 * samples + (1 << 18)
        pages = np.unique(reader.offset // np.uint64(np.frombuffer(path.read_bytes(), "<u4", 1, 4)[0]))
        assert len(pages) == pages[-1] - pages[0] + 1
