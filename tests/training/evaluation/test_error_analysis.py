"""The pass behind a training: the surest mistakes by hand, the files, and that nothing here costs a training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imgtool.training.classifier import Classifier
from imgtool.training.evaluation import error_analysis
from imgtool.training.evaluation.evaluate import Evaluated, evaluate
from imgtool.training.evaluation.plots.confusion import Confusion
from imgtool.training.recipes import Recipe
from imgtool.training.runs import plots as run_plots
from imgtool.training.runtimes.native import Native

DRAWN = {"results.png", "metrics.json", "confusion_matrix.png", "confusion.csv", "confusion.npz", "mistakes.jpg"}


def classes(*names: str) -> Any:
    return SimpleNamespace(wnids=names, names=names)


def test_the_surest_mistakes_over_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image i is of shade i; its logits are drawn, and the loader's memory is used again for every batch."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 5, generator=generator)
    labels = torch.randint(0, 5, (50,), generator=generator)
    buffer, buffer_labels = torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    seen = error_analysis.ErrorAnalysis(keep=7)
    for start in range(0, 50, 8):
        n = min(8, 50 - start)
        buffer[:n] = torch.arange(start, start + n, dtype=torch.uint8).view(-1, 1, 1, 1)
        buffer_labels[:n] = labels[start : start + n]
        part = logits[start : start + n]
        seen(Evaluated(buffer[:n], part, part.topk(5).indices, buffer_labels[:n]))

    probabilities = logits.softmax(1)
    sure, predicted = probabilities.max(1)
    wrong = [i for i in sure.argsort(descending=True).tolist() if predicted[i] != labels[i]][:7]
    confidence, true, taken_for, images = seen._mistakes
    assert images[:, 0, 0, 0].tolist() == wrong
    torch.testing.assert_close(confidence, sure[wrong])
    assert true.tolist() == labels[wrong].tolist() and taken_for.tolist() == predicted[wrong].tolist()

    drawn: list[Any] = []
    monkeypatch.setattr(error_analysis, "save_mosaic", lambda *args: drawn.append(args))

    seen.save(tmp_path / "new" / "folder", classes(*[f"class{i}" for i in range(5)]), {"top1": 0.5})
    (_, shown, captions), *_ = drawn
    assert len(shown) == len(captions) == 7
    assert (
        captions[0]
        == f"class{labels[wrong[0]]}\n{error_analysis._percent(float(sure[wrong[0]]))} class{predicted[wrong[0]]}"
    )
    matrix = np.load(tmp_path / "new" / "folder" / "confusion.npz")["matrix"]
    assert matrix.sum() == 50 and np.trace(matrix) == (predicted == labels).sum()


def test_without_a_mistake_none_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "mistakes.jpg").write_bytes(b"of an earlier model")
    seen = error_analysis.ErrorAnalysis()
    batches = [(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))]
    model = Native(torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Flatten()))
    evaluate(model, batches, torch.device("cpu"), observers=[seen])

    seen.save(tmp_path, classes("a", "b", "c"), {})
    assert not (tmp_path / "mistakes.jpg").exists() and (tmp_path / "confusion_matrix.png").exists()


def test_a_probability_short_of_certainty_is_not_shown_as_it() -> None:
    assert [error_analysis._percent(p) for p in (0.5, 0.994, 0.9973, 1.0)] == ["50%", "99%", "99.7%", "100%"]


def test_a_training_draws_its_best_model(plots: None, memory: Any, toy_recipe: Recipe) -> None:
    results = Classifier("n").train(recipe=toy_recipe, epochs=2, name="drawn", quiet=True)
    assert {path.name for path in results.run.iterdir()} >= DRAWN
    metrics = json.loads((results.run / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(results.metrics.top1, abs=0.011) and metrics["split"] == "val"
    matrix = np.load(results.run / "confusion.npz")["matrix"]
    assert matrix.sum(axis=1).tolist() == torch.bincount(memory.labels["val"], minlength=6).tolist()
    assert np.trace(matrix) / matrix.sum() == pytest.approx(metrics["top1"])
    with open(results.run / "confusion.csv", newline="") as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == matrix.sum() - np.trace(matrix)
    for name in ("results.png", "confusion_matrix.png", "mistakes.jpg"):
        Image.open(results.run / name).verify()


def test_what_cannot_be_drawn_costs_a_line(
    plots: None, memory: Any, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(Confusion, "save", broken)
    monkeypatch.setattr(run_plots, "draw_curves", broken)
    results = Classifier("n").train(recipe=toy_recipe, epochs=1, name="undrawn", quiet=True)
    log = (results.run / "log.txt").read_text()
    assert "results.png could not be drawn, the training is whole all the same: no room\n" in log
    assert "the confusion matrix could not be drawn" in log
    assert results.epochs == 1 and results.run.joinpath("weights", "best.pt").exists()
    assert not list(results.run.glob("*.tmp"))


def test_no_plots(plots: None, memory: Any, toy_recipe: Recipe) -> None:
    run = Classifier("n").train(recipe=toy_recipe, epochs=1, name="plain", quiet=True, plots=False).run
    assert not DRAWN & {path.name for path in run.iterdir()}
