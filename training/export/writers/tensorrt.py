"""Builds a TensorRT engine, which runs only on the GPU model and TensorRT version that it was built with.

imgtool.training.runtimes.tensorrt describes the file. Not measured yet: an NVIDIA GPU is needed to build and run it.
"""

from __future__ import annotations

import json
from pathlib import Path

from imgtool.training.export.graph import ExportModule
from imgtool.training.export.settings import ExportSettings
from imgtool.training.export.writers import onnx
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.tensorrt import LENGTH_BYTES, error_log, library
from imgtool.wordnet.errors import CheckpointError, InputError

OPT_BATCH, MAX_BATCH = 8, 64  # images per call that an engine without a fixed batch is tuned for, and at most


def write(module: ExportModule, settings: ExportSettings, metadata: ModelMetadata, path: Path) -> None:
    """Builds the engine on this machine's GPU, which takes minutes. It computes in the precisions of the ONNX graph.

    Raises InputError without TensorRT or a GPU, CheckpointError for a model that TensorRT cannot build.
    """
    if settings.preprocess:
        raise InputError("TensorRT has no antialiased resize: export format tensorrt without --with-preprocess")
    trt = library()
    errors: list[str] = []
    logger = error_log(trt, errors)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx.to_onnx(module, settings).SerializeToString()):
        raise CheckpointError(f"TensorRT cannot read the model: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 of the graph stays float32
    if settings.batch is None:
        profile = builder.create_optimization_profile()
        profile.set_shape(
            "images", *((count, 3, settings.imgsz, settings.imgsz) for count in (1, OPT_BATCH, MAX_BATCH))
        )
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CheckpointError(f"TensorRT cannot build the model: {(errors or ['no reason given'])[0]}")
    stored = json.dumps(metadata.to_strings()).encode()
    with open(path, "wb") as file:
        file.write(len(stored).to_bytes(LENGTH_BYTES, "little") + stored)
        file.write(memoryview(engine))
