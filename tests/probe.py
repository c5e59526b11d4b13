"""Computes results that must not depend on the processor, and prints them as JSON; run by test_processors.py.

    python tests/probe.py FOLDER

FOLDER has images/, source/ (raw), data/ (prepared), weights.pt, and this model exported as model.onnx and model.xml,
and in 8-bit integers as int8.onnx and, quantised by another program, as foreign-int8.onnx.

"bytes" must be equal everywhere: hashes of recoded images, shards, batches, orders and crops. "floats" may differ by
rounding: logits, a loss and its gradients, pairwise tables and metrics of the hierarchy.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RUNTIME_OF = {
    "weights.pt": "torch",
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "int8.onnx": "onnxruntime",
    "foreign-int8.onnx": "onnxruntime",
}


def digest(*parts: Any) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return hashed.hexdigest()[:16]


def recoded(folder: Path) -> dict[str, str]:
    """Returns hashes of each image in every form that the codec makes."""
    from imgtool.pipelines import codec

    found = {}
    for path in sorted((folder / "images").iterdir()):
        data = path.read_bytes()
        found[f"decode {path.name}"] = digest(codec.decode(data), codec.decode(data, short_side=40))
        found[f"center {path.name}"] = digest(codec.center_decode(data, 48))
        for store in ("jpeg", "jpeg-indexed", "fit", "raw"):
            kinds = ({"max_side": 70}, {"max_side": 0}, {"short_side": 33, "quality": 71, "subsampling": "444"})
            found[f"{store} {path.name}"] = digest(*(codec.recode(data, store=store, **kind).data for kind in kinds))
        pixels = codec.decode(data)
        found[f"encode {path.name}"] = digest(*(codec.encode(pixels, subsampling=s) for s in codec.SUBSAMPLINGS))
    return found


def shards(folder: Path) -> dict[str, str]:
    from imgtool.pipelines.prepare import prepare
    from imgtool.pipelines.prepare.settings import Settings

    with tempfile.TemporaryDirectory() as out:
        prepare(folder / "source", Path(out) / "data", Settings(max_side=90, format="both"), workers=1)
        files = sorted(path for path in Path(out).rglob("*") if path.suffix in (".beton", ".tar", ".idx"))
        assert files
        return {str(path.relative_to(out)): digest(path.read_bytes()) for path in files}


def batches(folder: Path) -> dict[str, str]:
    from imgtool.pipelines.loaders import open_loader

    found = {}
    for split, backend in (("train", "native"), ("val", "native")):
        with open_loader(folder / "data", split, batch_size=16, image_size=48, backend=backend, seed=3) as loader:
            loader.set_epoch(2)
            for number, (images, labels) in enumerate(loader):
                found[f"{backend} {split} {number}"] = digest(images.numpy(), labels.numpy())
    return found


def logits(folder: Path) -> dict[str, list[float]]:
    """Returns the logits of the model in each installed runtime, and the loss and gradients of a training step."""
    import importlib.util

    import torch

    from imgtool.training.classifier import Classifier

    images = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    found = {}
    for name, package in RUNTIME_OF.items():
        if importlib.util.find_spec(package) and (folder / name).exists():
            predictions = Classifier(folder / name, "cpu").predict(images, topk=10)
            for number, one in enumerate(predictions):
                by_index = sorted(zip(one.indices, one.probabilities, strict=True))  # qemu's AVX2 fails np.argsort
                found[f"{name} {number}"] = [math.log(probability) for _, probability in by_index]
    model = Classifier(folder / "weights.pt", "cpu").model.train().to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(8, 3, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
    loss = torch.nn.functional.cross_entropy(model(batch), torch.arange(8))
    loss.backward()
    found["loss"] = [float(loss.detach())]
    found["gradients"] = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    return found


def hierarchy() -> dict[str, list[float]]:
    from imgtool import wordnet
    from imgtool.wordnet import metrics

    h = wordnet.load()
    scores = np.round(
        np.random.default_rng(0).standard_normal((200, h.num_classes)), 2
    )  # rounded, so that some are equal
    labels = np.arange(200) * 5
    found = {
        "wup": [float(value) for value in h.wup(labels[:100], labels[100:])],
        "path": [float(value) for value in h.path(labels[:100], labels[100:])],
        "distance": [metrics.hierarchical_distance(h, scores, labels, 5).value],
        "severity": [metrics.mistake_severity(h, scores, labels).value],
    }
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    found_bytes = recoded(folder) | shards(folder) | batches(folder)
    print(json.dumps({"bytes": found_bytes, "floats": logits(folder) | hierarchy()}))


if __name__ == "__main__":
    main()
