"""The loaders' protocol, for every backend, and the native backend compared with the torchvision reference."""

from __future__ import annotations

import collections
import shutil
import threading

import numpy as np
import pytest
import torch

from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.loaders import BACKENDS, missing, open_loader
from imgtool.wordnet.errors import DatasetError, ImageError, InputError

pytestmark = pytest.mark.numeric

ABSENT = {backend: missing(backend) for backend in BACKENDS}
each_backend = pytest.mark.parametrize(
    "backend",
    [pytest.param(b, marks=pytest.mark.skipif(why is not None, reason=str(why))) for b, why in ABSENT.items()],
)


def load(data, split="train", backend="native", batch_size=16, image_size=48, **options):
    return open_loader(data, split, batch_size=batch_size, image_size=image_size, backend=backend, **options)


def everything(loader):
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@each_backend
@pytest.mark.parametrize(("split", "drop_last", "sizes"), [("train", False, [32, 32, 16]), ("train", True, [32, 32])])
def test_batches(drawn_data, backend, split, drop_last, sizes):
    with load(drawn_data, split, backend, batch_size=32, drop_last=drop_last) as loader:
        batches = list(loader)
        assert len(loader) == len(sizes)
    assert [len(labels) for _, labels in batches] == sizes
    for images, labels in batches:
        assert images.shape == (len(labels), 3, 48, 48)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)


@each_backend
@pytest.mark.parametrize("split", ["train", "val"])
def test_each_sample_once_per_epoch(drawn_data, backend, split):
    dataset = Dataset(drawn_data)
    with load(dataset, split, backend) as loader:
        _, labels = everything(loader)
    rows = dataset.manifest(split)
    assert collections.Counter(labels.tolist()) == collections.Counter(rows["class_index"].to_pylist())
    assert len(labels) == dataset.num_samples(split)


@each_backend
def test_validation_is_in_stored_order_and_the_same_each_epoch(drawn_data, backend):
    rows = Dataset(drawn_data).manifest("val")
    with load(drawn_data, "val", backend) as loader:
        images, labels = everything(loader)
        loader.set_epoch(1)
        again, _ = everything(loader)
    assert labels.tolist() == rows["class_index"].to_pylist()
    assert torch.equal(images, again)


@each_backend
def test_order_and_crops_depend_on_seed_and_epoch(drawn_data, backend):
    with load(drawn_data, backend=backend) as loader, load(drawn_data, backend=backend, seed=1) as other:
        first, labels = everything(loader)
        again, _ = everything(loader)
        loader.set_epoch(1)
        second, labels_2 = everything(loader)
        elsewhere, _ = everything(other)
    assert torch.equal(first, again)
    assert not torch.equal(labels, labels_2)
    assert not torch.equal(first, second)
    assert not torch.equal(first, elsewhere)


def test_threads_do_not_matter(drawn_data):
    results = []
    for threads in (1, 3):
        with load(drawn_data, num_workers=threads) as loader:
            results.append(everything(loader)[0])
    assert torch.equal(*results)


@each_backend
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_partition_each_global_batch(drawn_data, backend, world_size):
    """The union of the ranks' batches is the batch of a single process, with the same pixels."""
    with load(drawn_data, backend=backend, batch_size=12 * world_size) as whole:
        expected = [images for images, _ in whole]
    ranks = []
    for rank in range(world_size):
        with load(drawn_data, backend=backend, batch_size=12, rank=rank, world_size=world_size) as loader:
            ranks.append([images for images, _ in loader])
            assert len(loader) == len(ranks[-1])
    for number, images in enumerate(expected):
        merged = torch.empty_like(images)
        for rank, batches in enumerate(ranks):
            if number < len(batches):
                merged[rank::world_size] = batches[number]
        assert torch.equal(merged, images)


