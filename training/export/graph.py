"""The module that is exported: the fused network in the requested precision, with optional pre- and post-processing."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtool.training.models import yolov8
from imgtool.training.models.losses import Loss


class Preprocess(nn.Module):
    """`imgtool.pipelines.codec.transform.ValTransform` as a torch module that can be exported.

    uint8 [N, H, W, 3] RGB, all N of one size → float32 [N, 3, imgsz, imgsz] 0..1. Pixels differ from ValTransform's
    by at most one grey level, where its fixed-point arithmetic rounds differently.
    """

    def __init__(self, imgsz: int) -> None:
        super().__init__()
        self.imgsz = imgsz

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).contiguous().float()
        height, width = x.shape[2], x.shape[3]
        # sym_min: torch.export traces sizes as symbols, which min() would fix to those of the example
        short = min(height, width) if torch.jit.is_scripting() else torch.sym_min(height, width)
        h, w = self.imgsz * height // short, self.imgsz * width // short
        size = [h, w]
        x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False).round()  # type: ignore[arg-type]
        # (size - imgsz) / 2, rounded half to even, as torchvision's center_crop does
        top, left = (h - self.imgsz) // 2, (w - self.imgsz) // 2
        top = top + (h - self.imgsz) % 2 * (top % 2)
        left = left + (w - self.imgsz) % 2 * (left % 2)
        window = torch.arange(self.imgsz, device=x.device)  # a slice makes torch.export guard on H and W
        return x.index_select(2, window + top).index_select(3, window + left) / 255


class ExportModule(nn.Module):
    """Images → float32 [N, classes]: logits per class, or with ``preprocess`` probabilities.

    Images are float32 [N, 3, imgsz, imgsz] 0..1, or with ``preprocess`` uint8 [N, H, W, 3], RGB. ``half`` computes in
    float16 inside; inputs and outputs stay as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Loss,
        half: bool = False,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        self.network = network.to(self.dtype)
        self.criterion = criterion  # turns the network's outputs into logits per class
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        if self.preprocess is None:
            return self.criterion.class_scores(self.network(images.to(self.dtype)).float())
        images = self.preprocess(images)
        return self.criterion.class_scores(self.network(images.to(self.dtype)).float()).softmax(dim=1)


class UnsplitC2f(nn.Module):
    """`yolov8.C2f` without split and concatenation, for speed in onnxruntime.

    The first convolution becomes two, one per half of its output channels. The last becomes one per concatenated part,
    and their outputs are summed. onnxruntime stores activations in blocks of channels: it reorders them for a split and
    copies them for a concatenation, whereas it fuses a sum into the convolution. The result is the same up to the
    order of summation.
    """

    def __init__(self, block: yolov8.C2f) -> None:
        super().__init__()
        half = block.cv1.conv.out_channels // 2
        self.first = _output_channels(block.cv1, slice(0, half))
        self.second = _output_channels(block.cv1, slice(half, 2 * half))
        self.m = block.m
        self.act = block.cv2.act
        self.parts = nn.ModuleList(
            _input_channels(block.cv2.conv, slice(start, start + half))
            for start in range(0, block.cv2.conv.in_channels, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        part = self.second(x)
        total = self.parts[1](part) + self.parts[0](self.first(x))
        for bottleneck, convolution in zip(self.m, self.parts[2:], strict=True):
            part = bottleneck(part)
            total = convolution(part) + total
        return self.act(total)


def unsplit(network: nn.Module) -> nn.Module:
    """Returns a copy of a fused network with each `yolov8.C2f` replaced by `UnsplitC2f`."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, yolov8.C2f):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, UnsplitC2f(module))
    return network


@torch.no_grad()
def _output_channels(layer: yolov8.Conv, channels: slice) -> nn.Module:
    """Returns the part of a 1x1 layer that computes these output channels."""
    conv = nn.Conv2d(layer.conv.in_channels, channels.stop - channels.start, 1, dtype=layer.conv.weight.dtype)
    assert layer.conv.bias is not None and conv.bias is not None
    conv.weight.copy_(layer.conv.weight[channels])
    conv.bias.copy_(layer.conv.bias[channels])
    return nn.Sequential(conv, layer.act)


@torch.no_grad()
def _input_channels(conv: nn.Conv2d, channels: slice) -> nn.Conv2d:
    """Returns a 1x1 convolution that computes what these input channels contribute; the first one has the bias."""
    width, dtype = channels.stop - channels.start, conv.weight.dtype
    part = nn.Conv2d(width, conv.out_channels, 1, bias=channels.start == 0, dtype=dtype)
    part.weight.copy_(conv.weight[:, channels])
    if part.bias is not None and conv.bias is not None:
        part.bias.copy_(conv.bias)
    return part
