"""Part "model": the training step on a batch in the device's memory, without a loader.

Three modes: eager; torch.compile, as in the training loop; and the compiled step captured as one CUDA graph (forward,
loss, backward, SGD, EMA). The graph is an experiment that the training loop does not use, because it freezes the
learning rate and the weight of the EMA.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from imgtool.bench.gpu.results import PartResults
from imgtool.bench.gpu.settings import BenchSettings
from imgtool.bench.gpu.table import Measured, Row, median, successful
from imgtool.training import recipes
from imgtool.training.engine.ema import EMA
from imgtool.training.engine.meters import TRAINING_PASSES, peak_flops
from imgtool.training.engine.step import Step, compiled, make_batch_loss, make_optimizer
from imgtool.training.models import losses, yolov8
from imgtool.training.models.flops import flops

Work = Callable[[], object]
MODES = ("eager", "compile", "compile + graph")
CLASSES = 1000
ESTIMATES = {"n": (72e3, 92e3), "s": (33e3, 40e3), "m": (14.5e3, 17e3), "l": (7.7e3, 8.9e3), "x": (5.5e3, 6.3e3)}
"""Estimated images/s at 224 pixels if memory bandwidth is the limit: without fusion, and with all possible fusion."""
TARGET = 0.5  # of the estimate; below it, the kernels are recorded
WARMUP_STEPS = 5  # before the first round
TRACED_STEPS, KERNELS = 3, 12  # steps to trace; kernels to record


def measure(settings: BenchSettings, results: PartResults) -> None:
    torch.backends.cudnn.benchmark = True  # as in the training loop
    first, *others = settings.workload.image_sizes
    configurations = [(size, first) for size in settings.workload.sizes]
    configurations += [("n", image_size) for image_size in others if "n" in settings.workload.sizes]
    for batch in settings.workload.batches:
        for size, image_size in configurations:
            _measure_one(settings, results, size, image_size, batch)


def _measure_one(settings: BenchSettings, results: PartResults, size: str, image_size: int, batch: int) -> None:
    training = cache(lambda: Training(size, image_size, batch, settings.device))
    for mode in MODES if settings.device.type == "cuda" else MODES[:1]:
        results.measure(f"{size} {image_size} {batch} {mode}", partial(_rates, settings, training, mode))
    training.cache_clear()
    gc.collect()
    if settings.device.type == "cuda":
        torch.compiler.reset()  # after recompiling a function 8 times, torch would fall back to eager
        torch.cuda.empty_cache()


class Training:
    """A model in training, its optimiser and EMA, and a batch of random images, all on the device."""

    def __init__(self, size: str, image_size: int, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.size, self.image_size, self.batch, self.device = size, image_size, batch, device
        self.recipe = recipes.load(size).override(batch=batch, imgsz=image_size, progressive=())
        self.model = yolov8.build(size, CLASSES, self.recipe.dropout, self.recipe.drop_path).to(device)
        self.model = self.model.to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.model, self.recipe, device)
        self.ema = EMA(self.model, 0.99)
        criterion = losses.CrossEntropy(CLASSES, self.recipe.label_smoothing)
        self.batch_loss = make_batch_loss(self.model, criterion, device)
        shape = (batch, 3, image_size, image_size)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8).to(device, memory_format=torch.channels_last)
        self.labels = torch.randint(0, CLASSES, (batch,)).to(device)
        self.notes: list[str] = []  # messages of the compiler
        self.fast = cache(lambda: compiled(self.batch_loss, device, self.notes.append, self.model))

    def work(self, mode: str) -> Work:
        """Returns a function that runs one step in this mode, warmed up."""
        self.optimizer.zero_grad(set_to_none=True)  # an earlier mode may have left gradients when its memory ran out
        batch_loss = self.batch_loss if mode == "eager" else self.fast()
        step = Step(batch_loss, self.model, self.optimizer, self.ema)
        part = (self.images, self.labels, None)

        def work() -> object:
            return step([part])

        for _ in range(WARMUP_STEPS if self.device.type == "cuda" else 1):
            work()
        return captured(work) if "graph" in mode else work


def captured(work: Work) -> Work:
    """Captures the kernels of ``work``, which must have run before, in one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # so that what is initialised once per stream is initialised outside the capture
        for _ in range(WARMUP_STEPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _rates(settings: BenchSettings, made: Callable[[], Training], mode: str) -> dict[str, Any]:
    """Measures images/s per round, MFU and memory; below the target also the kernels that take the most time."""
    training, device, workload = made(), settings.device, settings.workload
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    work = training.work(mode)
    _wait(device)
    out: dict[str, Any] = {"size": training.size, "image_size": training.image_size, "batch": training.batch}
    out |= {"mode": mode, "rates": [], "ready_seconds": round(time.perf_counter() - started, 2)}
    for _ in range(workload.rounds):
        seconds = seconds_of(lambda: [work() for _ in range(workload.steps)], device)
        out["rates"].append(round(workload.steps * training.batch / seconds, 1))
    rate, peak = median(out), peak_flops(device)
    operations = flops(training.model, training.image_size)
    out["mfu"] = round(rate * TRAINING_PASSES * operations / peak, 4) if peak else None
    out["memory_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None
    out["of_estimate"] = round(rate / estimate(training.size, training.image_size, mode), 3)
    if training.notes:
        out["notes"] = list(training.notes)
    if out["of_estimate"] < TARGET:
        out |= kernels(work, device)
    return out


def estimate(size: str, image_size: int, mode: str = MODES[-1]) -> float:
    """Returns the estimated images/s, scaled from 224 pixels by the number of pixels."""
    return ESTIMATES[size][mode != "eager"] * (224 / image_size) ** 2


def seconds_of(work: Work, device: torch.device) -> float:
    """Returns the seconds that ``work`` takes, by the GPU's clock if the device is one."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def kernels(work: Work, device: torch.device) -> dict[str, Any]:
    """Returns the kernels that take most of the time, and ``busy``, the fraction of the time that any kernel runs."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as trace:
        started = time.perf_counter()
        for _ in range(TRACED_STEPS):
            work()
        _wait(device)
        microseconds = (time.perf_counter() - started) * 1e6
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    took = [
        (event.self_device_time_total if cuda else event.self_cpu_time_total, event.count, event.key)
        for event in trace.key_averages()
        if event.device_type == kind
    ]
    total = sum(time for time, _, _ in took)
    rows = [
        {
            "name": name[:120],
            "ms": round(time / 1e3 / TRACED_STEPS, 3),
            "share": round(time / total, 3),
            "calls": count / TRACED_STEPS,
        }
        for time, count, name in sorted(took, reverse=True)[:KERNELS]
    ]
    return {"busy": round(total / microseconds, 3), "kernels": rows}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rows(measured: Measured) -> list[Row]:
    """Returns the fastest mode for each size and image size, with eager at the same batch size for comparison."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for one in successful(measured):
        key = one["size"], one["image_size"]
        if key not in best or median(one) > median(best[key]):
            best[key] = one
    out = []
    for (size, image_size), one in sorted(best.items(), key=lambda item: ("nsmlx".index(item[0][0]), -item[0][1])):
        rate, aim = median(one), TARGET * estimate(size, image_size)
        figure = f"{rate:,.0f} images/s"
        if one["mfu"] is not None:
            figure += f", MFU {one['mfu']:.1%}, {one['memory_gb']:.1f} GB"
        eager = measured.get(f"{size} {image_size} {one['batch']} eager", {})
        if one["mode"] != "eager" and "rates" in eager:
            figure += f"; eager {median(eager):,.0f}"
        what = f"step of {size} at {image_size}, batch {one['batch']}, {one['mode']}"
        out.append(Row(what, figure, f"{aim:,.0f}, half of the roofline estimate", rate >= aim, len(one["rates"])))
    return out
