"""Several processes in one training, as torchrun starts them: who this one is, and what they tell each other.

NCCL between GPUs, gloo between CPUs. What steers the run (a signal that came, a path) goes over gloo on the host, so
that no GPU is waited for.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imgtool.training.parallel.launch import RESTARTS

TIMEOUT = timedelta(minutes=30)  # as long as one process may keep the others waiting


@dataclass(frozen=True)
class World:
    """The processes of this training and this one's place among them; ``World()`` is a single process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0  # how often torchrun has started this training anew after a process died
    host: Any = None  # the gloo group

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place, on the tensor's device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensors: list[Tensor]) -> None:
        """Replaces each float tensor by its mean over all processes."""
        for tensor in tensors if self.size > 1 else []:
            if tensor.is_floating_point():
                self.sum(tensor).div_(self.size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All must ask."""
        if self.size == 1:
            return flag
        asked = torch.tensor(int(flag))
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=self.host)
        return bool(asked)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.host)
        return values

    def first(self, value: Any) -> Any:
        """The value of the process that writes the files."""
        return self.gather(value)[0]


@contextmanager
def joined(device_type: str) -> Iterator[World]:
    """Joins the processes that torchrun has started, if it has; leaves them at the end.

    ``device_type`` is cuda or cpu. The environment is torchrun's: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
    MASTER_PORT, TORCHELASTIC_RESTART_COUNT; and `launch`'s.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield World()
        return
    env = {name: int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if device_type == "cuda":
        torch.cuda.set_device(env["LOCAL_RANK"])
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        host = dist.new_group(backend="gloo", timeout=TIMEOUT)
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) + int(os.environ.get(RESTARTS, 0))
        yield World(env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"], restarts, host)
    finally:
        dist.destroy_process_group()


def agent() -> str:
    """What started this process: of torchrun's processes the same for all, and again when they are started anew."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID')} {os.getppid()}"


class _Sum(torch.autograd.Function):
    """The sum over all processes; dist.all_reduce has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, where torch's SyncBatchNorm does not go: on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
        totals: Tensor = _Sum.apply(torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count]))
        n = totals[-1]
        mean, square = totals[:-1].div(n).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * n / (n - 1).clamp_min(1), self.momentum or 0.0)
        gain = self.weight * (variance + self.eps).rsqrt()
        return x * gain[:, None, None] + (self.bias - mean * gain)[:, None, None]


def synced(model: nn.Module, device_type: str) -> nn.Module:
    """The model with every batch norm taken over all processes; the same parameters, buffers and names."""
    if device_type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
    return model


def replicated(model: nn.Module) -> DistributedDataParallel:
    """The model with its gradients averaged over all processes; the buffers of each process stay its own."""
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(model, forward_sync_buffers=False)
    return DistributedDataParallel(model, broadcast_buffers=False)  # what it was called before PyTorch 2.13
