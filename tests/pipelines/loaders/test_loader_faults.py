"""Loaders under faults: damaged samples, wrong states, iteration that stops early; and that they do not leak memory."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import sys
import threading

import numpy as np
import pytest
import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import BACKENDS, missing, open_loader
from imgtool.pipelines.loaders.samples import Samples
from imgtool.pipelines.loaders.sampling import WINDOW, epoch_order
from imgtool.wordnet.errors import ImageError, InputError

PRESENT = [backend for backend in BACKENDS if missing(backend) is None]
each_backend = pytest.mark.parametrize("backend", PRESENT)
BAD = (7, 40)


def load(data, backend="native", split="train", **options):
    return open_loader(data, split, batch_size=16, image_size=48, backend=backend, **options)


@pytest.fixture(scope="module")
def damaged(drawn_data, tmp_path_factory):
    """A data set whose split train has two samples that are overwritten with zeros."""
    path = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(drawn_data, path)
    samples = Samples(Dataset(path), "train")
    for sample in BAD:
        at, size = int(samples.offset[sample]), int(samples.size[sample])
        with open(samples.paths[samples.shard[sample]], "r+b") as file:
            file.seek(at)
            file.write(bytes(size))
    return Dataset(path)


@each_backend
def test_the_error_names_the_damaged_sample(damaged, backend):
    keys = [damaged.manifest("train")["key"][sample].as_py() for sample in BAD]
    with (
        load(damaged, backend, augment=False) as loader,
        pytest.raises(ImageError, match=r"00000\.beton, sample 7 \(") as error,
    ):
        list(loader)
    assert keys[0] in str(error.value)
    assert "\n" not in str(error.value)


@each_backend
def test_damaged_samples_are_left_out_and_counted(damaged, drawn_data, backend):
    with load(damaged, backend, augment=False, on_error="skip") as loader:
        batches = list(loader)
        assert loader.skipped == len(BAD)
        again = list(loader)
    assert [len(labels) for _, labels in batches] == [15, 16, 15, 16, 16]
    with load(drawn_data, backend, augment=False) as whole:
        images = torch.cat([images for images, _ in whole])
    kept = np.setdiff1d(np.arange(len(images)), BAD)
    for got in (batches, again):
        assert torch.equal(torch.cat([images for images, _ in got]), images[kept])


@each_backend
def test_stopping_early_leaves_nothing_running(drawn_data, backend):
    with load(drawn_data, backend) as loader:
        list(loader)  # threads that a library keeps forever exist now
        before = set(threading.enumerate())
        want = [images for images, _ in loader]
        for _ in range(3):
            iterator = iter(loader)
            first, _ = next(iterator)
            iterator.close()
            loader.load_state_dict({"epoch": 0, "batch": 0})
            assert torch.equal(first, want[0])
        assert set(threading.enumerate()) <= before
        assert all(torch.equal(a, b) for (a, _), b in zip(loader, want, strict=True))


@each_backend
def test_the_state_of_another_loader_is_refused(drawn_data, backend):
    with load(drawn_data, backend) as loader:
        state = loader.state_dict()
    for options, what in (({"seed": 1}, "seed=0"), ({"order": "quasi"}, "order=random")):
        with load(drawn_data, backend, **options) as other, pytest.raises(InputError, match=f"resume .*{what}"):
            other.load_state_dict(state)
    with open_loader(drawn_data, "train", batch_size=8, image_size=48, world_size=2) as half:
        half.load_state_dict(state)  # the same global batch


def test_memory_stays_flat(drawn_data):
    """Over epochs, and over loaders that are opened and closed.

    A leak grows in every round; what an allocator or the page cache keeps does not.
    """

    def resident() -> int:
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def epochs(count: int) -> None:
        with load(drawn_data, num_workers=2) as loader:
            for epoch in range(count):
                loader.set_epoch(epoch)
                for _ in loader:
                    pass

    epochs(3)
    grown, opened = [], []
    for _ in range(5):
        before, files = resident(), len(os.listdir("/proc/self/fd"))
        epochs(5)
        for _ in range(5):
            epochs(1)
        grown.append(resident() - before)
        opened.append(len(os.listdir("/proc/self/fd")) - files)
    assert min(grown) < 1e6, grown
    assert min(opened) <= 0, opened


def test_quasi_random_order():
    """Each sample once, shards of a window together, and another order in each epoch."""
    shard = np.repeat(np.arange(40, dtype=np.int32), 50)
    order = epoch_order(shard, 0, 0, "quasi")
    assert np.array_equal(np.sort(order), np.arange(2000))
    assert not np.array_equal(order, epoch_order(shard, 0, 1, "quasi"))
    windows = shard[order].reshape(-1, 50 * WINDOW)
    assert all(len(np.unique(window)) == WINDOW for window in windows)
    assert len(np.unique(shard[order][:50])) > WINDOW // 2, "samples are mixed within a window"


@each_backend
def test_quasi_random_batches(drawn_data, backend):
    with load(drawn_data, backend, order="quasi") as loader:
        labels = torch.cat([labels for _, labels in loader])
    assert np.array_equal(np.sort(labels.numpy()), np.sort(Samples(Dataset(drawn_data), "train").label))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "sorted"}, "order is 'sorted'.* random or quasi"),
        ({"on_error": "ignore"}, "on_error is 'ignore'.* raise or skip"),
    ],
)
def test_unknown_options(drawn_data, options, message):
    with pytest.raises(InputError, match=message):
        load(drawn_data, **options)


def test_a_backend_that_is_not_installed(drawn_data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ffcv.loader", None)
    with pytest.raises(InputError, match=r"backend ffcv: .*ffcv.md"):
        load(drawn_data, "ffcv")
