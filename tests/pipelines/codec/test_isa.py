"""The same bytes with every instruction set: of our code, chosen by IMGTOOL_ISA, and of libjpeg-turbo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.codec import _native
from imgtool.pipelines.codec.isa import InstructionSets
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import InputError

SCRIPT = Path(__file__).with_name("codec_bytes.py")
OURS = [{"IMGTOOL_ISA": name} for name in ("default", "sse4.1", "avx2")]
LIBJPEGS = [{name: "1"} for name in ("JSIMD_FORCENONE", "JSIMD_FORCESSE2", "JSIMD_FORCEAVX2", "JSIMD_FORCENEON")]


def codec_bytes(files: list[Path], switches: dict[str, str]) -> dict[str, str]:
    """Returns hashes by file and job from a process with only these switches."""
    clean = {k: v for k, v in os.environ.items() if k != "IMGTOOL_ISA" and not k.startswith("JSIMD_")}
    command = [sys.executable, str(SCRIPT), *map(str, files)]
    run = subprocess.run(command, env=clean | switches, capture_output=True, text=True, check=True)
    hashes: dict[str, str] = json.loads(run.stdout)
    return hashes


@pytest.fixture(scope="module")
def expected(jpegs: list[Path]) -> dict[str, str]:
    hashes = codec_bytes(jpegs, {})
    assert len(set(hashes.values())) > len(jpegs) * 20  # different for different files and jobs
    return hashes


@pytest.mark.parametrize("switches", OURS, ids=lambda switches: "=".join(*switches.items()))
def test_our_instruction_sets(jpegs: list[Path], expected: dict[str, str], switches: dict[str, str]) -> None:
    if switches["IMGTOOL_ISA"] not in _native.isa.names:
        pytest.skip(f"this CPU has {_native.isa.names}")
    assert codec_bytes(jpegs, switches) == expected


@pytest.mark.parametrize("switches", LIBJPEGS, ids=lambda switches: "=".join(*switches.items()))
def test_libjpegs_instruction_sets(jpegs: list[Path], expected: dict[str, str], switches: dict[str, str]) -> None:
    """Without vectors, libjpeg-turbo handles values beyond 16 bits differently: see docs/platforms.md."""
    exact = "JSIMD_FORCENONE" not in switches
    files = [path for path in jpegs if exact or path.stem != "overflowing"]
    assert codec_bytes(files, switches) == {
        job: found for job, found in expected.items() if exact or not job.startswith("overflowing")
    }


@pytest.fixture
def set_isa() -> Iterator[None]:
    before = _native.isa.current()
    yield
    _native.isa.choose(before)


def test_real_images(mini: Path, set_isa: None) -> None:
    source = open_source(mini)
    with LocatorReader(source.root) as reader:
        images = [bytes(reader.read(record.locator)) for record in list(source.records("train"))[::25]]
    pool = _native.Pool(2)

    def made() -> list[bytes]:
        out = [_native.recode(data, side, 0, 90, True, "none", (2, 2), 0)[0] for data in images for side in (0, 256)]
        info = [_native.probe(data) for data in images]
        dims = np.array([[i["width"], i["height"]] for i in info], np.int32)
        crops = np.array([[w // 8, h // 8, w // 2, h // 2, 160, 160, 0, 0, 1] for w, h in dims], np.int32)
        n = len(images)
        zeros, sizes = np.zeros(n, np.uint64), np.array([len(data) for data in images], np.uint64)
        pixels = np.zeros((n, 160, 160, 3), np.uint8)
        columns = np.arange(n, dtype=np.int32), zeros, sizes, np.zeros(n, np.uint8), dims, crops, pixels
        errors = _native.Batch(pool, _native.Buffers(images), *columns).wait()
        return [*out, pixels.tobytes(), repr(errors).encode()]

    results = []
    for name in _native.isa.names:
        _native.isa.choose(name)
        results.append(made())
    assert all(result == results[0] for result in results)


def test_the_best_is_used_unless_another_is_named(set_isa: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = _native.isa.names
    assert names[0] == "default" and set(names) <= {"default", "sse4.1", "avx2"}
    run = [sys.executable, "-c", "from imgtool.pipelines.codec import _native; print(_native.isa.current())"]
    clean = {k: v for k, v in os.environ.items() if k != "IMGTOOL_ISA"}
    assert subprocess.run(run, env=clean, capture_output=True, text=True, check=True).stdout.strip() == names[-1]
    monkeypatch.setenv("IMGTOOL_ISA", "default")
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "default"


def test_an_unknown_name_is_an_error(set_isa: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _native.isa.current()
    monkeypatch.setenv("IMGTOOL_ISA", "avx1024")
    with pytest.raises(InputError, match=r"^IMGTOOL_ISA=avx1024: .* default"):
        InstructionSets(_native._library, "codec")
    with pytest.raises(ValueError, match="avx1024"):
        _native.isa.choose("avx1024")
    assert _native.isa.current() == before
    command = [sys.executable, "-m", "imgtool", "prepare", "--src", ".", "--out", "out"]
    run = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("imgtool: IMGTOOL_ISA=avx1024: ") and run.stderr.count("\n") == 1
