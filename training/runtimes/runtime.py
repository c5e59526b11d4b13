"""An exported model as a torch module, whatever program runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imgtool.pipelines.codec.transform import to_float
from imgtool.training.runtimes.metadata import LOGITS, PROBABILITIES, UINT8_INPUT, ModelMetadata
from imgtool.wordnet.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Input:
    """What a model takes: float16 or float32 [batch, 3, H, W], or uint8 [batch, H, W, 3]. None: any number."""

    dtype: torch.dtype
    shape: tuple[int | None, ...]

    @classmethod
    def check(cls, dtype: torch.dtype | None, shape: tuple[int | None, ...]) -> Input:
        """Raises CheckpointError for another kind."""
        pixels = dtype == torch.uint8
        takes = dtype in (torch.float16, torch.float32, torch.uint8)
        if dtype is None or not takes or len(shape) != 4 or shape[3 if pixels else 1] not in (3, None):
            sides = ", ".join("?" if side is None else str(side) for side in shape)
            raise CheckpointError(f"it takes {dtype or 'no tensor'} [{sides}], and so is no classifier of RGB images")
        return cls(dtype, shape)

    @classmethod
    def of(cls, metadata: ModelMetadata) -> Input:
        """What metadata say of a model that does not tell itself."""
        if metadata.input == UINT8_INPUT:
            return cls(torch.uint8, (metadata.batch, None, None, 3))
        return cls(torch.float32, (metadata.batch, 3, metadata.imgsz, metadata.imgsz))

    @property
    def batch(self) -> int | None:
        return self.shape[0]

    @property
    def pixels(self) -> bool:
        """Whether it takes images of any size and transforms them itself."""
        return self.dtype == torch.uint8

    @property
    def side(self) -> int | None:
        return None if self.pixels else self.shape[2]


class Runtime(nn.Module):
    """uint8 images [N, 3, imgsz, imgsz] on ``device`` → float32 logits a class [N, classes].

    ``run`` is the model itself: its own outputs [N, classes] for its own kind of input. Of probabilities these here are
    the logarithms. A model of a fixed batch gets the last one filled up.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        metadata: ModelMetadata,
        takes: Input,
        device: torch.device,
        outputs: int | None,
    ) -> None:
        """``outputs`` is the number of classes, where it can be told before the first image is computed.

        Raises CheckpointError when the model is none of images.
        """
        super().__init__()
        self.run, self.metadata, self.takes, self.device = run, metadata, takes, device
        self.imgsz = takes.side or metadata.imgsz or 224
        if outputs is None:
            blank = torch.zeros(1, 3, self.imgsz, self.imgsz, dtype=torch.uint8, device=device)
            outputs = self._scores(self._input(blank)).shape[1]
        self.metadata = metadata.check(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self._logits(self._scores(self._input(images)))

    def of_whole_images(self, images: Tensor) -> Tensor:
        """`forward` for whole images uint8 [N, H, W, 3], of a model that transforms them itself."""
        return self._logits(self._scores(images))

    def _input(self, images: Tensor) -> Tensor:
        if self.takes.pixels:
            return images.permute(0, 2, 3, 1).contiguous()
        side = self.takes.side
        if side is not None and images.shape[2] != side:
            raise InputError(f"this model takes images of {side} pixels, not {images.shape[2]}")
        return to_float(images).to(self.takes.dtype).contiguous()

    def _scores(self, images: Tensor) -> Tensor:
        batch = self.takes.batch
        if batch is None or batch == len(images):
            parts = [self.run(images)]
        else:
            filled = torch.cat([images, images[-1:].expand(-len(images) % batch, *images.shape[1:])])
            parts = [self.run(part.contiguous()) for part in filled.split(batch)]
        scores = torch.cat(parts)[: len(images)]
        if scores.ndim != 2:
            raise CheckpointError(f"it gives {list(scores.shape)} for a batch of images, and so is no classifier")
        return scores.float()

    def _logits(self, scores: Tensor) -> Tensor:
        if self._gives(scores) == PROBABILITIES:  # one too small for float32 is 0 there, which has no logarithm
            return scores.clamp_min(torch.finfo(torch.float32).tiny).log()
        return scores

    def _gives(self, scores: Tensor) -> str:
        """What another program's model does not say is seen from its outputs."""
        if self.metadata.output is not None:
            return self.metadata.output
        is_softmax = bool((scores >= 0).all()) and bool((scores.sum(dim=1) - 1).abs().max() < 1e-2)
        return PROBABILITIES if is_softmax else LOGITS
