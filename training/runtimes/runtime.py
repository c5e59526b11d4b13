"""An exported model as a torch module, whichever library runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imgtool.pipelines.codec.transform import to_float
from imgtool.training.recipes import MAX_IMGSZ
from imgtool.training.runtimes.metadata import LOGITS, MAX_BATCH, PROBABILITIES, UINT8_INPUT, ModelMetadata
from imgtool.wordnet.errors import CheckpointError, InputError


@dataclass(frozen=True)
class InputSpec:
    """The input of a model: float16 or float32 [batch, 3, H, W], or uint8 [batch, H, W, 3]."""

    dtype: torch.dtype
    shape: tuple[int | None, ...]  # None: any size

    @classmethod
    def check(cls, dtype: torch.dtype | None, shape: tuple[int | None, ...]) -> InputSpec:
        """Returns the spec of a model's input. Raises CheckpointError for an input that is not RGB images."""
        channels_axis = 3 if dtype == torch.uint8 else 1
        supported = dtype in (torch.float16, torch.float32, torch.uint8)
        if dtype is None or not supported or len(shape) != 4 or shape[channels_axis] not in (3, None):
            sizes = ", ".join("?" if size is None else str(size) for size in shape)
            kind = "an unsupported type" if dtype is None else str(dtype).removeprefix("torch.")
            raise CheckpointError(f"not a classifier of RGB images: its input is {kind} [{sizes}]")
        if any(size is not None and not 1 <= size <= MAX_IMGSZ for size in shape[1:]) or (shape[0] or 1) > MAX_BATCH:
            raise CheckpointError(f"its input has an impossible size: {list(shape)}")
        if dtype != torch.uint8 and shape[2] != shape[3]:
            raise CheckpointError(f"it takes images of {shape[2]} × {shape[3]} pixels, not squares")
        return cls(dtype, shape)

    @classmethod
    def from_metadata(cls, metadata: ModelMetadata) -> InputSpec:
        """Returns the spec that the metadata state, for a format that does not describe its input."""
        if metadata.input == UINT8_INPUT:
            return cls(torch.uint8, (metadata.batch, None, None, 3))
        return cls(torch.float32, (metadata.batch, 3, metadata.imgsz, metadata.imgsz))

    @property
    def batch(self) -> int | None:
        """The fixed number of images per call; None: any."""
        return self.shape[0]

    @property
    def is_uint8(self) -> bool:
        """Whether the model takes uint8 images of any size and applies the validation transform itself."""
        return self.dtype == torch.uint8

    @property
    def side(self) -> int | None:
        """The fixed side of the images in pixels; None: any."""
        return None if self.is_uint8 else self.shape[2]


class Runtime(nn.Module):
    """uint8 images [N, 3, imgsz, imgsz] on ``device`` → float32 logits per class [N, classes].

    If the model outputs probabilities, the logits are their logarithms. If the model has a fixed batch size, the
    last batch is padded.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        metadata: ModelMetadata,
        input: InputSpec,
        device: torch.device,
        outputs: int | None,
    ) -> None:
        """``run`` calls the model: a tensor as ``input`` specifies → its outputs [N, classes].

        ``outputs`` is the number of classes; if it is None, one blank image is run to find out. Raises CheckpointError
        when the outputs are not [N, classes] or the metadata name another number of classes.
        """
        super().__init__()
        self.run, self.metadata, self.input, self.device = run, metadata, input, device
        self.imgsz = input.side or metadata.imgsz or 224
        if outputs is None:
            blank = torch.zeros(1, 3, self.imgsz, self.imgsz, dtype=torch.uint8, device=device)
            outputs = self._run_batches(self._to_input(blank)).shape[1]
        self.metadata = metadata.with_outputs(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self._to_logits(self._run_batches(self._to_input(images)))

    def forward_untransformed(self, images: Tensor) -> Tensor:
        """`forward` for uint8 images [N, H, W, 3] of any size, for a model that applies the transform itself."""
        return self._to_logits(self._run_batches(images))

    def _to_input(self, images: Tensor) -> Tensor:
        if self.input.is_uint8:
            return images.permute(0, 2, 3, 1).contiguous()
        side = self.input.side
        if side is not None and images.shape[2] != side:
            raise InputError(f"this model takes images of {side} pixels, not {images.shape[2]}")
        return to_float(images).to(self.input.dtype).contiguous()

    def _run_batches(self, images: Tensor) -> Tensor:
        batch = self.input.batch
        if batch is None or batch == len(images):
            parts = [self.run(images)]
        else:
            padded = torch.cat([images, images[-1:].expand(-len(images) % batch, *images.shape[1:])])
            parts = [self.run(part.contiguous()) for part in padded.split(batch)]
        shapes = {tuple(part.shape[1:]) for part in parts}
        if any(part.ndim != 2 for part in parts) or len(shapes) != 1 or sum(map(len, parts)) < len(images):
            raise CheckpointError(
                f"not a classifier: its output for a batch of images is {list(parts[0].shape)}, not [N, classes]"
            )
        outputs = torch.cat(parts)[: len(images)]
        return outputs.float()

    def _to_logits(self, outputs: Tensor) -> Tensor:
        if self._output_kind(outputs) == PROBABILITIES:  # one that underflows to 0 would have an infinite logarithm
            return outputs.clamp_min(torch.finfo(torch.float32).tiny).log()
        return outputs

    def _output_kind(self, outputs: Tensor) -> str:
        """Returns LOGITS or PROBABILITIES; without metadata it is inferred from the values."""
        if self.metadata.output is not None:
            return self.metadata.output
        is_softmax = bool((outputs >= 0).all()) and bool((outputs.sum(dim=1) - 1).abs().max() < 1e-2)
        return PROBABILITIES if is_softmax else LOGITS
