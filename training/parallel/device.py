"""Devices: which one the user named, and in what precision it computes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from imgtool.wordnet.errors import InputError


def resolve_device(device: str | None = None) -> torch.device:
    """Returns the torch device: auto (or None) is the first CUDA GPU, or else the CPU; "0" is cuda:0.

    Raises InputError for a device that does not exist.
    """
    if device is None or device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(f"cuda:{device}" if str(device).isdigit() else device)
    except RuntimeError:
        raise InputError(f"unknown device {device!r}: choose auto, cpu, cuda, cuda:N or N") from None
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device} does not exist: torch finds {torch.cuda.device_count()} CUDA GPUs")
    return resolved


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Computes convolutions and matrix products in float32, without rounding the factors to TensorFloat-32's 10 bits.

    cuDNN does so by default. This uses the older of torch's two interfaces: after `fp32_precision` is set, reading
    `allow_tf32` raises an error.
    """
    kinds: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    try:
        yield
    finally:
        for kind, allowed in zip(kinds, before, strict=True):
            kind.allow_tf32 = allowed


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is the faster type: on CUDA GPUs from Ampere on, which earlier ones emulate slowly.

    On the CPU it measured slower than float32 channels_last for these models, even with AVX512-BF16.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
