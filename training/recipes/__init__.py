"""Recipes: the hyper-parameters of a run, in one TOML file per size. They are read, overridden and checked here."""

import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from imgtool.training.models.yolov8 import STRIDE
from imgtool.training.recipes.augment import LEVELS, BatchAugmentation
from imgtool.wordnet.errors import InputError, first_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

FOLDER = Path(__file__).parent
LR_BATCH = 256  # `lr` is the learning rate for this batch size
MAX_WARMUP = 0.2  # of the run, so that a run of three epochs is not all warm-up
MAX_EMA_HALF_LIFE = 0.05  # of the run, so that the average of a run of fifty steps does not include its beginning
MIN_STEPS = 100  # per epoch: `fit_batch` lowers the batch until a small data set has about this many …
MIN_BATCH = 32  # … but not below this batch, where batch norm's statistics get noisy
MAX_IMGSZ = 4096  # pixels per side
DEFAULT = "s"  # the recipe of networks without one: moderate crops, light regularisation
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of a training: with size, data and seed they determine the weights.

    SGD with (Nesterov) momentum; learning rate with linear warm-up and cosine decay; exponential moving average of the
    weights. The fields have the order of the TOML files.
    """

    epochs: int
    batch: int  # samples per step
    lr: float  # peak learning rate for a batch of 256; scaled linearly with the batch (Goyal et al. 2017)
    momentum: float
    nesterov: bool
    weight_decay: float  # of convolutions and the classifier's matrix; norms and biases have none
    warmup_epochs: float  # limited to a fifth of the run
    label_smoothing: float
    dropout: float  # before the classifier
    ema_half_life: float  # in steps; limited to a twentieth of the run; 0: no EMA
    crop_scale: float  # smallest fraction of an image's area that a training crop covers; the largest is 1
    hflip: float  # probability of flipping a training image horizontally
    imgsz: int  # pixels per side at validation
    progressive: tuple[tuple[float, int], ...]  # ((from this fraction of the run, train at this size), …); (): at imgsz
    loss: str = "ce"  # NAME or NAME:option=value,…; see imgtool.training.models.losses
    randaugment: int = 0  # RandAugment operations per training image; see imgtool.training.recipes.augment
    magnitude: int = 9  # of each operation, 0 to 30
    erasing: float = 0.0  # probability of erasing a rectangle of a training image
    mixup: float = 0.0  # alpha; 0: off
    cutmix: float = 0.0  # alpha; 0: off. With both, each step uses one of them at random
    drop_path: float = 0.0  # stochastic depth: probability of dropping the last residual branch for an image
    accumulate: int = 1  # micro-batches that a batch is divided into, to save memory
    clip: float = 0.0  # largest norm of a step's gradient; 0: not limited
    final_lr: float = 0.0  # learning rate at the end of the cosine, as a fraction of the peak

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))
        starts = [start for start, _ in self.progressive]
        increasing = starts == sorted(set(starts)) and starts[:1] in ([], [0.0]) and all(start < 1 for start in starts)
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "lr": (self.lr > 0, "greater than 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "nesterov": (self.momentum > 0 or not self.nesterov, "false if momentum is 0"),
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
                f"at least 1 and a divisor of batch, {self.batch}",
            ),
            "clip": (self.clip >= 0, "at least 0"),
            "final_lr": (0 <= self.final_lr <= 1, "in [0, 1]"),
            "imgsz": (STRIDE <= self.imgsz <= MAX_IMGSZ, f"in {STRIDE}..{MAX_IMGSZ}"),
            "progressive": (
                increasing and all(STRIDE <= size <= MAX_IMGSZ for _, size in self.progressive),
                f"[from fraction, imgsz] pairs, fractions increasing from 0 below 1, sizes in {STRIDE}..{MAX_IMGSZ}",
            ),
        }
        for name, (valid, requirement) in rules.items():
            if not valid:
                raise InputError(f"{name} must be {requirement}, not {getattr(self, name)!r}")

    def override(self, **changes: Any) -> "Recipe":
        """Returns this recipe with some fields changed; fields given as None keep their value.

        An ``imgsz`` that differs from the recipe's also clears ``progressive``, whose sizes suit the recipe's own: all
        epochs are then trained at ``imgsz``. Raises InputError for an unknown field or a bad value.
        """
        changes = {key: value for key, value in changes.items() if value is not None}
        _refuse_unknown(changes)
        if changes.get("imgsz", self.imgsz) != self.imgsz:
            changes.setdefault("progressive", ())
        return replace(self, **changes)

    def fit_batch(self, num_samples: int) -> "Recipe":
        """Returns this recipe with its batch halved until an epoch of ``num_samples`` has 100 steps, or to 32."""
        batch = self.batch
        while batch > MIN_BATCH and num_samples < MIN_STEPS * batch:
            batch = max(batch // 2, MIN_BATCH)
        return replace(self, batch=batch, accumulate=math.gcd(batch, self.accumulate))

    def train_size_at(self, epoch: int) -> int:
        """Returns the training image size, pixels per side, of a 0-based epoch. The last epoch has the last size."""
        if epoch == self.epochs - 1 and self.progressive:
            return self.progressive[-1][1]
        sizes = [size for start, size in self.progressive if start * self.epochs <= epoch]
        return sizes[-1] if sizes else self.imgsz

    @property
    def batch_augmentation(self) -> BatchAugmentation:
        return BatchAugmentation(self.randaugment, self.magnitude, self.erasing, self.mixup, self.cutmix)

    @property
    def peak_lr(self) -> float:
        return self.lr * self.batch / LR_BATCH

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Returns the learning rate of a 0-based step: linear warm-up to the peak, then half a cosine down to
        ``final_lr`` times the peak."""
        total = self.epochs * steps_per_epoch
        warmup = int(min(self.warmup_epochs, MAX_WARMUP * self.epochs) * steps_per_epoch)
        if step < warmup:
            return self.peak_lr * (step + 1) / warmup
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
        return self.peak_lr * (self.final_lr + (1 - self.final_lr) * cosine)

    def ema_decay(self, steps_per_epoch: int) -> float:
        """Returns the EMA's decay per step, 2^(−1/half-life)."""
        half_life = min(self.ema_half_life, MAX_EMA_HALF_LIFE * self.epochs * steps_per_epoch)
        return 0.5 ** (1 / half_life) if half_life > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as numbers, strings and lists, for JSON; `from_dict` is the inverse."""
        return asdict(self) | {"progressive": [list(pair) for pair in self.progressive]}


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of these values. Raises InputError for an unknown or missing field, or a bad value."""
    _refuse_unknown(values)
    missing = [field.name for field in fields(Recipe) if field.name not in values and field.default is MISSING]
    if missing:
        raise InputError(f"the recipe lacks the settings {', '.join(missing)}")
    return Recipe(**values)


