"""The export formats by name, and the suffix of their files. Imports no torch: the command line lists the names."""

from __future__ import annotations

WEIGHTS_ONLY = "ultralytics-state"  # the one format that no program runs
SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "tensorrt": ".engine",
    "torch-export": ".pt2",
    "torchscript": ".torchscript",
    WEIGHTS_ONLY: ".state.pt",
}
