"""Batch norm and SiLU as one operation, for training on the CPU, where memory bandwidth limits the speed.

The formulas are those of Ioffe & Szegedy 2015, §3, and of SiLU, z · σ(z) (Elfwing et al. 2017). The kernels in
_norm_act.cpp run on torch's OpenMP threads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from imgtool.training.models import _norm_act


def is_supported(x: Tensor, norm: nn.Module) -> bool:
    """Whether `norm_act` can replace ``norm`` and SiLU for this input."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and x.device.type == "cpu"
        and x.dtype == norm.weight.dtype == torch.float32
        and x.shape[1] == norm.num_features
        and x.shape[1] % _norm_act.LANES == 0
        and x.numel() > x.shape[1]  # one value per channel has no variance: torch raises the error
        and x.is_contiguous(memory_format=torch.channels_last)
        and _norm_act.PARALLEL
    )


def norm_act(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Returns SiLU(norm(x)) of training mode, and updates ``norm``'s running statistics.

    Input and output are float32 [N, C, H, W], channels_last. `is_supported` must be true.
    """
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    out: Tensor = _NormAct.apply(x, norm.weight, norm.bias, norm)
    return out


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        channels = x.shape[1]
        y = torch.empty_like(x)
        mean, invstd = torch.empty(2, channels, dtype=torch.float32)
        assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
        _norm_act.forward(
            *(x.data_ptr(), y.data_ptr(), weight.data_ptr(), bias.data_ptr()),
            *(norm.running_mean.data_ptr(), norm.running_var.data_ptr(), mean.data_ptr(), invstd.data_ptr()),
            *(x.numel() // channels, channels),
            *(norm.eps, norm.momentum),
            torch.get_num_threads(),
        )
        ctx.save_for_backward(x, weight, bias, mean, invstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, bias, mean, invstd = ctx.saved_tensors
        channels = x.shape[1]
        stride = pixel_stride(dy)
        if stride is None:
            dy = dy.contiguous(memory_format=torch.channels_last)
            stride = channels
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        _norm_act.backward(
            *(x.data_ptr(), dy.data_ptr(), stride, dx.data_ptr(), weight.data_ptr(), bias.data_ptr()),
            *(mean.data_ptr(), invstd.data_ptr(), dweight.data_ptr(), dbias.data_ptr()),
            *(x.numel() // channels, channels),
            torch.get_num_threads(),
        )
        return dx, dweight, dbias, None


def pixel_stride(images: Tensor) -> int | None:
    """Returns the floats from one pixel to the next, if each pixel's channels are contiguous and the stride is the same
    between all pixels, as in a slice of the channels of a channels_last tensor; else None."""
    _, channels, height, width = images.shape
    stride = images.stride(3)
    is_regular = images.stride() == (height * width * stride, 1, width * stride, stride)
    return stride if is_regular and stride >= channels else None
