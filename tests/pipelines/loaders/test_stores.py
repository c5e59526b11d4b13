"""The forms in which images are stored (--store): what prepare writes, and that all loaders make the same crops."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgtool.pipelines import codec
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.dataset.verify import verify
from imgtool.pipelines.loaders import BACKENDS, missing, open_loader
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.wordnet.errors import ImageError, InputError

pytestmark = pytest.mark.numeric

PRESENT = [backend for backend in BACKENDS if missing(backend) is None]


@pytest.fixture(scope="module")
def sets(drawn, tmp_path_factory):
    """The drawn data set in each form: name → data set."""
    out = tmp_path_factory.mktemp("stores")
    for store in codec.STORES:
        side = 0 if store == "original" else 160
        prepare(drawn, out / store, Settings(max_side=side, store=store), workers=1)
    prepare(drawn, out / "wds", Settings(max_side=160, format="wds"), workers=1)
    return {path.name: Dataset(path) for path in out.iterdir()}


def everything(data, backend="native", **options):
    with open_loader(data, "train", batch_size=16, image_size=48, backend=backend, **options) as loader:
        batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@pytest.mark.parametrize("backend", PRESENT)
def test_every_backend_reads_every_form(sets, backend):
    """Same samples, order and crops: the images are similar for every stored form and every decoder."""
    want, labels = everything(sets["raw"], "torchvision")
    for store, data in sets.items():
        if store in ("original", "fit") or (store == "wds" and backend == "ffcv"):
            continue  # another size has other crops; ffcv reads only .beton
        got, same_labels = everything(data, backend)
        assert torch.equal(labels, same_labels), store
        difference = (got.int() - want.int()).float().abs().flatten(1).mean(1)
        assert difference.mean() < 6 and difference.max() < 20, store


@pytest.mark.parametrize("backend", PRESENT)
@pytest.mark.parametrize("store", ["original", "fit"])
def test_sizes_may_differ(sets, backend, store):
    got, labels = everything(sets[store], backend)
    want, same_labels = everything(sets[store], "torchvision")
    assert torch.equal(labels, same_labels)
    assert (got.int() - want.int()).float().abs().mean() < 6


def test_every_form_verifies(sets):
    for store, data in sets.items():
        found = verify(data.path, deep=True)
        assert not found.faults, store
        assert found.samples == sum(data.num_samples(split) for split in ("train", "val"))


def test_an_indexed_jpeg_is_the_plain_one_with_restart_markers(sets):
    plain, indexed = Samples(sets["jpeg"], "train"), Samples(sets["jpeg-indexed"], "train")
    for sample in range(len(plain)):
        a, b = bytes(plain.data(sample)), bytes(indexed.data(sample))
        assert b"\xff\xdd\x00\x04" in b and b"\xff\xdd" not in a
        assert len(b) < 1.06 * len(a), "small images: of ImageNet's it is one in a hundred"
        np.testing.assert_array_equal(*(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (a, b)))
    assert torch.equal(everything(sets["jpeg"])[0], everything(sets["jpeg-indexed"])[0])


@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
@pytest.mark.parametrize("size", [(321, 239), (64, 64), (65, 63), (7, 300), (1, 1)])
def test_restart_markers_at_any_size(draw_image, encoded, size, subsampling):
    data = encoded(draw_image(*size), quality=95)
    for side in (0, 60):
        plain = codec.recode(data, max_side=side, subsampling=subsampling)
        indexed = codec.recode(data, max_side=side, subsampling=subsampling, store="jpeg-indexed")
        a, b = (np.asarray(Image.open(io.BytesIO(r.data)).convert("RGB")) for r in (plain, indexed))
        np.testing.assert_array_equal(a, b)
        codec.check(indexed.data)


def test_raw_has_the_pixels(sets, draw_image, encoded):
    samples = Samples(sets["raw"], "train")
    assert samples.raw.all()
    assert (samples.size == 3 * samples.width.astype(np.uint64) * samples.height).all()
    data = encoded(draw_image(90, 70), quality=95)
    stored = codec.recode(data, store="raw")
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.frombuffer(stored.data, np.uint8).reshape(70, 90, 3), want)


def test_originals_are_untouched(drawn, sets, draw_image, encoded):
    rows = sets["original"].manifest("train")
    same = np.asarray(rows["source_xxh3"]) == np.asarray(rows["stored_xxh3"])
    status = np.asarray(rows["status"].to_pylist())
    assert same[status == "ok"].all()
    assert {s for s, kept in zip(status, same, strict=True) if not kept} <= {
        "repaired:png",
        "repaired:cmyk",
        "repaired:exif",
    }
    for data in (encoded(draw_image(), progressive=True), encoded(draw_image(), subsampling=1)):
        assert codec.recode(data, store="original").data == data
    grey = encoded(draw_image()[:, :, 0])
    assert codec.recode(grey, store="original").repairs == ("grayscale",)
    with pytest.raises(ImageError, match="truncated"):
        codec.recode(encoded(draw_image())[:-900], store="original")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="max_side=0"):
        Settings(store="original")
    with pytest.raises(InputError, match="WebDataset shards hold JPEG"):
        Settings(store="raw", format="both")
