"""Which classes a data set keeps: queries and label maps, in prepare and in reading."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from imgtool import wordnet
from imgtool.pipelines.dataset import Dataset
from imgtool.pipelines.dataset.selection import select
from imgtool.pipelines.loaders import open_loader
from imgtool.pipelines.prepare import prepare
from imgtool.pipelines.prepare.settings import Settings
from imgtool.pipelines.sources import open_source
from imgtool.wordnet.errors import DatasetError, InputError

ANIMALS = [
    "n02206856",
    "n02391049",
]  # bee and zebra; the other eight drawn classes are things, fruit and a mountain


@pytest.fixture(scope="module")
def drawn_wnids(drawn):
    return open_source(drawn).wnids


@pytest.fixture(scope="module")
def animals_and_artifacts(drawn_wnids):
    targets = {"thing": "artifact.n.01", "animal": "animal.n.01"}
    return wordnet.load(drawn_wnids).labelmap(targets)


def test_all_classes_by_default(drawn_wnids):
    selection = select(drawn_wnids)
    assert selection.wnids == drawn_wnids
    assert [selection.index_of[w] for w in drawn_wnids] == list(range(10))


def test_selecting_no_class_is_an_error(drawn_wnids):
    with pytest.raises(InputError, match=r"none of .*10 classes.*animal\.n\.01 - animal"):
        select(drawn_wnids, "animal.n.01 - animal.n.01")


def test_prepare_classes(drawn, tmp_path):
    out = tmp_path / "animals"
    settings = Settings(max_side=64, classes="animal.n.01")
    summary = prepare(drawn, out, settings, workers=1)
    dataset = Dataset(out)
    assert dataset.wnids == ANIMALS
    assert summary.stored == {"train": 16, "val": 4}
    for row in dataset.manifest("train").to_pylist():
        assert dataset.wnids[row["class_index"]] == row["wnids"][0]
    with open_loader(out, "val", batch_size=4, image_size=32) as loader:
        ((_, labels),) = loader
    assert collections.Counter(labels.tolist()) == {0: 2, 1: 2}
    assert prepare(drawn, out, settings, workers=1).already_complete
    with pytest.raises(DatasetError, match=r"other settings \(classes 'animal.n.01' → ''"):
        prepare(drawn, out, Settings(max_side=64), workers=1)


def test_prepare_with_a_label_map(drawn, tmp_path, animals_and_artifacts, drawn_wnids):
    out = tmp_path / "two"
    settings = Settings(max_side=64, label_map=animals_and_artifacts)
    prepare(drawn, out, settings, workers=1)
    dataset = Dataset(out)
    assert dataset.wnids == dataset.names == ["thing", "animal"]
    rows = dataset.manifest("train").to_pylist()
    h = wordnet.load(drawn_wnids)
    for row in rows:
        hypernym = "animal.n.01" if row["class_index"] else "artifact.n.01"
        assert h.is_a(row["wnids"][0], hypernym)
    assert sum(row["class_index"] for row in rows) == 16
    assert dataset.class_table["train_count"].to_pylist() == [len(rows) - 16, 16]
    assert prepare(drawn, out, settings, workers=1).already_complete
    with pytest.raises(DatasetError, match="another label map"):
        prepare(drawn, out, Settings(max_side=64), workers=1)


def test_a_label_map_on_a_prepared_data_set(drawn_data, animals_and_artifacts):
    """The same targets without preparing again: dropped samples are left out, the others get their target's label."""
    plain, gathered = Dataset(drawn_data), Dataset(drawn_data, animals_and_artifacts)
    assert gathered.wnids == ["thing", "animal"]
    assert gathered.fingerprint != plain.fingerprint
    kept_classes = animals_and_artifacts.of_class >= 0
    assert gathered.num_samples("train") == 8 * kept_classes.sum() < plain.num_samples("train")
    options = {"batch_size": 100, "image_size": 32}
    with open_loader(plain, "val", **options) as loader, open_loader(gathered, "val", **options) as other:
        ((images, labels),) = loader
        ((kept, targets),) = other
    mapped = animals_and_artifacts.apply(labels.numpy())
    assert targets.tolist() == mapped[mapped >= 0].tolist()
    assert np.array_equal(kept.numpy(), images.numpy()[mapped >= 0])


def test_a_label_map_of_other_classes_is_refused(drawn_data):
    cats = wordnet.load(["n02123045", "n02124075"]).labelmap({"cat": "cat.n.01"})
    with pytest.raises(InputError, match="does not know n02206856"):
        Dataset(drawn_data, cats)
