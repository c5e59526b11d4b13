"""What ``imgtool bench inference`` times: one model, the same weights, in every runtime that is here.

A runner is a function that computes one batch; it is given random pictures once, when it is made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imgtool.pipelines.transform import to_float
from imgtool.training import checkpoint, models, recipes
from imgtool.training.classifier import Classifier
from imgtool.training.export import formats
from imgtool.training.export.openvino import options
from imgtool.wordnet import label_table, orders

Runner = Callable[[], Any]
OURS, THEIRS = "onnx", "onnx, Ultralytics'"
CPU_KINDS = (OURS, THEIRS, "openvino", "torchscript", "torch eager", "torch.compile")
CUDA_KINDS = ("torch eager", "torch.compile", "CUDA graph", "tensorrt")
CLOSE = 1e-2  # of logarithms of probabilities: what all runtimes must agree to


def make_checkpoint(size: str, folder: Path, imgsz: int) -> Path:
    """A model of 1000 classes with random weights and statistics such as training leaves: speed asks for no more."""
    torch.manual_seed(0)
    model = models.build(size)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=5)
    wnids = orders.ilsvrc2012_wnids()
    path = folder / f"{size}.pt"
    content = {
        "size": size,
        "dropout": 0.0,
        "imgsz": imgsz,
        "wnids": wnids,
        "names": label_table(wnids)["name"],
        "epoch": 1,
        "metrics": None,
        "recipe": recipes.load(size).to_dict(),
        "ema": model.state_dict(),
        "resume": None,
    }
    checkpoint.save(path, content)
    return path


def ultralytics_onnx(subject: Classifier, folder: Path, batch: int, imgsz: int) -> Path:
    """The .onnx that Ultralytics' own export makes of these weights, by its defaults, for this batch."""
    from ultralytics import YOLO
    from ultralytics.utils import LOGGER

    LOGGER.setLevel("ERROR")
    model = YOLO(f"yolov8{subject.size}-cls.yaml", verbose=False)
    model.model.load_state_dict(subject.model.state_dict())
    model.model.names = dict(enumerate(subject.names))
    model.model.eval()
    place = folder / f"theirs-{subject.size}-{batch}.pt"
    model.model.pt_path = model.ckpt_path = str(place)
    return Path(model.export(format="onnx", imgsz=imgsz, batch=batch, device="cpu", verbose=False))


def session_runner(path: Path, threads: int, images: np.ndarray[Any, Any]) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def openvino_runner(path: Path, threads: int, images: np.ndarray[Any, Any]) -> Runner:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", options(threads))
    return lambda: torch.from_numpy(compiled(images)[0])


def torch_runner(network: Callable[[Tensor], Tensor], images: Tensor) -> Runner:
    """Waits for the device, if it is another, before it returns."""

    def run() -> Tensor:
        with torch.inference_mode():
            out = network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return out

    return run


def graph_runner(network: nn.Module, images: Tensor) -> Runner:
    """The network's kernels in one CUDA graph: a launch a batch instead of a launch a kernel."""
    side = torch.cuda.Stream()
    with torch.inference_mode():
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                network(images)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = network(images)

    def run() -> Tensor:
        graph.replay()
        torch.cuda.synchronize(images.device)
        return out

    return run


def cpu_runners(
    subject: Classifier, folder: Path, batch: int, imgsz: int, threads: int, kinds: list[str]
) -> dict[str, Runner]:
    """Runners of these kinds, of those whose libraries are installed."""
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (batch, 3, imgsz, imgsz), dtype=np.uint8))
    images = to_float(pixels)
    array = images.numpy()
    fused = models.fuse(subject.model).to(memory_format=torch.channels_last)
    last = images.to(memory_format=torch.channels_last)

    def exported(form: str, suffix: str) -> Path:
        out = folder / f"{subject.size}{suffix}"
        if not out.exists():  # one for any batch
            subject.export(form, out)
        return out

    makers: dict[str, Callable[[], Runner]] = {
        OURS: lambda: session_runner(exported("onnx", ".onnx"), threads, array),
        THEIRS: lambda: session_runner(ultralytics_onnx(subject, folder, batch, imgsz), threads, array),
        "openvino": lambda: openvino_runner(exported("openvino", ".xml"), threads, array),
        "torchscript": lambda: torch_runner(formats.read(exported("torchscript", ".torchscript"), "cpu").run, images),
        "torch eager": lambda: torch_runner(fused, last),
        "torch.compile": lambda: torch_runner(torch.compile(fused, dynamic=False), last),
    }
    libraries = {OURS: "onnxruntime", THEIRS: "ultralytics", "openvino": "openvino"}
    runners = {kind: makers[kind]() for kind in kinds if _here(libraries.get(kind, "torch"))}
    torch.set_num_threads(threads)  # Ultralytics' export has left torch with one less than there are cores
    return runners


def cuda_runners(subject: Classifier, folder: Path, batch: int, imgsz: int, kinds: list[str]) -> dict[str, Runner]:
    """The same on a GPU, in float16 throughout; TensorRT where it is installed."""
    device = torch.device("cuda")
    network = models.fuse(subject.model).half().to(device).to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, imgsz, imgsz, device=device).half().contiguous(memory_format=torch.channels_last)

    def tensorrt() -> Runner:
        out = folder / f"{subject.size}-{batch}.engine"
        subject.export("tensorrt", out, batch=batch, half=True)
        return torch_runner(formats.read(out, "cuda").run, images.float().contiguous())

    makers: dict[str, Callable[[], Runner]] = {
        "torch eager": partial(torch_runner, network, images),
        "torch.compile": lambda: torch_runner(torch.compile(network, dynamic=False), images),
        "CUDA graph": partial(graph_runner, network, images),
        "tensorrt": tensorrt,
    }
    return {kind: makers[kind]() for kind in kinds if _here("tensorrt" if kind == "tensorrt" else "torch")}


def agree(runners: dict[str, Runner]) -> None:
    """Raises ValueError unless all of them give the first one's probabilities: then they are not the same model."""
    expected: Tensor | None = None
    for kind, run in runners.items():
        found = run().float().cpu()
        found = found.log() if kind == THEIRS else found.log_softmax(dim=1)  # theirs has the softmax inside
        if expected is None:
            expected = found
        elif (difference := float((found - expected).abs().max())) > CLOSE:
            raise ValueError(f"{kind} differs from {next(iter(runners))}: by {difference:.2g} in log-probability")


def _here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
