"""One image does not reach into the next: results depend on the image's bytes alone, whatever was decoded before."""

from __future__ import annotations

import hashlib
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool.pipelines import codec
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.storage.hashes import file_xxh3
from imgtool.wordnet.errors import ImageError

sys.path.insert(0, str(Path(__file__).parent))
import kinds

KINDS = kinds.whole() | kinds.damaged()


def outcome(call: Any, *args: Any, **options: Any) -> str:
    """Returns a digest of the result, or the error."""
    try:
        made = call(*args, **options)
    except ImageError as error:
        return str(error)
    if isinstance(made, codec.Recoded):
        made = repr((hashlib.sha256(made.data).hexdigest(), made.width, made.height, made.repairs, made.how))
    return hashlib.sha256(made if isinstance(made, np.ndarray) else repr(made).encode()).hexdigest()


def crop(pool: codec.Pool, data: bytes) -> np.ndarray:
    """Makes a crop in the way of the loader."""
    header = codec.probe(data)
    width, height = header["width"], header["height"]
    out = np.zeros((1, 24, 24, 3), np.uint8)
    geometry = np.array([[width // 5, height // 4, width // 2, height // 2, 24, 24, 0, 0, 0]], np.int32)
    zero = np.zeros(1, np.uint8)
    columns = np.array([len(data)], np.uint64), zero, np.array([[width, height]], np.int32), geometry, out
    errors = codec.Batch(pool, codec.Buffers([data]), zero.astype(np.int32), zero.astype(np.uint64), *columns).wait()
    if errors:
        raise ImageError(errors[0][1])
    return out


def outcomes(data: bytes, pool: codec.Pool) -> dict[str, str]:
    """Returns what every function of the codec makes of an image."""
    made = {f"recode {store}": outcome(codec.recode, data, store=store) for store in codec.STORES}
    made |= {f"recode {side}": outcome(codec.recode, data, max_side=side) for side in (33, 60)}
    for function in (codec.probe, codec.decode, codec.check):
        made[function.__name__] = outcome(function, data)
    made["center_decode"] = outcome(codec.center_decode, data, 32)
    made["crop"] = outcome(crop, pool, data)
    return made


@cache
def alone(kind: str) -> dict[str, str]:
    """The outcomes in a new thread, with a new pool: no state of the library is shared."""
    made = {}
    for name in outcomes(KINDS["empty"], codec.Pool(1)):

        def run(name: str = name) -> None:
            made[name] = outcomes(KINDS[kind], codec.Pool(1))[name]

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    return made


@settings(max_examples=60)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=12))
def test_any_order_gives_the_same(order):
    pool = codec.Pool(1)
    for position, kind in enumerate(order):
        assert outcomes(KINDS[kind], pool) == alone(kind), f"{kind} after {order[:position]}"


@pytest.mark.parametrize("predecessor", sorted(kinds.whole()))
def test_no_image_borrows_tables(predecessor):
    """Images that lack tables, each directly after one that has some."""
    for kind in ("no quantisation tables", "one quantisation table", "progressive without tables", "motion jpeg"):
        pool = codec.Pool(1)
        outcomes(KINDS[predecessor], pool)
        assert outcomes(KINDS[kind], pool) == alone(kind)


@pytest.mark.parametrize("kind", ["no quantisation tables", "one quantisation table", "progressive without tables"])
def test_an_image_without_its_tables_is_refused(kind):
    for store in codec.STORES:
        with pytest.raises(ImageError, match="table"):
            codec.recode(KINDS[kind], store=store)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("motion jpeg")])
@pytest.mark.parametrize("store", codec.STORES)
def test_motion_jpeg_gets_the_standard_tables(kind, store):
    """Stored with its tables, so that every reader can decode it."""
    recoded = codec.recode(KINDS[kind], store=store, quality=98)
    want = codec.decode(KINDS[kind]).astype(int)
    if store == "raw":
        got = np.frombuffer(recoded.data, np.uint8).reshape(want.shape)
    else:
        got = codec.decode(recoded.data)
        assert any(marker == 0xC4 for marker, _, _ in kinds.segments(recoded.data))
    assert np.abs(got - want).mean() < (1.5 if recoded.how == "recoded" and store != "raw" else 0.01)
    assert recoded.repairs in ((), ("grayscale",))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Class folders of all kinds in turn, a few MB."""
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(6):
        for kind, data in KINDS.items():
            path = folder / "train" / f"class{number % 3}" / f"{kind.replace(' ', '_')}_{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        large = kinds.jpeg(kinds.draw(800, 600, number), quality=97, subsampling=0, optimize=bool(number % 2))
        (folder / "train" / f"class{number % 3}" / f"large{number}.jpg").write_bytes(large)
    return folder


@pytest.mark.parametrize("store", ["jpeg", "fit", "original"])
def test_shards_are_the_same_for_any_number_of_workers(mixed, tmp_path, store):
    hashes = []
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        prepare(mixed, out, Settings(max_side=0, store=store, shard_size=1, quality=97), workers=workers)
        hashes.append({path.name: file_xxh3(path) for path in sorted((out / "train").iterdir())})
        assert len(hashes[-1]) > 1
    assert hashes[0] == hashes[1] == hashes[2]
