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
LIBRARIES = [os.path.join(JPEG_ROOT, "lib")] if JPEG_ROOT else []


def compiles(source: str, *flags: str) -> bool:
    """Whether the C compiler takes this source with these flags. Exits if there is no compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "probe.c")
        with open(path, "w") as file:
            file.write(source)
        try:
            command = [*os.environ.get("CC", "cc").split(), path, "-o", os.path.join(folder, "probe"), *flags]
            return subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            sys.exit("imgtool: no C++ compiler: install g++ (Debian: apt-get install g++)")


class BuildExt(build_ext):
    """build_ext that says in one line which package holds a missing header."""

    def run(self) -> None:
        if not compiles(HEADERS, *(f"-I{folder}" for folder in INCLUDE), "-fsyntax-only"):
            sys.exit(
                "imgtool: libjpeg-turbo's headers are missing: install libjpeg62-turbo-dev "
                "(Debian: apt-get install libjpeg62-turbo-dev; Ubuntu: libjpeg-turbo8-dev), or set JPEG_ROOT to a "
                "folder with its include/ and lib/"
            )
        # norm_act shares torch's own threads: its libgomp is in the process when that is imported. Without OpenMP, as
        # clang has none by itself, it is not used.
        if compiles("int main(void) { return 0; }", "-fopenmp"):
            norm_act = next(e for e in self.extensions if e.name.endswith("_norm_act"))
            norm_act.extra_compile_args.append("-fopenmp")
            norm_act.extra_link_args.append("-fopenmp")
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
            extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-psabi", "-ffp-contract=fast"],
        ),
    ],
)
