"""Parts that run another program: "tests" (pytest) and "inference" (imgtool bench inference)."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from imgtool.bench.gpu.process import imgtool, last_line, run
from imgtool.bench.gpu.results import PartResults, checkout
from imgtool.bench.gpu.settings import BenchSettings
from imgtool.bench.gpu.table import Measured, Row, successful
from imgtool.wordnet.errors import ImgtoolError

DEVICE = "IMGTOOL_TEST_DEVICE"  # tests/gpu/conftest.py reads it


def measure_tests(settings: BenchSettings, results: PartResults) -> None:
    root = checkout()
    if root is None or importlib.util.find_spec("pytest") is None:
        results.absent("tests/gpu", "needs a checkout and pytest")
        return
    results.measure("tests/gpu", lambda: _test(settings, results, root))


def _test(settings: BenchSettings, results: PartResults, root: Path) -> dict[str, Any]:
    report, log = (settings.work / "tests.xml").resolve(), (settings.work / "tests.log").resolve()
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    run(command, results.seconds_left, log, root, {**os.environ, DEVICE: str(settings.device)})
    if not report.exists():
        raise ImgtoolError(f"pytest: {last_line(log)} ({log})")
    return outcomes(report)


def outcomes(report: Path) -> dict[str, Any]:
    """Reads a JUnit file: the number of passed tests, and the messages of failed and skipped ones."""
    passed, failed, skipped = 0, {}, {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}"
        wrong = [*case.iter("failure"), *case.iter("error")]
        if wrong:
            failed[name] = " ".join((wrong[0].get("message") or "").split())[:500]
        elif (skip := case.find("skipped")) is not None:
            skipped[name] = skip.get("message") or ""
        else:
            passed += 1
    return {"passed": passed, "failures": failed, "skipped": skipped}


def test_rows(measured: Measured) -> list[Row]:
    out = []
    for one in successful(measured):
        wrong = len(one["failures"])
        figure = f"{one['passed']} passed, {wrong} failed, {len(one['skipped'])} skipped"
        out.append(Row("pytest tests/gpu", figure, "no failures", not wrong and one["passed"] > 0))
    return out


def measure_inference(settings: BenchSettings, results: PartResults) -> None:
    for size in settings.workload.sizes:
        results.measure(size, partial(_infer, settings, results, size))


def _infer(settings: BenchSettings, results: PartResults, size: str) -> dict[str, Any]:
    """Runs `imgtool bench inference` for a size and returns its JSON."""
    found, log = (settings.work / f"inference-{size}.json").resolve(), settings.work / f"inference-{size}.log"
    found.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    command = imgtool("bench", "inference", "--device", settings.device.type, "--sizes", size, "--json", str(found))
    command += ["--imgsz", str(settings.image_size), "--rounds", str(settings.workload.rounds)]
    code = run(command, results.seconds_left, log)
    if code or not found.exists():
        raise ImgtoolError(f"imgtool bench inference ended with exit code {code}: {last_line(log)} ({log})")
    result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return {"size": size, "result": result}


def inference_rows(measured: Measured) -> list[Row]:
    """Returns milliseconds for a single image, images/s for larger batches, the fastest runtime first."""
    out = []
    for timing in [timing for one in successful(measured) for timing in one["result"]["timings"]]:
        batch, rounds = timing["batch"], timing["milliseconds"]
        medians = sorted((statistics.median(values), runtime) for runtime, values in rounds.items() if values)
        speeds = [
            f"{runtime} " + (f"{batch / ms * 1e3:,.0f} images/s" if batch > 1 else f"{ms:.2f} ms")
            for ms, runtime in medians
        ]
        runs = min(map(len, rounds.values()), default=0)
        out.append(Row(f"inference of {timing['size']}, batch {batch}", "; ".join(speeds), runs=runs))
    return out
