"""The loop learns, follows the recipe, does not wait for the device, and stops at a NaN loss."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imgtool.training.engine import loop
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import Progress
from imgtool.training.engine.setup import Options, Setup
from imgtool.training.engine.step import Step, make_batch_loss, make_optimizer, set_lr
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.models import yolov8
from imgtool.training.models.losses import CrossEntropy
from imgtool.training.recipes import Recipe
from imgtool.training.runs.run import Run
from imgtool.wordnet.errors import TrainingError

CPU = torch.device("cpu")


def criterion(dataset: Any, recipe: Recipe) -> CrossEntropy:
    return CrossEntropy(dataset.num_classes, recipe.label_smoothing)


def train(
    dataset: Any, make_loader: Any, recipe: Recipe, path: Path, log_every: int = 50, seed: int = 0
) -> tuple[Metrics, Any]:
    torch.manual_seed(seed)
    model = yolov8.build("n", dataset.num_classes, recipe.dropout)
    train_loader = make_loader(
        dataset, "train", batch_size=recipe.batch, image_size=recipe.train_size_at(0), drop_last=True, seed=seed
    )
    val_loader = make_loader(dataset, "val", batch_size=64, image_size=recipe.imgsz)
    loss = criterion(dataset, recipe)
    setup = Setup(model, "n", recipe, loss, dataset.wnids, dataset.names, train_loader, val_loader)
    metrics = loop.train(setup, Run.create(path, quiet=True), CPU, Options(log_every=log_every))
    return metrics, train_loader


def test_learns_separable_classes(make_dataset: Any, make_loader: Any, toy_recipe: Recipe, tmp_path: Path) -> None:
    dataset = make_dataset(train=384)
    metrics, _ = train(dataset, make_loader, toy_recipe.override(epochs=8), tmp_path / "run")
    assert metrics.top1 > 0.9  # chance is 0.17
    assert metrics.images == 96


def test_does_not_learn_without_updates(
    make_dataset: Any, make_loader: Any, toy_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
    metrics, _ = train(make_dataset(), make_loader, toy_recipe.override(epochs=2), tmp_path / "run")
    assert metrics.top1 < 0.5


def test_progressive_sizes_reach_the_loader(
    make_dataset: Any, make_loader: Any, toy_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = toy_recipe.override(epochs=4, imgsz=64, progressive=[[0.0, 32], [0.5, 64]])
    _, loader = train(make_dataset(train=64), make_loader, recipe, tmp_path / "run")
    assert loader.sizes_seen == [32, 32, 64, 64]
    assert loader.epochs_seen == [0, 1, 2, 3]


def test_results_state_the_schedule_and_the_loss(
    make_dataset: Any, make_loader: Any, toy_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, losses = Step.__call__, []

    def recorded(*args: Any) -> torch.Tensor:
        losses.append(real(*args))
        return losses[-1]

    monkeypatch.setattr(Step, "__call__", recorded)
    recipe = toy_recipe.override(epochs=3)
    metrics, _ = train(make_dataset(train=130), make_loader, recipe, tmp_path / "run", log_every=3)
    with open(tmp_path / "run" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for epoch, row in enumerate(rows):
        assert float(row["lr/pg0"]) == pytest.approx(recipe.lr_at(4 * epoch + 3, 4), rel=1e-4)
        mean = sum(loss.item() for loss in losses[4 * epoch : 4 * epoch + 4]) / 4
        assert float(row["train/loss"]) == pytest.approx(mean, rel=1e-4)
        assert 0 <= float(row["data_wait"]) <= 1 and float(row["images_per_second"]) > 0
    assert max(float(row["metrics/accuracy_top1"]) for row in rows) == pytest.approx(metrics.top1, rel=1e-4)


def test_a_nan_loss_stops_the_run(
    make_dataset: Any, make_loader: Any, toy_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Step.__call__, []

    def poisoned(*args: Any) -> torch.Tensor:
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) == 9 else 1.0)

    monkeypatch.setattr(Step, "__call__", poisoned)
    with pytest.raises(TrainingError, match=r"nan in step 4 of epoch 2; .*lr"):
        train(make_dataset(train=160), make_loader, toy_recipe, tmp_path / "run", log_every=2)
    assert (tmp_path / "run" / "results.csv").read_text().count("\n") == 2  # the header and the finished epoch


class Reads(TorchDispatchMode):
    """Counts the reads of a tensor's value, each of which would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_step_reads_no_tensor_value(make_dataset: Any, make_loader: Any, toy_recipe: Recipe, tmp_path: Path) -> None:
    recipe = toy_recipe.override(epochs=1, batch=16)
    counts = []
    for steps in (2, 10):
        with Reads() as reads:
            train(make_dataset(train=16 * steps), make_loader, recipe, tmp_path / f"{steps}", log_every=1000)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0  # only the reads at the end of the epoch, however many steps
    with Reads() as reads:
        train(make_dataset(train=160), make_loader, recipe, tmp_path / "often", log_every=1)
    assert reads.count >= counts[1] + 9  # the counter works: each of the nine further log points reads at least once


def test_step_against_sgd_by_hand(make_dataset: Any, toy_recipe: Recipe) -> None:
    """Two steps of Nesterov momentum with weight decay on matrices only, computed by hand from torch's gradients."""
    recipe = toy_recipe.override(weight_decay=0.1, lr=0.8, dropout=0.0)
    dataset = make_dataset(train=16)
    images, labels = dataset.images["train"], dataset.labels["train"]
    torch.manual_seed(0)
    model = yolov8.build("n", dataset.num_classes)
    twin = yolov8.build("n", dataset.num_classes)
    twin.load_state_dict(model.state_dict())
    optimizer = make_optimizer(model, recipe, CPU)
    step = Step(make_batch_loss(model, criterion(dataset, recipe), CPU), model, optimizer, EMA(model, 0.9))
    momenta = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    for lr in (0.05, 0.02):
        set_lr(optimizer, lr)
        step([(images, labels, None)])
        logits = twin(images / 255).log_softmax(1)
        smooth = torch.full_like(logits, 0.1 / 6).scatter_(1, labels[:, None], 0.9 + 0.1 / 6)
        loss = -(smooth * logits).sum(1).mean()
        names, parameters = zip(*twin.named_parameters(), strict=True)
        for name, p, gradient in zip(names, parameters, torch.autograd.grad(loss, parameters), strict=True):
            if p.ndim > 1:
                gradient = gradient + 0.1 * p.detach()
            momenta[name] = 0.9 * momenta[name] + gradient
            p.data -= lr * (gradient + 0.9 * momenta[name])
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-5), name


def test_eta_accounts_for_larger_images_to_come(toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    progress = Progress(toy_recipe.override(epochs=4, imgsz=64, progressive=[[0.0, 32], [0.5, 64]]))
    now = 10.0
    assert progress.eta(1) == "0:01:30"  # one unit of work done in 10 s, 1 + 4 + 4 to go
    now = 3600.0
    assert progress.eta(1, 0.5) == "5:40:00"  # 1.5 units in an hour, 8.5 to go
