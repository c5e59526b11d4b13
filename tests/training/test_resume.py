"""A run that was stopped and resumed ends with the very bits of one that was not."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imgtool.training import checkpoint, loop, models
from imgtool.training.classifier import Classifier
from imgtool.training.ema import EMA
from imgtool.training.evaluate import Metrics
from imgtool.training.meters import Progress
from imgtool.training.recipes import Recipe
from imgtool.training.step import make_optimizer
from imgtool.wordnet.errors import DatasetError, InputError

pytestmark = pytest.mark.usefixtures("memory")
TIMES = {"time", "images_per_second", "data_wait", "val_seconds"}


@pytest.fixture
def recipe(toy_recipe: Recipe) -> Recipe:
    return toy_recipe.override(epochs=4, randaugment=1, erasing=0.25, mixup=0.2, cutmix=1.0)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The nested value as {path: leaf}."""
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


def test_restore_needs_nothing_of_the_state_before(recipe: Recipe, make_dataset: Any, make_loader: Any) -> None:
    run = Classifier("n").train(recipe=recipe.override(epochs=2), name="two", quiet=True).run
    content = checkpoint.load(run / "weights" / "last.pt")
    torch.manual_seed(50)
    model = models.build("n", 6, recipe.dropout)
    optimizer = make_optimizer(model, recipe, torch.device("cpu"))
    loader = make_loader(make_dataset(), "train", batch_size=32, image_size=32)
    state = loop.State(model, optimizer, None, EMA(model, 0.5), Progress(recipe), loader)
    state.restore(content)
    again = leaves({"resume": state.to_dict(), "ema": state.ema.module.state_dict()})
    assert len(again) > 500
    for key, leaf in leaves({key: content[key] for key in ("resume", "ema")}).items():
        if "seconds" not in key:
            assert torch.equal(leaf, again[key]) if isinstance(leaf, torch.Tensor) else leaf == again[key], key


def test_another_seed_gives_other_bits(recipe: Recipe) -> None:
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


def test_a_crash_between_line_and_checkpoint(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """results.csv knows an epoch that last.pt does not: it is run again and stands there once."""
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
        with pytest.raises(InputError, match=f"cannot go on with {key} {change[key]}"):
            Classifier("n").train(name="kept", resume=True, quiet=True, **change)
    memory.fingerprint = "another"
    with pytest.raises(DatasetError, match="is not the data set that runs/kept was trained on"):
        Classifier("n").train(name="kept", resume=True, epochs=4, quiet=True)


def test_resuming_a_finished_run_changes_nothing(recipe: Recipe) -> None:
    first = Classifier("n").train(recipe=recipe.override(epochs=1), name="done", quiet=True)
    before = (first.run / "weights" / "last.pt").read_bytes()
    again = Classifier("n").train(name="done", resume=True, quiet=True)
    assert again == first and (first.run / "weights" / "last.pt").read_bytes() == before
