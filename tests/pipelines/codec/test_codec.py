"""Decoding and encoding, compared with Pillow (which has its own libjpeg-turbo), and with bad bytes."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from imgtool.pipelines import codec
from imgtool.wordnet.errors import ImageError

pytestmark = pytest.mark.numeric

SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}  # Pillow's numbers


def pillow(data: bytes, upright: bool = True) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))


def decode_batch(pool, buffers, shard, *columns, raw=False):
    """Decodes a batch and returns its errors. The columns are offset, size, dims, crops, out."""
    is_raw = np.full(len(shard), raw, np.uint8)
    return codec.Batch(pool, codec.Buffers(buffers), shard, *columns[:2], is_raw, *columns[2:]).wait()


def batch_crop(pool, data, crop, size):
    """Makes a crop in the way of the loader: region decode, resize, flip."""
    info = codec.probe(data)
    out = np.zeros((1, size, size, 3), np.uint8)
    errors = decode_batch(
        pool,
        [data],
        np.zeros(1, np.int32),
        np.zeros(1, np.uint64),
        np.array([len(data)], np.uint64),
        np.array([[info["width"], info["height"]]], np.int32),
        np.array([crop], np.int32),
        out,
    )
    return out[0], errors


def crops(width, height, rng, count=20):
    """Makes rows for ``batch_crop``: boxes of any size and position, every other one mirrored."""
    for i in range(count):
        w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
        yield [int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h, 96, 96, 0, 0, i % 2]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_crop_of_a_progressive_image_equals_that_of_a_full_decode(draw_image, encoded, sampling):
    """libjpeg decodes only the rows of the crop."""
    rng = np.random.default_rng(1)
    pool = codec.Pool(1)
    for seed in range(3):
        width, height = (int(n) for n in rng.integers(30, 400, 2))
        data = encoded(draw_image(width, height, seed), subsampling=SAMPLINGS[sampling], progressive=True)
        whole = codec.decode(data)
        for crop in crops(width, height, rng):
            got, errors = batch_crop(pool, data, crop, 96)
            assert not errors
            assert np.array_equal(got, codec.resize_crop(whole, tuple(crop[:4]), (96, 96), flip=bool(crop[8])))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_crop_is_close_to_that_of_a_full_decode(draw_image, encoded, sampling):
    """Ours resamples the planes as they are stored and converts colours last.

    For grey images the two are almost equal. In colour they differ along edges, in drawings more than in photographs.
    """
    rng = np.random.default_rng(1)
    pool = codec.Pool(1)
    off = []
    for seed in range(5):
        width, height = (int(n) for n in rng.integers(30, 400, 2))
        pixels = draw_image(width, height, seed)
        for grey in (False, True):
            image = Image.fromarray(pixels).convert("L") if grey else pixels
            data = encoded(image, subsampling=-1 if grey else SAMPLINGS[sampling])
            whole = codec.decode(data)
            for crop in crops(width, height, rng):
                got, errors = batch_crop(pool, data, crop, 96)
                assert not errors
                want = codec.resize_crop(whole, tuple(crop[:4]), (96, 96), flip=bool(crop[8]))
                difference = np.abs(got.astype(int) - want)
                if grey:
                    assert difference.max() <= 2
                else:
                    off.append(difference.mean())
                crop[8] = 1 - crop[8]
                assert np.array_equal(batch_crop(pool, data, crop, 96)[0], got[:, ::-1])
    assert np.mean(off) < 2


def test_resize_equals_pillow(draw_image):
    """Equal to Pillow's bilinear, except for 1/255 where Pillow resamples columns first."""
    pixels = draw_image(301, 233)
    for box, size in [((0, 0, 301, 233), (64, 64)), ((20, 30, 200, 100), (224, 224)), ((5, 5, 37, 180), (96, 50))]:
        x, y, w, h = box
        want = np.asarray(Image.fromarray(pixels[y : y + h, x : x + w]).resize(size, Image.Resampling.BILINEAR))
        got = codec.resize_crop(pixels, box, size)
        assert np.abs(got.astype(int) - want).max() <= 1
        assert np.array_equal(codec.resize_crop(pixels, box, size, flip=True), got[:, ::-1])


