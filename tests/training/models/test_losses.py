"""The hierarchical losses against direct implementations, and against cross-entropy where they are equal to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imgtool import wordnet
from imgtool.training.models.losses import (
    LOSSES,
    HierarchicalCrossEntropy,
    SoftLabels,
    WordTree,
    make_loss,
)
from imgtool.wordnet.errors import InputError
from imgtool.wordnet.tasks.trees import Tree

pytestmark = pytest.mark.numeric

#          6
#        /   \
#       4     5      classes 0, 1, 2, 3 at nodes 0, 1, 2, 3
#      / \   / \
#     0   1 2   3
SMALL = Tree(np.array([4, 4, 5, 5, 6, 6, -1]), np.array([0, 1, 2, 3]))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Forests with classes at all leaves and at some inner nodes; the nodes are not in topological order."""
    n = draw(st.integers(1, 9))
    order = draw(st.permutations(range(n)))
    parent = [-1] * n
    for i, node in enumerate(order):
        parent[node] = draw(st.sampled_from([-1, *order[:i]]))
    leaves = set(range(n)) - set(parent)
    more = draw(st.sets(st.integers(0, n - 1)))
    return Tree(np.array(parent), np.array(draw(st.permutations(sorted(leaves | more)))))


def logits_of(shape: tuple[int, ...], seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hxe_by_hand(tree: Tree, alpha: float, logits: Tensor, label: int) -> float:
    """The definition in the docstring, in Python floats. A class with others below it is a leaf under its own node."""
    p = torch.softmax(logits, 0).tolist()
    path = [node for node in tree.paths[label].tolist() if node >= 0]
    below = tree.membership()
    mass = [sum(p[c] for c in range(len(p)) if below[c, node]) for node in path]
    steps = [(p[label], mass[0], len(path))]  # (p of the lower end, p of the upper, depth of the lower)
    steps += [(mass[i], mass[i + 1], len(path) - 1 - i) for i in range(len(path) - 1)]
    steps += [(mass[-1], 1.0, 0)]
    return sum(math.exp(-alpha * depth) * -math.log(low / high) for low, high, depth in steps)


def test_hxe_closed_form() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()  # p = .1 .2 .3 .4
    loss = HierarchicalCrossEntropy(SMALL, alpha=0.5)
    expected = math.exp(-1.0) * -math.log(0.1 / 0.3) + math.exp(-0.5) * -math.log(0.3 / 1.0)
    assert loss(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)
    expected = math.exp(-1.0) * -math.log(0.4 / 0.7) + math.exp(-0.5) * -math.log(0.7 / 1.0)
    assert loss(logits, torch.tensor([3])).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=60)
@given(trees(), st.integers(0, 99), st.sampled_from([0.0, 0.1, 1.0]))
def test_hxe_equals_its_definition(tree: Tree, seed: int, alpha: float) -> None:
    classes = tree.num_classes
    logits, labels = logits_of((classes, classes), seed), torch.arange(classes)
    expected = [hxe_by_hand(tree, alpha, logits[i], i) for i in range(classes)]
    ours = HierarchicalCrossEntropy(tree, alpha)(logits, labels).item()
    assert ours == pytest.approx(sum(expected) / classes, rel=1e-4, abs=1e-5)


