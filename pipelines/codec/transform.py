"""The validation transform, which loaders, val and predict apply to an image, and users of an export must apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from imgtool.pipelines import codec

if TYPE_CHECKING:
    from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Converts uint8 [N, 3, H, W] to float32 in 0..1, on the same device and in the same memory format.

    There is no normalisation by mean and standard deviation, as in the training of the published weights; the first
    batch norm takes its place.
    """
    return images.float().div_(255)


@dataclass(frozen=True)
class ValTransform:
    """Resizes the short side to ``imgsz`` pixels (bilinear, antialiased, also enlarging) and crops the centre.

    The result is ``imgsz`` x ``imgsz`` RGB, to be divided by 255. The native loader applies ``crops`` while decoding,
    and ``decode`` gives exactly the same pixels for a file. Calling the transform on decoded pixels differs from both
    in the
    colours: most JPEGs store chroma at half the resolution of luma, which is then upsampled before the resize instead
    of resized directly. The mean difference over photographs is .4 of 255.
    """

    imgsz: int

    def __call__(self, pixels: codec.Pixels) -> codec.Pixels:
        """Transforms decoded pixels: uint8 [H, W, 3] RGB to uint8 [imgsz, imgsz, 3]."""
        return codec.center_crop(pixels, self.imgsz)

    def decode(self, data: bytes) -> codec.Pixels:
        """Decodes and transforms an image file of any format, after its EXIF orientation, to uint8 [imgsz, imgsz, 3].

        Raises:
            ImageError: the image cannot be decoded.
        """
        return codec.center_decode(data, self.imgsz)

    def crops(self, width: npt.ArrayLike, height: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Returns the transform for images of these sizes as crops, int32 [N, 9]: see ``codec.center_geometry``."""
        return codec.center_geometry(width, height, self.imgsz)

    @staticmethod
    def to_float(images: Tensor) -> Tensor:
        """Converts uint8 [N, 3, imgsz, imgsz] to the model's input, float32 in 0..1."""
        return to_float(images)

    def to_dict(self) -> dict[str, Any]:
        """Describes the transform for the metadata of an exported model."""
        return {
            "resize_short_side": self.imgsz,
            "center_crop": self.imgsz,
            "interpolation": "bilinear, antialiased",
            "channels": "RGB",
            "scale": 1 / 255,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        }
