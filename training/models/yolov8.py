"""The YOLOv8-cls networks of the sizes n, s, m, l and x, written from the architecture's facts.

    Conv64/2  Conv128/2  C2f128×3  Conv256/2  C2f256×6  Conv512/2  C2f512×6  Conv1024/2  C2f1024×3  Classify

A size multiplies the channels by its width and the repeats by its depth. Module names equal the keys of the published
checkpoints (``model.0.conv.weight`` … ``model.9.linear.bias``), which therefore load without renaming.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imgtool.training.models.norm_act import is_supported, norm_act
from imgtool.wordnet.errors import InputError

STRIDE = 32  # of five stride-2 convolutions, and therefore the smallest image side
MAX_CHANNELS = 1024  # before the width multiplies them
HEAD_CHANNELS = 1280  # of the classifier's 1×1 convolution, the same at every size
STAGES = ((128, 3), (256, 6), (512, 6), (1024, 3))  # (channels, C2f repeats) before scaling


class Multiples(NamedTuple):
    depth: float
    width: float


SCALES = {
    "n": Multiples(0.33, 0.25),
    "s": Multiples(0.33, 0.50),
    "m": Multiples(0.67, 0.75),
    "l": Multiples(1.00, 1.00),
    "x": Multiples(1.00, 1.25),
}


class Conv(nn.Module):
    """Convolution, batch norm, SiLU. After `fuse` the convolution has a bias and the norm is an identity."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=1e-5, momentum=0.1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if isinstance(self.bn, nn.BatchNorm2d) and is_supported(x, self.bn):
            return norm_act(x, self.bn)
        out: Tensor = self.act(self.bn(x))
        return out


class Bottleneck(nn.Module):
    """Two 3×3 convolutions with a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.drop: nn.Module | None = None  # stochastic depth, see `ClassificationModel`

    def forward(self, x: Tensor) -> Tensor:
        branch = self.cv2(self.cv1(x))
        return x + (branch if self.drop is None else self.drop(branch))


class C2f(nn.Module):
    """Splits the channels in two halves, chains bottlenecks on the second one, and combines all intermediate results by
    a 1×1 convolution."""

    def __init__(self, channels: int, repeats: int) -> None:
        super().__init__()
        half = channels // 2
        self.cv1 = Conv(channels, 2 * half)
        self.cv2 = Conv((2 + repeats) * half, channels)
        self.m = nn.ModuleList(Bottleneck(half) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, dim=1))
        for bottleneck in self.m:
            parts.append(bottleneck(parts[-1]))
        return self.cv2(torch.cat(parts, dim=1))


class Classify(nn.Module):
    """1×1 convolution, global average pooling, dropout, linear: feature map in, logits out."""

    def __init__(self, c_in: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = Conv(c_in, HEAD_CHANNELS)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(HEAD_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(self.pool(self.conv(x)).flatten(1)))


class ClassificationModel(nn.Module):
    """float [N, 3, H, W] in 0..1, H and W at least 32 → logits [N, num_classes], before the softmax.

    ``drop_path`` is the rate of stochastic depth (Huang et al. 2016): the probability that the last bottleneck's branch
    is dropped for an image in training. It rises linearly from 0 for the first bottleneck.
    """

    def __init__(self, size: str, num_classes: int = 1000, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.size, self.num_classes = size, num_classes
        depth, width = SCALES[size]

        def channels(base: int) -> int:
            return math.ceil(min(base, MAX_CHANNELS) * width / 8) * 8

        stem = channels(64)
        layers: list[nn.Module] = [Conv(3, stem, 3, 2)]
        c_in = stem
        for base, repeats in STAGES:
            c_out = channels(base)
            layers += [Conv(c_in, c_out, 3, 2), C2f(c_out, max(round(repeats * depth), 1))]
            c_in = c_out
        layers.append(Classify(c_in, num_classes, dropout))
        self.model = nn.Sequential(*layers)
        if drop_path:
            from torchvision.ops import StochasticDepth  # torchvision takes a second to import

            branches = [module for module in self.modules() if isinstance(module, Bottleneck)]
            for number, branch in enumerate(branches):
                branch.drop = StochasticDepth(drop_path * number / max(len(branches) - 1, 1), "row")
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def initialise(model: nn.Module) -> None:
    """Sets initial weights that suit SGD at a high learning rate.

    Convolutions are He-normal over the fan-out (He et al. 2015). The last norm of every residual branch starts at
    zero, so that each bottleneck starts as the identity (Goyal et al. 2017, §5.1). This makes the recipes' high
    learning rates stable. The classifier starts with std 0.01 and zero bias: its first loss is about log(num_classes).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            assert isinstance(module.cv2.bn, nn.BatchNorm2d)
            nn.init.zeros_(module.cv2.bn.weight)


def build(size: str, num_classes: int = 1000, dropout: float = 0.0, drop_path: float = 0.0) -> ClassificationModel:
    """Returns a new network of a size (n, s, m, l, x), with random weights from torch's global random state.

    Raises InputError for an unknown size or less than one class.
    """
    if size not in SCALES:
        raise InputError(f"unknown size {size!r}: choose one of {', '.join(SCALES)}")
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, not {num_classes}")
    return ClassificationModel(size, num_classes, dropout, drop_path)


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """Returns a copy for inference with every batch norm folded into its convolution: the same logits, faster.

    w' = w·γ/√(σ²+ε) and b' = β − μ·γ/√(σ²+ε), with the running statistics μ and σ². Networks of other libraries are
    copied unchanged.
    """
    fused = copy.deepcopy(model).eval()
    for module in fused.modules():
        if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
            conv, bn = module.conv, module.bn
            assert bn.running_mean is not None and bn.running_var is not None
            gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)
            conv.weight.mul_(gain.view(-1, 1, 1, 1))
            conv.bias = nn.Parameter(bn.bias - bn.running_mean * gain)
            module.bn = nn.Identity()
    return fused


def count_parameters(model: nn.Module) -> int:
    """Returns the number of learnable parameters, without batch norm's running statistics."""
    return sum(p.numel() for p in model.parameters())
