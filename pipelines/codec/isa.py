"""Which instruction set the C++ libraries compute with: the best that the CPU has, or what IMGTOOL_ISA names."""

from __future__ import annotations

import ctypes
import os

from imgtool.wordnet.errors import InputError


class InstructionSets:
    """Of one library: those that this CPU and this build have, and the one in use.

    The environment variable IMGTOOL_ISA, if it is set, names the one to begin with. Raises InputError if it is none.
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
            raise InputError(f"IMGTOOL_ISA={chosen}: unset it, or set it to what this CPU has: {', '.join(self.names)}")
        if chosen:
            self.choose(chosen)

    def current(self) -> str:
        name: bytes = self._current()
        return name.decode()

    def choose(self, name: str) -> None:
        """Raises ValueError for a name that is not among ``names``."""
        self._set(self.names.index(name))
