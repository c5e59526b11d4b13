"""Floating-point operations of a network, by torch's own counter."""

import copy

import torch
from torch import nn

from imgtool.training.models.yolov8 import STRIDE


def flops(network: nn.Module, image_size: int) -> int:
    """Returns the floating-point operations of one image's forward pass, 2 × its multiply-accumulates; 0 for a network
    that cannot be traced.

    torch counts convolutions and matrix products, without their biases. Norms, activations, additions and pooling are
    not counted, so a fused network has the same FLOPs. Nothing is computed: only shapes are traced, on the meta device.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    try:
        traced = copy.deepcopy(network).to("meta").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            traced(torch.empty(1, 3, image_size, image_size, device="meta"))
    except (RuntimeError, NotImplementedError):
        return 0
    return int(counter.get_total_flops())


def published_flops(network: nn.Module) -> int:
    """Returns the "FLOPs at 640" of the published table: those at 32×32 times (640/32)² = 400.

    It multiplies the classifier too, which runs once per image whatever the image's size, and therefore exceeds
    ``flops(network, 640)`` by 399 × 2 × 1280 × classes: 1.02 G for 1000 classes. It serves comparison with that table.
    """
    return flops(network, STRIDE) * (640 // STRIDE) ** 2
