"""What a user sees when the package cannot be built, and what a wheel holds."""

from __future__ import annotations

import os
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
    (tmp_path / "include" / "jpeglib.h").write_text("#error this one is read\n")
    command = [sys.executable, "setup.py", "build_ext", "--build-temp", str(tmp_path), "--build-lib", str(tmp_path)]
    environment = os.environ | {"JPEG_ROOT": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert "JPEG_ROOT" in result.stderr.strip().splitlines()[-1]


def test_the_version_is_the_installed_one():
    assert metadata.version("imgtool") == imgtool.__version__


def test_the_extras_are_declared():
    extras = set(metadata.metadata("imgtool").get_all("Provides-Extra"))
    assert {"ffcv", "dali", "ray", "s3", "export", "dev"} <= extras
