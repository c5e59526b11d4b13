"""What the training loop is given: the parts of a training (`Setup`) and how it is executed (`Options`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from imgtool.training.evaluation.evaluate import Batches, Metrics
from imgtool.training.models.losses import Loss
from imgtool.training.parallel.distributed import World
from imgtool.training.recipes import Recipe
from imgtool.training.recipes.augment import Mixed


class ResumableLoader(Protocol):
    """What the loop needs of the training split's loader; the loaders of imgtool.pipelines.loaders have it.

    Iterating yields the rest of an epoch in batches on the device: images uint8 [N, 3, H, W] channels_last, labels
    int64 [N]. ``image_size`` may be changed between epochs.
    """

    image_size: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Setup:
    """The parts of a training. ``network`` is trained in place, ``train_loader`` feeds it, and after each epoch the
    averaged weights are validated on ``val_loader``."""

    network: nn.Module
    size: str  # n, s, m, l, x or timm:resnet50: the network's name in checkpoints
    recipe: Recipe
    criterion: Loss
    wnids: list[str]  # of the classes, in class index order
    names: list[str]
    train_loader: ResumableLoader
    val_loader: Batches


@dataclass(frozen=True)
class Options:
    """How a training is executed. Apart from rounding and skipped steps, only ``seed`` and ``precision`` influence the
    weights."""

    seed: int = 0  # of the batch augmentation
    precision: str = "auto"  # auto (bf16 on CUDA from Ampere on, else fp32), bf16, fp16 or fp32
    compile: bool = True  # use torch.compile, on CUDA only
    on_nan: str = "stop"  # or skip: omit and count steps with a NaN or infinite gradient, which synchronises each step
    save_steps: int = 0  # save a checkpoint every N steps, in addition to the end of each epoch; 0: do not
    keep: int = 2  # number of latest checkpoints kept
    profile: bool = False
    log_every: int = 50  # steps between two log lines within an epoch
    on_epoch: Callable[[int, Metrics], None] | None = None  # called with (epochs done, metrics) after each epoch
    on_batch: Callable[[int, int, Tensor, Tensor, Mixed | None], None] | None = None
    """Called with (epoch, step, images, labels, mixed) as trained on: the first micro-batch of each step."""
    world: World = field(default_factory=World)
