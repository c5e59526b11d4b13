"""The YOLOv8-cls shapes n, s, m, l, x, written from the architecture's facts.

    Conv64/2  Conv128/2  C2f128×3  Conv256/2  C2f256×6  Conv512/2  C2f512×6  Conv1024/2  C2f1024×3  Classify

A size scales the channels by its width and the repeats by its depth. Module names equal the keys of the published
checkpoints (``model.0.conv.weight`` … ``model.9.linear.bias``), so those load without a table of names.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imgtool.training.models.norm_act import norm_act, takes
from imgtool.wordnet.errors import InputError

STRIDE = 32  # five stride-2 convolutions: an input side below 32 leaves no feature map to pool
MAX_CHANNELS = 1024  # before the width multiplies
HEAD_CHANNELS = 1280  # of the classifier's 1×1 convolution, the same at every size
STAGES = ((128, 3), (256, 6), (512, 6), (1024, 3))  # (channels, C2f repeats) before scaling


class Scale(NamedTuple):
    depth: float
    width: float


SCALES = {
    "n": Scale(0.33, 0.25),
    "s": Scale(0.33, 0.50),
    "m": Scale(0.67, 0.75),
    "l": Scale(1.00, 1.00),
    "x": Scale(1.00, 1.25),
}


class Conv(nn.Module):
    """Convolution, batch norm, SiLU. After `fuse` the norm is an identity and the convolution has a bias."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=1e-5, momentum=0.1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if isinstance(self.bn, nn.BatchNorm2d) and takes(x, self.bn):
            return norm_act(x, self.bn)
        out: Tensor = self.act(self.bn(x))
        return out


class Bottleneck(nn.Module):
    """Two 3×3 convolutions with a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.drop: nn.Module | None = None  # of the branch, see `ClassificationModel`

    def forward(self, x: Tensor) -> Tensor:
        branch = self.cv2(self.cv1(x))
        return x + (branch if self.drop is None else self.drop(branch))


class C2f(nn.Module):
    """Splits in two halves, chains bottlenecks on the second, and mixes every intermediate result by a 1×1."""

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
    """float [N, 3, H, W] in 0..1, H and W at least 32 → logits [N, num_classes] (not softmaxed).

    ``drop_path``: stochastic depth (Huang et al. 2016), the probability that the last bottleneck's branch is left out
    for an image in training; it rises linearly from 0 at the first.
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
    """Initial weights that suit SGD at a high learning rate.

    Convolutions are He-normal over the fan-out (He et al. 2015). The last norm of every residual branch starts at
    zero, so that a bottleneck starts as the identity and the network as a shallow one (Goyal et al. 2017, §5.1), which
    is what makes the large learning rates of the recipes safe. The classifier starts at std 0.01 and zero bias: its
    first loss is then log(num_classes), with no class preferred.
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
    """A freshly initialised model of one of the sizes n, s, m, l, x, from torch's global random state.

    Raises InputError for an unknown size.
    """
    if size not in SCALES:
        raise InputError(f"unknown size {size!r}: choose one of {', '.join(SCALES)}")
    if num_classes < 1:
        raise InputError(f"a classifier needs at least 1 class, not {num_classes}")
    return ClassificationModel(size, num_classes, dropout, drop_path)


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """A copy for inference with every batch norm folded into its convolution: same logits, fewer passes.

    w' = w·γ/√(σ²+ε) and b' = β − μ·γ/√(σ²+ε), of the running statistics. Networks of other libraries stay as they are.
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
    """Learnable parameters; a batch norm's running statistics are not among them."""
    return sum(p.numel() for p in model.parameters())
