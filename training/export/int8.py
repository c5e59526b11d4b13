"""Static quantisation of an ONNX model to 8-bit integers by onnxruntime, with ranges measured on real images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgtool.pipelines import codec
from imgtool.training.export.settings import ExportSettings
from imgtool.training.runtimes.libraries import require_packages, without_warnings

BATCH = 16
OPERATORS = ["Conv", "Sigmoid", "Mul", "Add", "Split", "Concat", "Gemm", "MatMul", "Relu", "Clip", "MaxPool"]
"""The operators that are quantised: all of the network, so that nothing inside it returns to float32. The transform and
the mean after the last convolution stay in float32. The last four operators occur in networks of other libraries."""


def quantise(model: Path, images: Iterator[codec.Pixels], settings: ExportSettings) -> int:
    """Replaces the ONNX file by its quantised version, keeps its metadata, and returns how many images it used.

    ``images`` are uint8 [imgsz, imgsz, 3], after the validation transform. Weights get 7 bits: AVX2 adds two 8-bit
    products in 16 bits, which overflows with 8-bit weights and costs more accuracy than the bit.
    """
    require_packages("onnx", "onnxruntime", extra="export")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    reader, out = CalibrationReader(images, settings), model.with_suffix(".int8")
    with without_warnings():
        quantize_static(
            str(model),
            str(out),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    quantised, original = onnx.load(str(out)), onnx.load(str(model))
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(original.metadata_props)
    out.write_bytes(quantised.SerializeToString())
    out.replace(model)
    return reader.count


class CalibrationReader:
    """Batches in the form that onnxruntime's quantiser reads. ``count`` is the number of images read.

    For a model of a fixed batch size, the last batch is filled up by repeating its images.
    """

    def __init__(self, images: Iterator[codec.Pixels], settings: ExportSettings) -> None:
        self.images, self.settings, self.count = images, settings, 0

    def get_next(self) -> dict[str, Any] | None:
        """Returns the next batch by input name, None after the last. The quantiser calls it."""
        part = list(itertools.islice(self.images, self.settings.batch or BATCH))
        if not part:
            return None
        self.count += len(part)
        if self.settings.batch is not None:
            part = list(itertools.islice(itertools.cycle(part), self.settings.batch))
        images = np.stack(part)
        if self.settings.preprocess:
            return {"images": images}
        return {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255}
