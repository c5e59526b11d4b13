"""The validation transform, in one place: what loaders, val and predict do to an image, and an export must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import codec

if TYPE_CHECKING:
    from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] → float32 0..1, on the images' device and in their memory format.

    No mean and deviation are taken off: so were the published weights trained (and the first batch norm does it).
    """
    return images.float().div_(255)


@dataclass(frozen=True)
class ValTransform:
    """Short side resized to ``imgsz`` pixels (bilinear, antialiased; smaller images are enlarged), centre crop of
    ``imgsz`` x ``imgsz``, RGB, divided by 255.

    The native loader crops by :meth:`crops` while it decodes, and :meth:`decode` gives the very same pixels for a file.
    The call, for pixels decoded already, differs from both in colours only: most JPEGs have these at half the size of
    brightness, and it sees them enlarged before it resizes (.4 of 255 on average over photographs).
    """

    imgsz: int

    def __call__(self, pixels: codec.Pixels) -> codec.Pixels:
        """uint8 [H, W, 3] RGB → uint8 [imgsz, imgsz, 3]."""
        return codec.center_crop(pixels, self.imgsz)

    def decode(self, data: bytes) -> codec.Pixels:
        """An image's file, of any format, turned upright by EXIF → uint8 [imgsz, imgsz, 3]. Raises ImageError."""
        return codec.center_decode(data, self.imgsz)

    def crops(self, width: npt.ArrayLike, height: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """The same for images of these sizes as the codec's crops, int32 [N, 9]: see `codec.center_geometry`."""
        return codec.center_geometry(width, height, self.imgsz)

    @staticmethod
    def to_float(images: Tensor) -> Tensor:
        """uint8 [N, 3, imgsz, imgsz] → what the model takes, float32 0..1."""
        return to_float(images)

    def to_dict(self) -> dict[str, Any]:
        """In words, for the metadata of an exported model."""
        return {
            "resize_short_side": self.imgsz,
            "center_crop": self.imgsz,
            "interpolation": "bilinear, antialiased",
            "channels": "RGB",
            "scale": 1 / 255,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        }
