from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

class NativeImageError(Exception): ...

class Pool:
    threads: int
    def __init__(self, threads: int) -> None: ...
    def decode_batch(
        self,
        buffers: Sequence[Any],
        shard: npt.NDArray[np.int32],
        offset: npt.NDArray[np.uint64],
        size: npt.NDArray[np.uint64],
        dims: npt.NDArray[np.int32],
        crops: npt.NDArray[np.int32],
        out: npt.NDArray[np.uint8],
    ) -> list[tuple[int, str]]: ...

def probe(data: bytes) -> dict[str, Any]: ...
def decode(data: bytes, max_side: int, short_side: int, upright: bool) -> tuple[npt.NDArray[np.uint8], bool]: ...
def recode(
    data: bytes,
    max_side: int,
    short_side: int,
    quality: int,
    upright: bool,
    fit: bool,
    subsampling: tuple[int, int],
) -> tuple[bytes, int, int, bool, str, dict[str, Any]]: ...
def encode(rgb: npt.NDArray[np.uint8], quality: int, subsampling: tuple[int, int]) -> bytes: ...
def resize(
    rgb: npt.NDArray[np.uint8], crop: npt.NDArray[np.int32], width: int, height: int
) -> npt.NDArray[np.uint8]: ...
def target_size(max_side: int, short_side: int, width: int, height: int) -> tuple[int, int]: ...
