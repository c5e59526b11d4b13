from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

class NativeImageError(Exception): ...

class Pool:
    threads: int
    def __init__(self, threads: int) -> None: ...

class Buffers:
    def __init__(self, buffers: Sequence[Any]) -> None: ...

class Batch:
    def __init__(
        self,
        pool: Pool,
        buffers: Buffers,
        shard: npt.NDArray[np.int32],
        offset: npt.NDArray[np.uint64],
        size: npt.NDArray[np.uint64],
        raw: npt.NDArray[np.uint8],
        dims: npt.NDArray[np.int32],
        crops: npt.NDArray[np.int32],
        out: npt.NDArray[np.uint8],
    ) -> None: ...
    def wait(self) -> list[tuple[int, str]]: ...

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def probe(data: bytes) -> dict[str, Any]: ...
def read_coefficients(data: bytes, x: int, y: int, w: int, h: int) -> bool: ...
def decode(data: bytes, max_side: int, short_side: int, upright: bool) -> tuple[npt.NDArray[np.uint8], bool]: ...
def recode(
    data: bytes,
    max_side: int,
    short_side: int,
    quality: int,
    upright: bool,
    fit: bool,
    subsampling: tuple[int, int],
    restart: int,
) -> tuple[bytes, int, int, bool, str, dict[str, Any]]: ...
def encode(rgb: npt.NDArray[np.uint8], quality: int, subsampling: tuple[int, int], restart: int) -> bytes: ...
def resize(
    rgb: npt.NDArray[np.uint8], crop: npt.NDArray[np.int32], width: int, height: int
) -> npt.NDArray[np.uint8]: ...
def target_size(max_side: int, short_side: int, width: int, height: int) -> tuple[int, int]: ...