def load(recipe: str | Path) -> Recipe:
    """Reads the recipe of a size (n, s, m, l, x), another built-in one by its name (ultralytics), or a TOML file.

    Raises InputError that names the file and the setting that is wrong.
    """
    built_in = FOLDER / f"{recipe}.toml"
    path = built_in if Path(str(recipe)).name == str(recipe) and built_in.is_file() else Path(recipe)
    try:
        return from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"cannot read recipe {path}: {error.strerror}; give a TOML file or one of {', '.join(names())}"
        ) from None
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or lists in lists without end
        raise InputError(f"{path} is not a valid TOML file: {first_line(error)}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_types(values: Mapping[str, Any]) -> None:
    """Raises InputError for a value of another type than its setting has. Other keys are ignored: a checkpoint of
    another version may have more settings, or fewer."""
    for name in Recipe.__annotations__.keys() & values.keys():
        _typed(name, values[name])


def names() -> list[str]:
    """Returns the names of the built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"unknown recipe settings {', '.join(unknown)}: the settings are {', '.join(known)}")


def _typed(name: str, value: Any) -> Any:
    """Converts a value to its field's type. Raises InputError for a value of another type."""
    kind = Recipe.__annotations__[name]
    if name == "progressive":
        try:
            return tuple((float(start), _typed("imgsz", size)) for start, size in value)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"progressive must be a list of [from fraction, imgsz] pairs, not {value!r}") from None
    if kind in (bool, str):
        valid = isinstance(value, kind)
    elif kind is int:
        valid = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31
    else:
        valid = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    if not valid:
        raise InputError(f"{name} must be {TYPE_NAMES[kind]}, not {value!r:.200}")
    return kind(value)
