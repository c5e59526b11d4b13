"""Label maps partition the classes; apply and aggregate follow their definitions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError
from imgtool.wordnet.graph.label_map import LabelMap

H = wordnet.load()
synsets = st.sampled_from([synset.name for synset in H])
label_lists = st.lists(st.integers(-1, 3), min_size=4, max_size=12).filter(
    lambda y: max(y) >= 0 and set(range(max(y) + 1)) <= set(y)
)


def small(labels: list[int]) -> LabelMap:
    names = [f"t{label}" for label in range(max(labels) + 1)]
    return LabelMap(names, [f"n{i:08d}" for i in range(len(labels))], labels)


def test_dogs_and_vehicles(h: Hierarchy) -> None:
    labels = h.labelmap({"dog": "dog.n.01", "vehicle": ["vehicle.n.01", "n02123045"]})
    assert (len(labels), labels.names, labels.wnids) == (2, ("dog", "vehicle"), tuple(h.wnids))
    assert np.flatnonzero(labels.of_class == 0).tolist() == h.classes(under="dog.n.01").tolist()
    assert np.flatnonzero(labels.of_class == 1).tolist() == h.classes(under=["vehicle.n.01", 281]).tolist()
    assert labels.of_class.dtype == np.int64 and (labels.of_class == -1).sum() == 1000 - 118 - 68
    assert repr(labels) == "<LabelMap of 1,000 classes to 2 targets, 814 dropped>"
    with pytest.raises(ValueError, match="read-only"):
        labels.of_class[0] = 1


def test_other(h: Hierarchy) -> None:
    labels = h.labelmap({"dog": "dog.n.01"}, other="other")
    assert labels.names == ("dog", "other") and np.bincount(labels.of_class).tolist() == [118, 882]
    assert h.labelmap({"all": "entity.n.01"}, other="other").names == ("all",)  # there are no others
    with pytest.raises(InputError, match="called 'other'"):
        h.labelmap({"other": "dog.n.01"}, other="other")
    with pytest.raises(InputError, match="must be 'drop' or 'other', not 'rest'"):
        h.labelmap({"dog": "dog.n.01"}, other="rest")  # type: ignore[arg-type]


def test_values_may_be_queries_and_lemmas(h: Hierarchy) -> None:
    labels = h.labelmap({"a": "dog.n.01 - poodle.n.01", "b": "domestic cat", "c": 3, "d": [4, "n01440764"]})
    assert np.bincount(labels.of_class + 1)[1:].tolist() == [115, len(h.classes(under="domestic cat")), 1, 2]


def test_the_nearest_target_wins(h: Hierarchy) -> None:
    for order in (["animal", "dog", "poodle"], ["poodle", "dog", "animal"]):
        labels = h.labelmap({name: f"{name}.n.01" for name in order})
        count = dict(zip(order, np.bincount(labels.of_class + 1)[1:].tolist(), strict=True))
        assert count == {"animal": 398 - 118, "dog": 115, "poodle": 3}


def test_a_target_within_two_that_overlap(h: Hierarchy) -> None:
    labels = h.labelmap({"a": [1, 2, 3], "b": [3, 4, 5], "c": 3})
    assert labels.of_class[1:6].tolist() == [0, 0, 2, 1, 1]


def test_clashes(h: Hierarchy) -> None:
    with pytest.raises(InputError, match=r"class 3, tiger shark \(n01491361\), falls under both 'a' and 'b' \(they"):
        h.labelmap({"a": [1, 2, 3], "b": [3, 4, 5]})
    with pytest.raises(InputError, match="under both 'a' and 'b'"):
        h.labelmap({"a": "dog.n.01", "b": "dog.n.01"})
    with pytest.raises(InputError, match=r"left without a class.*: dog"):
        h.labelmap({"dog": [1, 2], "one": 1, "two": 2})
    with pytest.raises(InputError, match=r"without a class in .*: none"):
        h.labelmap({"none": "cat.n.01 - cat.n.01"})
    with pytest.raises(InputError, match="needs targets"):
        h.labelmap({})
    with pytest.raises(UnknownSynsetError, match="nearest: poodle"):
        h.labelmap({"a": "poodel.n.01"})


@given(st.lists(synsets, min_size=1, max_size=6, unique=True), st.sampled_from(["drop", "other"]))
def test_partition(keys: list[str], other: Any) -> None:
    """Every class has at most one target: that of the smallest of the synsets above it."""
    under = {key: set(H.classes(under=key).tolist()) for key in keys}
    try:
        labels = H.labelmap({key: key for key in keys}, other=other)
    except InputError as error:
        overlaps = any(under[a] & under[b] and not (under[a] < under[b] or under[b] < under[a])
                       for a in keys for b in keys if a != b)  # fmt: skip
        assert overlaps or "left without a class" in str(error)
        return
    members = [set(np.flatnonzero(labels.of_class == label).tolist()) for label in range(-1, len(labels))]
    assert sum(map(len, members)) == 1000 and set().union(*members) == set(range(1000))
    assert all(members[1:])
    for index in range(1000):
        above = [key for key in keys if index in under[key]]
        nearest = min(above, key=lambda key: len(under[key])) if above else None
        label = labels.of_class[index]
        assert (labels.names[label] if label >= 0 else None) == (nearest or ("other" if other == "other" else None))


@given(label_lists)
def test_apply(of_class: list[int]) -> None:
    labels = small(of_class)
    y = np.arange(-1, len(of_class)).reshape(1, -1).astype(np.int16)
    applied = labels.apply(y)
    assert applied.dtype == np.int64 and applied.tolist() == [[-1, *of_class]]
    applied = labels.apply(torch.from_numpy(y))
    assert applied.dtype == torch.int64 and applied.tolist() == [[-1, *of_class]]


def test_apply_to_wrong_labels() -> None:
    labels = small([0, 1, -1])
    for wrap in (np.asarray, torch.tensor):
        for wrong in ([3], [0, -2]):
            with pytest.raises(InputError, match=f"label {wrong[-1]} is not a class index: .* 0 to 2"):
                labels.apply(wrap(wrong))
        with pytest.raises(InputError, match="integers, not"):
            labels.apply(wrap([0.5]))
        with pytest.raises(InputError, match="integers, not"):
            labels.apply(wrap([True]))


PLAIN: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "max": max,
    "logsumexp": lambda x: math.log(sum(map(math.exp, x))) if max(x) > -math.inf else -math.inf,
}


@given(label_lists, st.sampled_from(sorted(PLAIN)), st.data())
def test_aggregate(of_class: list[int], how: Any, data: st.DataObject) -> None:
    numbers = st.floats(-30, 30) | (st.just(-math.inf) if how == "logsumexp" else st.nothing())
    scores = np.array(data.draw(st.lists(numbers, min_size=2 * len(of_class), max_size=2 * len(of_class))))
    scores = scores.reshape(2, 1, -1)
    labels = small(of_class)
    groups = [[i for i, label in enumerate(of_class) if label == target] for target in range(len(labels))]
    expected = [[[PLAIN[how]([row[0][i] for i in group]) for group in groups]] for row in scores.tolist()]
    for found in (labels.aggregate(scores, how), labels.aggregate(torch.from_numpy(scores), how).numpy()):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_aggregate_keeps_types_and_gradients(h: Hierarchy) -> None:
    labels = h.labelmap({"dog": "dog.n.01"}, other="other")
    x = np.full((3, 1000), 1.001, np.float16)
    assert labels.aggregate(x).dtype == np.float16
    half = torch.full((3, 1000), 1.0, dtype=torch.bfloat16)
    assert (
        labels.aggregate(half).tolist() == [[118, 880]] * 3
    )  # 880 is the bfloat16 nearest to 882; summed in bfloat16 it would be 256
    logits = torch.randn(2, 1000, requires_grad=True)
    labels.aggregate(logits, "logsumexp")[:, 0].sum().backward()
    dogs = labels.of_class == 0
    probabilities = torch.softmax(logits.detach()[:, dogs], -1)
    assert torch.allclose(logits.grad[:, dogs], probabilities, atol=1e-6)
    assert not logits.grad[:, ~dogs].any()
    both = torch.softmax(labels.aggregate(logits, "logsumexp"), -1), labels.aggregate(torch.softmax(logits, -1), "sum")
    assert torch.allclose(*both, atol=1e-6)


def test_torch_stays_on_its_device(h: Hierarchy) -> None:
    """The meta device has no values, so reading one fails."""
    labels = h.labelmap({"dog": "dog.n.01"}, other="other")
    assert labels.apply(torch.zeros(3, 4, dtype=torch.int32, device="meta")).shape == (3, 4)
    for how in PLAIN:
        scores = torch.zeros(3, 1000, dtype=torch.bfloat16, device="meta")
        found = labels.aggregate(scores, how)  # type: ignore[arg-type]
        assert (found.shape, found.dtype, found.device.type) == ((3, 2), torch.bfloat16, "meta")


def test_wrong_arguments_of_aggregate(h: Hierarchy) -> None:
    labels = h.labelmap({"dog": "dog.n.01"})
    with pytest.raises(InputError, match=r"\[\.\.\., 1000\].*shape \[2, 999\]"):
        labels.aggregate(np.zeros((2, 999)))
    with pytest.raises(InputError, match=r"how must be .*'mean'"):
        labels.aggregate(np.zeros((2, 1000)), "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="floats, not int64"):
        labels.aggregate(np.zeros((2, 1000), np.int64))


def test_save_and_load(h: Hierarchy, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    for labels in (h.labelmap({"dög": "dog.n.01", "cat": "cat.n.01"}), h.labelmap({"z": 5, "a": 3}, other="other")):
        labels.save(path)
        loaded = LabelMap.load(path)
        assert loaded == labels and hash(loaded) == hash(labels) and loaded.names == labels.names
    assert labels != h.labelmap({"z": 5, "b": 3}, other="other") and labels != "labels"
    path.write_text('{"targets": {"b": ["n2", "folder"], "a": ["n1"]}}')  # written by hand
    assert LabelMap.load(path) == LabelMap(["b", "a"], ["folder", "n1", "n2"], [0, 1, 0])
    with pytest.raises(InputError, match="sorted"):
        LabelMap(["a"], ["n2", "n1"], [0, 0]).save(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "Expecting property name"),
        ("[]", "an object 'targets'"),
        ("{}", "an object 'targets'"),
        ('{"targets": ["a"]}', "an object 'targets'"),
        ('{"targets": {"a": "n1"}}', "must hold lists"),
        ('{"targets": {"a": [1]}}', "must hold lists"),
        ('{"targets": {}}', "needs targets"),
        ('{"targets": {"a": []}}', "needs classes"),
        ('{"targets": {"a": ["n1"], "b": []}}', "targets without a class: b"),
        ('{"targets": {"a": ["n1"], "b": ["n1"]}}', "classes given twice: n1"),
        ('{"targets": {"a": ["n1"], "a": ["n2"]}}', "given twice: a"),
        ('{"targets": {"a": ["n1"]}, "dropped": ["n1"]}', "classes given twice: n1"),
    ],
)
def test_files_that_are_not_label_maps(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"map.json: .*label map: .*{what}"):
        LabelMap.load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        LabelMap.load(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="as a label map"):
        LabelMap.load(tmp_path / "bytes.json")


def test_the_file_is_plain(h: Hierarchy, tmp_path: Path) -> None:
    h.labelmap({"b": [1], "a": [0]}).save(tmp_path / "map.json")
    content = json.loads((tmp_path / "map.json").read_text())
    assert list(content["targets"].items()) == [("b", ["n01443537"]), ("a", ["n01440764"])]
    assert len(content["dropped"]) == 998


@pytest.mark.parametrize(
    ("of_class", "what"),
    [
        ([0, 1], "3 integers"),
        ([0, 1, 0.5], "not float64"),
        ([0, 1, 2], "-1 to 1, .*from 0 to 2"),
        ([0, 1, -2], "from -2"),
        ([0, 0, -1], "targets without a class: b"),
    ],
)
def test_parts_that_do_not_fit(of_class: list[float], what: str) -> None:
    with pytest.raises(InputError, match=what):
        LabelMap(["a", "b"], ["n1", "n2", "n3"], of_class)
