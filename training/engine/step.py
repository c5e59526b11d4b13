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

LossOf = Callable[[Tensor, Tensor, Mixed | None], Tensor]
Part = tuple[Tensor, Tensor, Mixed | None]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """step(parts) updates the weights once, by the mean loss of the parts of a batch, and their average.

    A part is images uint8 [N, 3, H, W], labels int64 [N] and how they are mixed; all parts are of one size. Returned is
    the mean loss, float32 on the device, unread; or None where ``skips`` and the loss or the gradient was no number:
    weights, average and running statistics are then as before. ``clip`` is the largest norm of the gradient (0: any).
    """

    def __init__(
        self,
        loss_of: LossOf,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: EMA,
        scaler: torch.amp.GradScaler | None = None,
        clip: float = 0.0,
        skips: bool = False,
    ) -> None:
        self.loss_of, self.network, self.optimizer, self.ema = loss_of, network, optimizer, ema
        self.scaler, self.clip, self.skips = scaler, clip, skips
        self.model: nn.Module = network
        self.no_sync: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if isinstance(network, DistributedDataParallel):
            self.model, self.no_sync = network.module, network.no_sync
        self.parameters = list(self.model.parameters())

    def __call__(self, parts: Sequence[Part]) -> Tensor | None:
        buffers = [buffer.clone() for buffer in self.model.buffers()] if self.skips else []
        total: Tensor | None = None
        for number, part in enumerate(parts, start=1):
            # gradients travel between processes once, with the last part
            with contextlib.nullcontext() if number == len(parts) else self.no_sync():
                loss = self.loss_of(*part) / len(parts)
                (self.scaler.scale(loss) if self.scaler else loss).backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        norm = None
        if self.clip or self.skips:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip or float("inf"))
        bad = self.skips and norm is not None and not bool(norm.isfinite())
        if self.scaler:  # leaves out a step whose scaled gradient is too large for float16, and lowers the scale
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


def make_loss(network: nn.Module, criterion: Loss, device: torch.device, precision: str = "auto") -> LossOf:
    """(images uint8 [N, 3, H, W], labels int64 [N], how they are mixed) → mean loss, float32.

    Conversion from uint8 and the loss stand inside, so that a compiler fuses them into the network's ends.
    """
    dtype = autocast_type(precision, device)

    def loss_of(images: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(to_float(images))
        loss: Tensor = criterion(logits, labels)
        if mixed is not None:
            loss = mixed.lam * loss + (1 - mixed.lam) * criterion(logits, mixed.other)
        return loss

    return loss_of


def autocast_type(precision: str, device: torch.device) -> torch.dtype:
    """What convolutions compute in. Raises InputError for another precision than auto, bf16, fp16 and fp32."""
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r}: choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """float16 loses small gradients, so the loss is scaled up by as much as it can bear; the others need none."""
    return torch.amp.GradScaler(device.type) if autocast_type(precision, device) == torch.float16 else None


def compiled(loss_of: LossOf, device: torch.device, say: Callable[[str], None], model: nn.Module) -> LossOf:
    """`loss_of` through torch.compile on CUDA; else, with a message, the model's blocks each for itself (a graph that
    breaks as a whole often does not in its parts); else `loss_of` as it is.

    Not on the CPU: a minute of compiling won nothing measurable there. Each image size is compiled for itself.
    """
    if device.type != "cuda":
        return loss_of
    try:  # the usual trouble is a missing C compiler or Triton: a few cheap lines find it before the run starts
        probe = torch.ones(8, device=device, requires_grad=True)
        torch.compile(lambda x: F.silu(x).sum())(probe).backward()
    except Exception as error:
        say(f"training without torch.compile, slower: {first_line(error)}")
        return loss_of
    return _Compiled(loss_of, model, say)


class _Compiled:
    """Calls the compiled function, or what it falls back to when the first call fails."""

    def __init__(self, loss_of: LossOf, model: nn.Module, say: Callable[[str], None]) -> None:
        self.eager, self.model, self.say = loss_of, model, say
        self.call: LossOf = torch.compile(loss_of, dynamic=False)
        self.fallbacks = [self._in_regions, lambda: self.eager]

    def __call__(self, images: Tensor, labels: Tensor, mixed: Mixed | None = None) -> Tensor:
        while self.fallbacks:
            try:
                return self.call(images, labels, mixed)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.call = self.fallbacks.pop(0)()
                how = "in regions" if self.fallbacks else "not at all, slower"
                self.say(f"torch.compile does not take the whole step ({first_line(error)}): compiled {how}")
        return self.call(images, labels, mixed)

    def _in_regions(self) -> LossOf:
        for _, block in blocks(self.model):
            block.compile(dynamic=False)
        return self.eager


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The outermost modules of a model that stand in a row: stages, layers."""
    rows = [module for module in model.modules() if isinstance(module, nn.Sequential | nn.ModuleList)]
    return list(rows[0].named_children()) if rows else list(model.named_children())


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """SGD with weight decay on matrices and kernels only: decaying norms' gains and biases buys nothing."""
    parameters = [p for p in model.parameters() if p.requires_grad]
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
