"""Losses: cross-entropy, and losses that use the hierarchy. `make_loss` makes one by name.

Every loss is a module: ``loss(logits [N, outputs], labels int64 [N])`` → the mean over the images, a float32 scalar. It
is computed in float32 whatever the logits' type.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtool.wordnet import Hierarchy, load
from imgtool.wordnet.errors import InputError, UnknownSynsetError
from imgtool.wordnet.tasks.trees import Tree, make_tree

Array = npt.NDArray[Any]


class Loss(nn.Module):
    """The base class of all losses.

    Attributes:
        outputs: the number of logits per image.
    """

    outputs: int

    def class_scores(self, logits: Tensor) -> Tensor:
        """Returns float32 [N, classes], by which classes are ranked: the logits themselves, except in WordTree."""
        return logits.float()


class CrossEntropy(Loss):
    """-log softmax(logits)[label], with the label smoothing of `torch.nn.functional.cross_entropy`."""

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        self.outputs, self.label_smoothing = num_classes, label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)


class SoftLabels(Loss):
    """Cross-entropy with the soft labels of Bertinetto et al., "Making Better Mistakes" (2020).

    The target of label y is the softmax over classes c of ``-beta * distance[y, c]``. A large ``beta`` approaches
    one-hot labels, 0 gives uniform ones.

    Args:
        distance: [C, C], 0 on the diagonal; it is divided by its maximum.
    """

    target: Tensor

    def __init__(self, distance: npt.ArrayLike, beta: float = 15.0) -> None:
        super().__init__()
        if not 0 <= beta < float("inf"):
            raise InputError(f"beta must be at least 0, not {beta}")
        d = np.asarray(distance, np.float64)
        if d.ndim != 2 or d.shape[0] != d.shape[1]:
            raise InputError(f"distances must be [classes, classes], not {list(d.shape)}")
        weights = np.exp(-beta * d / max(d.max(initial=0), np.finfo(float).tiny))
        self.outputs = len(d)
        target = torch.from_numpy(weights / weights.sum(axis=1, keepdims=True)).float()
        self.register_buffer("target", target, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -(self.target[labels] * F.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()


class HierarchicalCrossEntropy(Loss):
    """HXE of Bertinetto et al., "Making Better Mistakes" (2020). For label y, with its path up the tree, it is

        -sum over the path's nodes n except the root of exp(-alpha * depth(n)) * log p(n | parent of n)

    where p(n) is the softmax over classes, summed over the classes at or below n. With ``alpha`` 0 the sum telescopes
    to cross-entropy; a larger one emphasises the coarse levels. The weight depends on the distance from the root, as in
    the authors' program (their text says "height"). Their program also divides the weights by their sum over the tree.
    That is omitted here, because it only scales the learning rate. A class with other classes below it counts as a leaf
    under its own node.
    """

    level: Tensor
    weight: Tensor

    def __init__(self, tree: Tree, alpha: float = 0.1) -> None:
        super().__init__()
        if not 0 <= alpha < float("inf"):
            raise InputError(f"alpha must be at least 0, not {alpha}")
        self.outputs = tree.num_classes
        level, weight = _path_levels(tree, alpha)
        self.register_buffer("level", torch.from_numpy(level), persistent=False)
        self.register_buffer("weight", torch.from_numpy(weight).float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        # the classes below the path's node l are those whose branch leaves the label's path at l or lower
        at_level = _group_logsumexp(logits.float(), self.level[labels].long(), self.weight.shape[1] + 1)
        below = torch.logcumsumexp(at_level, dim=1)
        return (self.weight[labels] * below.diff(dim=1)).sum(dim=1).mean()


class WordTree(Loss):
    """Conditional probabilities along the tree: Redmon and Farhadi, "YOLO9000" (2016).

    The network has one logit per node. A softmax over each group of siblings gives p(node | parent). A class's
    probability is the product of these down its path, and the loss is minus its logarithm. An only child has p = 1, as
    has a single root; several roots are siblings. As in the paper, the path of a class with other classes below it ends
    at its own node: its probability includes theirs.
    """

    group: Tensor
    paths: Tensor

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self.outputs = len(tree)
        # groups are numbered by parent + 1, that of the roots is 0; paths are padded with an extra node of log p = 0
        self.register_buffer("group", torch.from_numpy(tree.parent + 1), persistent=False)
        paths = np.where(tree.paths >= 0, tree.paths, len(tree))
        self.register_buffer("paths", torch.from_numpy(paths), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -self._conditional(logits).gather(1, self.paths[labels]).sum(dim=1).mean()

    def class_scores(self, logits: Tensor) -> Tensor:
        """Returns the log-probabilities of the classes."""
        conditional = self._conditional(logits)
        scores = conditional[:, self.paths[:, 0]]
        for step in range(1, self.paths.shape[1]):
            scores = scores + conditional[:, self.paths[:, step]]
        return scores

    def _conditional(self, logits: Tensor) -> Tensor:
        """Returns float32 [N, nodes + 1]: log p(node | parent) per node, and 0 for the padding."""
        logits = logits.float()
        group = self.group.expand_as(logits)
        return F.pad(logits - _group_logsumexp(logits, group, self.outputs + 1).gather(1, group), (0, 1))


def _group_logsumexp(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """Returns [N, groups]: the logarithm of the sum of exp(x) over each group, a very low number for an empty group.

    Args:
        x: [N, n].
        group: int64 [N, n], 0 to groups - 1.
    """
    empty = torch.full((len(x), groups), torch.finfo(x.dtype).min / 4, dtype=x.dtype, device=x.device)
    top = empty.scatter_reduce(1, group, x.detach(), "amax")
    total = torch.zeros_like(top).scatter_add(1, group, (x - top.gather(1, group)).exp())
    return top + total.where(total > 0, torch.ones_like(total)).log()


def _path_levels(tree: Tree, alpha: float) -> tuple[Array, Array]:
    """Returns the levels and weights of HXE.

    Returns:
        int16 [C, C]: the number of steps up from class y to the lowest node that also has class c below it. 0 is class
        y itself, 1 its own node, and so on; a level above the root joins several roots;
        float64 [C, steps]: the weight of each step up y's path, 0 beyond the root.
    """
    below = tree.membership().T
    on_path = tree.paths >= 0
    level = np.ones((tree.num_classes,) * 2, np.int16)
    for nodes, exists in zip(tree.paths.T, on_path.T, strict=True):
        level += exists[:, None] & ~below[nodes]  # a class below a node is below all its ancestors too
    np.fill_diagonal(level, 0)
    # A step's weight depends on the depth of its lower end. The lowest step, to class y's own node, matters only if
    # other classes are below that node.
    depth = np.where(on_path, tree.depth[tree.paths], 0)
    weight = np.exp(-alpha * np.concatenate([depth[:, :1] + 1, depth], axis=1))
    weight[:, 1:][~on_path] = 0
    return level, weight


def _cross_entropy(h: Hierarchy, label_smoothing: float = 0.0) -> CrossEntropy:
    return CrossEntropy(h.num_classes, label_smoothing)


def _soft_labels(h: Hierarchy, beta: float = 15.0) -> SoftLabels:
    distance = h.class_matrix("lca_height").copy()
    np.fill_diagonal(distance, 0)
    return SoftLabels(distance, beta)


def _hxe(h: Hierarchy, alpha: float = 0.1, tree: str | Mapping[Any, Any] = "longest") -> HierarchicalCrossEntropy:
    return HierarchicalCrossEntropy(make_tree(h, tree), alpha)


def _word_tree(h: Hierarchy, tree: str | Mapping[Any, Any] = "longest") -> WordTree:
    return WordTree(make_tree(h, tree))


_MAKERS: dict[str, Callable[..., Loss]] = {
    "ce": _cross_entropy,
    "soft": _soft_labels,
    "hxe": _hxe,
    "wordtree": _word_tree,
}
LOSSES = tuple(_MAKERS)


def from_spec(spec: str, wnids: Sequence[str], label_smoothing: float = 0.0) -> Loss:
    """Returns the loss of a recipe or of ``--loss`` for these classes: ``"hxe"``, ``"hxe:alpha=0.2,tree=first"``.

    Only cross-entropy uses ``label_smoothing``. Raises InputError as `make_loss` does, for a malformed ``spec``, and
    for a hierarchical loss on classes that are not in WordNet.
    """
    name, _, text = spec.partition(":")
    options: dict[str, Any] = {}
    for option in filter(None, text.split(",")):
        key, equals, value = option.partition("=")
        if not equals:
            raise InputError(f"loss {spec!r}: option {option!r} must be NAME=VALUE")
        try:
            options[key.strip()] = float(value)
        except ValueError:
            options[key.strip()] = value.strip()
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    if name == "ce":
        options = {"label_smoothing": label_smoothing, **options}
        _check_options(name, options)
        return CrossEntropy(len(wnids), **options)
    try:
        hierarchy = load(list(wnids))
    except UnknownSynsetError as error:
        raise InputError(f"loss {name!r} needs classes that are in WordNet: {error}") from None
    return make_loss(name, hierarchy, **options)


def make_loss(name: str, hierarchy: Hierarchy, **options: Any) -> Loss:
    """Returns a loss for the hierarchy's classes.

    Args:
        name: one of these, with its options and their defaults

            - ``"ce"``: cross-entropy; ``label_smoothing`` (0);
            - ``"soft"``: soft labels by LCA height on the whole graph; ``beta`` (15);
            - ``"hxe"``: hierarchical cross-entropy; ``alpha`` (0.1) and ``tree`` ("longest"), the policy of
              :func:`imgtool.wordnet.tasks.trees.make_tree`;
            - ``"wordtree"``: conditional probabilities, with one logit per node; ``tree``.

    Returns:
        a module. Its tables are buffers, which ``.to(device)`` moves and state dicts omit.

    Raises:
        InputError: unknown loss or option, or a value out of range.
    """
    if name not in _MAKERS:
        raise InputError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    _check_options(name, options)
    return _MAKERS[name](hierarchy, **options)


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises InputError for an option that the loss does not have, or one that must be a number and is none."""
    known = dict(list(inspect.signature(_MAKERS[name]).parameters.items())[1:])
    for key, value in sorted(options.items()):
        if key not in known:
            raise InputError(f"loss {name!r} has no option {key!r}: its options are {', '.join(known)}")
        if isinstance(known[key].default, float) != isinstance(value, int | float):
            kind = "a number" if isinstance(known[key].default, float) else "a name"
            raise InputError(f"loss {name!r}: {key} must be {kind}, not {value!r}")
