"""The metrics, in numpy and in torch, compared with plain definitions over sets of ancestors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError, metrics, orders
from imgtool.wordnet.metrics import Evaluation, evaluate, pairs

pytestmark = pytest.mark.numeric

Fact = Callable[[str], str]

torch = pytest.importorskip("torch")
KINDS: list[Callable[[Any], Any]] = [np.asarray, lambda x: torch.as_tensor(np.asarray(x))]


@st.composite
def answers(draw: st.DrawFn) -> tuple[Hierarchy, np.ndarray, np.ndarray]:
    """A random graph, some of whose classes are above others; ranked predictions [N, K]; labels [N]."""
    rows = draw(st.lists(st.integers(0, 82_114), min_size=1, max_size=12, unique=True))
    if draw(st.booleans()):  # classes near each other
        rows = sorted({*rows, *(70_000 + row % 40 for row in rows)})
    h = wordnet.load([wordnet.load("full").tables.wnid(row) for row in rows])
    n, k = draw(st.integers(1, 8)), draw(st.integers(1, h.num_classes))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    ranked = np.stack([rng.permutation(h.num_classes)[:k] for _ in range(n)])
    return h, ranked, rng.integers(0, h.num_classes, n)


def at_or_above(h: Hierarchy, index: int) -> set[int]:
    return {h[index].node, *(synset.node for synset in h[index].ancestors())}


def height_of_lca(h: Hierarchy, a: int, b: int) -> int:
    return 0 if a == b else min(int(h.heights[node]) for node in at_or_above(h, a) & at_or_above(h, b))


@settings(max_examples=60)
@given(answers(), st.sampled_from(KINDS), st.booleans())
def test_definitions_by_sets_of_ancestors(
    drawn: tuple[Hierarchy, np.ndarray, np.ndarray], kind: Callable[[Any], Any], tables: bool
) -> None:
    h, ranked, labels = drawn
    k = ranked.shape[1]
    pairs.MAX_TABLE_CLASSES, before = (4096 if tables else 0), pairs.MAX_TABLE_CLASSES
    try:
        scores, y = kind(ranked), kind(labels)
        heights = [[height_of_lca(h, label, p) for p in row] for label, row in zip(labels, ranked, strict=True)]
        assert float(metrics.hierarchical_distance(h, scores, y, k)) == pytest.approx(np.mean(heights))

        first = ranked[:, 0]
        severity = metrics.mistake_severity(h, scores, y)
        wrong = [row[0] for row, p, label in zip(heights, first, labels, strict=True) if p != label]
        assert severity.count == len(wrong)
        assert float(severity) == pytest.approx(np.mean(wrong)) if wrong else math.isnan(float(severity))

        root = next(synset.node for synset in h if not synset.parents + synset.instance_of)
        sets = [(at_or_above(h, p) - {root}, at_or_above(h, t) - {root}) for p, t in zip(first, labels, strict=True)]
        both, predicted, true = (sum(map(len, s)) for s in zip(*((p & t, p, t) for p, t in sets), strict=True))
        prf = metrics.hierarchical_precision_recall(h, scores, y)
        for name, a, b in (("precision", both, predicted), ("recall", both, true), ("f1", 2 * both, predicted + true)):
            value = float(prf[f"hierarchical_{name}"])
            assert value == pytest.approx(a / b) if b else math.isnan(value)

        by_depth = metrics.depth_accuracy(h, scores, y).value
        depth = h.depths[1]

        def lifted(index: int, d: int) -> set[int]:
            return {node for node in at_or_above(h, index) if depth[node] == d} or {h[index].node}

        deepest = max(h[i].depth[1] for i in range(h.num_classes))
        expected = [
            np.mean([bool(lifted(p, d) & lifted(t, d)) for p, t in zip(first, labels, strict=True)])
            for d in range(deepest + 1)
        ]
        assert by_depth == pytest.approx(expected)
        assert list(expected) == sorted(expected, reverse=True)
        assert expected[-1] == float(metrics.top_k_accuracy(scores, y))
    finally:
        pairs.MAX_TABLE_CLASSES = before


def test_known_values(h: Hierarchy) -> None:
    tabby, tiger_cat, cougar = 281, 282, 286
    assert float(metrics.mistake_severity(h, [tiger_cat], [tabby])) == h.heights[h["domestic_cat.n.01"].node] == 1
    assert float(metrics.mistake_severity(h, [cougar], [tabby])) == h.heights[h["cat.n.01"].node] == 2
    severity = metrics.mistake_severity(h, [tabby, cougar, tiger_cat], [tabby] * 3)
    assert (float(severity), severity.count) == (1.5, 2)
    assert float(metrics.hierarchical_distance(h, [[tabby, cougar, tiger_cat]], [tabby], k=3)) == 1.0
    assert metrics.mistake_severity(h, [0], [0]).to_dict()["value"] is None
    assert "height" in severity.convention and "micro" in str(metrics.hierarchical_precision_recall(h, [0], [0]))


def test_a_mistake_may_be_near_by_depth_and_far_by_height(h: Hierarchy) -> None:
    by_depth = h.heights[h.lca_matrix("depth")]
    by_height = h.class_matrix("lca_height")
    a, b = (int(i) for i in np.argwhere(by_depth > by_height)[0])
    assert float(metrics.mistake_severity(h, [a], [b])) == by_height[a, b] < by_depth[a, b]


def test_depth_of_imagenet(h: Hierarchy) -> None:
    values = metrics.depth_accuracy(h, np.arange(1000)[::-1].copy(), np.arange(1000)).value
    assert isinstance(values, tuple) and len(values) == 19 and values[0] == 1 and values[-1] == 0
    animal = h["animal.n.01"].depth[1]
    right = metrics.depth_accuracy(h, [0], [397]).value  # tench and puffer are both fish
    assert isinstance(right, tuple) and right[animal] == 1 and right[-1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_top_k(kind: Callable[[Any], Any]) -> None:
    scores = np.random.default_rng(0).permutation(60).reshape(4, 15).astype(np.float32)
    expected = np.argsort(-scores, axis=1)
    for k in (1, 2, 5, 14, 15):
        assert metrics.top_k(kind(scores), k).tolist() == expected[:, :k].tolist()
    assert metrics.top_k(kind(expected), 3).tolist() == expected[:, :3].tolist()
    labels = expected[np.arange(4), [0, 1, 4, 5]]
    accuracies = [float(metrics.top_k_accuracy(kind(scores), kind(labels), k)) for k in (1, 2, 5, 6)]
    assert accuracies == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_superclasses(h: Hierarchy, kind: Callable[[Any], Any]) -> None:
    dogs, cats = h.classes(under="dog.n.01"), h.classes(under="cat.n.01")
    labels = np.array([dogs[0], dogs[1], cats[0], cats[1], dogs[2], 999])
    predictions = np.array([dogs[5], cats[0], cats[0], 999, dogs[2], dogs[0]])
    c = metrics.confusion(h, kind(predictions), kind(labels), ["dog.n.01", "cat.n.01"])
    assert c.names == ["dog.n.01", "cat.n.01"] and c.counts.tolist() == [[2, 1], [0, 1]]
    assert c.outside.tolist() == [0, 1] and c.count == 5
    lm = h.labelmap({"dogs": "dog.n.01", "cats": "cat.n.01"})
    for superclasses in (["dog.n.01", "cat.n.01"], {"d": "dog.n.01", "c": "cat.n.01"}, lm):
        accuracy = metrics.superclass_accuracy(h, kind(predictions), kind(labels), superclasses)
        assert (float(accuracy), accuracy.count) == (3 / 5, 5)
    assert math.isnan(float(metrics.superclass_accuracy(h, kind([0]), kind([0]), lm)))
    with pytest.raises(InputError, match="not have the classes of"):
        metrics.confusion(wordnet.load(["n02084071"]), [0], [0], lm)
    with pytest.raises(UnknownSynsetError):
        metrics.confusion(h, [0], [0], ["dgo.n.01"])


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_confusion_counts_every_image(seed: int) -> None:
    h = wordnet.load()
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 1000, (2, 50))
    c = metrics.confusion(h, predictions, labels, ["animal.n.01", "artifact.n.01"])
    of = [set(h.classes(under=key).tolist()) for key in ("animal.n.01", "artifact.n.01")]
    for i, rows in enumerate(of):
        inside = [p for p, t in zip(predictions.tolist(), labels.tolist(), strict=True) if t in rows]
        assert c.counts[i].tolist() == [sum(p in columns for p in inside) for columns in of]
        assert c.counts[i].sum() + c.outside[i] == len(inside)


@pytest.mark.parametrize("kind", KINDS)
def test_real(fact: Fact, kind: Callable[[Any], Any]) -> None:
    real = json.loads(fact("real.json"))
    ids = np.array(fact("ILSVRC2012_validation_ground_truth.txt").split(), np.int64)
    labels = orders.convert(ids, "ilsvrc2012_id", "sorted")
    accuracy = metrics.real_accuracy(kind(labels), real)
    assert accuracy.count == 50_000 - 3_163
    hits = sum(label in given for label, given in zip(labels.tolist(), real, strict=True))
    assert float(accuracy) == hits / accuracy.count
    assert 0.89 < float(accuracy) < 0.91  # the original labels, about 90% right by ReaL
    assert float(metrics.real_accuracy(kind([given[-1] if given else 0 for given in real]), real)) == 1.0
    with pytest.raises(InputError, match="50,000 lists"):
        metrics.real_accuracy(kind(labels[:5]), real)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_give_the_same_result_as_one_array(h: Hierarchy, kind: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 1000)).astype(np.float32)
    labels = np.where(rng.random(300) < 0.5, scores.argmax(axis=1), rng.integers(0, 1000, 300))
    real = [[int(label)] if label % 3 else [] for label in labels]
    at_once = evaluate(h, kind(scores), kind(labels), superclasses=["animal.n.01", "artifact.n.01"], real=real)
    parts = Evaluation(h, superclasses=["animal.n.01", "artifact.n.01"], real=real)
    batch, y = np.empty((128, 1000), np.float32), np.empty(128, np.int64)
    for start in (0, 128, 256):  # from memory that is reused, with a shorter last batch
        size = len(labels[start : start + 128])
        batch[:size], y[:size] = scores[start : start + 128], labels[start : start + 128]
        parts.update(kind(batch[:size]), kind(y[:size]))
        parts.update(kind(batch[:0]), kind(y[:0]))
    assert parts.result() == at_once
    assert list(at_once) == [
        *("top1", "top5", "hierarchical_distance@1", "hierarchical_distance@5", "mistake_severity"),
        *("hierarchical_precision", "hierarchical_recall", "hierarchical_f1", "depth_accuracy"),
        *("superclass_accuracy", "real_accuracy"),
    ]
    assert at_once["depth_accuracy"].value[-1] == float(at_once["top1"])  # type: ignore[index]
    assert all(metric.convention for metric in at_once.values())
    json.dumps({name: metric.to_dict() for name, metric in at_once.items()}, allow_nan=False)


def test_numpy_and_torch_agree(h: Hierarchy) -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.standard_normal((64, 1000)).astype(np.float32), rng.integers(0, 1000, 64)
    assert evaluate(h, scores, labels) == evaluate(h, torch.tensor(scores), labels)
    assert evaluate(h, scores, labels.astype(np.int16)) == evaluate(h, scores, torch.tensor(labels))
    half = evaluate(h, torch.tensor(scores).bfloat16(), torch.tensor(labels, dtype=torch.int32))
    assert half["top1"].count == 64


def test_which_k(h: Hierarchy) -> None:
    assert [name for name in evaluate(h, [3], [3]) if name.startswith("top")] == ["top1"]
    ranked = evaluate(h, [[3, 4, 5]], [5], k=(1, 2, 3))
    assert [float(ranked[name]) for name in ("top1", "top2", "top3")] == [0, 0, 1]
    few = wordnet.load(["n02084071", "n02121808", "n01440764"])
    results = evaluate(few, np.eye(3), [0, 1, 2])
    assert float(results["top5"]) == 1.0  # of three classes: top-3, as usual
    assert results["top5"].convention == "the label is among the first 3 predictions"
    with pytest.raises(InputError, match=r"k=5 .*only 1"):
        evaluate(h, [3], [3], k=(5,))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 999)), [0, 1], "scores of 999 classes for a hierarchy of 1,000"),
        ([0, 1000], [0, 1], "prediction 1000 is not a class index: they go from 0 to 999"),
        ([0, 1], [0, -1], "label -1 is not a class index"),
        ([0, 1], [0], "2 images have predictions but"),
        ([], [], "no images"),
        (np.zeros((0, 1000)), [], "no images"),
        ([0, 1], [0.0, 1.0], "labels must be class indices"),
        ([0.5, 1.0], [0, 1], r"scores must be floats \[N, C\]"),
        ([["a"]], [0], "neither scores nor class indices"),
    ],
)
def test_wrong_input(h: Hierarchy, scores: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics.mistake_severity(h, scores, labels)
    with pytest.raises(InputError, match=message):
        evaluate(h, scores, labels)


def test_wrong_k(h: Hierarchy) -> None:
    with pytest.raises(InputError, match=r"k must be from 1 to 1, .*predictions, not 2"):
        metrics.hierarchical_distance(h, [0], [0], k=2)
    with pytest.raises(InputError, match=r"k must be from 1 to 3, .*classes, not 0"):
        metrics.top_k_accuracy(np.eye(3), [0, 1, 2], k=0)
    with pytest.raises(InputError, match=r"k must be .*at least 1"):
        Evaluation(h, k=())


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 99), st.sampled_from(KINDS), st.data())
def test_equal_scores_are_ordered_by_class_index(
    n: int, classes: int, seed: int, kind: Callable[[Any], Any], data: st.DataObject
) -> None:
    """Which of them a partial sort takes would depend on the processor and the library."""
    scores = np.random.default_rng(seed).integers(0, 4, (n, classes)).astype(np.float32)
    k = data.draw(st.integers(1, classes))
    expected = [sorted(range(classes), key=lambda c, row=row: (-row[c], c))[:k] for row in scores.tolist()]
    assert np.asarray(metrics.top_k(kind(scores), k)).tolist() == expected


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_nan_counts_as_the_highest_score(kind, k):
    rows = np.array([[1, np.nan, 2, 2, 2, 0], [np.nan] * 6, [0, 0, np.nan, 0, np.nan, -np.inf]], np.float32)
    expected = np.array([[1, 2, 3, 4, 0, 5], [0, 1, 2, 3, 4, 5], [2, 4, 0, 1, 3, 5]])
    np.testing.assert_array_equal(np.asarray(metrics.top_k(kind(rows), k)), expected[:, :k])
