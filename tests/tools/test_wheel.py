"""The wheel: one for every Python, with libjpeg-turbo inside, and nothing from the machine that built it."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from io import BytesIO
from pathlib import Path

import pytest

import imgtool

pytest.importorskip("auditwheel")
pytest.importorskip("build")
elffile = pytest.importorskip("elftools.elf.elffile")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("make"), reason="wheels are built by make, and repaired for Linux"
)

ROOT = Path(__file__).parents[2]
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "libstdc++.so.6", "libgcc_s.so.1"}
"""The libraries that every glibc system with torch has."""


def make_wheel(folder: Path, **environment: str) -> Path:
    """Runs ``make wheel`` on a copy of the sources in ``folder``."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("pipelines", "wordnet", "training", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "Makefile"):
        shutil.copy2(ROOT / name, folder)
    command = ["make", "--assume-old=install", "wheel", f"BIN={Path(sys.executable).parent}"]
    settings = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"} | environment
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=settings)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    assert list((folder / "dist").glob("imgtool-*.tar.gz"))
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def elf_files(contents: dict[str, bytes]) -> dict[str, list[tuple[str, str]]]:
    """Returns the tags of each library's dynamic section and the names that they hold."""
    out = {}
    for name, data in contents.items():
        if data.startswith(b"\x7fELF"):
            dynamic = elffile.ELFFile(BytesIO(data)).get_section_by_name(".dynamic")
            fields = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
            tags = [tag for tag in dynamic.iter_tags() if tag.entry.d_tag in fields]
            out[name] = [(tag.entry.d_tag, getattr(tag, fields[tag.entry.d_tag])) for tag in tags]
    return out


def dist_info(contents: dict[str, bytes], name: str) -> Message:
    return message_from_bytes(contents[f"imgtool-{imgtool.__version__}.dist-info/{name}"])


def test_one_wheel_serves_every_python(wheel: Path, contents: dict[str, bytes]) -> None:
    assert fnmatch.fnmatch(wheel.name, f"imgtool-{imgtool.__version__}-py3-none-manylinux_2_*.whl")
    metadata = dist_info(contents, "WHEEL")
    assert metadata["Root-Is-Purelib"] == "false"
    assert all(tag.startswith("py3-none-manylinux_") for tag in metadata.get_all("Tag", []))


def test_every_file_of_the_package_is_in_it(contents: dict[str, bytes]) -> None:
    expected = {
        *("imgtool/py.typed", "imgtool/cli.py", "imgtool/bench/gpu/__init__.py"),
        *("imgtool/pipelines/codec/libcodec.so", "imgtool/training/models/libnorm_act.so"),
        *(f"imgtool/training/recipes/{path.name}" for path in (ROOT / "training/recipes").glob("*.toml")),
        *(f"imgtool/{path.relative_to(ROOT)}" for path in ROOT.glob("pipelines/report/*.j2")),
        *(f"imgtool/{path.relative_to(ROOT)}" for path in ROOT.glob("training/runs/*.j2")),
        *(f"imgtool/wordnet/data/{path.name}" for path in (ROOT / "wordnet/data").iterdir()),
    }
    for folder, package in (
        ("tools", ""),
        ("wordnet", "wordnet/"),
        ("pipelines", "pipelines/"),
        ("training", "training/"),
    ):
        sources = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py"))
        expected |= {f"imgtool/{package}{path.as_posix()}" for path in sources}
    assert expected <= contents.keys()


def test_nothing_else_is_in_it(contents: dict[str, bytes]) -> None:
    tops = {name.split("/")[0] for name in contents}
    assert tops == {"imgtool", "imgtool.libs", f"imgtool-{imgtool.__version__}.dist-info"}
    for name in contents:
        assert not {"__pycache__", "tests"} & set(name.split("/")), name
        assert not name.endswith((".cpp", ".hpp", ".pyc", ".o")), name


def test_the_libraries_need_only_each_other_and_the_system(contents: dict[str, bytes]) -> None:
    libraries = elf_files(contents)
    bundled = {Path(name).name for name in libraries if name.startswith("imgtool.libs/")}
    assert len(bundled) == 1  # in particular no libgomp: its threads are torch's
    assert next(iter(bundled)).startswith("libjpeg")
    for name, tags in libraries.items():
        for tag, value in tags:
            if tag == "DT_NEEDED":
                assert value in SYSTEM | bundled or value.startswith("ld-linux"), f"{name} needs {value}"
            else:
                assert value.startswith("$ORIGIN/"), f"{name} looks in {value}"


def test_no_path_of_the_machine_is_in_it(wheel: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        assert os.fsencode(wheel.parents[1]) not in data, name
        assert os.fsencode(ROOT) + b"/" not in data, name


def test_the_metadata(contents: dict[str, bytes]) -> None:
    metadata = dist_info(contents, "METADATA")
    assert (metadata["Name"], metadata["Version"]) == ("imgtool", imgtool.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    required = metadata.get_all("Requires-Dist", [])
    names = {line.split(";")[0].split(">")[0] for line in required if "extra ==" not in line}
    assert {"click", "numpy", "pillow", "torch", "torchvision"} <= names
    assert not {"auditwheel", "build", "setuptools", "pytest"} & names
    for licence in ("LICENSE", "wordnet/data/LICENSE.wordnet", "pipelines/codec/LICENSE.libjpeg-turbo"):
        assert licence in metadata.get_all("License-File", [])
        assert contents[f"imgtool-{imgtool.__version__}.dist-info/licenses/{licence}"] == (ROOT / licence).read_bytes()


@pytest.mark.slow
def test_built_again_elsewhere_it_is_the_same(wheel: Path, tmp_path: Path) -> None:
    again = make_wheel(tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_it_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(site), "PATH": f"{site}/bin:{os.environ['PATH']}"}
    where = [sys.executable, "-c", "import imgtool; print(imgtool.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, env=environment, check=True).stdout
    assert found.strip() == str(site / "imgtool" / "__init__.py")
    smoke = [str(ROOT / ".ci/smoke"), str(tmp_path / "work")]
    result = subprocess.run(smoke, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
