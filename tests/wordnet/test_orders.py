"""The 1000 classes and their numbers, against the development kit's."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.wordnet import InputError, orders

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


@given(st.lists(st.integers(0, 999)))
def test_there_and_back(y: list[int]) -> None:
    ids = orders.convert(y, "sorted", "ilsvrc2012_id")
    assert ids.tolist() == [orders.ilsvrc2012_ids()[label] for label in y]
    assert orders.convert(ids, "ilsvrc2012_id", "sorted").tolist() == y


def test_shapes() -> None:
    assert int(orders.convert(0, "sorted", "ilsvrc2012_id")) == 449
    assert orders.convert(np.array([[1], [2]], np.uint8), "ilsvrc2012_id", "sorted").shape == (2, 1)
    assert orders.convert([7, 8], "sorted", "sorted").tolist() == [7, 8]


def test_wrong_labels() -> None:
    with pytest.raises(InputError, match=r"label 0 is outside 1 to 1000, .* which fits 'sorted'"):
        orders.convert([5, 0, 999], "ilsvrc2012_id", "sorted")
    with pytest.raises(InputError, match=r"label 1000 is outside 0 to 999, .* which fits 'ilsvrc2012_id'"):
        orders.convert([1, 1000], "sorted", "ilsvrc2012_id")
    with pytest.raises(InputError, match="no order known"):
        orders.convert([-1], "sorted", "ilsvrc2012_id")
    with pytest.raises(InputError, match="float64"):
        orders.convert([0.5], "sorted", "ilsvrc2012_id")
    with pytest.raises(InputError, match="unknown order 'tf'"):
        orders.convert([0], "tf", "sorted")


def test_what_is_returned_is_ones_own() -> None:
    orders.ilsvrc2012_ids()[:] = 0
    assert orders.ilsvrc2012_ids()[0] == 449
