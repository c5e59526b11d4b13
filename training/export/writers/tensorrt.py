"""TensorRT's engine: for the one kind of GPU that it was built on, by the one version of TensorRT that built it.

The file is, as Ultralytics' programs have it: the length of the metadata (4 bytes, little-endian), the metadata as
JSON, the engine. Never measured yet: it needs an NVIDIA GPU to build and to run.
"""

from __future__ import annotations

import json
from pathlib import Path

from imgtool.training.export.graph import Deployed
from imgtool.training.export.plan import Plan
from imgtool.training.export.writers import onnx
from imgtool.training.runtimes.metadata import ModelMetadata
from imgtool.training.runtimes.tensorrt import LENGTH, error_log, library
from imgtool.wordnet.errors import CheckpointError, InputError

MAX_BATCH = 64  # of an engine for any batch, which is tuned for OPT_BATCH
OPT_BATCH = 8


def write(deployed: Deployed, plan: Plan, about: ModelMetadata, path: Path) -> None:
    """Builds the engine on this machine's GPU, which takes minutes; its precisions are those of the ONNX graph.

    Raises InputError without TensorRT or a GPU, CheckpointError for what TensorRT cannot build.
    """
    if plan.preprocess:
        raise InputError("TensorRT has no antialiased resize: export tensorrt without --with-preprocess")
    trt = library()
    errors: list[str] = []
    logger = error_log(trt, errors)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx.to_onnx(deployed, plan).SerializeToString()):
        raise CheckpointError(f"TensorRT cannot read the model: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # the graph says float32
    if plan.batch is None:
        profile = builder.create_optimization_profile()
        profile.set_shape("images", *((count, 3, plan.imgsz, plan.imgsz) for count in (1, OPT_BATCH, MAX_BATCH)))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CheckpointError(f"TensorRT cannot build the model: {(errors or ['it does not say why'])[0]}")
    metadata = json.dumps(about.to_strings()).encode()
    with open(path, "wb") as file:
        file.write(len(metadata).to_bytes(LENGTH, "little") + metadata)
        file.write(memoryview(engine))
