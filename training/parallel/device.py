"""Which device a word of the user's means."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from imgtool.wordnet.errors import InputError


def resolve_device(device: str | None = None) -> torch.device:
    """auto (or None) is CUDA if there is one, else the CPU; "0" is cuda:0. Raises InputError for one not there."""
    if device is None or device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(f"cuda:{device}" if str(device).isdigit() else device)
    except RuntimeError:
        raise InputError(f"there is no device {device!r}: give auto, cpu, cuda, or a GPU's number") from None
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no device {device}: torch sees {torch.cuda.device_count()} CUDA GPUs")
    return where


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """float32 products of float32 factors: by default cuDNN's convolutions round them to TensorFloat-32's 10 bits.

    By the older of torch's two interfaces: where `fp32_precision` was set, whoever reads `allow_tf32` gets an error.
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
    """Whether to compute in bfloat16 there: on CUDA from Ampere on (earlier ones emulate it, slowly).

    Not on the CPU: there it measured slower than float32 channels_last for these models, AVX512-BF16 and all.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
