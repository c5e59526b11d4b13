"""Which instruction set the C++ extensions compute with: the best that the CPU has, or what IMGTOOL_ISA names."""

from __future__ import annotations

import os
from types import ModuleType

from imgtool.wordnet.errors import InputError

__all__ = ["choose"]


def choose(native: ModuleType) -> None:
    """Sets an extension module to the instruction set in the environment variable IMGTOOL_ISA, if there is one.

    Raises InputError if this CPU or this build of the module does not have it.
    """
    name = os.environ.get("IMGTOOL_ISA")
    if not name:
        return
    if name not in native.isas():
        raise InputError(f"IMGTOOL_ISA={name}: unset it, or set it to what this CPU has: {', '.join(native.isas())}")
    native.set_isa(name)
