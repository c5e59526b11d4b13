"""Batches that a loader puts on the device, compared with those of the same loader on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch

from imgtool.pipelines.loaders import missing, open_loader


def batches(data: Path, target: torch.device | str, epochs: int = 2, **options: Any) -> list[tuple[torch.Tensor, ...]]:
    with open_loader(data, "train", batch_size=16, image_size=64, num_workers=2, device=target, **options) as loader:
        out = []
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for images, labels in loader:
                assert images.device.type == labels.device.type == torch.device(target).type
                assert images.is_contiguous(memory_format=torch.channels_last)
                out.append((images, labels))  # kept, so that memory that is reused too early shows
        return out


def test_native_gives_the_same_bits(drawn_data: Path, device: torch.device) -> None:
    here, there = batches(drawn_data, "cpu"), batches(drawn_data, device)
    assert len(here) == len(there) == 10
    for (images, labels), (images_there, labels_there) in zip(here, there, strict=True):
        assert torch.equal(images, images_there.cpu())
        assert torch.equal(labels, labels_there.cpu())


def test_batches_are_complete_when_they_are_used_at_once(drawn_data: Path, device: torch.device) -> None:
    """Work on a batch runs on another stream than its copy to the device, and must wait for the copy."""
    sums = []
    for target in ("cpu", device):
        with open_loader(drawn_data, "train", batch_size=16, image_size=64, num_workers=2, device=target) as loader:
            sums.append(torch.stack([images.to(torch.int64).sum() for images, _ in loader]).cpu())
    assert torch.equal(*sums)


@pytest.mark.skipif(missing("dali") is not None, reason="DALI is not installed")
def test_dali_decodes_the_same_crops(drawn_data: Path, device: torch.device) -> None:
    """Another decoder and resampler: similar, not equal."""
    here, there = batches(drawn_data, "cpu"), batches(drawn_data, device, backend="dali")
    assert len(here) == len(there)
    for (images, labels), (images_there, labels_there) in zip(here, there, strict=True):
        assert torch.equal(labels, labels_there.cpu())
        difference = (images.float() - images_there.cpu().float()).abs().mean((1, 2, 3))
        assert difference.mean() < 2 and difference.max() < 8
