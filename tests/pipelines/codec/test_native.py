"""The interface between Python and the C++ codec: arguments, errors, and ownership of memory."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgtool.pipelines import codec
from imgtool.pipelines.codec import _native, center_geometry
from imgtool.wordnet.errors import InputError

WIDTH, HEIGHT = 40, 24


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def arrays(jpeg: bytes) -> dict[str, Any]:
    return {
        "shard": np.zeros(2, np.int32),
        "offset": np.zeros(2, np.uint64),
        "size": np.full(2, len(jpeg), np.uint64),
        "raw": np.zeros(2, np.uint8),
        "dims": np.array([[WIDTH, HEIGHT]] * 2, np.int32),
        "crops": np.tile(center_geometry(WIDTH, HEIGHT, 16), (2, 1)),
        "out": np.zeros((2, 16, 16, 3), np.uint8),
    }


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer_is_read(jpeg, kind):
    assert _native.probe(kind(jpeg))["width"] == WIDTH
    pixels, damaged = _native.decode(kind(jpeg), 0, 0, True)
    assert pixels.shape == (HEIGHT, WIDTH, 3) and not damaged
    np.testing.assert_array_equal(pixels, _native.decode(jpeg, 0, 0, True)[0])


def test_other_objects_than_buffers_are_refused(jpeg):
    with pytest.raises((BufferError, ValueError), match="contiguous"):
        _native.probe(memoryview(jpeg)[::2])
    with pytest.raises(TypeError):
        _native.probe("text")
    with pytest.raises(_native.NativeImageError, match="Empty input file"):
        _native.probe(b"")


def test_pixels_outlive_the_input(jpeg):
    expected = np.asarray(Image.open(io.BytesIO(jpeg)))
    views = [_native.decode(jpeg, 0, 0, True)[0][2:].T for _ in range(50)]
    gc.collect()
    junk = [_native.decode(jpeg, 0, 0, True)[0] for _ in range(50)]  # would overwrite memory that was freed too early
    for pixels in junk:
        pixels[:] = 0
    for view in views:
        np.testing.assert_array_equal(view, expected[2:].T)


@pytest.mark.parametrize("bound", [2**31, -(2**31) - 1, 2**40])
def test_numbers_beyond_int_are_refused(jpeg, bound):
    with pytest.raises(ValueError, match=f"{bound} is out of range"):
        _native.decode(jpeg, bound, 0, True)
    with pytest.raises(ValueError, match=f"{bound} is out of range"):
        _native.target_size(bound, 0, WIDTH, HEIGHT)


def test_a_batch_is_decoded(jpeg):
    given = arrays(jpeg)
    assert _native.Batch(_native.Pool(2), _native.Buffers([jpeg]), **given).wait() == []
    assert given["out"].any()
    np.testing.assert_array_equal(given["out"][0], given["out"][1])


@pytest.mark.parametrize("name", ["shard", "offset", "size", "raw", "dims", "crops", "out"])
def test_a_batch_refuses_another_type_order_or_shape(jpeg, name):
    pool, buffers, given = _native.Pool(1), _native.Buffers([jpeg]), arrays(jpeg)
    with pytest.raises(TypeError, match=name):
        _native.Batch(pool, buffers, **given | {name: given[name].astype(np.float64)})
    double = np.repeat(given[name], 2, axis=-1 if name != "out" else 2)
    with pytest.raises(TypeError, match=name):
        _native.Batch(pool, buffers, **given | {name: double[..., ::2] if name != "out" else double[:, :, ::2]})
    if name != "shard":  # the other columns are compared with its length
        with pytest.raises(ValueError, match=f"shapes do not match: {name}"):
            _native.Batch(pool, buffers, **given | {name: given[name][:1]})


def test_a_batch_needs_a_writable_output(jpeg):
    given = arrays(jpeg)
    given["out"].flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        _native.Batch(_native.Pool(1), _native.Buffers([jpeg]), **given)


def test_a_batch_keeps_what_its_threads_use(jpeg):
    """A batch that is deleted at once, with all of its arguments, ends before its memory is freed."""
    for _ in range(200):
        batch = _native.Batch(_native.Pool(2), _native.Buffers([bytearray(jpeg)]), **arrays(jpeg))
        del batch
    batches = [_native.Batch(_native.Pool(1), _native.Buffers([bytearray(jpeg)]), **arrays(jpeg)) for _ in range(20)]
    gc.collect()
    assert all(batch.wait() == [] for batch in batches)


def test_a_buffer_cannot_shrink_while_it_is_read(jpeg):
    data = bytearray(jpeg)
    buffers = _native.Buffers([data])
    with pytest.raises(BufferError):
        data.clear()
    del buffers
    data.clear()


@pytest.mark.parametrize("quality", [0, -1, 101])
def test_another_quality_is_refused(jpeg, quality):
    for make in (codec.recode, lambda data, **how: codec.encode(codec.decode(data), **how)):
        with pytest.raises(InputError, match=f"1 to 100, not {quality}"):
            make(jpeg, quality=quality)


@pytest.mark.parametrize("factors", [(0, 0), (1, 2), (3, 1), (-1, 1)])
def test_another_subsampling_is_refused(jpeg, factors):
    with pytest.raises(ValueError, match="unsupported subsampling"):
        _native.recode(jpeg, 0, 0, 90, True, "none", factors, 0)
    with pytest.raises(ValueError, match="unsupported subsampling"):
        _native.encode(_native.decode(jpeg, 0, 0, True)[0], 90, factors, 0)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_pool_without_threads_is_refused(threads):
    with pytest.raises(ValueError, match="at least one thread"):
        _native.Pool(threads)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_pools_and_batches_are_not_copied(jpeg, copied):
    """A copy would delete the same object twice."""
    pool = _native.Pool(1)
    for one in (pool, _native.Batch(pool, _native.Buffers([jpeg]), **arrays(jpeg))):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copied(one)


def run(code: str) -> str:
    """Runs code in a new process and returns what it prints. A process that hangs ends at the timeout."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_decodes_with_its_own_threads():
    """A forked process has copies of the pools, but not their threads."""
    code = """
    import os, sys
    import numpy as np
    from imgtool.pipelines import codec

    jpeg = codec.encode(np.zeros((24, 40, 3), np.uint8))
    codec.center_decode(jpeg, 16)
    kept, dropped = codec.Pool(2), codec.Pool(2)
    child = os.fork()
    if not child:
        codec.center_decode(jpeg, 16)
        del dropped
        sys.exit()  # kept is deleted when the interpreter exits
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code) == "0\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of memory is Linux's")
def test_too_many_threads_are_a_clear_error():
    code = """
    import resource
    from imgtool.pipelines import codec
    from imgtool.wordnet.errors import ImgtoolError

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        codec.Pool(100_000)
    except ImgtoolError as error:
        print(error)
    """
    assert run(code).startswith("cannot start 100000 threads: ")