@settings(max_examples=60)
@given(trees(), st.integers(0, 99))
def test_hxe_without_alpha_is_cross_entropy(tree: Tree, seed: int) -> None:
    logits = logits_of((7, tree.num_classes), seed).requires_grad_()
    labels = torch.arange(7) % tree.num_classes
    ours, plain = HierarchicalCrossEntropy(tree, 0.0)(logits, labels), F.cross_entropy(logits, labels)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-4, abs=1e-5)
    (gradient,), (expected,) = torch.autograd.grad(ours, logits), torch.autograd.grad(plain, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_hxe_on_a_flat_tree_is_scaled_cross_entropy() -> None:
    tree = Tree(np.array([5, 5, 5, 5, 5, -1]), np.arange(5))
    logits, labels = logits_of((6, 5), 0), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = math.exp(-0.3) * F.cross_entropy(logits, labels).item()
    assert HierarchicalCrossEntropy(tree, 0.3)(logits, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_large_logits_and_half_precision(name: str) -> None:
    loss = make_loss(name, wordnet.load())
    labels = torch.arange(4) * 250
    logits = logits_of((4, loss.outputs), 0, scale=300.0).to(torch.bfloat16).requires_grad_()
    value = loss(logits, labels)
    value.backward()
    assert value.dtype == torch.float32 and value.ndim == 0
    assert math.isfinite(value.item()) and value.item() > 0
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0


def test_soft_labels() -> None:
    distance = np.array([[0, 1, 2, 2], [1, 0, 2, 2], [2, 2, 0, 1], [2, 2, 1, 0]])
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    weights = [1.0, math.exp(-2.0), math.exp(-4.0), math.exp(-4.0)]  # beta 4, distances 0, 1/2, 1, 1
    expected = sum(w / sum(weights) * -math.log(p) for w, p in zip(weights, (0.1, 0.2, 0.3, 0.4), strict=True))
    assert SoftLabels(distance, beta=4.0)(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)
    logits, labels = logits_of((8, 4), 1), torch.arange(8) % 4
    sharp = SoftLabels(distance, beta=200.0)(logits, labels).item()
    assert sharp == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    uniform = SoftLabels(distance, beta=0.0)(logits, labels).item()
    assert uniform == pytest.approx(-F.log_softmax(logits, 1).mean().item(), rel=1e-5)


def test_soft_labels_of_imagenet() -> None:
    loss = make_loss("soft", wordnet.load(), beta=10)
    target = loss.target
    assert target.shape == (1000, 1000)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(1000))
    assert (target.argmax(dim=1) == torch.arange(1000)).all()
    tabby, tiger_cat, tench = 281, 282, 0
    assert target[tabby, tiger_cat] > target[tabby, tench]
    torch.testing.assert_close(
        target[tabby, tiger_cat] * target[tiger_cat].max(), target[tiger_cat, tabby] * target[tabby].max()
    )


def test_wordtree_closed_form() -> None:
    # siblings (0, 1), (2, 3) and (4, 5); a single root
    logits = torch.tensor([[1.0, 3.0, 1.0, 1.0, 3.0, 2.0, 9.0]]).log()
    loss = WordTree(SMALL)
    assert loss.outputs == 7
    expected = [0.6 * 0.25, 0.6 * 0.75, 0.4 * 0.5, 0.4 * 0.5]
    torch.testing.assert_close(loss.class_scores(logits).exp(), torch.tensor([expected]))
    for label, p in enumerate(expected):
        assert loss(logits, torch.tensor([label])).item() == pytest.approx(-math.log(p), rel=1e-5)


def test_wordtree_on_a_flat_tree_is_cross_entropy() -> None:
    tree = Tree(np.array([5, 5, 5, 5, 5, -1]), np.arange(5))
    logits, labels = logits_of((6, 6), 0), torch.tensor([0, 1, 2, 3, 4, 0])
    assert WordTree(tree)(logits, labels).item() == pytest.approx(
        F.cross_entropy(logits[:, :5], labels).item(), rel=1e-5
    )
    forest = Tree(np.full(5, -1), np.arange(5))  # roots are siblings
    assert WordTree(forest)(logits[:, :5], labels).item() == pytest.approx(
        F.cross_entropy(logits[:, :5], labels).item(), rel=1e-5
    )


@settings(max_examples=60)
@given(trees(), st.integers(0, 99))
def test_wordtree_probabilities(tree: Tree, seed: int) -> None:
    logits = logits_of((3, len(tree)), seed)
    loss = WordTree(tree)
    scores = loss.class_scores(logits).double()
    leaves = [i for i, node in enumerate(tree.class_nodes) if node not in tree.parent]
    torch.testing.assert_close(scores[:, leaves].exp().sum(1), torch.ones(3).double(), rtol=1e-4, atol=1e-5)
    below = tree.membership()
    for i, node in enumerate(tree.class_nodes):  # an inner class has the probability of all leaves below it
        inside = [leaf for leaf in leaves if below[leaf, node]]
        torch.testing.assert_close(scores[:, inside].exp().sum(1), scores[:, i].exp(), rtol=1e-4, atol=1e-5)
        value = loss(logits, torch.full((3,), i)).item()
        assert value == pytest.approx(-scores[:, i].mean().item(), rel=1e-4, abs=1e-5)


def test_make_loss() -> None:
    h = wordnet.load()
    logits, labels = logits_of((4, 1000), 0), torch.tensor([0, 151, 281, 999])
    plain = F.cross_entropy(logits, labels, label_smoothing=0.1).item()
    assert make_loss("ce", h, label_smoothing=0.1)(logits, labels).item() == pytest.approx(plain, rel=1e-5)
    assert [make_loss(name, h).outputs for name in LOSSES] == [1000, 1000, 1000, 1860]
    alpha0 = make_loss("hxe", h, alpha=0)(logits, labels).item()
    assert alpha0 == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    policies = ["longest", {"dog.n.01": "domestic_animal.n.01"}]
    longest, explicit = (make_loss("hxe", h, alpha=0.2, tree=tree)(logits, labels).item() for tree in policies)
    assert longest != explicit
    for name in LOSSES:
        assert make_loss(name, h).state_dict() == {}
        assert make_loss(name, h).class_scores(logits_of((2, make_loss(name, h).outputs), 0)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("focal", {}, "loss 'focal': choose one of ce, soft, hxe, wordtree"),
        ("hxe", {"beta": 1}, "'hxe' has no option 'beta': .* alpha, tree"),
        ("hxe", {"alpha": -1}, "alpha must be at least 0"),
        ("soft", {"beta": float("nan")}, "beta must be at least 0"),
        ("ce", {"label_smoothing": 1}, r"label_smoothing must be in \[0, 1\)"),
        ("wordtree", {"tree": "shortest"}, "tree policy 'shortest'"),
    ],
)
def test_wrong_options(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_loss(name, wordnet.load(), **options)
