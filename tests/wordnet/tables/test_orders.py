"""The orders of the 1000 classes, compared with the development kit."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.wordnet import Hierarchy, InputError, load, orders

pytestmark = pytest.mark.numeric

Fact = Callable[[str], str]


def test_columns(fact: Fact) -> None:
    wnids = orders.ilsvrc2012_wnids()
    assert wnids == fact("ilsvrc2012_wnids.txt").split()
    assert dict(zip(wnids, orders.ilsvrc2012_ids().tolist(), strict=True)) == json.loads(
        fact("ilsvrc2012_id_by_wnid.json")
    )
    assert dict(zip(wnids, orders.ilsvrc2012_train_counts().tolist(), strict=True)) == json.loads(
        fact("train_counts_by_wnid.json")
    )
    assert orders.ilsvrc2012_train_counts().sum() == 1_281_167


def test_validation_ground_truth(fact: Fact) -> None:
    ids = np.array(fact("ILSVRC2012_validation_ground_truth.txt").split(), np.int32)
    y = orders.convert(ids, "ilsvrc2012_id", "sorted")
    assert y.dtype == np.int64 and y.shape == (50_000,)
    assert (np.bincount(y, minlength=1000) == 50).all()
    assert y[0] == 65  # ILSVRC2012_val_00000001 is a sea snake, n01751748
    assert (orders.convert(y, "sorted", "ilsvrc2012_id") == ids).all()


RANGES = {
    "sorted": (0, 999),
    "ilsvrc2012_id": (1, 1000),
    "tf_slim": (0, 1000),
    "darknet": (0, 999),
    "in22k": (0, 21_840),
    "in22k_ms": (0, 21_841),
}
IN1K = ["sorted", "ilsvrc2012_id", "tf_slim", "darknet"]
TEDDY = 850


def wnids_of(order: str) -> dict[int, str]:
    """Maps labels to wnids, by the definitions, without the background."""
    in1k = orders.ilsvrc2012_wnids()
    ids = orders.ilsvrc2012_ids().tolist()
    if order.startswith("in22k"):
        in22k = load("in22k").wnids
        return dict(enumerate(in22k if order == "in22k" else in1k + sorted(set(in22k) - set(in1k))))
    first = {"sorted": 0, "tf_slim": 1}
    labels = range(first[order], 1000 + first[order]) if order in first else ids
    return {label - (order == "darknet"): wnid for label, wnid in zip(labels, in1k, strict=True)}


@pytest.mark.parametrize("src", RANGES)
@pytest.mark.parametrize("dst", RANGES)
def test_every_pair(src: str, dst: str) -> None:
    """All labels of an order, compared with its definition by wnids."""
    low, high = RANGES[src]
    y = np.arange(low, high + 1)
    label_of = {wnid: label for label, wnid in wnids_of(dst).items()}
    expected = [label_of.get(wnids_of_src, -1) for wnids_of_src in map(wnids_of(src).get, y.tolist())]  # type: ignore
    if src == dst == "tf_slim":
        expected[0] = 0  # background stays background
    assert orders.convert(y, src, dst, missing=-1).tolist() == expected


@given(st.lists(st.integers(0, 999)), st.lists(st.sampled_from([*IN1K, "in22k_ms"]), max_size=5))
def test_there_and_back(y: list[int], way: list[str]) -> None:
    """Conversion through any orders that have all 1000 classes."""
    way = ["sorted", *way, "sorted"]
    labels = np.array(y, np.int64)
    for src, dst in pairwise(way):
        labels = orders.convert(labels, src, dst)
    assert labels.tolist() == y


@given(st.lists(st.integers(0, 21_840)))
def test_22k_there_and_back(y: list[int]) -> None:
    there = orders.convert(y, "in22k", "in22k_ms")
    assert TEDDY not in there.tolist()
    assert orders.convert(there, "in22k_ms", "in22k").tolist() == y
    in1k = orders.convert(y, "in22k", "sorted", missing=-1)
    back = orders.convert(in1k[in1k >= 0], "sorted", "in22k")
    assert back.tolist() == np.array(y)[in1k >= 0].tolist()


def test_darknet_begins_as_published(h: Hierarchy) -> None:
    names = [h.name(index) for index in orders.convert([0, 1, 2], "darknet", "sorted").tolist()]
    assert names == ["kit fox", "English setter", "Siberian husky"]


def test_22k_ms_as_published() -> None:
    """Compares with lines of the published labelmap_22k_reorder.txt."""
    wnids = load("in22k").wnids
    for wnid, label in {"n01440764": 0, "n04398044": 849, "n04404412": 851, "n15075141": 999, "n00004475": 1000,
                        "n00005787": 1001, "n15102455": 21_840, "n15102894": 21_841}.items():  # fmt: skip
        assert orders.convert(label, "in22k_ms", "in22k") == wnids.index(wnid)


def test_classes_that_an_order_does_not_have() -> None:
    with pytest.raises(InputError, match=r"label 0 of order 'tf_slim' is background, which order 'sorted' does not"):
        orders.convert([5, 0], "tf_slim", "sorted")
    assert orders.convert([5, 0], "tf_slim", "sorted", missing=-1).tolist() == [4, -1]
    with pytest.raises(InputError, match=r"label 850 of order 'sorted' is n04399382, which order 'in22k' does not"):
        orders.convert([0, TEDDY], "sorted", "in22k")
    with pytest.raises(InputError, match=r"label 0 of order 'in22k' is n00004475, .* \(2 of 3 labels\)"):
        orders.convert([359, 0, 1], "in22k", "ilsvrc2012_id")
    with pytest.raises(InputError, match="850"):
        orders.convert(TEDDY, "in22k_ms", "in22k")
    assert orders.convert(TEDDY, "in22k_ms", "sorted") == TEDDY


def test_shapes() -> None:
    assert int(orders.convert(0, "sorted", "ilsvrc2012_id")) == 449
    assert orders.convert(np.array([[1], [2]], np.uint8), "ilsvrc2012_id", "sorted").shape == (2, 1)
    assert orders.convert([7, 8], "sorted", "sorted").tolist() == [7, 8]


def test_wrong_labels() -> None:
    with pytest.raises(InputError, match=r"label 1000 .* which fits 'ilsvrc2012_id' or 'tf_slim'$"):
        orders.convert([1, 1000], "darknet", "sorted")
    with pytest.raises(InputError, match=r"label 21840 .* which fits 'in22k' or 'in22k_ms'$"):
        orders.convert([1, 21_840], "sorted", "in22k")
    with pytest.raises(InputError, match=r"label 0 is outside 1 to 1000, .* which fits 'sorted'"):
        orders.convert([5, 0, 999], "ilsvrc2012_id", "sorted")
    with pytest.raises(InputError, match=r"label 1000 is outside 0 to 999, .* which fits 'ilsvrc2012_id'"):
        orders.convert([1, 1000], "sorted", "ilsvrc2012_id")
    with pytest.raises(InputError, match="no known order"):
        orders.convert([-1], "sorted", "ilsvrc2012_id")
    with pytest.raises(InputError, match="float64"):
        orders.convert([0.5], "sorted", "ilsvrc2012_id")
    with pytest.raises(InputError, match="unknown order 'tf'"):
        orders.convert([0], "tf", "sorted")


def test_results_are_copies() -> None:
    orders.ilsvrc2012_ids()[:] = 0
    assert orders.ilsvrc2012_ids()[0] == 449
