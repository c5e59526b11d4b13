"""The five sizes against the published facts: parameters, FLOPs, key names; fusing keeps the logits."""

import pytest
import torch
from torch import nn

from imgtool.training.models import yolov8
from imgtool.training.models.flops import flops, published_flops
from imgtool.wordnet.errors import InputError

pytestmark = pytest.mark.numeric

PARAMETERS = {"n": 2719288, "s": 6361736, "m": 17053336, "l": 37480744, "x": 57422840}
FUSED_PARAMETERS = {"n": 2715880, "s": 6356200, "m": 17043656, "l": 37465576, "x": 57404200}
PUBLISHED_GFLOPS = {"n": 4.3, "s": 13.5, "m": 42.7, "l": 99.7, "x": 154.8}
GFLOPS_224 = {"n": 0.405, "s": 1.527, "m": 5.10, "l": 12.09, "x": 18.84}
GFLOPS_640 = {"n": 3.29, "s": 12.45, "m": 41.6, "l": 98.7, "x": 153.8}


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters_and_flops(size: str) -> None:
    with torch.device("meta"):
        model = yolov8.build(size)
        assert yolov8.count_parameters(model) == PARAMETERS[size]
        fused = yolov8.fuse(model)
    assert yolov8.count_parameters(fused) == FUSED_PARAMETERS[size]
    assert round(published_flops(model) / 1e9, 1) == PUBLISHED_GFLOPS[size]
    for image_size, stated in ((224, GFLOPS_224[size]), (640, GFLOPS_640[size])):  # as the README's table states them
        decimals = len(str(stated).partition(".")[2])
        assert flops(model, image_size) / 1e9 == pytest.approx(stated, abs=0.51 * 10**-decimals)
    assert flops(fused, 224) == flops(model, 224)
    assert published_flops(model) - flops(model, 640) == 399 * 2 * 1280 * 1000


def test_flops_of_a_convolution_and_a_linear_layer_by_hand() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    assert flops(layer, 8) == 2 * (3 * 9 * 8 * 16 + 128 * 5)


def test_flops_does_not_change_the_model() -> None:
    model = yolov8.build("n", 10).train()
    flops(model, 64)
    assert model.training and next(model.parameters()).device.type == "cpu"


def test_published_key_names() -> None:
    keys = yolov8.build("n").state_dict().keys()
    expected = {
        "model.0.conv.weight",
        "model.0.bn.weight",
        "model.0.bn.running_mean",
        "model.0.bn.num_batches_tracked",
        "model.2.cv1.conv.weight",
        "model.2.m.0.cv1.conv.weight",
        "model.4.m.1.cv2.bn.bias",
        "model.8.cv2.conv.weight",
        "model.9.conv.conv.weight",
        "model.9.conv.bn.running_var",
        "model.9.linear.weight",
        "model.9.linear.bias",
    }
    assert expected <= keys
    assert len(keys) == 26 * 6 + 2  # the published n: 26 convolutions with a batch norm each, and the classifier


def test_fuse_keeps_the_logits() -> None:
    torch.manual_seed(0)
    model = yolov8.build("n", 10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        logits, fused_logits = model(images), yolov8.fuse(model)(images)
    assert logits.std() > 1e-3
    torch.testing.assert_close(fused_logits, logits, rtol=1e-4, atol=1e-5)
    assert not any(".bn." in key for key in yolov8.fuse(model).state_dict())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_channels_last_is_kept_through_the_network() -> None:
    model = yolov8.build("n", 10).to(memory_format=torch.channels_last)
    formats: list[bool] = []

    def look(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # a chunk of the channels is strided, but the channels are still innermost
        formats.append(inputs[0].stride(1) == 1 and output.is_contiguous(memory_format=torch.channels_last))

    for module in model.modules():
        if isinstance(module, yolov8.Conv):
            module.register_forward_hook(look)
    model(torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last))
    assert len(formats) == 26 and all(formats)


def test_a_bottleneck_starts_as_the_identity_and_logits_near_zero() -> None:
    torch.manual_seed(0)
    model = yolov8.build("n", 1000).train()
    x = torch.rand(2, 3, 64, 64)
    block = yolov8.Bottleneck(8)
    yolov8.initialise(block)
    features = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(features), features)
    loss = nn.functional.cross_entropy(model(x), torch.tensor([1, 2]))
    assert loss.item() == pytest.approx(6.9078, abs=0.3)  # ln 1000


def test_dropout_works_in_training_only() -> None:
    model = yolov8.build("n", 10, dropout=0.5)
    x = torch.rand(4, 3, 32, 32)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.model[9].train()
    assert not torch.equal(model(x), model(x))


def test_unknown_size_names_the_choices() -> None:
    with pytest.raises(InputError, match=r"unknown size 'q'.*n, s, m, l, x"):
        yolov8.build("q")
