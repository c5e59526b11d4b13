"""A run that was stopped and resumed ends bit for bit like one that was not."""

import csv
import gzip
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imgtool.training.checkpoints import checkpoint
from imgtool.training.classifier import Classifier
from imgtool.training.engine import profiler
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import Progress
from imgtool.training.engine.signals import Interrupted
from imgtool.training.engine.state import TrainingState
from imgtool.training.engine.step import Step, make_optimizer
from imgtool.training.evaluation.evaluate import Metrics
from imgtool.training.models import yolov8
from imgtool.training.recipes import Recipe
from imgtool.wordnet.errors import CheckpointError, DatasetError, InputError

pytestmark = pytest.mark.usefixtures("memory")
TIMES = {"time", "images_per_second", "data_wait", "val_seconds"}


@pytest.fixture
def recipe(toy_recipe: Recipe) -> Recipe:
    return toy_recipe.override(epochs=4, randaugment=1, erasing=0.25, mixup=0.2, cutmix=1.0)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Flattens a nested value to {path: leaf}."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in items for name, leaf in leaves(part, f"{path}/{key}").items()}
    return {path: value}


def assert_same_run(one: Path, other: Path) -> None:
    a, b = (leaves(checkpoint.load(path / "weights" / "last.pt")) for path in (one, other))
    assert a.keys() == b.keys()
    assert sum(isinstance(leaf, torch.Tensor) for leaf in a.values()) > 300  # weights, average and momentum
    for key, leaf in a.items():
        if "seconds" not in key:
            same = torch.equal(leaf, b[key]) if isinstance(leaf, torch.Tensor) else leaf == b[key]
            assert same, key
    rows = []
    for path in (one, other):
        with open(path / "results.csv", newline="") as file:
            rows.append([{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)])
    assert rows[0] == rows[1] and len(rows[0]) == 4


def stop_after(epoch: int) -> Callable[[int, Metrics], None]:
    def stop(done: int, _metrics: Metrics) -> None:
        if done == epoch:
            raise KeyboardInterrupt

    return stop


def test_bit_for_bit(recipe: Recipe, interrupt: Callable[[int, int], None]) -> None:
    whole = Classifier("n").train(recipe=recipe, seed=3, name="whole", quiet=True)

    with pytest.raises(KeyboardInterrupt):
        Classifier("n").train(recipe=recipe, seed=3, name="parts", quiet=True, on_epoch=stop_after(2))
    interrupt(2, 3)  # and again, in the middle of the third epoch
    with pytest.raises(KeyboardInterrupt):
        Classifier("n").train(name="parts", resume=True, quiet=True)
    interrupt(-1, -1)
    torch.manual_seed(99)
    resumed = Classifier("runs/parts").train(resume=True, quiet=True)

    assert_same_run(whole.run, resumed.run)
    assert resumed.metrics.top1 == whole.metrics.top1
    assert "stopped: --resume" in (resumed.run / "log.txt").read_text()


def test_restore_overwrites_the_whole_state(recipe: Recipe, make_dataset: Any, make_loader: Any) -> None:
    run = Classifier("n").train(recipe=recipe.override(epochs=2), name="two", quiet=True).run
    content = checkpoint.load(run / "weights" / "last.pt")
    torch.manual_seed(50)
    model = yolov8.build("n", 6, recipe.dropout)
    optimizer = make_optimizer(model, recipe, torch.device("cpu"))
    loader = make_loader(make_dataset(), "train", batch_size=32, image_size=32)
    state = TrainingState(model, optimizer, None, EMA(model, 0.5), Progress(recipe), loader)
    state.restore(content)
    again = leaves({"resume": state.to_dict(), "ema": state.ema.module.state_dict()})
    assert len(again) > 500
    for key, leaf in leaves({key: content[key] for key in ("resume", "ema")}).items():
        if "seconds" not in key:
            assert torch.equal(leaf, again[key]) if isinstance(leaf, torch.Tensor) else leaf == again[key], key


def test_another_seed_gives_other_weights(recipe: Recipe) -> None:
    runs = [
        Classifier("n").train(recipe=recipe.override(epochs=1), seed=seed, name=f"s{seed}", quiet=True).run
        for seed in (0, 1)
    ]
    one, other = (checkpoint.load(run / "weights" / "last.pt")["ema"]["model.0.conv.weight"] for run in runs)
    assert not torch.equal(one, other)


