"""A torch network as uint8 images → logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imgtool.pipelines.codec.transform import to_float
from imgtool.training.models import yolov8
from imgtool.training.models.losses import Loss
from imgtool.training.parallel.device import has_bf16


class Native(nn.Module):
    """uint8 images [N, 3, H, W] → float32 logits per class [N, classes], computed in bfloat16 where that is faster.

    ``criterion`` is the loss that the network was trained with: it turns the network's outputs into logits per class.
    Without one, the outputs are logits per class already.
    """

    def __init__(self, network: nn.Module, criterion: Loss | None = None) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion

    @classmethod
    def fused(cls, network: nn.Module, criterion: Loss, device: torch.device) -> Native:
        """Returns a copy for inference on the device, with batch norms folded into the convolutions."""
        copy = yolov8.fuse(network).to(device).to(memory_format=torch.channels_last)
        return cls(copy, criterion.to(device)).eval()

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_bf16(images.device)):
            outputs: Tensor = self.network(to_float(images))
        outputs = outputs.float()
        return outputs if self.criterion is None else self.criterion.class_scores(outputs)
