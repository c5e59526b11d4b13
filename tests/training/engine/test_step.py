"""One update: micro-batches, clipping, skipped steps, float16, and networks that cannot be compiled."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from imgtool.training import recipes
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.step import (
    Step,
    _Compiled,
    autocast_type,
    make_batch_loss,
    make_optimizer,
    make_scaler,
    set_lr,
)
from imgtool.training.models import registry
from imgtool.training.models.flops import flops
from imgtool.training.models.losses import CrossEntropy
from imgtool.wordnet.errors import InputError

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
RECIPE = recipes.load("n")


def plain() -> nn.Module:
    """A network without batch norm, so that micro-batches do not influence one another."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def batch(count: int = 16) -> tuple[torch.Tensor, torch.Tensor, None]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 4, (count,), generator=generator), None


def make_step(model: nn.Module, precision: str = "fp32", **options: Any) -> Step:
    optimizer = make_optimizer(model, RECIPE, CPU)
    set_lr(optimizer, 0.1)
    batch_loss = make_batch_loss(model, CrossEntropy(4), CPU, precision)
    return Step(batch_loss, model, optimizer, EMA(model, 0.9), make_scaler(precision, CPU), **options)


def test_micro_batches_give_the_update_of_the_whole_batch() -> None:
    whole, split = plain(), plain()
    images, labels, _ = batch()
    one = make_step(whole)([(images, labels, None)])
    several = make_step(split)([(images[i::4], labels[i::4], None) for i in range(4)])
    assert one is not None and several is not None
    torch.testing.assert_close(one, several)
    for p, q in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped() -> None:
    model, free = plain(), plain()
    before = copy.deepcopy(model.state_dict())
    make_step(model, clip=1e-3)([batch()])
    make_step(free)([batch()])
    moved, freely = (
        torch.cat([(m.state_dict()[key] - before[key]).flatten() for key in before]).norm() for m in (model, free)
    )
    assert moved < 0.1 * 1.9 * 1e-3 * 1.01  # lr × (1 + momentum), Nesterov's first step, × the norm
    assert freely > 10 * moved


def test_a_step_with_a_nan_loss_changes_nothing() -> None:
    """Weights, running statistics, EMA and momentum are as before: the next step equals that of an undisturbed twin."""
    model, twin = normed(), normed()
    step, other = make_step(model, skip_bad=True), make_step(twin, skip_bad=True)
    images, labels, _ = batch()
    assert step([(images, labels, None)]) is not None and other([(images, labels, None)]) is not None
    real, calls = step.batch_loss, []

    def poisoned(*args: Any) -> torch.Tensor:
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) == 1 else 1.0)

    step.batch_loss = poisoned
    assert step([(images, labels, None)]) is None
    assert step.ema.steps == 1
    assert step([(images, labels, None)]) is not None and other([(images, labels, None)]) is not None
    for key, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


def test_float16_scales_the_loss() -> None:
    model, exact = normed(), normed()
    step, full = make_step(model, "fp16"), make_step(exact)
    assert step.scaler is not None and full.scaler is None
    for _ in range(3):
        loss, expected = step([batch()]), full([batch()])
        assert loss is not None and expected is not None
        assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert step.scaler.get_scale() > 1


def test_precisions() -> None:
    assert autocast_type("auto", CPU) == torch.float32
    assert autocast_type("bf16", CPU) == torch.bfloat16
    with pytest.raises(InputError, match="precision 'fp8': choose auto, fp32, bf16, fp16"):
        autocast_type("fp8", CPU)


def test_a_step_that_cannot_be_compiled_whole_is_compiled_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = plain(), []
    batch_loss = make_batch_loss(model, CrossEntropy(4), CPU)
    expected = batch_loss(*batch())

    def broken(*_: Any, **__: Any) -> Any:
        def fail(*_args: Any) -> Any:
            raise RuntimeError("no such backend\nat length")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    blocks: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: blocks.append(type(self).__name__))
    fast = _Compiled(batch_loss, model, said.append)
    torch.testing.assert_close(fast(*batch()), expected)
    assert blocks == ["Conv2d", "SiLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert len(said) == 1 and "(no such backend): compiled block by block" in said[0]


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_networks_of_torchvision(name: str) -> None:
    network = registry.build(name, 7).eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    if name.endswith("resnet18"):
        assert registry.head(network) == "fc"
        assert flops(registry.build(name), 224) == pytest.approx(3.63e9, rel=0.01)  # twice its 1.81 G MACs


def test_networks_of_timm() -> None:
    pytest.importorskip("timm")
    network = registry.build("timm:resnet18", 7, dropout=0.1, drop_path=0.1).eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_unknown_networks() -> None:
    with pytest.raises(InputError, match="--arch torchvision:resnet19"):
        registry.build("torchvision:resnet19")
    with pytest.raises(InputError, match=r"--arch torchvision:resnet18 .*stochastic_depth_prob"):
        registry.build("torchvision:resnet18", drop_path=0.5)
    assert not registry.is_arch("runs/train") and not registry.is_arch("n")


def test_stochastic_depth_drops_branches_only_in_training() -> None:
    torch.manual_seed(0)
    network = registry.build("n", 10, drop_path=0.9)
    assert network.state_dict().keys() == registry.build("n", 10).state_dict().keys()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.1)
    x = torch.rand(2, 3, 64, 64)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
