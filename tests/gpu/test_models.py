"""The logits of the five models on the device, compared with float32 on the CPU."""

import pytest
import torch

from imgtool.pipelines.codec.transform import to_float
from imgtool.training.models import yolov8


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return small.repeat_interleave(6, 2).repeat_interleave(6, 3).contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module", params=list(yolov8.SCALES))
def pair(request: pytest.FixtureRequest, device: torch.device) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A model on the CPU and on the device, whose activations are as large as in a trained model."""
    torch.manual_seed(0)
    here = yolov8.build(request.param, 100)
    for module in here.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(1.0)  # otherwise, branches that start at zero would not be tested
            module.momentum = None
    with torch.no_grad():
        here.train()(torch.rand(8, 3, 96, 96))
    here.get_submodule("model.9.linear").weight.data *= 30
    here = here.eval().to(memory_format=torch.channels_last)
    there = yolov8.build(request.param, 100).to(device).to(memory_format=torch.channels_last).eval()
    there.load_state_dict(here.state_dict())
    return here, there


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.12)])
@torch.inference_mode()
def test_logits(
    pair: tuple[torch.nn.Module, torch.nn.Module],
    images: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    here, there = pair
    want = here(to_float(images))
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        got = there(to_float(images.to(device))).float().cpu()
    assert want.std() > 0.1
    assert (got - want).norm() < tolerance * want.norm()


@pytest.mark.usefixtures("exact")
@torch.inference_mode()
def test_fused_logits(
    pair: tuple[torch.nn.Module, torch.nn.Module], images: torch.Tensor, device: torch.device
) -> None:
    here, there = pair
    want, got = here(to_float(images)), yolov8.fuse(there)(to_float(images.to(device))).cpu()
    assert (got - want).norm() < 1e-3 * want.norm()
