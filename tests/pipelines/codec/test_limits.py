"""The limits on what one image may cost (pixels, bytes per pixel, scans), and crops at their borders."""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imgtool.pipelines import codec
from imgtool.pipelines.codec import _native
from imgtool.wordnet.errors import ImageError

sys.path.insert(0, str(Path(__file__).parent))
import kinds

LARGEST = 2**31 - 1


def claiming(width: int, height: int, scans: int, size: int = 0, refine: bool = False) -> bytes:
    """Returns a small progressive JPEG of 4:4:4 that claims a size and repeats its last scan, padded to ``size`` bytes.

    With ``refine``, the repeated scan refines coefficients that are all 0: a few bytes are work for the whole image.
    """
    data = kinds.jpeg(np.full((8, 8, 3), 90, np.uint8), subsampling=0, progressive=True)
    frame = data.index(b"\xff\xc2")
    data = data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    if refine:  # the end of all blocks in runs of 32767, each a code of one bit and 14 bits
        table = b"\xff\xc4\x00\x14\x10" + bytes([1, *[0] * 15]) + b"\xe0"
        runs = "011111111111111" * (-(-width // 8) * -(-height // 8) // 32767 + 1)
        bits = runs + "1" * (-len(runs) % 8)
        entropy = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
        scan = table + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10" + entropy
    padding = b"\xff\xfe\xff\xff" + bytes(65533)
    data = data[:2] + padding * -(-size // len(padding)) + data[2:-2]
    return data + scan * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


@pytest.mark.parametrize("size", [(10_000, 10_000), (1500, 1000), (65_500, 100)])
@pytest.mark.parametrize("scans", [6, 200])
def test_few_bytes_cannot_claim_many_pixels(size, scans):
    data = claiming(*size, scans)
    for job in (codec.decode, codec.check, codec.recode, lambda data: codec.recode(data, store="original")):
        begin = time.process_time()
        with pytest.raises(ImageError, match=r"truncated: \d+ bytes cannot hold"):
            job(data)
        assert time.process_time() - begin < 0.2


def test_every_whole_image_has_a_bit_per_block():
    """The least that a flat image can take, as progressive and with optimised tables."""
    for side in (64, 512, 4000):
        flat = np.full((side, side, 3), 128, np.uint8)
        for options in ({}, {"optimize": True}, {"progressive": True}, {"progressive": True, "subsampling": 0}):
            for image in (flat, codec.pillow.decode_with_pillow(kinds.jpeg(flat), False)[0]):
                assert codec.decode(kinds.jpeg(image, **options)).shape == flat.shape


@pytest.mark.parametrize("refine", [False, True])
def test_scans_times_pixels_are_limited(refine):
    data = claiming(10_000, 10_000, 200, 600_000, refine)
    for job in (codec.decode, codec.recode):
        begin = time.process_time()
        with pytest.raises(ImageError, match="scans of 10000 x 10000 pixels"):
            job(data)
        assert time.process_time() - begin < 15


def test_the_usual_scans_are_within_the_limit():
    assert codec.decode(claiming(1000, 1000, 200, 100_000, refine=True)).shape == (1000, 1000, 3)


BOXES = [
    *[(LARGEST, 0, 1, 1), (0, LARGEST, 1, 1), (1, 0, LARGEST, 1), (0, 1, 1, LARGEST), (LARGEST, LARGEST, 1, 1)],
    *[(LARGEST, 0, LARGEST, 1), (-1, 0, 1, 1), (0, -LARGEST - 1, 1, 1), (0, 0, 0, 1), (0, 0, 1, -1), (8, 0, 1, 1)],
    *[(2**31, 0, 1, 1), (0, 0, 2**40, 1), (-(2**63), 0, 1, 1), (2**70, 0, 1, 1)],
]
WINDOWS = [
    *[(LARGEST, 0), (0, LARGEST), (LARGEST, LARGEST), (-1, 0), (0, -LARGEST - 1), (8, 0), (2**31, 0), (0, 2**64)],
]


@pytest.mark.parametrize("box", BOXES)
def test_a_box_outside_the_image_is_refused(box):
    with pytest.raises(ImageError, match="the crop is not inside the image"):
        codec.resize_crop(np.zeros((8, 8, 3), np.uint8), box, (1, 1))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_outside_the_box_is_refused(window):
    with pytest.raises(ImageError, match="the crop is not inside the image"):
        codec.resize_crop(np.zeros((8, 8, 3), np.uint8), (0, 0, 8, 8), (8, 8), window, (1, 1))


@pytest.mark.parametrize("resized", [(0, 1), (1, 0), (-1, 4), (-LARGEST, 4)])
def test_a_box_is_not_resized_to_nothing(resized):
    with pytest.raises(ImageError, match="the crop is not inside the image"):
        codec.resize_crop(np.zeros((8, 8, 3), np.uint8), (0, 0, 8, 8), resized, size=(1, 1))


def outcome(data: bytes, raw: int, dims: tuple[int, int], crop: tuple[int, ...], side: int) -> list[tuple[int, str]]:
    """Returns the errors of a batch of one sample."""
    zero, out = np.zeros(1, np.uint64), np.zeros((1, side, side, 3), np.uint8)
    columns = np.array([raw], np.uint8), np.array([dims], np.int32), np.array([crop], np.int32), out
    size = np.array([len(data)], np.uint64)
    return codec.Batch(codec.Pool(1), codec.Buffers([data]), zero.astype(np.int32), zero, size, *columns).wait()


@pytest.mark.parametrize("raw", [0, 1])
def test_a_batch_refuses_the_same(raw):
    pixels = np.zeros((8, 8, 3), np.uint8)
    data = pixels.tobytes() if raw else codec.encode(pixels)
    assert outcome(data, raw, (8, 8), (0, 0, 8, 8, 4, 4, 0, 0, 0), 4) == []
    crops = [(*box, 4, 4, 0, 0, 0) for box in BOXES if max(map(abs, box)) <= LARGEST + 1 and max(box) <= LARGEST]
    crops += [(0, 0, 8, 8, 8, 8, *window, 0) for window in WINDOWS if max(window) <= LARGEST]
    crops += [(0, 0, 8, 8, 0, 0, 0, 0, 0), (0, 0, 8, 8, -1, 4, LARGEST, 0, 0)]
    for crop in crops:
        assert outcome(data, raw, (8, 8), crop, 4) == [(0, "the crop is not inside the image")], crop
    assert outcome(data, raw, (8, 8), (0, 0, 8, 8, 4, 4, 0, 0, 0), 0) == [(0, "the crop is not inside the image")]
    for dims in ((-8, -8), (8, -8), (0, 0), (LARGEST, LARGEST), (-LARGEST - 1, 8)):
        assert outcome(data, raw, dims, (0, 0, 8, 8, 4, 4, 0, 0, 0), 4), dims


def test_a_resize_that_needs_too_much_memory_is_an_error():
    """The resized box may be of any size; only the window of it is made."""
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    corner = codec.resize_crop(pixels, (0, 0, 8, 8), (LARGEST, LARGEST), (LARGEST - 2, LARGEST - 2), (2, 2))
    np.testing.assert_array_equal(corner, np.broadcast_to(pixels[-1, -1], (2, 2, 3)))


@pytest.mark.parametrize("limit", [-1, 2**31, 2**63 - 1])
def test_limits_of_the_size_are_numbers_of_pixels(limit):
    data = codec.encode(np.zeros((8, 8, 3), np.uint8))
    if limit > LARGEST:
        with pytest.raises(ValueError, match="out of range"):
            _native.recode(data, limit, 0, 90, True, "none", (2, 2), 0)
    else:
        assert codec.recode(data, max_side=limit).width == 8
