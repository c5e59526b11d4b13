"""`predict` and `val` agree on every image: one transform, whichever way an image is given."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgtool.pipelines.codec.transform import ValTransform, to_float
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.training.classifier import Classifier
from imgtool.wordnet.errors import ImageError, InputError

pytestmark = pytest.mark.numeric

Pixels = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]


def probabilities(subject: Classifier, sources: list[bytes]) -> torch.Tensor:
    """Returns float [N, classes] from `predict`, in class order."""
    found = subject.predict(sources, topk=len(subject.wnids))
    rows = [[p for _, p in sorted(zip(f.indices, f.probabilities, strict=True))] for f in found]
    return torch.tensor(rows)


def val_equals_predict(subject: Classifier, data: Path) -> None:
    """Compares both on every validation sample of a prepared data set."""
    dataset = Dataset(data)
    samples = Samples(dataset, "val")
    stored = [bytes(samples.data(i)) for i in range(len(samples))]
    predicted = probabilities(subject, stored)
    with open_loader(dataset, "val", batch_size=64, image_size=subject.imgsz) as loader, torch.no_grad():
        loaded = [(images.clone(), labels) for images, labels in loader]
        expected = torch.cat([subject.model(to_float(images)).softmax(1) for images, _ in loaded])
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-6)
    assert len(set(predicted.argmax(1).tolist())) > 2, "the test needs a model that predicts several classes"
    labels = torch.cat([labels for _, labels in loaded])
    metrics = subject.val(data)
    assert metrics.top1 == pytest.approx((predicted.argmax(1) == labels).double().mean().item())
    transform = ValTransform(subject.imgsz)
    pixels = torch.cat([images for images, _ in loaded]).permute(0, 2, 3, 1).numpy()
    assert (np.stack([transform.decode(data) for data in stored]) == pixels).all()


def test_val_and_predict_agree_on_synthetic_images(drawn_data: Path, scattered: Callable[..., Path]) -> None:
    val_equals_predict(Classifier(scattered(Dataset(drawn_data).wnids)), drawn_data)


def test_val_and_predict_agree_on_real_images(mini: Path, scattered: Callable[..., Path], tmp_path: Path) -> None:
    prepare(mini, tmp_path / "mini", Settings(max_side=256), workers=2)
    val_equals_predict(Classifier(scattered(Dataset(tmp_path / "mini").wnids)), tmp_path / "mini")


WNIDS = [f"n0{n}" for n in (2206856, 2391049, 3000134, 3598930, 4435653, 4548280, 6794110)]


@pytest.fixture(scope="module")
def subject(scattered: Callable[..., Path]) -> Classifier:
    return Classifier(scattered(WNIDS))


def test_val_and_predict_agree_on_every_format(
    subject: Classifier, draw_image: Pixels, encoded: Encoded, tmp_path: Path
) -> None:
    """One image per class in a raw folder: the results per class of `val` equal those of `predict` for the file."""
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "a.jpg": encoded(draw_image(200, 150, 0), quality=90),
        "b.png": encoded(draw_image(150, 200, 1), "PNG"),
        "grey.jpg": encoded(Image.fromarray(draw_image(120, 90, 2)).convert("L")),
        "cmyk.jpg": encoded(Image.fromarray(draw_image(120, 90, 3)).convert("CMYK")),
        "tiny.png": encoded(draw_image(3, 2, 4), "PNG"),
        "one.jpg": encoded(draw_image(1, 1, 5)),
        "turned.jpg": encoded(draw_image(160, 80, 6), exif=turned),
    }
    for wnid, (name, data) in zip(WNIDS, files.items(), strict=True):
        (tmp_path / "data" / wnid).mkdir(parents=True)
        (tmp_path / "data" / wnid / name).write_bytes(data)
    metrics = subject.val(tmp_path / "data", batch=3, workers=2, per_class=tmp_path / "classes.csv")
    found = subject.predict(tmp_path / "data", topk=7)
    with open(tmp_path / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(f.path or "").parent.name for f in found] == WNIDS == [row["wnid"] for row in rows]
    for prediction, row in zip(found, rows, strict=True):
        true = prediction.probabilities[prediction.wnids.index(row["wnid"])]
        assert float(row["probability"]) == pytest.approx(true, rel=1e-4, abs=1e-7)
        assert int(row["right_top1"]) == (prediction.wnids[0] == row["wnid"])
        assert int(row["right_top5"]) == (row["wnid"] in prediction.wnids[:5])
    assert metrics.top1 == sum(int(row["right_top1"]) for row in rows) / 7
    upright = np.asarray(Image.open(io.BytesIO(files["turned.jpg"])).transpose(Image.Transpose.ROTATE_270))
    again = subject.predict(np.ascontiguousarray(upright), topk=7)[0]
    assert again.probabilities == pytest.approx(found[-1].probabilities, rel=1e-3)


def test_images_in_memory_give_the_same_as_files(subject: Classifier, draw_image: Pixels, encoded: Encoded) -> None:
    pixels = draw_image(90, 70, 3)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [pixels, tensor, Image.fromarray(pixels), encoded(pixels, "PNG"), pixels[:, ::-1][:, ::-1]]
    found = subject.predict(kinds)
    for f in found:
        assert f.path is None and f.probabilities == pytest.approx(found[0].probabilities, rel=1e-4, abs=1e-7)
    for wrong in (tensor.float(), tensor[0], torch.from_numpy(pixels)):
        with pytest.raises(InputError, match=r"must be uint8 \[3, H, W\], not torch"):
            subject.predict(wrong)
    with pytest.raises(ImageError, match="cannot decode the given bytes: not an image"):
        subject.predict(b"no image")
    with pytest.raises(InputError, match="cannot predict on int"):
        subject.predict([pixels, 3])  # type: ignore[list-item]


def test_predictions_are_streamed(subject: Classifier, draw_image: Pixels) -> None:
    """At most two batches more than requested are read from the source."""
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield draw_image(40, 40, 1)

    stream = subject.predict_each(endless(), batch=4, workers=2)
    for _ in range(6):
        next(stream)
    assert taken <= 8 + 8
    stream.close()  # type: ignore[attr-defined]


def test_damaged_images_are_skipped_in_any_batch(subject: Classifier, draw_image: Pixels, encoded: Encoded) -> None:
    good = encoded(draw_image(50, 50, 0))
    bad: list[ImageError] = []
    sources = [b"", good, good, b"x", good]
    found = list(subject.predict_each(sources, batch=2, on_error=bad.append))
    assert len(found) == 3 and len(bad) == 2
    with pytest.raises(ImageError):
        list(subject.predict_each(sources, batch=2))


def test_the_transform_is_described_in_metadata() -> None:
    described = ValTransform(224).to_dict()
    assert described["resize_short_side"] == described["center_crop"] == 224
    assert described["mean"] == [0, 0, 0] and described["std"] == [1, 1, 1] and described["scale"] == 1 / 255
    assert ValTransform(64) == ValTransform(64)
