"""Builds the two C++ libraries. Everything else about the package is in pyproject.toml.

The libraries do not use Python's API (the package calls them through ctypes), so one wheel works with every Python
version.
"""

import os
import subprocess
import sys
import tempfile
from glob import glob

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# A folder with libjpeg-turbo's include/ and lib/, if it is not installed in the system. CMake uses the same variable.
JPEG_ROOT = os.environ.get("JPEG_ROOT") and os.path.abspath(os.environ["JPEG_ROOT"])
HEADERS = "#include <stddef.h>\n#include <stdio.h>\n#include <jpeglib.h>\n#include <jerror.h>\n"
INCLUDE = [os.path.join(JPEG_ROOT, "include")] if JPEG_ROOT else []
LIBRARIES = [os.path.join(JPEG_ROOT, "lib")] if JPEG_ROOT else []
# makes a library call its own functions, whatever else the process has loaded
LINK = ["-Wl,-Bsymbolic"] if sys.platform == "linux" else []
COMPILE = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]


def compiles(source: str, *flags: str) -> bool:
    """Tells whether the C compiler accepts a source with these flags. Exits if there is no compiler."""
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
    """A build_ext that names the package of a missing header, and whose files have no tag of a Python version."""

    def run(self) -> None:
        if not compiles(HEADERS, *(f"-I{folder}" for folder in INCLUDE), "-fsyntax-only"):
            sys.exit(
                "imgtool: libjpeg-turbo's headers are missing: install libjpeg62-turbo-dev "
                "(Debian: apt-get install libjpeg62-turbo-dev; Ubuntu: libjpeg-turbo8-dev), or set JPEG_ROOT to a "
                "folder with its include/ and lib/"
            )
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"


class BdistWheel(bdist_wheel):
    """A bdist_wheel for any Python 3 on one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
    ext_modules=[
        Extension(
            "imgtool.pipelines.codec.libcodec",
            sorted(glob("pipelines/codec/_native/*.cpp")),
            depends=sorted(glob("pipelines/codec/_native/*.hpp")),
            include_dirs=INCLUDE,
            library_dirs=LIBRARIES,
            runtime_library_dirs=LIBRARIES,
            libraries=["jpeg"],
            # No fused arithmetic, and defined overflow (damaged coefficients): all machines make the same bytes.
            extra_compile_args=[*COMPILE, "-ffp-contract=off", "-fwrapv"],
            extra_link_args=LINK,
        ),
        Extension(
            "imgtool.training.models.libnorm_act",
            ["training/models/_norm_act.cpp"],
            depends=["pipelines/codec/_native/isa.hpp"],
            extra_compile_args=[*COMPILE, "-ffp-contract=fast"],
            extra_link_args=LINK,
        ),
    ],
)
