"""Selects the instruction set of the C++ libraries: the best that the CPU has, or the one in IMGTOOL_ISA."""

from __future__ import annotations

import ctypes
import os

from imgtool.wordnet.errors import InputError


class InstructionSets:
    """The instruction sets of one library that this CPU and this build support, and the one in use.

    The environment variable IMGTOOL_ISA, if it is set, selects the initial one.

    Raises:
        InputError: IMGTOOL_ISA is not one of them.
    """

    def __init__(self, library: ctypes.CDLL, prefix: str) -> None:
        name_of, self._current = library[f"{prefix}_isa_name"], library[f"{prefix}_isa"]
        self._set = library[f"{prefix}_set_isa"]
        name_of.restype = self._current.restype = ctypes.c_char_p
        self._set.restype = None
        self.names: list[str] = []
        while name := name_of(len(self.names)):
            self.names.append(name.decode())
        chosen = os.environ.get("IMGTOOL_ISA")
        if chosen and chosen not in self.names:
            raise InputError(
                f"IMGTOOL_ISA={chosen}: not supported here; unset it, or use one of {', '.join(self.names)}"
            )
        if chosen:
            self.choose(chosen)

    def current(self) -> str:
        """Returns the name of the one in use."""
        name: bytes = self._current()
        return name.decode()

    def choose(self, name: str) -> None:
        """Uses this one from now on. Raises ValueError if it is not in ``names``."""
        self._set(self.names.index(name))
