"""The module that is exported: fused, in the wished precision, with what goes before and behind the network."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtool.training.models import yolov8
from imgtool.training.models.losses import Loss


class Preprocess(nn.Module):
    """`imgtool.pipelines.codec.transform.ValTransform` within a graph: uint8 [N, H, W, 3] RGB of any one size → float32
    [N, 3, imgsz, imgsz] 0..1.

    Equal to it but for a grey level where its fixed-point arithmetic rounds the other way.
    """

    def __init__(self, imgsz: int) -> None:
        super().__init__()
        self.imgsz = imgsz

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).contiguous().float()
        height, width = x.shape[2], x.shape[3]
        # sym_min: of sizes that are not known yet
        short = min(height, width) if torch.jit.is_scripting() else torch.sym_min(height, width)
        h, w = self.imgsz * height // short, self.imgsz * width // short
        size = [h, w]
        x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False).round()  # type: ignore[arg-type]
        # half of what is left over, rounded half to even as torchvision does it
        top, left = (h - self.imgsz) // 2, (w - self.imgsz) // 2
        top = top + (h - self.imgsz) % 2 * (top % 2)
        left = left + (w - self.imgsz) % 2 * (left % 2)
        window = torch.arange(self.imgsz, device=x.device)  # a slice would make torch.export settle whether it is all
        return x.index_select(2, window + top).index_select(3, window + left) / 255


class Deployed(nn.Module):
    """Images → logits a class, or their softmax, float32 [N, classes] whatever the precision within.

    Images are float32 [N, 3, imgsz, imgsz] 0..1; with ``preprocess`` uint8 [N, H, W, 3], RGB.
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
        self.criterion = criterion  # which knows how outputs become scores of classes
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        if self.preprocess is None:
            return self.criterion.class_scores(self.network(images.to(self.dtype)).float())
        images = self.preprocess(images)
        return self.criterion.class_scores(self.network(images.to(self.dtype)).float()).softmax(dim=1)


class UnsplitC2f(nn.Module):
    """`yolov8.C2f` without split and concatenation: the first convolution is two, and the last is one a part, summed.

    onnxruntime keeps activations in blocks of channels, leaves that order for a split, and copies for a concatenation;
    a convolution that adds to what is there costs it nothing. The function is the same but for the order of sums.
    """

    def __init__(self, block: yolov8.C2f) -> None:
        super().__init__()
        half = block.cv1.conv.out_channels // 2
        self.first = _rows(block.cv1, slice(0, half))
        self.second = _rows(block.cv1, slice(half, 2 * half))
        self.m = block.m
        self.act = block.cv2.act
        self.parts = nn.ModuleList(
            _part(block.cv2.conv, slice(at, at + half)) for at in range(0, block.cv2.conv.in_channels, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        part = self.second(x)
        total = self.parts[1](part) + self.parts[0](self.first(x))
        for bottleneck, convolution in zip(self.m, self.parts[2:], strict=True):
            part = bottleneck(part)
            total = convolution(part) + total
        return self.act(total)


def unsplit(network: nn.Module) -> nn.Module:
    """The same fused network with every C2f unsplit; one of another library as it is."""
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, yolov8.C2f):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, UnsplitC2f(module))
    return network


@torch.no_grad()
def _rows(layer: yolov8.Conv, rows: slice) -> nn.Module:
    """The layer that gives these of the output channels."""
    conv = nn.Conv2d(layer.conv.in_channels, rows.stop - rows.start, 1, dtype=layer.conv.weight.dtype)
    assert layer.conv.bias is not None and conv.bias is not None
    conv.weight.copy_(layer.conv.weight[rows])
    conv.bias.copy_(layer.conv.bias[rows])
    return nn.Sequential(conv, layer.act)


@torch.no_grad()
def _part(conv: nn.Conv2d, columns: slice) -> nn.Conv2d:
    """What these of the input channels add to the output; the bias comes with the first."""
    width, dtype = columns.stop - columns.start, conv.weight.dtype
    part = nn.Conv2d(width, conv.out_channels, 1, bias=columns.start == 0, dtype=dtype)
    part.weight.copy_(conv.weight[:, columns])
    if part.bias is not None and conv.bias is not None:
        part.bias.copy_(conv.bias)
    return part
