"""The kernels of _norm_act.cpp through ctypes. They run on torch's OpenMP threads.

libnorm_act.so is not linked to OpenMP. It receives the functions of the OpenMP runtime that torch has loaded, so that
the process has one set of threads. If that runtime lacks the GNU names, PARALLEL is false and the kernels must not be
called.
"""

import ctypes
from ctypes import c_double, c_int32, c_int64, c_void_p
from pathlib import Path

import torch

from imgtool.pipelines.codec.isa import InstructionSets

_library = ctypes.CDLL(str(Path(__file__).with_name("libnorm_act.so")))
isa = InstructionSets(_library, "norm_act")

LANES: int = _library.norm_act_lanes()
"""The number of channels must be a multiple of this."""


def _connect() -> bool:
    # looked up in torch and its dependencies only: another package may have loaded another runtime
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
