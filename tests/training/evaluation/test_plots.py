"""Curves, mosaics, class order and confusion matrix, against counts by hand and the pixels of the plots."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgtool import wordnet
from imgtool.training.evaluation.plots.confusion import LINE_HEIGHT, ConfusionMatrix, spread
from imgtool.training.evaluation.plots.mosaic import BatchMosaics, batch_captions, save_mosaic
from imgtool.training.evaluation.plots.order import class_order
from imgtool.training.recipes.augment import Mixed
from imgtool.training.runs.curves import best_row, draw_curves, read_results
from imgtool.training.runs.run import COLUMNS
from imgtool.wordnet.errors import CheckpointError


def results_file(path: Path, epochs: int, **columns: str) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for epoch in range(1, epochs + 1):
            row = {name: f"{0.5 * epoch / epochs:.4f}" for name in COLUMNS} | columns
            writer.writerow(row | {"epoch": epoch, "imgsz": 128 if epoch <= epochs // 2 else 224})
    return path


@pytest.mark.parametrize("epochs", [1, 2, 1000])
def test_curves_of_any_length(tmp_path: Path, epochs: int) -> None:
    results = read_results(results_file(tmp_path / "results.csv", epochs))
    assert best_row(results) == epochs - 1
    png = io.BytesIO()
    draw_curves(results, png)
    assert np.asarray(Image.open(png).convert("L")).min() < 100


def test_curves_of_a_file_that_is_being_written(tmp_path: Path) -> None:
    """An incomplete line, values that are not numbers, and missing columns."""
    path = results_file(tmp_path / "results.csv", 3, **{"val/loss": "nan", "lr/pg0": ""})
    with open(path, "a") as file:
        file.write("4,17.0,0.")
    results = read_results(path)
    assert results["epoch"].tolist() == [1, 2, 3] and np.isnan(results["lr/pg0"]).all()
    draw_curves(results, tmp_path / "results.png")
    draw_curves({"epoch": np.array([1.0, 2.0])}, tmp_path / "bare.png")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name, message in (("other.csv", "no column epoch"), ("nowhere.csv", "cannot read")):
        with pytest.raises(CheckpointError, match=message):
            read_results(tmp_path / name)


def test_a_mosaic_shows_each_image_once(tmp_path: Path) -> None:
    colours = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 250, 250]], dtype=torch.uint8)
    images = colours[:, :, None, None].expand(5, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    save_mosaic(tmp_path / "m.jpg", images, ["one", "two\nlines", "x" * 500, "<script>", "ñandú ×"])
    sheet = np.asarray(Image.open(tmp_path / "m.jpg")).astype(int)
    for colour in colours.tolist():
        matching = (np.abs(sheet - colour).max(axis=2) < 30).sum()
        assert 0.95 * 128**2 < matching < 1.05 * 128**2  # 32 pixels enlarged 4 times
    assert sheet.shape[1] < 3 * 128 + 40  # the long caption does not widen it


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    save_mosaic(tmp_path / "m.jpg", torch.zeros(1, 3, 640, 320, dtype=torch.uint8), ["a"])
    width, height = Image.open(tmp_path / "m.jpg").size
    assert width == 112 + 12 and 224 < height < 280


def test_captions_of_mixed_images_have_both_classes() -> None:
    labels = torch.tensor([0, 1])
    assert batch_captions(["cat", "dog"], labels) == ["cat", "dog"]
    mixed = Mixed(torch.tensor([1, 0]), torch.tensor(0.75))
    assert batch_captions(["cat", "dog"], labels, mixed) == ["75% cat\n25% dog", "75% dog\n25% cat"]


def test_only_the_first_batches_are_drawn(tmp_path: Path) -> None:
    lines: list[str] = []
    hook = BatchMosaics(tmp_path, ["cat", "dog"], lines.append)
    images, labels = torch.zeros(64, 3, 32, 32, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64)
    for epoch in (0, 1):
        for step in range(1, 6):
            hook(epoch, step, images, labels, Mixed(labels + 1, torch.tensor(0.5)) if step == 2 else None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train_batch{i}.jpg" for i in range(3)]
    assert not lines
    BatchMosaics(tmp_path / "nowhere", ["cat"], lines.append)(0, 1, images, labels)
    assert len(lines) == 1 and "cannot draw" in lines[0]


def test_classes_of_a_superclass_are_adjacent() -> None:
    h = wordnet.load()
    order, blocks = class_order(h.wnids, h.names)
    assert sorted(order.tolist()) == list(range(1000))
    assert all(block.start < block.stop for block in blocks)
    assert all(one.stop <= other.start for one, other in pairwise(blocks))
    dogs = next(block for block in blocks if block.name == "dog")
    assert set(order[dogs.start : dogs.stop].tolist()) == set(h.classes("dog.n.01").tolist())
    assert not any("other other" in block.name for block in blocks)


def test_classes_outside_wordnet_come_last() -> None:
    order, blocks = class_order(["cats", "dogs", "apes"], ["cats", "dogs", "apes"])
    assert order.tolist() == [0, 1, 2] and blocks == []
    order, _ = class_order(["a", "n02084071", "z", "n02121620"], ["a", "dog", "z", "cat"])
    assert set(order[:2].tolist()) == {1, 3} and order[2:].tolist() == [0, 2]


def test_confusions_are_counted(tmp_path: Path) -> None:
    true, predicted = np.array([0, 0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 1, 0, 2, 1])
    confusion = ConfusionMatrix(true, predicted, ["a", "b", "c"], ["<a>", "b,", "ç"])
    assert confusion.matrix().tolist() == [[1, 2, 0], [0, 1, 0], [1, 1, 1]]
    assert confusion.pairs() == [(0, 1, 2), (2, 0, 1), (2, 1, 1)]
    confusion.save(tmp_path)
    with open(tmp_path / "confusion.csv", newline="", encoding="utf-8") as file:
        first, *_ = list(csv.DictReader(file))
    assert (first["true_name"], first["predicted_name"], first["images"], first["of_true"]) == ("<a>", "b,", "2", "3")
    saved = np.load(tmp_path / "confusion.npz", allow_pickle=False)
    assert np.array_equal(saved["matrix"], confusion.matrix()) and saved["wnids"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("classes", [1, 2, 45, 1000, 5000])
def test_the_matrix_is_drawn_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    h = wordnet.load("in21k" if classes > 1000 else "in1k")
    wnids, names = h.wnids[:classes], h.names[:classes]
    true = np.arange(2000) % classes
    predicted = np.where(np.arange(2000) % 3, true, (true + 1) % classes)
    written = ConfusionMatrix(true, predicted, wnids, names).save(tmp_path)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "confusion.npz").exists() == (classes <= 4096)
    assert max(Image.open(tmp_path / "confusion_matrix.png").size) < 1800


def test_labels_do_not_overlap() -> None:
    positions = spread([1, 2, 3, 500, 995, 999], LINE_HEIGHT, 1000)
    assert all(b - a >= LINE_HEIGHT - 1e-9 for a, b in pairwise(positions))
    assert positions[0] == 1 and positions[3] == 500 and positions[-1] <= 1000
