"""Static quantisation of an ONNX model to 8-bit integers by onnxruntime, its ranges measured on real images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgtool.pipelines import codec
from imgtool.training.export.plan import Plan
from imgtool.training.runtimes.libraries import needs, quietly

BATCH = 16
OPERATORS = ["Conv", "Sigmoid", "Mul", "Add", "Split", "Concat", "Gemm", "MatMul", "Relu", "Clip", "MaxPool"]
"""Of the network, so that nothing in it goes back to float32; its transform and the mean at its end stay. The last four
are other libraries' networks'."""


def quantise(model: Path, images: Iterator[codec.Pixels], plan: Plan) -> int:
    """Puts the quantised model in the place of the other, its metadata kept; returns how many images it took.

    ``images`` are uint8 [imgsz, imgsz, 3], through the validation transform. Weights get 7 bits: the sums of two
    products of 8 bits overflow the 16 that AVX2 has for them, which costs more than the bit.
    """
    needs("onnx", "onnxruntime", extra="export")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    feed, out = Feed(images, plan), model.with_suffix(".int8")
    with quietly():
        quantize_static(
            str(model),
            str(out),
            feed,
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
    return feed.count


class Feed:
    """Batches as the quantiser asks for them, filled up with the first ones where the model takes no smaller batch."""

    def __init__(self, images: Iterator[codec.Pixels], plan: Plan) -> None:
        self.images, self.plan, self.count = images, plan, 0

    def get_next(self) -> dict[str, Any] | None:
        part = list(itertools.islice(self.images, self.plan.batch or BATCH))
        if not part:
            return None
        self.count += len(part)
        if self.plan.batch is not None:
            part = list(itertools.islice(itertools.cycle(part), self.plan.batch))
        images = np.stack(part)
        if self.plan.preprocess:
            return {"images": images}
        return {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255}
