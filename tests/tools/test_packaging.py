"""The errors of a failed build, where libjpeg is found, and the metadata of the installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import imgtool

ROOT = Path(__file__).parents[2]


def test_a_missing_header_names_its_package(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "build_ext", "--build-temp", str(tmp_path), "--build-lib", str(tmp_path)]
    environment = os.environ | {"CC": "cc -nostdinc"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert "install libjpeg62-turbo-dev" in result.stderr.strip().splitlines()[-1]


def test_jpeg_root_comes_before_the_system(tmp_path):
    pytest.importorskip("setuptools")
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "jpeglib.h").write_text("#error this header is read\n")
    command = [sys.executable, "setup.py", "build_ext", "--build-temp", str(tmp_path), "--build-lib", str(tmp_path)]
    environment = os.environ | {"JPEG_ROOT": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert "JPEG_ROOT" in result.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_the_library_is_loaded_from_jpeg_root(tmp_path):
    pytest.importorskip("setuptools")
    elffile = pytest.importorskip("elftools.elf.elffile")
    root, built = tmp_path / "jpeg", tmp_path / "built"
    for folder in ("include", "lib"):
        (root / folder).mkdir(parents=True)
    preprocess = ["cc", "-M", "-include", "stdio.h", "-include", "jpeglib.h", "-include", "jerror.h", "-x", "c", "-"]
    read = subprocess.run(preprocess, input="", capture_output=True, text=True, check=True).stdout.split()
    for name in ("jpeglib.h", "jerror.h", "jmorecfg.h", "jconfig.h"):
        (header,) = {path for path in read if path.endswith("/" + name)}
        shutil.copy(header, root / "include")
    locate = ["cc", "-print-file-name=libjpeg.so"]
    library = subprocess.run(locate, capture_output=True, text=True, check=True).stdout.strip()
    shutil.copy(library, root / "lib")
    command = [sys.executable, "setup.py", "build_ext", "--build-temp", str(tmp_path), "--build-lib", str(built)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, env=os.environ | {"JPEG_ROOT": str(root)})
    with open(built / "imgtool/pipelines/codec/libcodec.so", "rb") as file:
        tags = list(elffile.ELFFile(file).get_section_by_name(".dynamic").iter_tags())
    paths = [getattr(tag, "runpath", None) or getattr(tag, "rpath", None) for tag in tags]
    assert [path for path in paths if path] == [str(root / "lib")]


def test_the_version_is_the_installed_one():
    assert metadata.version("imgtool") == imgtool.__version__


def test_the_extras_are_declared():
    extras = set(metadata.metadata("imgtool").get_all("Provides-Extra"))
    assert {"ffcv", "dali", "ray", "s3", "export", "dev"} <= extras
