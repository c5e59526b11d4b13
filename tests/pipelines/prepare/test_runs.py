"""The order of samples: random over classes, and still read in runs."""

from __future__ import annotations

import io
import itertools
import math
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.prepare import runs
from imgtool.pipelines.prepare.plan import make_plan
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.records import RUN_BYTES, Locator, Record, from_table, to_table
from imgtool.pipelines.sources import open_source
from imgtool.pipelines.storage.folders import LocalFile


def sorted_by_class(classes: int, per_class: int, size: int, rows_per_group: int = 0) -> pa.Table:
    """Records of one tar, or of one parquet file with row groups of so many rows, one class after the other."""
    records = []
    for i in range(classes * per_class):
        place = Locator("train.tar", f"{i}.jpg", i * (size + 512), size)
        if rows_per_group:
            group, row = divmod(i, rows_per_group)
            place = Locator(
                "train.parquet", f"row {i}", group * rows_per_group * size, 0, f"parquet:{group}:{row}:image"
            )
        records.append(Record(str(i), (str(i // per_class),), place))
    return to_table(records).combine_chunks()


def arranged(records: pa.Table, labels: np.ndarray, per_shard: int) -> list[np.ndarray]:
    """The rows of each shard, as `make_plan` arranges them."""
    chosen = np.arange(records.num_rows)
    bounds = [*range(0, len(chosen), per_shard), len(chosen)]
    run = runs.runs_of(records, chosen, labels, max(1, per_shard // runs.RUNS_PER_SHARD))
    order = runs.shuffled(runs.order(run, (0, 0, 1)), bounds, (0, 0, 2))
    assert (np.sort(order) == chosen).all()
    return [order[begin:end] for begin, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize(
    ("classes", "per_class", "size", "group", "per_shard"),
    [
        (1000, 130, 110_000, 0, 4700),  # ImageNet-1k, a tenth of it: runs of a megabyte
        (200, 500, 2_000, 0, 12_500),  # Tiny-ImageNet: a megabyte would be a whole class
        (10, 100, 5_000, 0, 1000),
        (200, 500, 2_000, 1000, 12_500),  # row groups sorted by class are cut
    ],
)
def test_a_shard_has_nearly_the_classes_of_a_random_one(classes, per_class, size, group, per_shard):
    """The bound that docs/scale.md states: C (1 - exp(-R / C)) for R runs, less chance."""
    records = sorted_by_class(classes, per_class, size, group)
    labels = np.arange(classes * per_class) // per_class
    runs_per_shard = min(per_shard, runs.GROUPS_PER_SHARD if group else runs.RUNS_PER_SHARD)
    bound = classes * (1 - math.exp(-runs_per_shard / classes))
    for rows in arranged(records, labels, per_shard)[:-1]:
        assert len(set(labels[rows])) >= 0.85 * bound
        halves = [len(set(labels[half])) for half in np.array_split(rows, 2)]  # shuffled within, too
        assert min(halves) >= 0.75 * bound


def test_row_groups_stay_whole_where_their_rows_are_mixed():
    records = sorted_by_class(100, 100, 110_000, rows_per_group=50)
    labels = np.random.default_rng(0).integers(0, 100, 10_000)
    for rows in arranged(records, labels, 1000):
        _, sizes = np.unique(rows // 50, return_counts=True)
        assert (sizes < 50).sum() <= 2, "only where a shard begins and ends"


def test_a_run_is_a_megabyte_of_neighbours():
    records = sorted_by_class(2, 50, 110_000)
    chosen = np.arange(100)
    run = runs.runs_of(records, chosen, np.zeros(100, np.int64), 100)
    assert (np.diff(run) >= 0).all()
    assert run[-1] + 1 == math.ceil(100 * 110_512 / RUN_BYTES)
    folders = to_table([Record(str(i), ("a",), Locator(f"a/{i}.jpg", "", 0, 9)) for i in range(5)])
    assert runs.runs_of(folders, np.arange(5), np.zeros(5, np.int64), 100).tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(0, 5), max_size=50), st.integers(0, 9))
def test_the_order_keeps_runs_whole(run, seed):
    numbered = np.unique(np.array(run, np.int64), return_inverse=True)[1].astype(np.int64)
    order = runs.order(numbered, (seed,))
    assert sorted(order.tolist()) == list(range(len(run)))
    assert len(list(itertools.groupby(numbered[order].tolist()))) == len(set(run))


class Counting(LocalFile):
    """A file that counts its reads."""

    reads, read_bytes = 0, 0

    def read(self, offset: int, size: int) -> bytes:
        Counting.reads += 1
        data = super().read(offset, size)
        Counting.read_bytes += len(data)
        return data


@pytest.mark.parametrize("form", ["tar", "parquet", "zip"])
def test_a_shard_reads_each_run_once(tmp_path: Path, encoded, draw_image, monkeypatch, form):
    """400 images of 10 to 20 kB, in 4 shards: many images per read, and hardly more bytes than there are."""
    images = [encoded(draw_image(96, 96, seed), "PNG") for seed in range(8)]
    rows = [(i // 40, f"n{i // 40:08d}_{i}", images[i % 8]) for i in range(400)]
    if form == "parquet":
        values = [{"bytes": data, "path": f"{key}.png"} for _, key, data in rows]
        table = pa.table({"image": values, "label": [label for label, _, _ in rows]})
        pq.write_table(table, tmp_path / "train.parquet", row_group_size=50)
    elif form == "zip":
        import zipfile

        with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
            for label, key, data in rows:
                archive.writestr(f"train/n{label:08d}/{key}.png", data)
    else:
        with tarfile.open(tmp_path / "s.tar", "w") as archive:
            for label, key, data in rows:
                info = tarfile.TarInfo(f"train/n{label:08d}/{key}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    src = tmp_path / {"parquet": "train.parquet", "tar": "s.tar", "zip": "s.zip"}[form]
    plan = make_plan(open_source(src), Settings())
    split = plan.splits["train"]
    split.bounds = [0, 100, 200, 300, 400]
    monkeypatch.setattr("imgtool.pipelines.storage.folders.LocalFile", Counting)
    by_key = {key: data for _, key, data in rows}
    for shard in plan.shards():
        task = plan.task(shard, str(tmp_path / "out"))
        Counting.reads = Counting.read_bytes = 0
        records = list(from_table(task.records))
        with LocatorReader(task.root) as reader:
            found = list(reader.read_many(record.locator for record in records))
        assert [by_key[record.key] for record in records] == found
        total = sum(map(len, by_key.values()))
        # of 100 images; of parquet also the footer, and the page headers of 8 row groups or so
        assert Counting.reads <= (40 if form == "parquet" else 8)
        assert Counting.read_bytes <= 1.3 * total
        keys = split.records["key"].take(split.order[shard.begin : shard.end]).to_pylist()
        assert [records[i].key for i in task.order] == keys
