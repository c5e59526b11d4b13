"""The published subsets, compared with their published lists."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.wordnet import Hierarchy, InputError
from imgtool.wordnet.imagenet.subsets import Subset, subset

Fact = Callable[[str], str]
NAMES = ["imagenet-a", "imagenet-r", "objectnet", "tiny-imagenet-200", "imagenette", "imagewoof"]


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_a_and_r(name: str, h: Hierarchy, fact: Fact) -> None:
    published = fact(f"{name.replace('-', '_')}_synsets.txt").split()
    ours = subset(name)
    assert list(ours.labels) == published and len(ours) == 200
    assert [h.wnids[index] for index in ours.to_in1k(np.arange(200))] == published
    assert ours.mask.sum() == 200 and ours.mask.dtype == np.bool_


def test_objectnet(fact: Fact) -> None:
    published = json.loads(fact("objectnet_to_in1k_indices.json"))["objectnet_113_to_in1k"]
    ours = subset("ObjectNet")
    assert {name: ours.classes(label).tolist() for label, name in enumerate(ours.labels)} == {
        name: sorted(indices) for name, indices in published.items()
    }
    assert list(ours.labels) == list(published) and len(ours) == 113
    assert ours.indices.tolist() == sorted(index for indices in published.values() for index in indices)
    assert len(ours.indices) == 125 and sum(len(indices) > 1 for indices in published.values()) == 9
    assert ours.to_in1k([[1, 2]]).tolist() == [[414, 954]]
    with pytest.raises(InputError, match="label 0 of objectnet, Alarm clock, holds 2 classes: 409, 530"):
        ours.to_in1k([1, 0])


def test_imagenette_and_imagewoof(h: Hierarchy) -> None:
    names = [h.name(index) for index in subset("imagenette").indices]
    assert names == [
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    ]
    assert subset("imagenette").indices.tolist() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    dogs = [h.name(index) for index in subset("imagewoof").indices]
    assert dogs == [
        *("Shih-Tzu", "Rhodesian ridgeback", "beagle", "English foxhound", "Border terrier"),
        *("Australian terrier", "golden retriever", "Old English sheepdog", "Samoyed", "dingo"),
    ]


def test_tiny_imagenet(h: Hierarchy) -> None:
    """Compares with lines of the published wnids.txt, and with the first and last of them in sorted order."""
    tiny = subset("tiny-imagenet-200")
    published = "n02124075 n04067472 n04540053 n04099969 n07749582 n01641577 n02802426 n09246464 n07920052 n03970156"
    assert set(published.split()) < set(tiny.labels)
    assert (tiny.labels[0], tiny.labels[-1], len(tiny)) == ("n01443537", "n12267677", 200)
    assert list(tiny.labels) == sorted(tiny.labels) and set(tiny.labels) < set(h.wnids)


@pytest.mark.parametrize("name", NAMES)
def test_partition(name: str) -> None:
    ours = subset(name)
    labels = ours.labelmap
    assert labels.names == ours.labels and (labels.of_class == ours.of_class).all()
    assert (ours.from_in1k(np.arange(1000)) == ours.of_class).all()
    assert (np.flatnonzero(ours.mask) == ours.indices).all()
    assert ours.source and str(len(ours)) in repr(ours)
    with pytest.raises(ValueError, match="read-only"):
        ours.of_class[0] = 0


@given(st.sampled_from([name for name in NAMES if name != "objectnet"]), st.data())
def test_there_and_back(name: str, data: st.DataObject) -> None:
    ours = subset(name)
    y = np.array(data.draw(st.lists(st.integers(0, len(ours) - 1))), np.int64)
    there = ours.to_in1k(y)
    assert there.dtype == np.int64 and ours.mask[there].all()
    assert (ours.from_in1k(there) == y).all()


def test_names_and_wrong_labels() -> None:
    assert subset("ImageNet_A") is subset("imagenet-a")
    assert isinstance(subset("Tiny ImageNet 200"), Subset)
    with pytest.raises(InputError, match=r"no subset 'imagenet-c': .*'imagenet-a'"):
        subset("imagenet-c")
    ours = subset("imagenette")
    with pytest.raises(InputError, match=r"10 is not a label of imagenette: .* 0 to 9"):
        ours.to_in1k([0, 10])
    with pytest.raises(InputError, match=r"-1 is not a class index: .* 0 to 999"):
        ours.from_in1k([0, -1])
    with pytest.raises(InputError, match="integers, not float64"):
        ours.from_in1k([0.5])
    with pytest.raises(InputError, match="10 is not a label"):
        ours.classes(10)
