"""One update of the weights: loss, precision, compiler, optimiser."""

import contextlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imgtool.pipelines.codec.transform import to_float
from imgtool.training.engine.ema import EMA
from imgtool.training.models.losses import Loss
from imgtool.training.parallel.device import has_bf16
from imgtool.training.recipes import Recipe
from imgtool.training.recipes.augment import Mixed
from imgtool.wordnet.errors import InputError, first_line

MicroBatch = tuple[Tensor, Tensor, Mixed | None]
"""Images uint8 [N, 3, H, W], labels int64 [N], and how the images are mixed, if they are."""
BatchLoss = Callable[[Tensor, Tensor, Mixed | None], Tensor]
"""A `MicroBatch`'s three values → mean loss, a float32 scalar."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """step(micro_batches) updates the weights once, by the mean loss of a batch's micro-batches, and then the EMA.

    All micro-batches have the same size. Returns the mean loss, a float32 scalar on the device, without reading it.
    With ``skip_bad``, returns None for a NaN or infinite gradient, and leaves weights, EMA and running statistics as
    they were. ``clip`` is the largest norm of the gradient (0: not limited).
    """

    def __init__(
        self,
        batch_loss: BatchLoss,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: EMA,
        scaler: torch.amp.GradScaler | None = None,
        clip: float = 0.0,
        skip_bad: bool = False,
    ) -> None:
        self.batch_loss, self.network, self.optimizer, self.ema = batch_loss, network, optimizer, ema
        self.scaler, self.clip, self.skip_bad = scaler, clip, skip_bad
        self.model: nn.Module = network
        self.no_sync: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if isinstance(network, DistributedDataParallel):
            self.model, self.no_sync = network.module, network.no_sync
        self.parameters = list(self.model.parameters())

    def __call__(self, micro_batches: Sequence[MicroBatch]) -> Tensor | None:
        count = len(micro_batches)
        buffers = [buffer.clone() for buffer in self.model.buffers()] if self.skip_bad else []
        total: Tensor | None = None
        for number, micro_batch in enumerate(micro_batches, start=1):
            # processes exchange gradients once per step, with the last micro-batch
            with contextlib.nullcontext() if number == count else self.no_sync():
                loss = self.batch_loss(*micro_batch) / count
                (self.scaler.scale(loss) if self.scaler else loss).backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        norm = None
        if self.clip or self.skip_bad:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip or float("inf"))
        bad = self.skip_bad and norm is not None and not bool(norm.isfinite())
        if self.scaler:  # skips a step whose scaled gradient overflows float16, and lowers the scale
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif not bad:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if bad:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            return None
        self.ema.update(self.model)
        return total


def make_batch_loss(network: nn.Module, criterion: Loss, device: torch.device, precision: str = "auto") -> BatchLoss:
    """Returns the function that computes the loss of a micro-batch, in the precision.

    It includes the conversion from uint8 and the criterion, so that a compiler can fuse them with the network's ends.
    """
    dtype = autocast_type(precision, device)

    def batch_loss(images: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(to_float(images))
        loss: Tensor = criterion(logits, labels)
        if mixed is not None:
            loss = mixed.lam * loss + (1 - mixed.lam) * criterion(logits, mixed.other)
        return loss

    return batch_loss


def autocast_type(precision: str, device: torch.device) -> torch.dtype:
    """Returns the type that convolutions compute in. Raises InputError unless ``precision`` is auto, bf16, fp16 or
    fp32."""
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}: choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """Returns a gradient scaler for float16, whose small gradients would underflow; None for the other types."""
    return torch.amp.GradScaler(device.type) if autocast_type(precision, device) == torch.float16 else None


def compiled(batch_loss: BatchLoss, device: torch.device, say: Callable[[str], None], model: nn.Module) -> BatchLoss:
    """Returns ``batch_loss`` compiled by torch.compile on CUDA, separately for each image size; unchanged on the CPU,
    where a minute of compiling brought no measurable gain.

    If it cannot be compiled as a whole, the model's blocks are compiled one by one; if these cannot be compiled either,
    it runs as it is. ``say`` is given a line about each fallback.
    """
    if device.type != "cuda":
        return batch_loss
    try:  # the usual cause is a missing C compiler or Triton: a tiny function finds it before the run starts
        probe = torch.ones(8, device=device, requires_grad=True)
        torch.compile(lambda x: F.silu(x).sum())(probe).backward()
    except Exception as error:
        say(f"training without torch.compile, which is slower: {first_line(error)}")
        return batch_loss
    return _Compiled(batch_loss, model, say)


class _Compiled:
    """Calls the compiled function, or a fallback from the first call that fails."""

    def __init__(self, batch_loss: BatchLoss, model: nn.Module, say: Callable[[str], None]) -> None:
        self.eager, self.model, self.say = batch_loss, model, say
        self.call: BatchLoss = torch.compile(batch_loss, dynamic=False)
        self.fallbacks = [self._block_by_block, lambda: self.eager]

    def __call__(self, images: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        while self.fallbacks:
            try:
                return self.call(images, labels, mixed)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.call = self.fallbacks.pop(0)()
                how = "block by block" if self.fallbacks else "not at all, which is slower"
                self.say(f"torch.compile cannot compile the whole step ({first_line(error)}): compiled {how}")
        return self.call(images, labels, mixed)

    def _block_by_block(self) -> BatchLoss:
        for _, block in blocks(self.model):
            block.compile(dynamic=False)
        return self.eager


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns the named modules of a model's outermost Sequential or ModuleList: its stages, or layers."""
    sequences = [module for module in model.modules() if isinstance(module, nn.Sequential | nn.ModuleList)]
    return list(sequences[0].named_children()) if sequences else list(model.named_children())


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """Returns SGD with weight decay on convolutions and matrices only: decaying norms and biases brings no gain."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = device.type in ("cuda", "cpu")  # one kernel for many tensors; on other devices torch chooses
    return torch.optim.SGD(
        groups, lr=recipe.peak_lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused or None
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> float:
    """Sets the learning rate of all parameters, and returns it."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr
