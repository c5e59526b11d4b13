"""The runtimes that ``imgtool bench inference`` times, for one model with the same weights.

A runner is a function that computes one batch of random images, which are fixed when the runner is made.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from imgtool.bench import ultralytics
from imgtool.pipelines.codec.transform import to_float
from imgtool.training import recipes
from imgtool.training.checkpoints import checkpoint
from imgtool.training.classifier import Classifier
from imgtool.training.models import yolov8
from imgtool.training.runtimes import readers
from imgtool.training.runtimes.openvino import options
from imgtool.wordnet import class_table, orders
from imgtool.wordnet.errors import BenchError, InputError

Runner = Callable[[], Any]
OURS, THEIRS = "onnx", "ultralytics-onnx"
CPU_KINDS = (OURS, THEIRS, "openvino", "torchscript", "torch", "torch-compile")
CUDA_KINDS = ("torch", "torch-compile", "cuda-graph", "tensorrt")
REQUIRED = {  # modules, by runtime
    OURS: ("onnx", "onnxscript", "onnxruntime"),
    THEIRS: ("ultralytics", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "tensorrt": ("onnx", "onnxscript", "tensorrt"),
}
TOLERANCE = 1e-2  # of log-probabilities: how much the runtimes may differ


def make_checkpoint(size: str, folder: Path, imgsz: int) -> Path:
    """Writes a checkpoint of 1000 classes with random weights and realistic batch-norm statistics, enough for speed."""
    torch.manual_seed(0)
    model = yolov8.build(size)
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
        "names": class_table(wnids)["name"],
        "epoch": 1,
        "metrics": None,
        "recipe": recipes.load(size).to_dict(),
        "ema": model.state_dict(),
        "resume": None,
    }
    checkpoint.save(path, content)
    return path


def ultralytics_onnx(subject: Classifier, folder: Path, batch: int, imgsz: int) -> Path:
    """Exports these weights with Ultralytics' export and its defaults, for this batch size.

    Without onnxslim, the result is not simplified.
    """
    ultralytics.load(folder / "ultralytics")
    from ultralytics import YOLO

    model = YOLO(f"yolov8{subject.size}-cls.yaml", verbose=False)
    model.model.load_state_dict(subject.model.state_dict())
    model.model.names = dict(enumerate(subject.names))
    model.model.eval()
    path = folder / f"theirs-{subject.size}-{batch}.pt"
    model.model.pt_path = model.ckpt_path = str(path)
    return Path(
        model.export(format="onnx", imgsz=imgsz, batch=batch, device="cpu", verbose=False, simplify=_has_onnxslim())
    )


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
    """Returns a runner of a torch network. It waits for the GPU, if the images are on one."""

    def run() -> Tensor:
        with torch.inference_mode():
            out = network(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return out

    return run


def graph_runner(network: nn.Module, images: Tensor) -> Runner:
    """Returns a runner of the network in one CUDA graph, with one launch per batch instead of one per kernel."""
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
    subject: Classifier, folder: Path, batch: int, imgsz: int, threads: int, kinds: Sequence[str]
) -> dict[str, Runner]:
    """Makes the runners of these kinds."""
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (batch, 3, imgsz, imgsz), dtype=np.uint8))
    images = to_float(pixels)
    array = images.numpy()
    fused = yolov8.fuse(subject.model).to(memory_format=torch.channels_last)
    last = images.to(memory_format=torch.channels_last)

    def exported(form: str, suffix: str) -> Path:
        out = folder / f"{subject.size}{suffix}"
        if not out.exists():  # one file for all batch sizes
            subject.export(form, out)
        return out

    makers: dict[str, Callable[[], Runner]] = {
        OURS: lambda: session_runner(exported("onnx", ".onnx"), threads, array),
        THEIRS: lambda: session_runner(ultralytics_onnx(subject, folder, batch, imgsz), threads, array),
        "openvino": lambda: openvino_runner(exported("openvino", ".xml"), threads, array),
        "torchscript": lambda: torch_runner(readers.read(exported("torchscript", ".torchscript"), "cpu").run, images),
        "torch": lambda: torch_runner(fused, last),
        "torch-compile": lambda: torch_runner(torch.compile(fused, dynamic=False), last),
    }
    runners = {kind: makers[kind]() for kind in kinds}
    torch.set_num_threads(threads)  # Ultralytics' export sets one less than there are cores
    return runners


def cuda_runners(subject: Classifier, folder: Path, batch: int, imgsz: int, kinds: Sequence[str]) -> dict[str, Runner]:
    """Makes the runners of these kinds on a GPU, in float16."""
    device = torch.device("cuda")
    network = yolov8.fuse(subject.model).half().to(device).to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, imgsz, imgsz, device=device).half().contiguous(memory_format=torch.channels_last)

    def tensorrt() -> Runner:
        out = folder / f"{subject.size}-{batch}.engine"
        subject.export("tensorrt", out, batch=batch, half=True)
        return torch_runner(readers.read(out, "cuda").run, images.float().contiguous())

    makers: dict[str, Callable[[], Runner]] = {
        "torch": partial(torch_runner, network, images),
        "torch-compile": lambda: torch_runner(torch.compile(network, dynamic=False), images),
        "cuda-graph": partial(graph_runner, network, images),
        "tensorrt": tensorrt,
    }
    return {kind: makers[kind]() for kind in kinds}


def check_same_output(runners: dict[str, Runner]) -> None:
    """Raises BenchError if a runner's probabilities differ from those of the first one: it is not the same model."""
    expected: Tensor | None = None
    for kind, run in runners.items():
        found = run().float().cpu()
        found = found.log() if kind == THEIRS else found.log_softmax(dim=1)  # theirs includes the softmax
        if expected is None:
            expected = found
        elif (difference := float((found - expected).abs().max())) > TOLERANCE:
            raise BenchError(f"{kind} differs from {next(iter(runners))}: by {difference:.2g} in log-probability")


def available(device: str, wanted: Sequence[str] | None) -> list[str]:
    """Returns the runtimes to time on "cpu" or "cuda": those ``wanted``, or all that are available.

    Prints a line for each runtime that is not available.

    Raises:
        InputError: a wanted runtime is not available, or does not run on this device.
    """
    kinds = CPU_KINDS if device == "cpu" else CUDA_KINDS
    for kind in wanted or ():
        if kind not in kinds:
            raise InputError(f"--runtimes: {kind} does not run on {device}; choose from {', '.join(kinds)}")
        if reason := _missing(kind, device):
            raise InputError(f"--runtimes: {kind} is not available: {reason}")
    out = []
    for kind in wanted or kinds:
        if reason := _missing(kind, device):
            click.echo(f"{kind}: not available: {reason}")
        else:
            out.append(kind)
    if THEIRS in out and not _has_onnxslim():
        click.echo(f"{THEIRS}: not simplified as it would be by default: pip install onnxslim")
    return out


def _has_onnxslim() -> bool:
    return importlib.util.find_spec("onnxslim") is not None


def _missing(kind: str, device: str) -> str | None:
    """Returns why a runtime is not available on this machine; None if it is."""
    absent = [module for module in REQUIRED.get(kind, ()) if importlib.util.find_spec(module) is None]
    if absent:
        return f"pip install {' '.join(absent)}"
    if kind == "torch-compile" and device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        return "needs a C++ compiler: install g++, or set CXX in the environment"
    return None
