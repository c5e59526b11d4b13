"""The training loop: batches in, checkpoints out. It reads from `train` downwards.

Every step is enqueued without waiting for the device: nothing in it reads a tensor's value. The loss is summed on the
device and read at the log points, which is also where a loss that is no longer a number is noticed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtool.training import checkpoint
from imgtool.training.augment import Mixed, augment
from imgtool.training.ema import EMA
from imgtool.training.evaluate import Metrics, evaluate, has_bf16, to_float
from imgtool.training.losses import Loss
from imgtool.training.meters import Meter, Progress
from imgtool.training.models import ClassificationModel
from imgtool.training.recipes import Recipe
from imgtool.training.runs import Run

LossOf = Callable[[Tensor, Tensor, Mixed | None], Tensor]
LOG_EVERY = 50  # steps between two lines within an epoch


class Loader(Protocol):
    """What the loop needs of a loader (imgtool.pipelines.loaders): an iteration is an epoch of batches on the device,
    (images uint8 [N, 3, H, W] channels_last, labels int64 [N]); ``image_size`` may change between epochs."""

    image_size: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Classes:
    wnids: list[str]
    names: list[str]


def train(
    model: ClassificationModel,
    recipe: Recipe,
    classes: Classes,
    train_loader: Loader,
    val_loader: Loader,
    run: Run,
    device: torch.device,
    criterion: Loss,
    seed: int = 0,
    resume: dict[str, Any] | None = None,
    on_epoch: Callable[[int, Metrics], None] | None = None,
    log_every: int = LOG_EVERY,
) -> Metrics:
    """Trains ``model`` in place by ``recipe`` and returns the best epoch's metrics on ``val_loader``.

    ``criterion`` is a loss of imgtool.training.losses, ``seed`` that of the batches' augmentation. Validated and kept
    are the averaged (EMA) weights. After every epoch ``run`` has one more line in results.csv, a new last.pt, a new
    best.pt where top-1 is the highest so far (the later of equals), and ``on_epoch(epochs done, metrics)`` is called.
    ``resume`` is last.pt's content: training goes on after its epoch as if it had never stopped. KeyboardInterrupt
    passes through; last.pt then holds the last whole epoch.

    Raises TrainingError, naming epoch and step, when the loss is no longer a number.
    """
    steps = len(train_loader)
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe, device)
    ema = EMA(model, recipe.ema_decay(steps))
    progress = Progress(recipe)
    criterion = criterion.to(device)
    loss_of = compiled(make_loss(model, criterion, device), device, run.say)
    torch.backends.cudnn.benchmark = True  # shapes stay the same for epochs: let cuDNN time its algorithms once

    state = State(model, optimizer, ema, progress, train_loader)
    if resume:
        state.restore(resume)
    else:
        save(run, recipe, classes, state, metrics=None)  # from here on --resume works
    progress.start()

    try:
        for epoch in range(progress.epochs, recipe.epochs):
            train_loader.set_epoch(epoch)
            train_loader.image_size = recipe.train_size_at(epoch)
            model.train()
            meter = Meter(device)
            lr = 0.0
            for i, (images, labels) in enumerate(meter.watch(train_loader), start=1):
                lr = set_lr(optimizer, recipe.lr_at(epoch * steps + i - 1, steps))
                mixed = None
                if recipe.augmentation:
                    images, mixed = augment(images, labels, recipe.augmentation, seed, epoch, i)
                loss = step(loss_of, model, optimizer, ema, images, labels, mixed)
                meter.count(loss, len(labels))
                if i % log_every == 0 or i == steps:
                    meter.read(f"of epoch {epoch + 1}")
                if i % log_every == 0 and i < steps:
                    where = f"epoch {epoch + 1}/{recipe.epochs}  step {i}/{steps}"
                    run.say(f"{where}  {meter}  lr {lr:.3g}  ETA {progress.eta(epoch, i / steps)}", transient=True)

            metrics = evaluate(ema.module, val_loader, device, class_scores=criterion.class_scores)
            is_best = progress.finish_epoch(metrics)
            run.add_result(
                {
                    "epoch": epoch + 1,
                    "time": f"{progress.seconds:.2f}",
                    "train/loss": f"{meter.mean_loss:.6g}",
                    "metrics/accuracy_top1": f"{metrics.top1:.6g}",
                    "metrics/accuracy_top5": f"{metrics.top5:.6g}",
                    "val/loss": f"{metrics.loss:.6g}",
                    "lr/pg0": f"{lr:.6g}",
                    "imgsz": train_loader.image_size,
                    "images_per_second": f"{meter.images_per_second:.1f}",
                    "data_wait": f"{meter.data_wait:.4f}",
                    "val_seconds": f"{metrics.seconds:.2f}",
                }
            )
            save(run, recipe, classes, state, metrics, is_best)
            run.say(
                f"epoch {epoch + 1}/{recipe.epochs}  {meter}  top-1 {metrics.top1:.2%}  top-5 {metrics.top5:.2%}  "
                f"val loss {metrics.loss:.3f}  ETA {progress.eta(epoch + 1)}{'  best' if is_best else ''}"
            )
            if on_epoch:
                on_epoch(epoch + 1, metrics)
    except KeyboardInterrupt:
        run.say(f"stopped: --resume continues after the last whole epoch, which {run.last} holds")
        raise
    assert progress.best is not None  # a recipe has at least one epoch
    return progress.best


def step(
    loss_of: LossOf,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: EMA,
    images: Tensor,
    labels: Tensor,
    mixed: Mixed | None = None,
) -> Tensor:
    """One update of the weights and of their average. The loss returned is on the device, unread."""
    loss = loss_of(images, labels, mixed)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    ema.update(model)
    return loss.detach()


def make_loss(model: nn.Module, criterion: Loss, device: torch.device) -> LossOf:
    """(images uint8 [N, 3, H, W], labels int64 [N], how they are mixed) → mean loss, float32.

    Conversion from uint8 and the loss stand inside, so that a compiler fuses them into the network's ends.
    """

    bf16 = has_bf16(device)

    def loss_of(images: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(to_float(images))
        loss: Tensor = criterion(logits, labels)
        if mixed is not None:
            loss = mixed.keep * loss + (1 - mixed.keep) * criterion(logits, mixed.other)
        return loss

    return loss_of


def compiled(loss_of: LossOf, device: torch.device, say: Callable[[str], None]) -> LossOf:
    """`loss_of` through torch.compile on CUDA, or itself with a message where the compiler does not work.

    Not on the CPU: a minute of compiling won nothing measurable there. Each image size is compiled for itself.
    """
    if device.type != "cuda":
        return loss_of
    try:  # the usual trouble is a missing C compiler or Triton: a few cheap lines find it before the run starts
        probe = torch.ones(8, device=device, requires_grad=True)
        torch.compile(lambda x: F.silu(x).sum())(probe).backward()
    except Exception as error:
        say(f"training without torch.compile, slower: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
        return loss_of
    return torch.compile(loss_of, dynamic=False)


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """SGD with weight decay on matrices and kernels only: decaying norms' gains and biases buys nothing."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = device.type in ("cuda", "cpu")  # one kernel for many tensors; elsewhere torch chooses
    return torch.optim.SGD(
        groups, lr=recipe.peak_lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused or None
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


@dataclass
class State:
    """What a resumed run needs to go on exactly as it would have."""

    model: ClassificationModel
    optimizer: torch.optim.Optimizer
    ema: EMA
    progress: Progress
    loader: Loader

    def to_dict(self) -> dict[str, Any]:
        """Without the averaged weights, which a checkpoint has anyway."""
        self.loader.set_epoch(self.progress.epochs)  # its state is that of the next epoch's beginning
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema_steps": self.ema.steps,
            "rng": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
            "loader": self.loader.state_dict(),
            "best": self.progress.best.to_dict() if self.progress.best else None,
            "seconds": self.progress.seconds,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Takes over a checkpoint's content (its ``ema`` and ``resume``)."""
        saved = content["resume"]
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema.module.load_state_dict(content["ema"])
        self.ema.steps = saved["ema_steps"]
        self.loader.load_state_dict(saved["loader"])
        self.progress.epochs = content["epoch"]
        self.progress.best = Metrics(**saved["best"]) if saved["best"] else None
        self.progress.earlier_seconds = saved["seconds"]
        torch.set_rng_state(saved["rng"]["cpu"])
        if len(saved["rng"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["rng"]["cuda"])


def save(
    run: Run, recipe: Recipe, classes: Classes, state: State, metrics: Metrics | None, is_best: bool = False
) -> None:
    """best.pt first if it is one, then last.pt: killed between the two, the epoch is repeated and nothing lost."""
    content: dict[str, Any] = {
        "size": state.model.size,
        "dropout": recipe.dropout,
        "imgsz": recipe.imgsz,
        "wnids": classes.wnids,
        "names": classes.names,
        "epoch": state.progress.epochs,
        "metrics": metrics.to_dict() if metrics else None,
        "recipe": recipe.to_dict(),
        "ema": state.ema.module.state_dict(),
        "resume": None,
    }
    if is_best:
        checkpoint.save(run.best, content)
    checkpoint.save(run.last, content | {"resume": state.to_dict()})
