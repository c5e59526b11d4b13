"""Loggers get all metrics and plots; one that fails or is missing costs a line in the log, not the training."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgtool.training.classifier import Classifier
from imgtool.training.recipes import Recipe
from imgtool.training.runs import loggers
from imgtool.training.runs.run import COLUMNS, Run
from imgtool.wordnet.errors import InputError


class Memory:
    """Keeps what it is given; fails at the epoch ``fails_at``."""

    def __init__(self, fails_at: int = -1) -> None:
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.images: list[tuple[str, str, int]] = []
        self.closed, self.fails_at = 0, fails_at

    def scalars(self, epoch: int, row: Mapping[str, float]) -> None:
        if epoch == self.fails_at:
            raise ConnectionError("connection lost\nand more")
        self.rows.append((epoch, row))

    def image(self, name: str, path: Path, epoch: int) -> None:
        assert path.is_file()
        self.images.append((name, path.name, epoch))

    def close(self) -> None:
        self.closed += 1


def test_a_logger_is_given_every_epoch_and_the_images(plots: None, memory: Any, toy_recipe: Recipe) -> None:
    good, bad = Memory(), Memory(fails_at=2)
    run = Classifier("n").train(recipe=toy_recipe, epochs=3, name="logged", quiet=True, logger=[good, bad]).run
    assert [epoch for epoch, _ in good.rows] == [1, 2, 3]
    assert set(good.rows[0][1]) == set(COLUMNS) - {"epoch"}
    assert ("confusion_matrix", "confusion_matrix.png", 3) in good.images
    assert ("results", "results.png", 3) in good.images
    assert good.closed == 1
    assert len(bad.rows) == 1 and bad.closed == 0
    assert re.search(r"logger Memory failed.*: connection lost\n", (run / "log.txt").read_text())


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run.create(tmp_path / "run", quiet=True)

    def log_epochs(epochs: range) -> None:
        run.logger = loggers.open_loggers(["tensorboard"], run.path, {}, run.epochs_in_results(), run.say)
        for epoch in epochs:
            run.add_result({name: epoch if name == "epoch" else f"{epoch / 8}" for name in COLUMNS} | {"lr/pg0": ""})

    log_epochs(range(1, 4))
    image = np.full((8, 6, 3), 200, np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    assert run.logger is not None
    run.logger.image("image", tmp_path / "image.png", 3)
    run.logger.close()
    run.forget_results_after(2)
    log_epochs(range(3, 5))  # resumed after epoch 2: epoch 3 is logged again and must occur once
    assert run.logger is not None
    run.logger.close()

    events = accumulator.EventAccumulator(str(run.path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(COLUMNS) - {"epoch", "lr/pg0"}
    assert [(e.step, e.value) for e in events.Scalars("val/loss")] == [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]
    assert "log.txt" not in {path.name for path in run.path.iterdir()}  # no logger failed


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in loggers.NAMES:
        with pytest.raises(InputError, match=rf"needs the package {name}: pip install 'imgtool\[{name}\]'"):
            Classifier("n").train(logger=name, quiet=True)
    with pytest.raises(InputError, match="unknown logger 'paper': choose tensorboard or wandb"):
        Classifier("n").train(logger="paper", quiet=True)
    assert not Path("runs").exists()


def test_a_logger_that_cannot_start_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no account")

    monkeypatch.setattr(loggers, "WandB", broken)
    run = Run.create(tmp_path / "run", quiet=True)
    assert loggers.open_loggers(["wandb"], run.path, {}, 0, run.say).loggers == []
    assert re.search(r"cannot open logger wandb.*: no account", (run.path / "log.txt").read_text())


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = Run.create(tmp_path / "run", quiet=True)
    run.logger = loggers.open_loggers(["wandb"], run.path, {"size": "n", "started": "now"}, 0, run.say)
    run.add_result({name: 1 for name in COLUMNS})
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    run.logger.image("image", tmp_path / "image.png", 1)
    run.logger.close()
    assert not run.logger.loggers and not (run.path / "log.txt").exists()
    (file,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"metrics/accuracy_top1" in content and b"image" in content
