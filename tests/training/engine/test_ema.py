"""The averaged weights against the closed form."""

import pytest
import torch
from torch import nn

from imgtool.training.engine.ema import EMA

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_closed_form(decay: float) -> None:
    model = nn.Linear(1, 1).double()
    nn.init.constant_(model.weight, 1e6)  # initial weights that must not influence the average
    ema = EMA(model, decay)
    values = [3.0, -1.0, 4.0, 1.5, 9.0]
    for t, value in enumerate(values, start=1):
        nn.init.constant_(model.weight, value)
        ema.update(model)
        weights = [decay ** (t - s) for s in range(1, t + 1)]
        expected = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
        assert ema.module.get_parameter("weight").item() == pytest.approx(expected, abs=1e-9)


def test_batch_norm_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2)).train()
    ema = EMA(model, 0.5)
    means = []
    for shift in (0.0, 10.0):
        model(torch.randn(4, 2, 3, 3) + shift)
        ema.update(model)
        means.append(model.get_buffer("0.running_mean").clone())
    torch.testing.assert_close(ema.module.get_buffer("0.running_mean"), (0.5 * means[0] + means[1]) / 1.5)
    assert int(ema.module.get_buffer("0.num_batches_tracked")) == 2


def test_the_average_is_for_inference() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    ema = EMA(model, 0.9)
    assert not ema.module.training and model.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in model.parameters())
