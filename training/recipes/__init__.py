"""Recipes: the hyper-parameters of a run, one TOML file a size, and how they are read, overridden and checked."""

import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from imgtool.training.models.yolov8 import STRIDE
from imgtool.training.recipes.augment import LEVELS, Augmentation
from imgtool.wordnet.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

FOLDER = Path(__file__).parent
LR_BATCH = 256  # `lr` is stated for this many samples a step
WARMUP_LIMIT = 0.2  # of the run, so that a run of three epochs is not all warm-up
EMA_LIMIT = 0.05  # of the run, so that a run of fifty steps does not average its beginning in
ENOUGH_STEPS = 100  # an epoch of a small data set should have about these many steps …
SMALLEST_BATCH = 32  # … unless the batch would fall under this, where batch norm's statistics get noisy
DEFAULT = "s"  # the recipe of networks without one: moderate crops, light regularisation
SPOKEN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Recipe:
    """All that decides what a training does to its weights, except size, data and seed.

    SGD with (Nesterov) momentum; linear warm-up, then a cosine to zero; exponential moving average of the weights.
    The fields stand in the order of the files; every one is used.
    """

    epochs: int
    batch: int  # samples a step
    lr: float  # peak learning rate per 256 samples a step, scaled linearly with the batch (Goyal et al. 2017)
    momentum: float
    nesterov: bool
    weight_decay: float  # of convolutions' and the classifier's weights; none on norms and biases
    warmup_epochs: float  # at most a fifth of the run
    label_smoothing: float
    dropout: float  # before the classifier
    ema_half_life: float  # steps after which a weight's share has halved; at most a twentieth of the run; 0: no EMA
    crop_scale: float  # smallest part of an image's area that a training crop may take; the largest is 1
    hflip: float  # probability of a mirrored training image
    imgsz: int  # pixels a side at validation
    progressive: tuple[tuple[float, int], ...]  # ((from this fraction of the run, train at this size), …); () for imgsz
    loss: str = "ce"  # NAME or NAME:option=value,…; see imgtool.training.models.losses
    randaugment: int = 0  # operations a training image, see imgtool.training.recipes.augment for these
    magnitude: int = 9  # of each, of 30
    erasing: float = 0.0  # probability of a black rectangle
    mixup: float = 0.0  # alpha; 0: off
    cutmix: float = 0.0  # alpha; 0: off. With both, each step takes one
    drop_path: float = 0.0  # stochastic depth: probability that the last residual branch is left out for an image
    accumulate: int = 1  # parts that a batch is computed in, one after the other, where it does not fit the memory
    clip: float = 0.0  # largest norm of a step's gradient; 0: any
    final_lr: float = 0.0  # what the cosine ends at, as a fraction of the peak

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))
        starts = [start for start, _ in self.progressive]
        rising = starts == sorted(set(starts)) and starts[:1] in ([], [0.0]) and all(start < 1 for start in starts)
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "lr": (self.lr > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "nesterov": (self.momentum > 0 or not self.nesterov, "false where momentum is 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "warmup_epochs": (self.warmup_epochs >= 0, "at least 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "ema_half_life": (self.ema_half_life >= 0, "at least 0"),
            "crop_scale": (0 < self.crop_scale <= 1, "in (0, 1]"),
            "hflip": (0 <= self.hflip <= 1, "in [0, 1]"),
            "randaugment": (0 <= self.randaugment <= 8, "in 0..8"),
            "magnitude": (0 <= self.magnitude <= LEVELS, f"in 0..{LEVELS}"),
            "erasing": (0 <= self.erasing <= 1, "in [0, 1]"),
            "mixup": (self.mixup >= 0, "at least 0"),
            "cutmix": (self.cutmix >= 0, "at least 0"),
            "drop_path": (0 <= self.drop_path < 1, "in [0, 1)"),
            "accumulate": (
                self.accumulate >= 1 and self.batch % self.accumulate == 0,
                f"at least 1 and a divisor of the batch, {self.batch}",
            ),
            "clip": (self.clip >= 0, "at least 0"),
            "final_lr": (0 <= self.final_lr <= 1, "in [0, 1]"),
            "imgsz": (self.imgsz >= STRIDE, f"at least {STRIDE}"),
            "progressive": (
                rising and all(size >= STRIDE for _, size in self.progressive),
                f"[from fraction, imgsz] pairs, fractions rising from 0 and below 1, sizes at least {STRIDE}",
            ),
        }
        for name, (good, wanted) in rules.items():
            if not good:
                raise InputError(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    def override(self, **changes: Any) -> "Recipe":
        """This recipe with some fields changed; a change to None is no change.

        An ``imgsz`` other than the recipe's own is trained at from the first step to the last: the progressive sizes
        were chosen for the recipe's. Raises InputError for an unknown field or a bad value.
        """
        changes = {key: value for key, value in changes.items() if value is not None}
        _refuse_unknown(changes)
        if changes.get("imgsz", self.imgsz) != self.imgsz:
            changes.setdefault("progressive", ())
        return replace(self, **changes)

    def fit_batch(self, num_samples: int) -> "Recipe":
        """This recipe with its batch halved until ``num_samples`` make about a hundred steps an epoch (or it is 32)."""
        batch = self.batch
        while batch > SMALLEST_BATCH and num_samples < ENOUGH_STEPS * batch:
            batch = max(batch // 2, SMALLEST_BATCH)
        return replace(self, batch=batch, accumulate=math.gcd(batch, self.accumulate))

    def train_size_at(self, epoch: int) -> int:
        """Pixels a side of the training images in this 0-based epoch. The last epoch is always of the last size."""
        if epoch == self.epochs - 1 and self.progressive:
            return self.progressive[-1][1]
        sizes = [size for start, size in self.progressive if start * self.epochs <= epoch]
        return sizes[-1] if sizes else self.imgsz

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.randaugment, self.magnitude, self.erasing, self.mixup, self.cutmix)

    @property
    def peak_lr(self) -> float:
        return self.lr * self.batch / LR_BATCH

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of this 0-based step: linear from peak/warm-up to peak, then half a cosine down to ``final_lr``
        of it."""
        total = self.epochs * steps_per_epoch
        warmup = int(min(self.warmup_epochs, WARMUP_LIMIT * self.epochs) * steps_per_epoch)
        if step < warmup:
            return self.peak_lr * (step + 1) / warmup
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
        return self.peak_lr * (self.final_lr + (1 - self.final_lr) * cosine)

    def ema_decay(self, steps_per_epoch: int) -> float:
        """What one step leaves of the average: 2^(−1/half-life)."""
        half_life = min(self.ema_half_life, EMA_LIMIT * self.epochs * steps_per_epoch)
        return 0.5 ** (1 / half_life) if half_life > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as TOML and JSON have them; `from_dict` is the way back."""
        return asdict(self) | {"progressive": [list(pair) for pair in self.progressive]}


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe of these values; only those with a default may be left out. Raises InputError in one line."""
    _refuse_unknown(values)
    missing = [field.name for field in fields(Recipe) if field.name not in values and field.default is MISSING]
    if missing:
        raise InputError(f"the recipe lacks {', '.join(missing)}")
    return Recipe(**values)


def load(recipe: str | Path) -> Recipe:
    """The recipe of a size (n, s, m, l, x), another of ours by its name (ultralytics), or a TOML file.

    Raises InputError that names the file and what in it is wrong.
    """
    ours = FOLDER / f"{recipe}.toml"
    path = ours if Path(str(recipe)).name == str(recipe) and ours.is_file() else Path(recipe)
    try:
        return from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"cannot read the recipe {path}: {error.strerror}; give a .toml file or one of {', '.join(names())}"
        ) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InputError(f"{path} is not a TOML file: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def names() -> list[str]:
    """Of the recipes that come with imgtool."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"a recipe has no {', '.join(unknown)}; its settings are {', '.join(known)}")


def _typed(name: str, value: Any) -> Any:
    """The value as its field's type, where that loses nothing. Raises InputError."""
    kind = Recipe.__annotations__[name]
    if name == "progressive":
        try:
            return tuple((float(start), _typed("imgsz", size)) for start, size in value)
        except (TypeError, ValueError):
            raise InputError(f"progressive must be a list of [from fraction, imgsz] pairs, not {value!r}") from None
    if kind in (bool, str):
        good = isinstance(value, kind)
    elif kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good:
        raise InputError(f"{name} must be {SPOKEN[kind]}, not {value!r}")
    return kind(value)
