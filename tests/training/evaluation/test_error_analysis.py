"""Error analysis after training: the most confident mistakes by hand, the files, and that errors do not stop a run."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imgtool.training.classifier import Classifier
from imgtool.training.evaluation import error_analysis
from imgtool.training.evaluation.evaluate import EvaluatedBatch, evaluate
from imgtool.training.evaluation.plots.confusion import ConfusionMatrix
from imgtool.training.recipes import Recipe
from imgtool.training.runs import plots as run_plots
from imgtool.training.runtimes.native import Native

FILES = {"results.png", "metrics.json", "confusion_matrix.png", "confusion.csv", "confusion.npz", "mistakes.jpg"}


def classes(*names: str) -> Any:
    return SimpleNamespace(wnids=names, names=names)


def test_the_most_confident_mistakes_over_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image i has the grey value i and random logits; the loader reuses its memory for every batch."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 5, generator=generator)
    labels = torch.randint(0, 5, (50,), generator=generator)
    buffer, buffer_labels = torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    errors = error_analysis.ErrorAnalysis(max_mistakes=7)
    for start in range(0, 50, 8):
        n = min(8, 50 - start)
        buffer[:n] = torch.arange(start, start + n, dtype=torch.uint8).view(-1, 1, 1, 1)
        buffer_labels[:n] = labels[start : start + n]
        part = logits[start : start + n]
        errors(EvaluatedBatch(buffer[:n], part, part.topk(5).indices, buffer_labels[:n]))

    probabilities = logits.softmax(1)
    confident, predicted = probabilities.max(1)
    wrong = [i for i in confident.argsort(descending=True).tolist() if predicted[i] != labels[i]][:7]
    confidence, true, predicted_as, images = errors._mistakes
    assert images[:, 0, 0, 0].tolist() == wrong
    torch.testing.assert_close(confidence, confident[wrong])
    assert true.tolist() == labels[wrong].tolist() and predicted_as.tolist() == predicted[wrong].tolist()

    mosaics: list[Any] = []
    monkeypatch.setattr(error_analysis, "save_mosaic", lambda *args: mosaics.append(args))

    errors.save(tmp_path / "new" / "folder", classes(*[f"class{i}" for i in range(5)]), {"top1": 0.5})
    (_, tiles, captions), *_ = mosaics
    assert len(tiles) == len(captions) == 7
    assert (
        captions[0]
        == f"class{labels[wrong[0]]}\n{error_analysis._percent(float(confident[wrong[0]]))} class{predicted[wrong[0]]}"
    )
    matrix = np.load(tmp_path / "new" / "folder" / "confusion.npz")["matrix"]
    assert matrix.sum() == 50 and np.trace(matrix) == (predicted == labels).sum()


def test_without_mistakes_there_is_no_mosaic_of_them(tmp_path: Path) -> None:
    (tmp_path / "mistakes.jpg").write_bytes(b"of an earlier model")
    errors = error_analysis.ErrorAnalysis()
    batches = [(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))]
    model = Native(torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten()))
    evaluate(model, batches, torch.device("cpu"), observers=[errors])

    errors.save(tmp_path, classes("a", "b", "c"), {})
    assert not (tmp_path / "mistakes.jpg").exists() and (tmp_path / "confusion_matrix.png").exists()


def test_a_probability_below_1_is_not_rounded_to_100_percent() -> None:
    assert [error_analysis._percent(p) for p in (0.5, 0.994, 0.9973, 1.0)] == ["50%", "99%", "99.7%", "100%"]


def test_training_draws_plots_of_the_best_model(plots: None, memory: Any, toy_recipe: Recipe) -> None:
    results = Classifier("n").train(recipe=toy_recipe, epochs=2, name="drawn", quiet=True)
    assert {path.name for path in results.run.iterdir()} >= FILES
    metrics = json.loads((results.run / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(results.metrics.top1, abs=0.011) and metrics["split"] == "val"
    matrix = np.load(results.run / "confusion.npz")["matrix"]
    assert matrix.sum(axis=1).tolist() == torch.bincount(memory.labels["val"], minlength=6).tolist()
    assert np.trace(matrix) / matrix.sum() == pytest.approx(metrics["top1"])
    with open(results.run / "confusion.csv", newline="") as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == matrix.sum() - np.trace(matrix)
    for name in ("results.png", "confusion_matrix.png", "mistakes.jpg"):
        Image.open(results.run / name).verify()


def test_a_plot_that_fails_is_one_line_in_the_log(
    plots: None, memory: Any, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(ConfusionMatrix, "save", broken)
    monkeypatch.setattr(run_plots, "draw_curves", broken)
    results = Classifier("n").train(recipe=toy_recipe, epochs=1, name="undrawn", quiet=True)
    log = (results.run / "log.txt").read_text()
    assert re.search(r"cannot draw results\.png.*: no room\n", log)
    assert "cannot draw the confusion matrix" in log
    assert results.epochs == 1 and results.run.joinpath("weights", "best.pt").exists()
    assert not list(results.run.glob("*.tmp"))


def test_no_plots(plots: None, memory: Any, toy_recipe: Recipe) -> None:
    run = Classifier("n").train(recipe=toy_recipe, epochs=1, name="plain", quiet=True, plots=False).run
    assert not FILES & {path.name for path in run.iterdir()}
