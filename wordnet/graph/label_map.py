"""Label maps: mappings of a data set's classes to the targets of another task."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError, listed
from imgtool.wordnet.graph.types import Keys, SynsetGraph

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int64]
T = TypeVar("T", npt.NDArray[Any], "torch.Tensor")

DROPPED = -1


class LabelMap:
    """An immutable mapping of each class to a target. Create one with `Hierarchy.labelmap`, `load`, or from its parts.

    `len` is the number of targets. Label maps with equal attributes are equal.

    Attributes:
        names: the names of the targets, in the order of their labels.
        wnids: the wnid of each class, in class order.
        of_class: int64 [classes], read-only: the target's label for each class, -1 where the class is dropped.

    Raises:
        InputError: `of_class` does not have one label for each wnid, or has one outside -1 … targets - 1; a target has
            no class; or a name or a wnid occurs twice.
    """

    def __init__(self, names: Iterable[str], wnids: Iterable[str], of_class: npt.ArrayLike) -> None:
        self.names = tuple(names)
        self.wnids = tuple(wnids)
        labels = np.array(of_class)
        for what, items in (("targets", self.names), ("classes", self.wnids)):
            twice = [item for item, count in Counter(items).items() if count > 1]
            if twice or not items:
                raise InputError(
                    f"{what} given twice: {listed(twice)}" if twice else f"a label map needs {what}, but has none"
                )
        if labels.shape != (len(self.wnids),) or labels.dtype.kind not in "iu":
            raise InputError(
                f"of_class must be {len(self.wnids):,} integers, one per class, not {labels.dtype} {list(labels.shape)}"
            )
        if labels.min() < DROPPED or labels.max() >= len(self.names):
            raise InputError(
                f"of_class must be from -1 to {len(self.names) - 1}, but goes from {labels.min()} to {labels.max()}"
            )
        empty = [name for label, name in enumerate(self.names) if label not in set(labels.tolist())]
        if empty:
            raise InputError(f"targets without a class: {listed(empty)}")
        self.of_class: IntArray = labels.astype(np.int64)
        self.of_class.setflags(write=False)

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, LabelMap) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        dropped = int((self.of_class == DROPPED).sum())
        return f"<LabelMap of {len(self.wnids):,} classes to {len(self):,} targets, {dropped:,} dropped>"

    def apply(self, labels: T) -> T:
        """Converts class indices to the labels of targets.

        Args:
            labels: class indices, or -1 for no label: integers of any shape, in a numpy array or a torch tensor.

        Returns:
            int64 of the same shape and on the same device: labels of targets, -1 where the class is dropped or was -1.

        Raises:
            InputError: labels that are not integers or not class indices. Values on a GPU are not checked, because that
                would synchronise with it; there, a label that is too high is an index error of the device.
        """
        if isinstance(labels, np.ndarray):
            if labels.dtype.kind not in "iu":
                raise InputError(f"labels must be integers, not {labels.dtype}")
            self._check(labels)
            return np.append(DROPPED, self.of_class)[labels.astype(np.int64) + 1]
        import torch

        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InputError(f"labels must be integers, not {labels.dtype}")
        if labels.device.type == "cpu":
            self._check(labels.numpy())
        table = torch.from_numpy(np.append(DROPPED, self.of_class)).to(labels.device)
        return table[labels.long() + 1]

    def aggregate(self, scores: T, how: Literal["sum", "max", "logsumexp"] = "sum") -> T:
        """Computes the scores of the targets from those of their classes. Dropped classes are ignored.

        Args:
            scores: floats [..., classes], in a numpy array or a torch tensor.
            how: `"sum"` for probabilities, `"max"` for any scores, `"logsumexp"` for logits: the softmax of the result
                is the sum over each target's classes of the softmax over all classes that are not dropped.

        Returns:
            [..., targets], of the same dtype and on the same device. Half precision is summed in single precision.

        Raises:
            InputError: an unknown `how`, or scores that are not floats [..., classes].
        """
        if how not in ("sum", "max", "logsumexp"):
            raise InputError(f"how must be 'sum', 'max' or 'logsumexp', not {how!r}")
        if not scores.ndim or scores.shape[-1] != len(self.wnids):
            raise InputError(
                f"scores must be [..., {len(self.wnids)}], one per class, but have shape {list(scores.shape)}"
            )
        kept = np.flatnonzero(self.of_class != DROPPED)
        kept = kept[np.argsort(self.of_class[kept], kind="stable")]  # so that the classes of a target are adjacent
        if isinstance(scores, np.ndarray):
            if scores.dtype.kind != "f":
                raise InputError(f"scores must be floats, not {scores.dtype}")
            return _aggregate_numpy(scores, kept, self.of_class[kept], how)
        if not scores.is_floating_point():
            raise InputError(f"scores must be floats, not {scores.dtype}")
        return _aggregate_torch(scores, kept, self.of_class[kept], how)

    def to_dict(self) -> dict[str, Any]:
        """Converts the label map to a dictionary for JSON.

        Returns:
            `{"targets": {name: [wnid, …], …}, "dropped": [wnid, …]}`, the targets in the order of their labels.

        Raises:
            InputError: the wnids are not sorted. The format does not store their order.
        """
        if list(self.wnids) != sorted(self.wnids):
            raise InputError(
                "cannot save this label map: its wnids are not sorted, and the file format does not store their order"
            )
        members = {label: np.flatnonzero(self.of_class == label) for label in range(DROPPED, len(self))}
        wnids = {label: [self.wnids[index] for index in indices] for label, indices in members.items()}
        return {"targets": {name: wnids[label] for label, name in enumerate(self.names)}, "dropped": wnids[DROPPED]}

    def save(self, path: str | Path) -> None:
        """Writes `to_dict` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, content: Any) -> LabelMap:
        """Creates a label map from what `to_dict` returns.

        Raises:
            InputError: content of another form, or a class that is listed twice.
        """
        if not isinstance(content, dict) or not isinstance(targets := content.get("targets"), dict):
            raise InputError("the JSON must be an object with an object 'targets'")
        dropped = content.get("dropped", [])
        if not all(map(_is_list_of_str, [*targets.values(), dropped])):
            raise InputError("targets and dropped must hold lists of wnids")
        members = [(wnid, label) for label, wnids in enumerate(targets.values()) for wnid in wnids]
        members = sorted(members + [(wnid, DROPPED) for wnid in dropped])
        return cls(targets, [wnid for wnid, _ in members], np.array([label for _, label in members], np.int64))

    @classmethod
    def load(cls, path: str | Path) -> LabelMap:
        """Reads a file that `save` wrote, or another one of the same form.

        Raises:
            InputError: the file cannot be read, is not of this form, or lists a class twice.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_refuse_duplicate_keys)
            return cls.from_dict(content)
        except (OSError, ValueError, RecursionError, InputError) as error:
            raise InputError(f"{path}: cannot be read as a label map: {error}") from error

    def _key(self) -> tuple[tuple[str, ...], tuple[str, ...], bytes]:
        return self.names, self.wnids, self.of_class.tobytes()

    def _check(self, labels: npt.NDArray[Any]) -> None:
        wrong = labels[(labels < DROPPED) | (labels >= len(self.wnids))]
        if wrong.size:
            raise InputError(
                f"label {wrong.flat[0]} is not a class index: they go from 0 to {len(self.wnids) - 1} (-1: none)"
            )


def labelmap(h: SynsetGraph, targets: Mapping[str, Keys], other: Literal["drop", "other"] = "drop") -> LabelMap:
    """Creates a label map of the classes of `h`; see `Hierarchy.labelmap`."""
    if other not in ("drop", "other"):
        raise InputError(f"other must be 'drop' or 'other', not {other!r}")
    if not targets:
        raise InputError("a label map needs targets, but has none")
    if other == "other" and "other" in targets:
        raise InputError("a target is called 'other', which is the name of the target for all other classes; rename it")
    names = list(targets)
    member = np.zeros((len(names), h.num_classes), np.bool_)
    for row, value in zip(member, targets.values(), strict=True):
        is_query = isinstance(value, str) and value not in h
        row[h.query(str(value)) if is_query else h.classes(under=value)] = True
    sizes = member.sum(axis=1)
    if not sizes.all():
        nothing = [name for name, size in zip(names, sizes, strict=True) if not size]
        raise InputError(f"targets without a class in {h!r}: {listed(nothing)}")
    # The smallest target of each class must be a proper subset of all other targets that the class is in.
    of_class = np.where(member, sizes[:, None], h.num_classes + 1).argmin(axis=0)
    shared = (member.astype(np.float32) @ member.T.astype(np.float32)).astype(np.int64)  # classes in common
    nested = (shared == sizes[None, :]) & (sizes[:, None] > sizes[None, :])  # [outer, inner]
    np.fill_diagonal(nested, True)
    clash = member & ~nested[:, of_class]
    if clash.any():
        index = int(np.flatnonzero(clash.any(axis=0))[0])
        a, b = sorted((int(of_class[index]), int(np.flatnonzero(clash[:, index])[0])))
        raise InputError(
            f"class {index}, {h.name(index)} ({h.wnids[index]}), falls under both {names[a]!r} and {names[b]!r} (they "
            f"share {shared[a, b]:,} classes), and neither contains the other: take it out of one, as in 'a - b'"
        )
    of_class[~member.any(axis=0)] = DROPPED
    emptied = [name for label, name in enumerate(names) if not (of_class == label).any()]
    if emptied:
        raise InputError(
            f"targets left without a class, because more specific targets take all of theirs: {listed(emptied)}"
        )
    if other == "other" and (of_class == DROPPED).any():
        of_class[of_class == DROPPED] = len(names)
        names.append("other")
    return LabelMap(names, h.wnids, of_class)


def _aggregate_numpy(scores: npt.NDArray[Any], kept: IntArray, label: IntArray, how: str) -> npt.NDArray[Any]:
    starts = np.searchsorted(label, np.arange(label[-1] + 1))
    x = scores[..., kept].astype(np.float32 if scores.dtype == np.float16 else scores.dtype, copy=False)
    if how == "sum":
        return np.asarray(np.add.reduceat(x, starts, axis=-1).astype(scores.dtype))
    top = np.maximum.reduceat(x, starts, axis=-1)
    if how == "logsumexp":
        shift = np.where(np.isfinite(top), top, 0)  # a target whose classes are all -inf stays -inf
        with np.errstate(divide="ignore"):
            top = np.log(np.add.reduceat(np.exp(x - shift[..., label]), starts, axis=-1)) + shift
    return np.asarray(top.astype(scores.dtype))


def _aggregate_torch(scores: torch.Tensor, kept: IntArray, label: IntArray, how: str) -> torch.Tensor:
    import torch

    columns = torch.from_numpy(kept).to(scores.device)
    x = scores.index_select(-1, columns)
    if scores.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    index = torch.from_numpy(label).to(scores.device)
    spread = index.expand(x.shape)
    empty = x.new_zeros((*x.shape[:-1], int(label[-1]) + 1))
    if how == "sum":
        return empty.scatter_add(-1, spread, x).to(scores.dtype)
    top = empty.scatter_reduce(-1, spread, x, "amax", include_self=False)
    if how == "logsumexp":
        shift = torch.where(top.isfinite(), top, 0.0).detach()
        top = empty.scatter_add(-1, spread, (x - shift.index_select(-1, index)).exp()).log() + shift
    return top.to(scores.dtype)


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"given twice: {listed(twice)}")
    return dict(pairs)


def _is_list_of_str(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
