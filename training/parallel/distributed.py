"""Several processes in one training, as started by torchrun: the rank of this one, and communication between them.

Tensors are exchanged by NCCL on GPUs and by gloo on CPUs. What controls the run (a received signal, a path) is
exchanged by gloo on the host, so that it does not wait for a GPU.
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

TIMEOUT = timedelta(minutes=30)  # the longest that processes wait for one of them


@dataclass(frozen=True)
class World:
    """The processes of this training, and this process's rank among them; ``World()`` is a single process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0  # how many times the training was restarted after a process died
    host_group: Any = None  # the gloo process group

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums the tensor over all processes, in place, on its device; returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensors: list[Tensor]) -> None:
        """Replaces each float tensor by its mean over all processes."""
        for tensor in tensors if self.size > 1 else []:
            if tensor.is_floating_point():
                self.sum(tensor).div_(self.size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process. Every process must call this."""
        if self.size == 1:
            return flag
        maximum = torch.tensor(int(flag))
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=self.host_group)
        return bool(maximum)

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.host_group)
        return values

    def from_main(self, value: Any) -> Any:
        """Returns the main process's value, in every process."""
        return self.gather(value)[0]


@contextmanager
def joined(device_type: str) -> Iterator[World]:
    """Joins the process group if torchrun started this process, and leaves it at the end; else yields ``World()``.

    ``device_type`` is cuda or cpu. Reads the environment variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RESTART_COUNT) and of `imgtool.training.parallel.launch`.
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


def launcher_id() -> str:
    """Identifies the torchrun that started this process: the same for all its processes, also after a restart."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID')} {os.getppid()}"


class _Sum(torch.autograd.Function):
    """The sum over all processes, with a gradient, which dist.all_reduce lacks."""

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
    """Batch norm over the batches of all processes on the CPU, where torch's SyncBatchNorm does not work."""

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


def with_sync_batch_norm(model: nn.Module, device_type: str) -> nn.Module:
    """Returns the model with batch norms over the batches of all processes; parameters, buffers and names are kept."""
    if device_type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
    return model


def replicated(model: nn.Module) -> DistributedDataParallel:
    """Returns the model in DistributedDataParallel: processes average their gradients, and keep their own buffers."""
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(model, forward_sync_buffers=False)
    return DistributedDataParallel(model, broadcast_buffers=False)  # its name before PyTorch 2.13
