"""Part "model": the training step on a batch that lies on the device, without a loader.

eager, through torch.compile as the loop does it, and that captured whole (forward, loss, backward, SGD, average) as one
CUDA graph. The graph is an experiment: learning rate and the average's weight are frozen in it, so the loop has none.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from imgtool.bench.gpu.plan import Plan
from imgtool.bench.gpu.record import Record
from imgtool.bench.gpu.table import Measured, Row, good, median
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
"""Images/s at 224 pixels by the bytes that a step must move: operation by operation, and with all that can be fused."""
ENOUGH = 0.5  # of the estimate; below it the kernels are recorded
WARM = 5  # steps before the first round
TRACED, KERNELS = 3, 12  # steps traced, kernels kept


def measure(plan: Plan, record: Record) -> None:
    torch.backends.cudnn.benchmark = True  # as the loop does
    first, *others = plan.scale.image_sizes
    configurations = [(size, first) for size in plan.scale.sizes]
    configurations += [("n", image_size) for image_size in others if "n" in plan.scale.sizes]
    for batch in plan.scale.batches:
        for size, image_size in configurations:
            _measure_one(plan, record, size, image_size, batch)


def _measure_one(plan: Plan, record: Record, size: str, image_size: int, batch: int) -> None:
    training = cache(lambda: Training(size, image_size, batch, plan.device))
    for mode in MODES if plan.device.type == "cuda" else MODES[:1]:
        record.measure(f"{size} {image_size} {batch} {mode}", partial(_rates, plan, training, mode))
    training.cache_clear()
    gc.collect()
    if plan.device.type == "cuda":
        torch.compiler.reset()  # compiled code is kept a function, eight times; behind that torch falls back to eager
        torch.cuda.empty_cache()


class Training:
    """A model in training, its optimiser and average, and a batch of random images, all on the device."""

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
        self.notes: list[str] = []  # of the compiler
        self.fast = cache(lambda: compiled(self.batch_loss, device, self.notes.append, self.model))

    def work(self, mode: str) -> Work:
        """What does a step in this mode, ready to be timed."""
        self.optimizer.zero_grad(set_to_none=True)  # what an earlier mode may have left when its memory ran out
        batch_loss = self.batch_loss if mode == "eager" else self.fast()
        step = Step(batch_loss, self.model, self.optimizer, self.ema)
        part = (self.images, self.labels, None)

        def work() -> object:
            return step([part])

        for _ in range(WARM if self.device.type == "cuda" else 1):
            work()
        return captured(work) if "graph" in mode else work


def captured(work: Work) -> Work:
    """The kernels of ``work``, which has run before, as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # so that what is made lazily a stream is made outside the capture
        for _ in range(WARM):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _rates(plan: Plan, made: Callable[[], Training], mode: str) -> dict[str, Any]:
    """Images/s a round, their MFU, memory, and below half of the estimate the kernels that take the time."""
    training, device, scale = made(), plan.device, plan.scale
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    work = training.work(mode)
    _wait(device)
    out: dict[str, Any] = {"size": training.size, "image_size": training.image_size, "batch": training.batch}
    out |= {"mode": mode, "rates": [], "ready_seconds": round(time.perf_counter() - started, 2)}
    for _ in range(scale.rounds):
        seconds = seconds_of(lambda: [work() for _ in range(scale.steps)], device)
        out["rates"].append(round(scale.steps * training.batch / seconds, 1))
    rate, peak = median(out), peak_flops(device)
    operations = flops(training.model, training.image_size)
    out["mfu"] = round(rate * TRAINING_PASSES * operations / peak, 4) if peak else None
    out["memory_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None
    out["of_estimate"] = round(rate / estimate(training.size, training.image_size, mode), 3)
    if training.notes:
        out["notes"] = list(training.notes)
    if out["of_estimate"] < ENOUGH:
        out |= kernels(work, device)
    return out


def estimate(size: str, image_size: int, mode: str = MODES[-1]) -> float:
    """Images/s, scaled with the pixels from 224."""
    return ESTIMATES[size][mode != "eager"] * (224 / image_size) ** 2


def seconds_of(work: Work, device: torch.device) -> float:
    """By the device's own clock where it is a GPU."""
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
    """The kernels that a step spends most time in, and how much of the time any is running (``busy``, 0..1)."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as trace:
        started = time.perf_counter()
        for _ in range(TRACED):
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
            "ms": round(time / 1e3 / TRACED, 3),
            "share": round(time / total, 3),
            "calls": count / TRACED,
        }
        for time, count, name in sorted(took, reverse=True)[:KERNELS]
    ]
    return {"busy": round(total / microseconds, 3), "kernels": rows}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rows(measured: Measured) -> list[Row]:
    """The fastest of each size and image size, beside eager at the same batch."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for one in good(measured):
        key = one["size"], one["image_size"]
        if key not in best or median(one) > median(best[key]):
            best[key] = one
    out = []
    for (size, image_size), one in sorted(best.items(), key=lambda item: ("nsmlx".index(item[0][0]), -item[0][1])):
        rate, aim = median(one), ENOUGH * estimate(size, image_size)
        figure = f"{rate:,.0f} images/s"
        if one["mfu"] is not None:
            figure += f", MFU {one['mfu']:.1%}, {one['memory_gb']:.1f} GB"
        eager = measured.get(f"{size} {image_size} {one['batch']} eager", {})
        if one["mode"] != "eager" and "rates" in eager:
            figure += f"; eager {median(eager):,.0f}"
        what = f"step of {size} at {image_size}, batch {one['batch']}, {one['mode']}"
        out.append(Row(what, figure, f"{aim:,.0f}, half of the roofline's", rate >= aim, len(one["rates"])))
    return out
