"""The kernels of _norm_act.cpp through ctypes, on the threads that torch computes with.

libnorm_act.so links to no OpenMP: the one that torch has loaded (its wheels bring one) is handed to it, so that there
is one set of threads. Where torch has none by GNU's names, PARALLEL is false and the kernels must not be called.
"""

import ctypes
from ctypes import c_double, c_int32, c_int64, c_void_p
from pathlib import Path

import torch

from imgtool.pipelines.codec.isa import InstructionSets

_library = ctypes.CDLL(str(Path(__file__).with_name("libnorm_act.so")))
isa = InstructionSets(_library, "norm_act")

LANES: int = _library.norm_act_lanes()
"""Channels must be a multiple of this."""


def _connect() -> bool:
    # looked up in torch and what it links to, not in the process, where another package may have brought another
    torch_library = ctypes.CDLL(torch._C.__file__)
    try:
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        functions = [ctypes.cast(torch_library[name], c_void_p) for name in names]
    except AttributeError:
        return False
    _library.norm_act_connect(*functions)
    return True


PARALLEL = _connect()

forward = _library.norm_act_forward
forward.argtypes = [c_void_p] * 8 + [c_int64, c_int64, c_double, c_double, c_int32]
forward.restype = None

backward = _library.norm_act_backward
backward.argtypes = [c_void_p, c_void_p, c_int64, *[c_void_p] * 7, c_int64, c_int64, c_int32]
backward.restype = None
