"""Recipes: the built-in files, the schedules against closed forms, overrides, and errors for wrong files."""

import math
import re
from pathlib import Path

import pytest

from imgtool.training import recipes
from imgtool.training.recipes import Recipe
from imgtool.wordnet.errors import InputError


@pytest.mark.parametrize("size", "nsmlx")
def test_built_in_recipe_has_100_epochs_and_states_its_results(size: str) -> None:
    recipe = recipes.load(size)
    assert recipe.epochs == 100 and recipe.peak_lr == pytest.approx(2.0)
    text = (recipes.FOLDER / f"{size}.toml").read_text()
    assert text.startswith(f"# imgtool train --size {size} --data data/imagenet\n")
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for word in ("hardware", "hours", "top-1", "top-5", "estimate, not measured"):
        assert word in comments


def test_round_trip() -> None:
    recipe = recipes.load("n")
    assert recipes.from_dict(recipe.to_dict()) == recipe
    assert Recipe(**recipe.to_dict()) == recipe


def test_learning_rate_against_the_closed_form() -> None:
    recipe = recipes.load("n").override(epochs=20, batch=512, lr=0.5, warmup_epochs=2)
    steps = 10
    lrs = [recipe.lr_at(step, steps) for step in range(200)]
    peak = 0.5 * 512 / 256
    assert lrs[0] == pytest.approx(peak / 20)
    assert lrs[9] == pytest.approx(peak / 2)
    assert lrs[19] == pytest.approx(peak) and lrs[20] == pytest.approx(peak)
    assert lrs[110] == pytest.approx(peak / 2)  # the middle of the cosine: (110 − 20) / 180
    assert lrs[65] == pytest.approx(peak * (0.5 + math.sqrt(2) / 4))  # a quarter of the cosine
    assert 0 < lrs[199] < 1e-3
    assert lrs[20:] == sorted(lrs[20:], reverse=True)


def test_warm_up_is_at_most_a_fifth_of_the_run() -> None:
    recipe = recipes.load("n").override(epochs=3)
    lrs = [recipe.lr_at(step, 100) for step in range(300)]
    assert lrs.index(max(lrs)) == 59
    assert recipes.load("n").override(epochs=1).lr_at(0, 1) > 0


def test_ema_half_life() -> None:
    recipe = recipes.load("n").override(ema_half_life=100)
    assert recipe.ema_decay(1251) ** 100 == pytest.approx(0.5)
    short = recipe.override(epochs=5)
    assert short.ema_decay(16) ** 4 == pytest.approx(0.5)  # a twentieth of 80 steps
    assert recipe.override(ema_half_life=0).ema_decay(1251) == 0


def test_progressive_sizes() -> None:
    recipe = recipes.load("n")
    sizes = [recipe.train_size_at(epoch) for epoch in range(100)]
    assert [sizes.index(size) for size in (128, 160, 192, 224)] == [0, 30, 60, 90]
    assert sizes == sorted(sizes)
    assert [recipe.override(epochs=3).train_size_at(epoch) for epoch in range(3)] == [128, 160, 224]
    assert recipe.override(epochs=1).train_size_at(0) == 224
    assert [recipe.override(imgsz=64, epochs=3).train_size_at(epoch) for epoch in range(3)] == [64, 64, 64]
    assert recipe.override(imgsz=224) == recipe


def test_override() -> None:
    recipe = recipes.load("s")
    assert recipe.override(epochs=None) == recipe
    assert recipe.override(epochs=7, lr=1).lr == 1.0
    with pytest.raises(InputError, match="momentun"):
        recipe.override(momentun=0.9)


@pytest.mark.parametrize(
    ("samples", "batch"), [(1_281_167, 1024), (20_000, 128), (1000, 32), (102_400, 1024), (102_399, 512)]
)
def test_small_data_sets_get_smaller_batches(samples: int, batch: int) -> None:
    assert recipes.load("n").fit_batch(samples).batch == batch


def test_a_small_batch_is_not_enlarged() -> None:
    assert recipes.load("n").override(batch=8).fit_batch(100).batch == 8


WRONG = {
    "epochs = 0": "epochs must be at least 1, not 0",
    "epochs = 1.5": "epochs must be an integer, not 1.5",
    "epochs = true": "epochs must be an integer, not True",
    "lr = -1": "lr must be greater than 0",
    "lr = nan": "lr must be a number, not nan",
    'lr = "fast"': "lr must be a number, not 'fast'",
    "nesterov = 1": "nesterov must be true or false, not 1",
    "momentum = 1.0": r"momentum must be in \[0, 1\)",
    "label_smoothing = 1": r"label_smoothing must be in \[0, 1\)",
    "crop_scale = 0": r"crop_scale must be in \(0, 1\]",
    "imgsz = 16": "imgsz must be in 32",
    "progressive = [[0.5, 128]]": "progressive must be .*increasing from 0",
    "progressive = [[0.0, 128], [0.0, 160]]": "progressive must be .*increasing from 0",
    "progressive = [128, 160]": "progressive must be a list of",
    "progressive = [[0.0, 16]]": "sizes in 32",
    "mixup = -1": "mixup must be at least 0",
    "blur = 0.2": "unknown recipe settings blur",
}


@pytest.mark.parametrize("line", WRONG)
def test_an_error_in_a_recipe_is_one_line_with_its_path(line: str, tmp_path: Path) -> None:
    text = (recipes.FOLDER / "n.toml").read_text()
    name = line.split(" =")[0]
    path = tmp_path / "mine.toml"
    path.write_text(re.sub(rf"^{name} = .*\n", "", text, flags=re.M) + line + "\n")
    with pytest.raises(InputError, match=WRONG[line]) as caught:
        recipes.load(path)
    assert "\n" not in str(caught.value) and "mine.toml" in str(caught.value)


def test_incomplete_missing_and_invalid_files(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text("epochs = 3\n")
    with pytest.raises(InputError, match=r"few.toml: .* lacks the settings batch, lr"):
        recipes.load(tmp_path / "few.toml")
    (tmp_path / "bad.toml").write_text("epochs : 3\n")
    with pytest.raises(InputError, match=r"bad.toml is not a valid TOML file"):
        recipes.load(tmp_path / "bad.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes.toml is not a valid TOML file"):
        recipes.load(tmp_path / "bytes.toml")
    with pytest.raises(InputError, match=r"cannot read recipe .*none\.toml"):
        recipes.load(tmp_path / "none.toml")
