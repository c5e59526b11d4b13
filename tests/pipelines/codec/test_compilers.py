"""The codec built by other compilers and for other processors gives no warnings and the same bytes.

Run by `make test-compilers`.
"""

from __future__ import annotations

import platform
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "pipelines/codec/_native"
JPEG = ROOT / "build/aarch64/usr"  # libjpeg-turbo for aarch64, unpacked by make test-compilers
CLANG, CROSS, QEMU = "clang++", "aarch64-linux-gnu-g++", "qemu-aarch64-static"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="no g++ is installed"),
    pytest.mark.skipif(platform.system() != "Linux", reason="the reference is g++ on Linux"),
]


def needs(*programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make test-compilers installs it")


@pytest.fixture(scope="module")
def extensions() -> list[Any]:
    """Returns the extensions that setup.py builds, with their flags."""
    import setuptools

    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **options: seen.extend(options["ext_modules"]))
        runpy.run_path("setup.py")
    return seen


def compile_all(command: list[str], folder: Path) -> None:
    """Runs a command; fails if it prints a warning."""
    run = subprocess.run(["nice", *command], capture_output=True, text=True, cwd=folder)
    assert (run.returncode, run.stderr) == (0, ""), run.stderr


@pytest.mark.parametrize("compiler", ["g++", CLANG, CROSS])
def test_no_warnings(compiler: str, extensions: list[Any], tmp_path: Path) -> None:
    """Compiles all sources as setup.py does."""
    needs(compiler)
    for extension in extensions:
        folders = [*extension.include_dirs, *((JPEG / "include").glob("*linux*")), JPEG / "include"]
        flags = [*extension.extra_compile_args, "-Werror", *(f"-isystem{folder}" for folder in folders)]
        compile_all([compiler, "-c", *flags, *(str(ROOT / source) for source in extension.sources)], tmp_path)


@pytest.fixture(scope="module")
def build(extensions: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """build(compiler, *flags) builds the program of hashes.cpp."""
    codec = next(extension for extension in extensions if extension.name.endswith("libcodec"))
    sources = [path for path in sorted(NATIVE.glob("*.cpp")) if path.name not in ("api.cpp", "floor.cpp")]

    def make(compiler: str, *flags: str) -> Path:
        out = tmp_path_factory.mktemp("build") / "hashes"
        files = map(str, [*sources, Path(__file__).with_name("compilers") / "hashes.cpp"])
        options = [*codec.extra_compile_args, "-Werror", f"-I{NATIVE}"]
        compile_all([compiler, *options, *files, *flags, "-o", str(out)], out.parent)
        return out

    return make


def hashes(command: list[str | Path], files: list[Path]) -> list[str]:
    return subprocess.run([*command, *files], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def expected(build: Any, jpegs: list[Path]) -> list[str]:
    out = hashes([build("g++", "-ljpeg"), "default"], jpegs)
    assert len(out) > 60 * len(jpegs) and len(set(line.split()[-1] for line in out)) > 20 * len(jpegs)
    return out


@pytest.mark.parametrize(
    ("compiler", "flags"), [(CLANG, ()), ("g++", ("-DIMGTOOL_PORTABLE",)), ("g++", ("-O1", "-fno-inline"))]
)
def test_the_same_bytes(
    compiler: str, flags: tuple[str, ...], build: Any, expected: list[str], jpegs: list[Path]
) -> None:
    from imgtool.pipelines.codec import _native

    needs(compiler)
    program = build(compiler, *flags, "-ljpeg")
    for isa in ["default"] if flags == ("-DIMGTOOL_PORTABLE",) else _native.isa.names:
        assert hashes([program, isa], jpegs) == expected


def test_the_same_bytes_on_aarch64(build: Any, expected: list[str], jpegs: list[Path]) -> None:
    needs(CROSS, QEMU)
    library = JPEG / "lib/aarch64-linux-gnu/libjpeg.a"
    if not library.exists():
        pytest.skip(f"{library} is missing: make test-compilers unpacks it")
    include = [f"-I{JPEG}/include", f"-I{JPEG}/include/aarch64-linux-gnu"]
    got = hashes([QEMU, build(CROSS, "-static", *include, str(library)), "default"], jpegs)
    # Values beyond 16 bits: libjpeg-turbo decodes them differently on each processor, our decoder does not.
    beyond = f"{[path.stem for path in jpegs].index('overflowing')} "
    by_libjpeg = tuple(beyond + job for job in ("decode", "shrink", "raw", "resize", "encode"))
    assert len(got) == len(expected)
    for line, wanted in zip(got, expected, strict=True):
        assert line == wanted or (line.startswith(by_libjpeg) and wanted.startswith(by_libjpeg))