def test_a_window_is_part_of_the_whole_resize(draw_image):
    pixels = draw_image(301, 233)
    whole = codec.resize_crop(pixels, (0, 0, 301, 233), (120, 90))
    window = codec.resize_crop(pixels, (0, 0, 301, 233), (120, 90), window=(17, 5), size=(64, 64))
    assert np.array_equal(window, whole[5:69, 17:81])


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (224, 224), (100, 333), (225, 224)])
def test_center_crop_equals_torchvision(draw_image, width, height):
    from torchvision.transforms import v2

    image = Image.fromarray(draw_image(width, height))
    want = np.asarray(v2.Compose([v2.Resize(224), v2.CenterCrop(224)])(image))
    assert np.abs(codec.center_crop(np.asarray(image), 224).astype(int) - want).max() <= 1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, (320, 240)),
        ({"max_side": 160}, (160, 120)),
        ({"short_side": 120}, (160, 120)),
        ({"max_side": 1000}, (320, 240)),  # never enlarged
        ({"max_side": 200, "short_side": 60}, (80, 60)),
    ],
)
def test_recoded_size(draw_image, encoded, limits, expected):
    recoded = codec.recode(encoded(draw_image()), **limits)
    assert (recoded.width, recoded.height) == expected
    assert (recoded.source_width, recoded.source_height) == (320, 240)
    info = codec.probe(recoded.data)
    assert (info["width"], info["height"], info["space"], info["sampling"]) == (*expected, "ycbcr", (2, 2))


def test_a_thin_image_keeps_a_pixel(encoded):
    recoded = codec.recode(encoded(np.full((2, 2000, 3), 90, np.uint8)), max_side=100)
    assert (recoded.width, recoded.height) == (100, 1)


def test_recoding_keeps_the_image(draw_image, encoded):
    pixels = draw_image(400, 300)
    recoded = codec.recode(encoded(pixels, quality=98), max_side=200, quality=95)
    want = np.asarray(Image.fromarray(pixels).resize((200, 150), Image.Resampling.BILINEAR))
    error = np.mean((codec.decode(recoded.data).astype(float) - want) ** 2)
    assert 10 * np.log10(255**2 / error) > 30  # dB; chroma subsampling of drawn edges is most of it


@pytest.mark.parametrize(
    ("mode", "form", "repairs"),
    [
        ("RGB", "JPEG", ()),
        ("L", "JPEG", ("grayscale",)),
        ("CMYK", "JPEG", ("cmyk",)),
        ("RGB", "PNG", ("png",)),
        ("RGBA", "PNG", ("png",)),
        ("P", "GIF", ("gif",)),
        ("RGB", "WEBP", ("webp",)),
    ],
)
def test_repairs(draw_image, encoded, mode, form, repairs):
    recoded = codec.recode(encoded(Image.fromarray(draw_image()).convert(mode), form))
    assert recoded.repairs == repairs
    assert codec.probe(recoded.data)["components"] == 3


