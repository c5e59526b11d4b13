"""The device that these tests compare with the CPU. IMGTOOL_TEST_DEVICE=cpu rehearses them without a GPU."""

import os
from collections.abc import Iterator

import pytest
import torch

from imgtool.training.parallel.device import exact_float32


@pytest.fixture(scope="session")
def device() -> torch.device:
    chosen = torch.device(os.environ.get("IMGTOOL_TEST_DEVICE", "cuda:0"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return chosen


@pytest.fixture
def exact() -> Iterator[None]:
    """Computes in real float32, not TensorFloat-32."""
    with exact_float32():
        yield
