"""Batch norm and SiLU as one operation equal torch's two operations: values, gradients and running statistics."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from imgtool.training.models import _norm_act, yolov8
from imgtool.training.models.norm_act import is_supported, norm_act, pixel_stride

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _norm(channels: int, momentum: float = 0.1) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=momentum)
    nn.init.uniform_(norm.weight, -1.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def _images(n: int, channels: int, height: int, width: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
    images = torch.randn(n, channels, height, width) * std + mean
    return images.contiguous(memory_format=torch.channels_last)


def _reference(x: Tensor, norm: nn.BatchNorm2d, dy: Tensor) -> tuple[Tensor, ...]:
    """torch's two operations in float64: value, gradients for x, weight and bias, running statistics."""
    double = nn.BatchNorm2d(norm.num_features, momentum=norm.momentum).double()
    double.load_state_dict(norm.state_dict())
    x = x.detach().double().requires_grad_()
    y = F.silu(double(x))
    grads = torch.autograd.grad(y, [x, double.weight, double.bias], dy.double())
    assert double.running_mean is not None and double.running_var is not None
    return y, *grads, double.running_mean, double.running_var


def _close(got: Tensor, expected: Tensor, relative: float = 2e-6, floor: float = 1e-3) -> None:
    """Within ``relative`` of the largest value, or of ``floor`` if that is larger: terms of a sum may cancel out."""
    assert float((got.detach().double() - expected.detach()).abs().max()) <= relative * max(
        floor, float(expected.detach().abs().max())
    )


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)).filter(lambda s: math.prod(s) > 2),
    channels=st.sampled_from([8, 16, 24, 40, 56, 64, 80, 1280]),
    mean=st.sampled_from([0.0, 3.0, -200.0]),
    std=st.sampled_from([1e-2, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_equals_torch_in_float64(
    shape: tuple[int, int, int], channels: int, mean: float, std: float, seed: int
) -> None:
    """At least three values per channel: two are normalised to -1 and 1, and the gradient for x is only rounding."""
    n, height, width = shape
    torch.manual_seed(seed)
    norm, x = _norm(channels), _images(n, channels, height, width, mean, std)
    dy = _images(n, channels, height, width)
    expected = _reference(x, norm, dy)
    x.requires_grad_()
    assert is_supported(x, norm)
    y = norm_act(x, norm)
    grads = torch.autograd.grad(y, [x, norm.weight, norm.bias], dy)
    assert y.is_contiguous(memory_format=torch.channels_last) and y.dtype == torch.float32
    assert norm.num_batches_tracked == 1
    far = max(1.0, abs(mean) / std)  # cancellation in x - mean, which float32 cannot avoid
    sums = math.sqrt(math.prod(shape))  # the gradients for weight and bias are sums of this many terms of size 1
    floors = (1e-3, 1e-3, sums, sums, 0.1 * std, 1e-3)
    for got, wanted, floor in zip((y, *grads, norm.running_mean, norm.running_var), expected, floors, strict=True):
        _close(got, wanted, 2e-5 * far, floor)


def test_many_rows_and_extreme_values() -> None:
    torch.manual_seed(0)
    norm, x = _norm(16), _images(64, 16, 40, 40, 5.0)
    dy = _images(64, 16, 40, 40)
    expected = _reference(x, norm, dy)
    x.requires_grad_()
    y = norm_act(x, norm)
    for got, wanted in zip((y, *torch.autograd.grad(y, [x, norm.weight, norm.bias], dy)), expected[:4], strict=True):
        _close(got, wanted, 1e-5)
    nn.init.constant_(norm.weight, 1e4)  # far outside the range of the exponential
    y = norm_act(x, norm)
    _close(y, _reference(x, norm, dy)[0], 1e-5)
    assert torch.isfinite(torch.autograd.grad(y, x, dy)[0]).all()
    broken = x.detach().clone(memory_format=torch.preserve_format)
    broken[3, 5, 0, 0] = float("nan")
    lost = norm_act(broken, norm).isnan().flatten(2).any(2).any(0)
    assert lost.tolist() == [channel == 5 for channel in range(16)]


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    x, dy = _images(20, 48, 15, 15).requires_grad_(), _images(20, 48, 15, 15)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        torch.manual_seed(1)
        norm = _norm(48)
        y = norm_act(x, norm)
        results.append([y, *torch.autograd.grad(y, [x, norm.weight, norm.bias], dy), norm.running_var])
    for others in results[1:]:
        for got, first in zip(others, results[0], strict=True):
            assert got is not None and first is not None and torch.equal(got, first)


def test_every_instruction_set_agrees() -> None:
    """Up to the rounding of a sum over all rows, and of the fewer than 64 operations before and after it.

    With AVX2 a multiplication and an addition are rounded once together, without it separately.
    """
    torch.manual_seed(0)
    x, dy = _images(5, 40, 6, 7, 2.0).requires_grad_(), _images(5, 40, 6, 7)
    rows = 5 * 6 * 7
    results = {}
    before = _norm_act.isa.current()
    try:
        for name in _norm_act.isa.names:
            _norm_act.isa.choose(name)
            torch.manual_seed(1)
            norm = _norm(40)
            y = norm_act(x, norm)
            grads = torch.autograd.grad(y, [x, norm.weight, norm.bias], dy)
            results[name] = [y, *grads, norm.running_mean, norm.running_var]
    finally:
        _norm_act.isa.choose(before)
    std, mean = torch.std_mean(x.detach(), (0, 2, 3), keepdim=True)
    off = float(((x.detach() - mean) / std).abs().max())
    gain, slope = float(norm.weight.detach().abs().max()), 1.1 * float(dy.abs().max())  # SiLU's slope is less than 1.1
    largest = [  # the largest terms added up in each result
        gain * off + float(norm.bias.detach().abs().max()),
        gain / float(std.min()) * slope * (2 + off * off),
        rows * slope * off,
        rows * slope,
        float(mean.abs().max()) + 1,
        float(std.max()) ** 2 + 1,
    ]
    for name, got in results.items():
        for part, first, bound in zip(got, results["default"], largest, strict=True):
            assert part is not None and first is not None
            assert float((part - first).detach().abs().max()) <= 2 * (rows + 64) * 2**-24 * bound, name


@pytest.mark.parametrize("kind", ["part of a concatenation", "expanded", "contiguous"])
def test_incoming_gradients_of_any_layout(kind: str) -> None:
    """A slice of channels is read in place; the gradient of a mean is expanded, and copied first."""
    torch.manual_seed(0)
    norm, x = _norm(16), _images(5, 16, 6, 7).requires_grad_()
    whole = _images(5, 40, 6, 7)
    dy = {
        "part of a concatenation": whole[:, 8:24],
        "expanded": torch.randn(5, 16, 1, 1).expand(5, 16, 6, 7),
        "contiguous": torch.randn(5, 16, 6, 7),
    }[kind]
    assert pixel_stride(dy) == (40 if kind == "part of a concatenation" else None)
    expected = _reference(x, norm, dy)
    _close(torch.autograd.grad(norm_act(x, norm), x, dy)[0], expected[1])


def test_unsupported_inputs() -> None:
    norm, x = _norm(16), _images(4, 16, 5, 5)
    assert is_supported(x, norm)
    assert not is_supported(x.contiguous(), norm), "not channels_last"
    assert not is_supported(x.double(), norm) and not is_supported(x.bfloat16(), norm)
    assert not is_supported(_images(4, 12, 5, 5), _norm(12))
    assert not is_supported(_images(1, 16, 1, 1), norm), "no variance: torch raises the error"
    assert not is_supported(x[:0], norm)
    assert not is_supported(x, nn.SyncBatchNorm(16)) and not is_supported(x, nn.Identity())
    assert not is_supported(x, nn.BatchNorm2d(16, affine=False)) and not is_supported(
        x, nn.BatchNorm2d(16, momentum=None)
    )
    assert not is_supported(x, _norm(24)), "wrong number of channels: torch raises the error"
    assert not is_supported(x, norm.eval())


def _gradients(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the mean cross-entropy for each parameter, as float64."""
    loss = F.cross_entropy(model(images), labels)
    return tuple(gradient.double() for gradient in torch.autograd.grad(loss, list(model.parameters())))


def _error(gradients: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """The largest relative error (Euclidean norm) among the parameters' gradients."""
    return max(float((g - e).norm() / e.norm()) for g, e in zip(gradients, exact, strict=True))


def test_a_networks_gradients_are_as_exact_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of one step against float64 is at most ten times that of torch's two operations in float32."""
    torch.manual_seed(0)
    model = yolov8.build("n", 10).to(memory_format=torch.channels_last).train()
    for module in model.modules():  # some gains are initialised to zero, which blocks gradients
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    images, labels = _images(16, 3, 64, 64), torch.arange(16) % 10
    exact = _gradients(copy.deepcopy(model).double(), images.double(), labels)
    used: list[nn.Module] = []
    monkeypatch.setattr(yolov8, "norm_act", lambda x, norm: used.append(norm) or norm_act(x, norm))
    together = _error(_gradients(model, images, labels), exact)
    assert used and sorted(map(id, used)) == sorted(id(m.bn) for m in model.modules() if isinstance(m, yolov8.Conv))
    monkeypatch.setattr(yolov8, "is_supported", lambda x, norm: False)
    apart = _error(_gradients(model, images, labels), exact)
    assert together <= 10 * max(apart, torch.finfo(torch.float32).eps)


def test_a_network_overfits_a_batch() -> None:
    torch.manual_seed(0)
    model = yolov8.build("n", 10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    images, labels = _images(16, 3, 64, 64), torch.arange(16) % 10
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in Linux's /proc")
def test_it_uses_torchs_threads() -> None:
    """A second OpenMP runtime in the process would start its own threads."""
    script = """
        import os, torch
        from torch import nn
        from imgtool.training.models.norm_act import is_supported, norm_act

        torch.set_num_threads(4)
        images = torch.randn(16, 64, 32, 32).contiguous(memory_format=torch.channels_last).requires_grad_()
        norm = nn.BatchNorm2d(64)
        norm(images).sum().backward()    # starts torch's threads
        before = len(os.listdir("/proc/self/task"))
        assert before >= 4, before
        assert is_supported(images, norm)
        norm_act(images, norm).sum().backward()
        print(before, len(os.listdir("/proc/self/task")))
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    before, after = result.stdout.split()
    assert before == after
