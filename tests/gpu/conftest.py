"""The device that these tests hold against the CPU. IMGTOOL_TEST_DEVICE=cpu rehearses them without a GPU."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    where = torch.device(os.environ.get("IMGTOOL_TEST_DEVICE", "cuda:0"))
    if where.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return where


@pytest.fixture
def exact() -> Iterator[None]:
    """float32 that is float32: TensorFloat-32 keeps 10 bits of a product's factors."""
    kinds = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    yield
    for kind, value in zip(kinds, before, strict=True):
        kind.allow_tf32 = value
