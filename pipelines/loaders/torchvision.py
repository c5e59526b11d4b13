"""The backend ``torchvision``, a slow and plain reference: Pillow decodes the image, torchvision crops and resizes."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import torch
from torchvision.transforms.v2 import functional as F

from imgtool.pipelines import codec
from imgtool.pipelines.loaders.base import Batch, Loader
from imgtool.pipelines.loaders.sampling import Request


class TorchvisionLoader(Loader):
    """Same samples, order and crops as the native loader, one image at a time (``num_workers`` is ignored)."""

    def _produce(self, requests: Iterator[Request]) -> Generator[Batch]:
        for request in requests:
            errors: list[tuple[int, str]] = []
            images = torch.empty((len(request.samples), 3, request.size, request.size), dtype=torch.uint8)
            images = images.to(memory_format=torch.channels_last)
            for i, (sample, crop) in enumerate(zip(request.samples.tolist(), request.crops.tolist(), strict=True)):
                try:
                    images[i] = self._image(sample, crop, request.size)
                except OSError as error:
                    errors.append((i, str(error)))
            yield self._finished(request, images, errors)

    def _image(self, sample: int, crop: list[int], size: int) -> torch.Tensor:
        x, y, w, h, resized_w, resized_h, window_x, window_y, flip = crop
        if self.samples.raw[sample]:
            image = torch.from_numpy(self.samples.pixels(sample).transpose(2, 0, 1).copy())
        else:
            with codec.open_with_pillow(self.samples.data(sample)) as file:
                image = F.pil_to_tensor(file.convert("RGB"))
        image = F.resized_crop(image, y, x, h, w, [resized_h, resized_w], antialias=True)
        image = F.crop(image, window_y, window_x, size, size)
        return F.horizontal_flip(image) if flip else image