@each_backend
def test_a_stopped_run_resumes_at_the_next_sample(drawn_data, backend):
    with load(drawn_data, backend=backend) as loader:
        loader.set_epoch(3)
        whole = list(loader)
        iterator = iter(loader)
        next(iterator), next(iterator)
        state = loader.state_dict()
        iterator.close()
    with load(drawn_data, backend=backend) as resumed:
        resumed.load_state_dict(state)
        resumed.set_epoch(3)
        rest = list(resumed)
        assert len(rest) == len(whole) - 2
        for (images, labels), (expected, expected_labels) in zip(rest, whole[2:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)
        assert len(list(resumed)) == len(whole), "the next epoch is complete"


@each_backend
def test_image_size_changes_between_epochs(drawn_data, backend):
    with load(drawn_data, backend=backend) as loader:
        next(iter(loader))
        loader.image_size = 32
        assert everything(loader)[0].shape[-2:] == (32, 32)


def test_batches_do_not_share_memory(drawn_data):
    with load(drawn_data) as loader:
        kept = [images for images, _ in loader]
        copies = [images.clone() for images in kept]
        list(loader)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_leaving_early_leaves_no_thread(drawn_data):
    before = set(threading.enumerate())
    with load(drawn_data, batch_size=4) as loader:
        for _ in loader:
            break
    assert set(threading.enumerate()) <= before


def test_native_is_close_to_the_reference_on_drawn_images(drawn_data):
    """Edges between saturated colours: the worst case for resampling chroma at its stored resolution."""
    compare(drawn_data, "train", mean=2, worst=4)
    compare(drawn_data, "val", mean=2, worst=4)


def test_native_is_close_to_the_reference_on_real_images(mini, tmp_path):
    """Same crops of 600 real images: mean absolute difference about 0.55 of 255, and no difference in brightness."""
    from imgtool.pipelines.prepare import prepare

    prepare(mini, tmp_path / "mini", workers=2)
    compare(tmp_path / "mini", "train", size=160, mean=1, worst=2.5)
    compare(tmp_path / "mini", "val", size=224, mean=1, worst=2.5)


def compare(data, split, mean, worst, size=48):
    with load(data, split, image_size=size) as native, load(data, split, "torchvision", image_size=size) as reference:
        ours, labels = everything(native)
        theirs, expected = everything(reference)
    assert torch.equal(labels, expected)
    difference = (ours.int() - theirs.int()).flatten(1).float()
    per_image = difference.abs().mean(1)
    assert per_image.mean() < mean
    assert per_image.max() < worst
    assert difference.mean().abs() < 0.05


def test_the_error_names_the_corrupt_sample(drawn_data, tmp_path):
    shutil.copytree(drawn_data, tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    (path,) = dataset.shards("val")
    row = dataset.manifest("val").to_pylist()[7]
    from imgtool.pipelines.shards.beton import BetonReader

    reader = BetonReader(path)
    at, size = int(reader.offset[7]), int(reader.size[7])
    with open(path, "r+b") as file:
        file.seek(at + size // 2)
        file.write(b"\xff\xd9" * (size // 4))  # the data ends early; zeros could be valid codes
    with load(dataset, "val") as loader, pytest.raises(ImageError, match=f"sample 7 \\({row['key']}\\).*damaged"):
        list(loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "nonsense"}, "backend 'nonsense'.* auto, native"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"num_workers": 0}, "num_workers is 0"),
        ({"rank": 2, "world_size": 2}, "rank 2"),
    ],
)
def test_wrong_arguments(drawn_data, options, message):
    with pytest.raises(InputError, match=message):
        load(drawn_data, **options)


def test_wrong_data(drawn_data, tmp_path):
    with pytest.raises(DatasetError, match="no data set here"):
        load(tmp_path)
    with pytest.raises(DatasetError, match=r"no split 'test'.* train, val"):
        load(drawn_data, "test")
    shutil.copytree(drawn_data, tmp_path / "data")
    (tmp_path / "data/train/00000.beton").unlink()
    with pytest.raises(DatasetError, match=r"00000\.beton: No such file"):
        load(tmp_path / "data")
    (tmp_path / "data/dataset.json").write_text('{"format": 99}')
    with pytest.raises(DatasetError, match="format version 99"):
        load(tmp_path / "data")
    (tmp_path / "data/dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="not a data set's description"):
        load(tmp_path / "data")


def test_labels_are_those_of_the_images(drawn_data, drawn):
    """From archive to batch: the stored image is a smaller copy of its source and has the source's label."""
    from imgtool.pipelines import codec
    from imgtool.pipelines.archives.reader import LocatorReader
    from imgtool.pipelines.sources import open_source

    source = open_source(drawn)
    records = {r.key: r for r in source.records("val")}
    keys = Dataset(drawn_data).manifest("val")["key"].to_pylist()
    with load(drawn_data, "val") as loader, LocatorReader(source.root) as reader:
        images, labels = everything(loader)
        for key, image, label in zip(keys, images, labels.tolist(), strict=True):
            assert source.wnids[label] == records[key].wnids[0]
            want = codec.center_crop(codec.decode(reader.read(records[key].locator)), 48)
            assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - want).mean() < 4
