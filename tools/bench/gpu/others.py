"""Parts that other programs measure: "tests" (pytest) and "inference" (imgtool bench inference)."""

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

from imgtool.bench.gpu.plan import Plan
from imgtool.bench.gpu.process import imgtool, last_line, run
from imgtool.bench.gpu.record import Record, checkout
from imgtool.bench.gpu.table import Measured, Row, good
from imgtool.wordnet.errors import ImgtoolError

DEVICE = "IMGTOOL_TEST_DEVICE"  # tests/gpu/conftest.py reads it


def measure_tests(plan: Plan, record: Record) -> None:
    root = checkout()
    if root is None or importlib.util.find_spec("pytest") is None:
        record.absent("tests/gpu", "needs a checkout and pytest")
        return
    record.measure("tests/gpu", lambda: _test(plan, record, root))


def _test(plan: Plan, record: Record, root: Path) -> dict[str, Any]:
    report, log = (plan.work / "tests.xml").resolve(), (plan.work / "tests.log").resolve()
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    run(command, record.left, log, root, {**os.environ, DEVICE: str(plan.device)})
    if not report.exists():
        raise ImgtoolError(f"pytest: {last_line(log)} ({log})")
    return outcomes(report)


def outcomes(report: Path) -> dict[str, Any]:
    """Of a JUnit file: how many passed, and of the others what was said."""
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
    for one in good(measured):
        wrong = len(one["failures"])
        figure = f"{one['passed']} passed, {wrong} failed, {len(one['skipped'])} skipped"
        out.append(Row("pytest tests/gpu", figure, "none fails", not wrong and one["passed"] > 0))
    return out


def measure_inference(plan: Plan, record: Record) -> None:
    for size in plan.scale.sizes:
        record.measure(size, partial(_infer, plan, record, size))


def _infer(plan: Plan, record: Record, size: str) -> dict[str, Any]:
    """`imgtool bench inference` of a size, its JSON as it is."""
    found, log = (plan.work / f"inference-{size}.json").resolve(), plan.work / f"inference-{size}.log"
    found.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    command = imgtool("bench", "inference", "--device", plan.device.type, "--sizes", size, "--json", str(found))
    command += ["--imgsz", str(plan.image_size), "--rounds", str(plan.scale.rounds)]
    code = run(command, record.left, log)
    if code or not found.exists():
        raise ImgtoolError(f"imgtool bench inference ended with exit code {code}: {last_line(log)} ({log})")
    result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return {"size": size, "result": result}


def inference_rows(measured: Measured) -> list[Row]:
    """Milliseconds of one image, images a second of more, the fastest runtime first."""
    out = []
    for timing in [timing for one in good(measured) for timing in one["result"]["timings"]]:
        batch, rounds = timing["batch"], timing["milliseconds"]
        medians = sorted((statistics.median(values), runtime) for runtime, values in rounds.items() if values)
        told = [
            f"{runtime} " + (f"{batch / ms * 1e3:,.0f} images/s" if batch > 1 else f"{ms:.2f} ms")
            for ms, runtime in medians
        ]
        runs = min(map(len, rounds.values()), default=0)
        out.append(Row(f"inference of {timing['size']}, batch {batch}", "; ".join(told), runs=runs))
    return out
