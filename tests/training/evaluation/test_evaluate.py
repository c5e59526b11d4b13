"""Validation metrics against counts by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from imgtool.pipelines.codec.transform import to_float
from imgtool.training.evaluation.evaluate import evaluate
from imgtool.training.evaluation.matching import ClassMatch
from imgtool.training.runtimes.native import Native
from imgtool.wordnet.errors import DatasetError

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


class Shade(nn.Module):
    """Computes logits from the first pixel only: class c gets −|c − value·255|."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classes: Tensor
        self.register_buffer("classes", torch.arange(num_classes).float())

    def forward(self, x: Tensor) -> Tensor:
        return -(self.classes - x[:, :1, 0, 0] * 255).abs()


def batches(values: list[int], labels: list[int], size: int = 3) -> list[tuple[Tensor, Tensor]]:
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return list(zip(images.split(size), torch.tensor(labels).split(size), strict=True))


def test_counts_over_uneven_batches() -> None:
    values, labels = [0, 1, 2, 3, 9, 9, 5], [0, 1, 2, 4, 5, 4, 9]
    metrics = evaluate(Native(Shade(10)), batches(values, labels), CPU)
    # top-1: 0 1 2. In the top-5 too: 3 for label 4, 9 for 5 (9 8 7 6 5); not 9 for 4, not 5 for 9 (5 4 6 3 7)
    assert (metrics.top1, metrics.top5, metrics.images) == (3 / 7, 5 / 7, 7)
    expected = 0.0
    for value, label in zip(values, labels, strict=True):
        scores = [-abs(c - value) for c in range(10)]
        expected += math.log(sum(math.exp(s) for s in scores)) - scores[label]
    assert metrics.loss == pytest.approx(expected / 7, rel=1e-5)


def test_fewer_than_five_classes() -> None:
    metrics = evaluate(Native(Shade(3)), batches([0, 1, 2], [2, 1, 0]), CPU)
    assert (metrics.top1, metrics.top5) == (1 / 3, 1.0)


def test_class_map() -> None:
    metrics = evaluate(
        Native(Shade(3)), batches([0, 1, 2], [2, 1, 0]), CPU, matched=ClassMatch(torch.tensor([2, 1, 0]))
    )
    assert metrics.top1 == 1.0


def test_no_images_is_an_error() -> None:
    with pytest.raises(DatasetError, match="no image"):
        evaluate(Native(Shade(3)), [], CPU)


def test_evaluates_in_eval_mode_and_restores_the_mode() -> None:
    model = Shade(3).train()
    modes: list[bool] = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    evaluate(Native(model), batches([0], [0]), CPU)
    assert modes == [False] and model.training


def test_normalisation_keeps_channels_last() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    floats = to_float(images)
    assert floats.is_contiguous(memory_format=torch.channels_last) and floats.dtype == torch.float32
    assert torch.equal(floats, images / 255)
    assert images.dtype == torch.uint8
