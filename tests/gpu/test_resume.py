"""A training on the device that is stopped within an epoch and resumed ends like an uninterrupted one."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from imgtool.training import recipes
from imgtool.training.checkpoints import checkpoint
from imgtool.training.classifier import Classifier
from imgtool.training.engine import loop
from imgtool.training.engine.signals import Interrupted

RECIPE = recipes.load("n").override(epochs=2, batch=16, imgsz=64, lr=0.05, randaugment=1, erasing=0.25, cutmix=1.0)


@pytest.mark.usefixtures("exact")
def test_stopped_and_resumed(
    drawn_data: Path, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"device": str(device), "workers": 2, "quiet": True, "plots": False, "compile": False}
    start = {"data": drawn_data, "recipe": RECIPE, "precision": "fp32", **options}
    Classifier("n").train(name=tmp_path / "whole", **start)

    steps, set_lr = 0, loop.set_lr

    def signalled(optimizer: torch.optim.Optimizer, lr: float) -> float:
        nonlocal steps
        steps += 1
        if steps == 7:  # the second step of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return set_lr(optimizer, lr)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_lr", signalled)
        with pytest.raises(Interrupted):
            Classifier("n").train(name=tmp_path / "parts", **start)
    assert steps == 7
    saved = checkpoint.load(tmp_path / "parts" / "weights" / "last.pt")
    assert (saved["epoch"], saved["resume"]["meters"][0]["steps"]) == (1, 2)
    torch.manual_seed(99)
    Classifier("n").train(name=tmp_path / "parts", resume=True, **options)

    runs = tmp_path / "whole", tmp_path / "parts"
    one, other = (checkpoint.load(run / "weights" / "last.pt")["ema"] for run in runs)
    for name, tensor in one.items():
        if tensor.is_floating_point():
            assert (tensor - other[name]).norm() <= 0.01 * tensor.norm() + 1e-6, name
    tables = []
    for run in runs:
        with open(run / "results.csv", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert [row["epoch"] for row in tables[0]] == [row["epoch"] for row in tables[1]] == ["1", "2"]
    for a, b in zip(*tables, strict=True):
        assert float(a["train/loss"]) == pytest.approx(float(b["train/loss"]), rel=0.01)
        assert a["lr/pg0"] == b["lr/pg0"]
