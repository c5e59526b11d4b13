"""Damaged images: never kept unchanged, stored complete with a status, or refused with a reason."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgtool.pipelines import codec
from imgtool.wordnet.errors import ImageError

sys.path.insert(0, str(Path(__file__).parent))
import kinds

WHOLE, DAMAGED = kinds.whole(), kinds.damaged()
STORES = [store for store in codec.STORES if store != "raw"]


def strictly(data: bytes) -> np.ndarray:
    """Decodes with Pillow, which refuses incomplete data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_has_a_status(kind, store):
    try:
        recoded = codec.recode(DAMAGED[kind], store=store)
    except ImageError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert recoded.how == "recoded" and "damaged" in recoded.repairs
    assert codec.check(recoded.data) == (recoded.width, recoded.height)
    assert strictly(recoded.data).shape == (recoded.height, recoded.width, 3)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_images_have_none(kind, store):
    recoded = codec.recode(WHOLE[kind], store=store)
    assert "damaged" not in recoded.repairs
    codec.check(recoded.data)
    if store == "original" and not kind.startswith(("cmyk", "rgb", "motion")):
        assert (recoded.data, recoded.how) == (WHOLE[kind], "passed")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", ["baseline", "4:4:4", "progressive", "grey", "restart", "optimised"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_missing_end_marker_is_added(kind, store, cut):
    recoded = codec.recode(WHOLE[kind][:-cut], store=store)
    assert recoded.data.endswith(b"\xff\xd9")
    codec.check(recoded.data)
    strictly(recoded.data)
    if store == "original" or (store == "fit" and kind != "grey"):
        assert recoded.how == "transcoded"
        np.testing.assert_array_equal(strictly(recoded.data), strictly(WHOLE[kind]))


@pytest.mark.parametrize("store", STORES)
def test_another_image_instead_of_the_end_marker(store):
    """The first image is complete, except for its end marker."""
    recoded = codec.recode(WHOLE["baseline"][:-2] + WHOLE["4:4:4"], store=store)
    assert (recoded.width, recoded.height) == (90, 70)
    codec.check(recoded.data)
    strictly(recoded.data)


def test_what_follows_a_complete_image_does_not_matter():
    for rest in (b"\0" * 50, b"a page", WHOLE["4:4:4"], WHOLE["4:4:4"][:300], b"\xff\xd8\xff"):
        data = WHOLE["baseline"] + rest
        assert codec.recode(data, store="original").data == data
        assert codec.recode(data, store="fit").data == WHOLE["baseline"]
        assert codec.recode(data).repairs == ()
        codec.check(data)


@pytest.mark.parametrize("between", [b"\0\0", b"junk", b"\xff\xff\xff"])
def test_bytes_between_the_segments_do_not_matter(between):
    """Some images of ImageNet have them."""
    data = WHOLE["baseline"]
    at = next(begin for marker, begin, _ in kinds.segments(data) if marker == 0xC4)
    data = data[:at] + between + data[at:]
    assert codec.recode(data, store="original").data == data
    assert codec.recode(data, store="fit").how in ("passed", "transcoded")


def test_a_component_without_a_scan_is_missing():
    """An image whose components have scans each, cut before the last one."""
    with pytest.raises(ImageError, match="truncated"):
        codec.recode(one_scan_each(2))
    whole = one_scan_each(3)
    assert codec.recode(whole).repairs == ()
    assert codec.recode(whole, store="original").data == whole
    assert codec.recode(whole, store="fit").how == "transcoded"


def one_scan_each(scans: int) -> bytes:
    """Returns a baseline image of 4:4:4 with this number of scans of one component: eight blocks, all of DC 0."""
    data = kinds.jpeg(np.full((8, 64, 3), 128, np.uint8), subsampling=0)
    header = data[: kinds.scans(data)[0]]
    out = header
    for component in range(scans):
        table = 0x11 if component else 0x00
        scan = bytes([1, component + 1, table, 0, 63, 0])
        bits = ("00" + ("1010" if not component else "00")) * 8  # DC of size 0, end of block; the standard tables
        bits += "1" * (-len(bits) % 8)
        out += b"\xff\xda" + (len(scan) + 2).to_bytes(2, "big") + scan + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return out + b"\xff\xd9"


def test_check_requires_an_end_marker():
    with pytest.raises(ImageError, match="end marker is missing"):
        codec.check(WHOLE["baseline"][:-2])


def test_irregular_scans_are_rewritten():
    """Parameters that a sequential scan does not use, which Pillow reads with a warning of libjpeg."""
    data = bytearray(WHOLE["baseline"])
    at = kinds.scans(bytes(data))[0]
    data[at + 11 : at + 14] = b"\x00\x1f\x10"
    for store in ("fit", "original"):
        recoded = codec.recode(bytes(data), store=store)
        assert (recoded.how, recoded.repairs) == ("transcoded", ())
        np.testing.assert_array_equal(strictly(recoded.data), strictly(WHOLE["baseline"]))


@pytest.mark.parametrize("rest", [b"\xff\xdb\x00\x05\x99\x01\x01", WHOLE["4:4:4"][kinds.scans(WHOLE["4:4:4"])[0] :]])
def test_segments_after_the_scan(rest):
    """Tables or another scan, where the end marker should be: Pillow refuses such a file."""
    data = WHOLE["baseline"][:-2] + rest + b"\xff\xd9"
    for store in STORES:
        recoded = codec.recode(data, store=store)
        assert recoded.how == "recoded"
        strictly(recoded.data)


def test_uncommon_sampling_factors_are_encoded_again():
    """3 : 2, which most readers refuse."""
    data = bytearray(kinds.jpeg(kinds.draw(24, 24, 3), subsampling=0))
    frame = data.index(b"\xff\xc0")
    for component, factors in enumerate((0x31, 0x21, 0x11)):
        data[frame + 11 + 3 * component] = factors
    for store in STORES:
        try:
            recoded = codec.recode(bytes(data), store=store)
        except ImageError:
            continue
        assert recoded.how == "recoded"
        strictly(recoded.data)


def test_a_huffman_code_of_ones_is_refused():
    """T.81 forbids it, and libjpeg refuses it."""
    header, scan = WHOLE["4:4:4"][: kinds.scans(WHOLE["4:4:4"])[0]], WHOLE["4:4:4"][kinds.scans(WHOLE["4:4:4"])[0] :]
    table = b"\xff\xc4\x00\x15\x00" + bytes([2, *[0] * 15]) + b"\x00\x01"
    for store in codec.STORES:
        with pytest.raises(ImageError, match="Bogus Huffman table"):
            codec.recode(header + table + scan, store=store)