def test_interrupted_in_the_first_epoch(recipe: Recipe, interrupt: Callable[[int, int], None]) -> None:
    interrupt(0, 2)
    with pytest.raises(KeyboardInterrupt):
        Classifier("n").train(recipe=recipe.override(epochs=1), name="early", quiet=True)
    interrupt(-1, -1)
    resumed = Classifier("n").train(name="early", resume=True, quiet=True)
    fresh = Classifier("n").train(recipe=recipe.override(epochs=1), name="fresh", quiet=True)
    one, other = (checkpoint.load(result.run / "weights" / "best.pt")["ema"] for result in (resumed, fresh))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_crash_between_results_row_and_checkpoint(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """results.csv has an epoch that last.pt lacks: the epoch is trained again and has one row."""
    real = checkpoint.save

    def save(path: Path, content: dict[str, Any]) -> None:
        if content["epoch"] == 2:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        Classifier("n").train(recipe=recipe.override(epochs=2), name="crash", quiet=True)
    monkeypatch.setattr(checkpoint, "save", real)
    results = Path("runs/crash/results.csv")
    assert results.read_text().count("\n") == 3
    Classifier("n").train(name="crash", resume=True, quiet=True)
    assert [line.split(",")[0] for line in results.read_text().splitlines()] == ["epoch", "1", "2"]


def test_a_resumed_run_keeps_its_settings(recipe: Recipe, memory: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        Classifier("n").train(recipe=recipe, name="kept", quiet=True, on_epoch=stop_after(1))
    for change in ({"epochs": 9}, {"seed": 5}, {"recipe": "s"}, {"lr": 0.1}):
        key = next(iter(change))
        with pytest.raises(InputError, match=f"with {key}={change[key]}: "):
            Classifier("n").train(name="kept", resume=True, quiet=True, **change)
    memory.fingerprint = "another"
    with pytest.raises(DatasetError, match=r"cannot resume runs/kept on memory: .* another data set"):
        Classifier("n").train(name="kept", resume=True, epochs=4, quiet=True)


def test_resuming_a_finished_run_changes_nothing(recipe: Recipe) -> None:
    first = Classifier("n").train(recipe=recipe.override(epochs=1), name="done", quiet=True)
    before = (first.run / "weights" / "last.pt").read_bytes()
    again = Classifier("n").train(name="done", resume=True, quiet=True)
    assert again == first and (first.run / "weights" / "last.pt").read_bytes() == before


def test_resuming_after_a_signal_is_bit_for_bit(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM and SIGINT within an epoch: no step is lost or repeated."""
    whole = Classifier("n").train(recipe=recipe, seed=3, name="whole", quiet=True)
    real, calls, at = Step.__call__, [], {4: signal.SIGTERM, 13: signal.SIGINT}

    def signalled(*args: Any) -> Any:
        calls.append(1)
        if len(calls) in at:
            os.kill(os.getpid(), at[len(calls)])
        return real(*args)

    monkeypatch.setattr(Step, "__call__", signalled)
    with pytest.raises(Interrupted, match="SIGTERM") as stopped:
        Classifier("n").train(recipe=recipe, seed=3, name="parts", quiet=True)
    assert stopped.value.exit_code == 143 and len(calls) == 4
    assert checkpoint.load(Path("runs/parts/weights/last.pt"))["resume"]["meters"][0]["steps"] == 4
    with pytest.raises(Interrupted, match="SIGINT") as stopped:
        Classifier("n").train(name="parts", resume=True, quiet=True)
    assert stopped.value.exit_code == 130 and len(calls) == 13
    resumed = Classifier("n").train(name="parts", resume=True, quiet=True)
    assert len(calls) == 4 * 6
    assert_same_run(whole.run, resumed.run)


def test_a_truncated_checkpoint_falls_back_to_the_previous_one(recipe: Recipe) -> None:
    recipe = recipe.override(epochs=3)
    whole = Classifier("n").train(recipe=recipe, name="whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        Classifier("n").train(recipe=recipe, name="cut", quiet=True, on_epoch=stop_after(2), keep=3)
    weights = Path("runs/cut/weights")
    assert sorted(path.name for path in weights.iterdir()) == ["best.pt", "last-1.pt", "last-2.pt", "last.pt"]
    assert [checkpoint.load(weights / f"last{n}.pt")["epoch"] for n in ("", "-1", "-2")] == [2, 1, 0]
    for name in ("last.pt", "last-1.pt"):
        data = (weights / name).read_bytes()
        (weights / name).write_bytes(data[: len(data) // 2])
    resumed = Classifier("n").train(name="cut", resume=True, quiet=True)
    assert (resumed.run / "log.txt").read_text().count("resuming from the previous checkpoint") == 2
    one, other = (checkpoint.load(run / "weights" / "last.pt")["ema"] for run in (whole.run, resumed.run))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    for path in weights.glob("last*.pt"):
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"last-\d.pt .*damaged"):
        Classifier("n").train(name="cut", resume=True, quiet=True)


def test_save_steps_keep_and_accumulate(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, saved = recipe.override(epochs=1, accumulate=2, clip=1.0), []
    real = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, content: (saved.append(content), real(path, content)))
    run = Classifier("n").train(recipe=recipe, name="often", quiet=True, save_steps=2, on_nan="skip", keep=1).run
    meters = [content["resume"]["meters"][0] for content in saved if content["resume"]]
    assert [meter and meter["steps"] for meter in meters] == [None, 2, 4, None]
    assert {path.name for path in (run / "weights").iterdir()} == {"best.pt", "last.pt"}
    with open(run / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["bad_steps"] == "0"


def test_steps_with_a_nan_loss_are_counted(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Step.__call__, []

    def poisoned(self: Step, parts: Any) -> Any:
        calls.append(1)
        before, self.batch_loss = (
            self.batch_loss,
            ((lambda *args: before(*args) * float("nan")) if len(calls) == 2 else self.batch_loss),
        )
        try:
            return real(self, parts)
        finally:
            self.batch_loss = before

    monkeypatch.setattr(Step, "__call__", poisoned)
    run = Classifier("n").train(recipe=recipe.override(epochs=1), name="bad", quiet=True, on_nan="skip").run
    with open(run / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["bad_steps"] == "1" and float(row["train/loss"]) > 0.5
    assert "1 steps skipped" in (run / "log.txt").read_text()


def test_a_profile_names_the_bottleneck(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "FIRST", 2)
    monkeypatch.setattr(profiler, "COUNT", 6)
    run = Classifier("n").train(recipe=recipe.override(epochs=2), name="traced", quiet=True, profile=True).run
    text = (run / "profile" / "verdict.txt").read_text()
    assert re.match(r"6 steps took [\d.]+ s, [\d.]+ ms each; \d+% of it waiting for batches\. Bound by the ", text)
    with gzip.open(run / "profile" / "trace.json.gz", "rt") as file:
        assert any("conv" in str(event.get("name")) for event in json.load(file)["traceEvents"])
    assert "profile: 6 steps took" in (run / "log.txt").read_text()


def test_verdicts() -> None:
    assert "Bound by the loader" in profiler.verdict({}, 0.5, 1.0, 10)
    assert "Bound by the model" in profiler.verdict({}, 0.05, 1.0, 10)
    assert "Bound by kernel launches" in profiler.verdict({"kernel": 0.4, "memcpy": 0.01}, 0.0, 1.0, 10)
    assert "Bound by copies" in profiler.verdict({"kernel": 0.3, "memcpy": 0.5}, 0.0, 1.0, 10)
    assert "Bound by the model" in profiler.verdict({"kernel": 0.9, "memcpy": 0.1}, 0.0, 1.0, 10)


def test_another_librarys_network_trains_resumes_and_validates(recipe: Recipe, memory: Any) -> None:
    classifier = Classifier("torchvision:mobilenet_v3_small")
    recipe = recipe.override(epochs=2, dropout=0.0)
    with pytest.raises(KeyboardInterrupt):
        classifier.train(recipe=recipe, name="other", quiet=True, on_epoch=stop_after(1))
    result = Classifier("runs/other").train(resume=True, quiet=True)
    again = Classifier(result.run)
    assert again.size == "torchvision:mobilenet_v3_small"
    assert again.val("x", device="cpu").top1 == pytest.approx(result.metrics.top1)
    tuned = again.train(recipe=recipe.override(epochs=1, lr=1e-9), name="tuned", quiet=True)
    torch.testing.assert_close(
        Classifier(tuned.run).model.get_parameter("features.0.0.weight"),
        again.model.get_parameter("features.0.0.weight"),
    )
