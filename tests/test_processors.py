"""Results do not depend on the processor, the threads, the locale or the time zone: bytes never, floats up to rounding.

Each kind of machine is simulated on this one, by the switches that libraries have for the instructions they use, or,
for libraries without a switch, by an emulator of older processors. `make test-cpus` runs all tests; the quick ones run
with the other tests.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parent
PROBE = TESTS / "probe.py"

x86_only = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="simulates processors of x86-64")


def numpy_without(*names: str) -> str:
    """Returns the instruction sets that numpy would use here and whose names contain one of these."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(f for f in __cpu_dispatch__ if __cpu_features__[f] and any(name in f for name in names))


WITHOUT_AVX = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": numpy_without("AVX", "FMA", "F16C", "X86_V3", "X86_V4"),
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4",  # for libm
    "IMGTOOL_ISA": "default",
    "JSIMD_FORCESSE2": "1",  # for libjpeg-turbo
}
WITHOUT_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": numpy_without("AVX512", "X86_V4"),
}
SSE41 = WITHOUT_AVX | {"IMGTOOL_ISA": "sse4.1"}
OTHER_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"}

SIMULATED: dict[str, dict[str, str]] = {
    "without AVX, on one thread": WITHOUT_AVX | {"OMP_NUM_THREADS": "1"},
    "without AVX-512, on three threads, in another place": WITHOUT_AVX512 | {"OMP_NUM_THREADS": "3"} | OTHER_LOCALE,
    "with SSE 4.1, without libjpeg-turbo's vectors": SSE41 | {"JSIMD_FORCENONE": "1"},
    "with AVX-512, without bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
QUICK = list(SIMULATED)[:2]
EMULATED = {"Nehalem": "SSE 4.2", "Haswell": "AVX2"}
EMULATOR = "qemu-x86_64-static"


@pytest.fixture(scope="module")
def folder(
    drawn: Path,
    drawn_data: Path,
    scattered: Callable[..., Path],
    draw_image: Callable[..., np.ndarray],
    encoded: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of the probe, made once, so that all probes read the same bytes."""
    from imgtool.pipelines.dataset import Dataset
    from imgtool.training.classifier import Classifier

    out = tmp_path_factory.mktemp("probe")
    (out / "images").mkdir()
    forms: dict[str, dict[str, Any]] = {
        "420.jpg": {"subsampling": 2, "quality": 80},
        "422.jpg": {"subsampling": 1, "quality": 95},
        "444.jpg": {"subsampling": 0, "quality": 60},
        "optimised.jpg": {"optimize": True},
        "progressive.jpg": {"progressive": True},
        "restarts.jpg": {"restart_marker_blocks": 3},
        "plain.png": {"form": "PNG"},
    }
    for seed, (name, options) in enumerate(forms.items()):
        (out / "images" / name).write_bytes(encoded(draw_image(131 + 9 * seed, 97, seed), **options))
    (out / "source").symlink_to(drawn)
    (out / "data").symlink_to(drawn_data)
    shutil.copy(scattered(Dataset(drawn_data).wnids), out / "weights.pt")
    subject = Classifier(out / "weights.pt", "cpu")
    for form, name in (("onnx", "model.onnx"), ("openvino", "model.xml")):
        subject.export(form, out / name, data=drawn_data)
    return out


@pytest.fixture(scope="module")
def with_int8(folder: Path, drawn_data: Path, draw_image: Callable[..., np.ndarray], tmp_path_factory: Any) -> Path:
    """The folder of the probe, with models in 8-bit integers in addition."""
    from imgtool.training.classifier import Classifier

    out = tmp_path_factory.mktemp("with_int8") / "probe"
    shutil.copytree(folder, out, symlinks=True)
    Classifier(out / "weights.pt", "cpu").export("onnx", out / "int8.onnx", int8=True, calibrate=drawn_data)
    in_all_8_bits(out / "model.onnx", out / "foreign-int8.onnx", draw_image)
    return out


def in_all_8_bits(model: Path, out: Path, draw_image: Callable[..., np.ndarray]) -> None:
    """Quantises by onnxruntime's defaults: 8-bit weights, whose sums may saturate on processors without VNNI."""
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            images = (draw_image(64, 64, seed).transpose(2, 0, 1)[None].astype(np.float32) / 255 for seed in range(8))
            self.feed = ({"images": image} for image in images)

        def get_next(self) -> Any:
            return next(self.feed, None)

    quantization.quantize_static(str(model), str(out), Reader(), per_channel=True)
    foreign = onnx.load(str(out))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(out))


def run(folder: Path, env: dict[str, str] | None = None, *launcher: str, without: tuple[str, ...] = ()) -> Any:
    environment = {key: value for key, value in os.environ.items() if key not in without} | (env or {})
    done = subprocess.run([*launcher, sys.executable, PROBE, folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def here(folder: Path) -> Any:
    return run(folder)


@pytest.fixture(scope="module")
def here_with_int8(with_int8: Path) -> Any:
    found = run(with_int8)
    assert any("foreign-int8" in name for name in found["floats"])
    return found


def compare(found: Any, here: Any) -> None:
    """Compares bytes exactly, and outputs of a float32 network to 1e-3 of the largest, as in the check of an export.

    In 8 bits, rounding may change single values by a whole step. So the mean difference over all images must be at most
    2e-3 of the largest output. (Saturated sums, which occur on some processors, give 4e-3, single roundings 4e-4.)
    """
    assert found["bytes"] == here["bytes"]
    assert found["floats"].keys() == here["floats"].keys()
    for name, values in here["floats"].items():
        if "int8" not in name:
            limit = 1e-3 * max(1.0, np.abs(values).max())
            assert np.abs(np.subtract(found["floats"][name], values)).max() <= limit, name
    for model in {name.split()[0] for name in here["floats"] if "int8" in name}:
        names = [name for name in here["floats"] if name.startswith(model)]
        rows, expected = (np.array([side["floats"][name] for name in names]) for side in (found, here))
        assert np.abs(rows - expected).mean() <= 2e-3 * np.abs(expected).max(), model


@x86_only
@pytest.mark.parametrize("kind", QUICK)
def test_simulated(kind: str, folder: Path, here: Any) -> None:
    compare(run(folder, SIMULATED[kind]), here)


@x86_only
@pytest.mark.slow
@pytest.mark.parametrize("kind", SIMULATED)
def test_simulated_with_8_bits(kind: str, with_int8: Path, here_with_int8: Any) -> None:
    compare(run(with_int8, SIMULATED[kind]), here_with_int8)


@x86_only
@pytest.mark.slow
@pytest.mark.parametrize("kind", EMULATED)
def test_emulated(kind: str, with_int8: Path, here_with_int8: Any) -> None:
    """Includes the libraries without a switch: onnxruntime, OpenVINO."""
    if not shutil.which(EMULATOR):
        pytest.skip(f"{EMULATOR} is not installed (Debian: qemu-user-static)")
    compare(run(with_int8, None, EMULATOR, "-cpu", kind, without=("OPENBLAS_CORETYPE",)), here_with_int8)


def test_models_agree_with_each_other(here: Any) -> None:
    """The results compared across processors are the same in every runtime, and are not constant."""
    floats = here["floats"]
    for name in ("model.onnx", "model.xml"):
        rows = [key for key in floats if key.startswith(name)]
        assert rows
        for key in rows:
            expected = floats[key.replace(name, "weights.pt")]
            assert np.ptp(expected) > 0.1
            assert np.abs(np.subtract(floats[key], expected)).max() <= 1e-3 * max(1.0, np.abs(expected).max())
    assert len(set(here["bytes"].values())) > 0.9 * len(here["bytes"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIMULATED)
def test_numeric_tests(kind: str) -> None:
    """Runs the tests marked numeric on each kind of machine."""
    if "AVX" in kind and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("simulates processors of x86-64")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "numeric and not slow", TESTS]
    done = subprocess.run(command, env=os.environ | SIMULATED[kind], capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout[-5000:]
