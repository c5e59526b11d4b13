"""Builds the two C++ extensions; everything else about the package stands in pyproject.toml."""

import os
import subprocess
import sys
import tempfile
from glob import glob

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

# A folder with libjpeg-turbo's include/ and lib/, where the system has none: the name is CMake's.
JPEG_ROOT = os.environ.get("JPEG_ROOT") and os.path.abspath(os.environ["JPEG_ROOT"])
HEADERS = "#include <stddef.h>\n#include <stdio.h>\n#include <jpeglib.h>\n#include <jerror.h>\n"
INCLUDE = [os.path.join(JPEG_ROOT, "include")] if JPEG_ROOT else []
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []
LIBRARIES = [os.path.join(JPEG_ROOT, "lib")] if JPEG_ROOT else []


class BuildExt(build_ext):
    """build_ext that says in one line which package holds a missing header."""

    def run(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
            source.write(HEADERS)
            source.flush()
            compiler = os.environ.get("CC", "cc").split()
            try:
                probe = [*compiler, *(f"-I{folder}" for folder in INCLUDE), "-fsyntax-only", source.name]
                ok = subprocess.run(probe, capture_output=True).returncode == 0
            except FileNotFoundError:
                sys.exit("imgtool: no C++ compiler: install g++ (Debian: apt-get install g++)")
        if not ok:
            sys.exit(
                "imgtool: libjpeg-turbo's headers are missing: install libjpeg62-turbo-dev "
                "(Debian: apt-get install libjpeg62-turbo-dev; Ubuntu: libjpeg-turbo8-dev), or set JPEG_ROOT to a "
                "folder with its include/ and lib/"
            )
        super().run()


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Pybind11Extension(
            "imgtool.pipelines.codec._native",
            sorted(glob("pipelines/codec/_native/*.cpp")),
            depends=sorted(glob("pipelines/codec/_native/*.hpp")),
            cxx_std=17,
            include_dirs=INCLUDE,
            library_dirs=LIBRARIES,
            runtime_library_dirs=LIBRARIES,
            libraries=["jpeg"],
            # No fused arithmetic, and overflow of damaged coefficients defined: every machine makes the same bytes.
            extra_compile_args=[
                *("-O3", "-Wall", "-Wextra", "-Wno-psabi"),
                *("-ffp-contract=off", "-fwrapv"),
            ],
        ),
        Pybind11Extension(
            "imgtool.training._norm_act",
            ["training/_norm_act.cpp"],
            depends=["pipelines/codec/_native/isa.hpp"],
            cxx_std=17,
            # torch's own threads: its libgomp is in the process when this is imported
            extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-psabi", "-ffp-contract=fast", *OPENMP],
            extra_link_args=OPENMP,
        ),
    ],
)
