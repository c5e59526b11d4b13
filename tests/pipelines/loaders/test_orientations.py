"""Stored images with an EXIF orientation (--exif ignore): no backend applies it, all give the stored pixels."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import BACKENDS, missing, open_loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.wordnet.errors import ImageError

pytestmark = pytest.mark.numeric

ABSENT = {backend: missing(backend) for backend in BACKENDS}
each_backend = pytest.mark.parametrize(
    "backend",
    [pytest.param(b, marks=pytest.mark.skipif(why is not None, reason=str(why))) for b, why in ABSENT.items()],
)


def write_source(folder, draw_image):
    """Writes two classes with an image in each orientation, baseline and progressive."""
    for label, progressive in (("ant", False), ("bee", True)):
        (folder / "train" / label).mkdir(parents=True)
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            image = Image.fromarray(draw_image(96, 64, orientation))
            path = folder / "train" / label / f"{label}{orientation}.jpg"
            image.save(path, quality=95, progressive=progressive, subsampling=0, exif=exif)
    return folder


def everything(data, backend, **options):
    with open_loader(data, "train", batch_size=6, image_size=48, backend=backend, augment=False, **options) as loader:
        return torch.cat([images for images, _ in loader])


@pytest.fixture(scope="module")
def sets(draw_image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("turned")
    source = write_source(folder / "source", draw_image)
    for store in ("fit", "original", "jpeg"):
        prepare(source, folder / store, Settings(max_side=0, store=store, exif="ignore"), workers=1)
    return {store: Dataset(folder / store) for store in ("fit", "original", "jpeg")}


@each_backend
@pytest.mark.parametrize("store", ["fit", "original", "jpeg"])
def test_the_stored_orientation_is_not_applied(sets, store, backend):
    got, want = everything(sets[store], backend), everything(sets[store], "torchvision")
    difference = (got.int() - want.int()).float().abs().flatten(1).mean(1)
    assert difference.max() < 8  # images drawn with edges; one that is turned differs by far more


def test_the_stored_orientation_is_that_of_the_source(sets):
    """Otherwise this test would compare images without any."""
    for row in sets["original"].manifest("train").to_pylist():
        assert row["source_xxh3"] == row["stored_xxh3"], row["source"]


@pytest.fixture
def shrunk(sets, draw_image, tmp_path):
    """A data set whose stored sample 3 is whole, but has another size than the shard says."""
    import shutil

    from imgtool.pipelines.loaders.samples import Samples

    path = shutil.copytree(sets["jpeg"].path, tmp_path / "shrunk")
    samples = Samples(Dataset(path), "train")
    buffer = io.BytesIO()
    Image.fromarray(draw_image(24, 16)).save(buffer, "JPEG")
    with open(samples.paths[0], "r+b") as file:
        file.seek(int(samples.offset[3]))
        file.write(buffer.getvalue().ljust(int(samples.size[3]), b"\0"))
    return Dataset(path)


@each_backend
def test_a_sample_that_only_this_backend_refuses_is_named(shrunk, backend):
    if backend in ("torchvision", "ffcv"):
        pytest.skip("this backend crops whatever was decoded")
    key = shrunk.manifest("train").sort_by("position")["key"][3].as_py()
    with pytest.raises(ImageError, match=rf"00000\.beton, sample 3 \({key}\): ") as error:
        everything(shrunk, backend)
    assert "Critical error" not in str(error.value) and "\n" not in str(error.value)
    assert len(everything(shrunk, backend, on_error="skip")) == 15
