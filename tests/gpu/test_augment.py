"""Augmentation on the device, compared with the CPU: the same random choices, and the same pixels up to rounding."""

import pytest
import torch
import torch.nn.functional as F

from imgtool.training.recipes.augment import BatchAugmentation, augment

KINDS = {
    "randaugment": BatchAugmentation(randaugment=2, magnitude=9),
    "erasing": BatchAugmentation(erasing=0.5),
    "mixup": BatchAugmentation(mixup=0.2),
    "cutmix": BatchAugmentation(cutmix=1.0),
}


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand((64, 3, 8, 8), generator=generator) * 255, size=(64, 64), mode="bilinear")
    return smooth.to(torch.uint8).contiguous(memory_format=torch.channels_last), torch.arange(64)


@pytest.mark.parametrize("kind", list(KINDS))
def test_pixels_and_mixtures(kind: str, batch: tuple[torch.Tensor, torch.Tensor], device: torch.device) -> None:
    images, labels = batch
    for step in range(4):
        want, mixed = augment(images, labels, KINDS[kind], 0, 0, step)
        got, mixed_there = augment(images.to(device), labels.to(device), KINDS[kind], 0, 0, step)
        assert got.device.type == device.type and got.dtype == torch.uint8
        assert got.is_contiguous(memory_format=torch.channels_last)
        difference = (got.cpu().int() - want.int()).abs()
        # rotation and shear take the nearest pixel, and which one that is may depend on the last bit
        allowed = 0.01 if kind == "randaugment" else 0.0
        assert (difference > 1).float().mean() <= allowed
        assert (mixed is None) == (mixed_there is None)
        if mixed is not None and mixed_there is not None:
            assert torch.equal(mixed.other, mixed_there.other.cpu())
            assert mixed.lam.item() == pytest.approx(mixed_there.lam.item())


@pytest.mark.parametrize("kind", list(KINDS))
def test_augmentation_does_not_synchronise(
    kind: str, batch: tuple[torch.Tensor, torch.Tensor], device: torch.device
) -> None:
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")
    images, labels = (tensor.to(device) for tensor in batch)
    augment(images, labels, KINDS[kind], 0, 0, 0)  # lazy initialisation may synchronise
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(images, labels, KINDS[kind], 0, 0, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