def test_sixteen_bits_are_scaled(encoded):
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (8, 1))
    pixels = codec.decode(encoded(Image.fromarray(ramp), "PNG"))
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_truncated_is_refused_but_a_missing_end_marker_is_not(draw_image, encoded):
    data = encoded(draw_image(640, 480))
    with pytest.raises(ImageError, match=r"truncated: the data ends at row \d+ of 480"):
        codec.recode(data[: len(data) // 2])
    assert codec.recode(data[:-2]).height == 480


@pytest.mark.parametrize("data", [b"", b"hello, I am no image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_no_image_is_an_error(data):
    for call in (codec.decode, codec.recode):
        with pytest.raises(ImageError) as error:
            call(data)
        assert str(error.value)
        assert "\n" not in str(error.value)


def test_damaged_data_is_kept_and_reported(draw_image, encoded):
    data = bytearray(encoded(draw_image(640, 480)))
    middle = len(data) // 2
    data[middle : middle + 3] = b"\xff\xd3\x00"  # a misplaced restart marker
    assert "damaged" in codec.recode(bytes(data)).repairs


def test_a_huge_image_is_refused_by_its_header(draw_image, encoded):
    data = bytearray(encoded(draw_image()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    with pytest.raises(ImageError, match="larger than 100 million pixels"):
        codec.recode(bytes(data))
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    with pytest.raises(ImageError):
        codec.recode(header + b"\0\0\0\0")


def test_a_progressive_file_of_thousands_of_scans_is_refused(draw_image, encoded):
    data = encoded(draw_image(), progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="more than 200 scans of"):
        codec.decode(data[:-2] + data[last:-2] * 300 + b"\xff\xd9")


@settings(max_examples=150)
@given(st.data())
def test_bad_bytes_raise_image_errors_only(encoded, draw_image, data):
    form = data.draw(st.sampled_from(["JPEG", "PNG"]))
    good = bytearray(encoded(draw_image(64, 48), form))
    for _ in range(data.draw(st.sampled_from([0, 1, 2, 12]))):
        # headers are a small part of the bytes; damage both
        at = data.draw(st.one_of(st.integers(0, 700), st.integers(0, len(good) - 1)))
        good[at % len(good)] = data.draw(st.integers(0, 255))
    bad = bytes(good[: data.draw(st.integers(0, len(good)))]) if data.draw(st.booleans()) else bytes(good)
    with contextlib.suppress(ImageError):
        pixels = codec.decode(bad)
        event("decoded")
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
        assert pixels.dtype == np.uint8


def test_the_batch_names_each_bad_sample(draw_image, encoded):
    good = encoded(draw_image(100, 80))
    pool = codec.Pool(2)
    crop = [0, 0, 100, 80, 32, 32, 0, 0, 0]
    cases = [
        (good, crop, None),
        (good[: len(good) // 2], crop, "damaged"),
        (good, [50, 0, 100, 80, 32, 32, 0, 0, 0], "not inside the image"),
        (good, [0, 0, 100, 80, 32, 32, 8, 0, 0], "not inside the image"),
        (b"junk" * 20, crop, "Not a JPEG"),
    ]
    data = b"".join(case[0] for case in cases)
    sizes = np.array([len(case[0]) for case in cases], np.uint64)
    out = np.zeros((len(cases), 32, 32, 3), np.uint8)
    errors = decode_batch(
        pool,
        [data],
        np.zeros(len(cases), np.int32),
        np.cumsum(sizes) - sizes,
        sizes,
        np.tile(np.array([100, 80], np.int32), (len(cases), 1)),
        np.array([case[1] for case in cases], np.int32),
        out,
    )
    assert [i for i, _ in errors] == [1, 2, 3, 4]
    assert all(cases[i][2] in message for i, message in errors)
    assert out[0].any()


def test_the_batch_stays_inside_its_buffers(draw_image, encoded):
    data = encoded(draw_image(100, 80))
    out = np.zeros((1, 32, 32, 3), np.uint8)
    args = [np.array([[100, 80]], np.int32), np.array([[0, 0, 100, 80, 32, 32, 0, 0, 0]], np.int32), out]
    huge, size = np.array([2**63], np.uint64), np.array([len(data)], np.uint64)
    pool, zero = codec.Pool(1), np.zeros(1, np.int32)
    assert "outside its shard" in decode_batch(pool, [data], zero, huge, size, *args)[0][1]
    assert "outside its shard" in decode_batch(pool, [data], zero, size, huge, *args)[0][1]
    assert "no such shard" in decode_batch(pool, [data], zero + 1, zero.astype(np.uint64), size, *args)[0][1]
    with pytest.raises(ValueError, match="shapes"):
        decode_batch(pool, [data], zero, huge, size, args[0], args[1], np.zeros((2, 32, 32, 3), np.uint8))


def test_pillow_patched_by_another_package(monkeypatch):
    """Ultralytics, once imported, makes Pillow raise ModuleNotFoundError for unknown bytes."""
    from PIL import Image

    def patched(*_, **__):
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Image, "open", patched)
    with pytest.raises(ImageError, match=r"^not an image$"):
        codec.decode(b"no image of any kind")
