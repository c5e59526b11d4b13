"""Finds the folders of splits and classes among the folders that hold images.

A class folder is one that holds images, at any depth. Its class is its name if no two class folders have the same name
(train/animal/dog → dog), else its path below the split (animal/crane, machine/crane). Another split may have the class
in fewer folders (val/dog). A last folder for images of all kinds, the same for every class (train/n01443537/images), is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.records import SPLIT_NAMES
from imgtool.pipelines.sources.layout import SPLITS
from imgtool.wordnet.errors import SourceError

COLLECTIONS = ("data", "image", "images", "img", "imgs", "jpeg", "jpegimages", "jpegs", "jpg", "photos", "pictures")
"""Names of folders for images of all classes, in lower case."""


def folders_of(names: Iterable[str]) -> list[str]:
    """Returns the folders that hold these files, "" for the top, each once in order."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in names))


def find_splits(folders: list[str], where: str) -> dict[str, str] | None:
    """Returns the folder of each split, with a slash at its end, in the order of SPLITS.

    ``folders`` hold images. Returns {"train": ""} if the classes' folders are not divided into splits, and None if
    there are no class folders. Raises SourceError if several folders could be the same split.
    """
    parts = [folder.split("/") for folder in folders if folder]
    above = _above(parts, ("train",))
    if len(above) > 1:
        names = ", ".join("/".join(path) or "." for path in above)
        raise SourceError(f"{where}: has several train folders, in {names}; give one of these folders")
    if not above and len(others := _above(parts, SPLITS)) == 1:
        above = others
    for top in above:
        beside = dict.fromkeys(p[len(top)] for p in parts if tuple(p[: len(top)]) == top and len(p) > len(top))
        found = named_splits(beside, where)
        if "train" in found or len(found) == len(beside):
            return {split: "/".join([*top, found[split], ""]) for split in SPLITS if split in found}
    first = {p[0].lower(): p[0] for p in parts}
    if not first or set(first) <= set(SPLIT_NAMES) or (len(first) == 1 and set(first) <= set(COLLECTIONS)):
        return None
    if split := next((name for name in first if SPLIT_NAMES.get(name, "train") != "train"), None):
        raise SourceError(
            f"{where}: has a folder {first[split]} beside class folders; if it is a split, move the class folders into "
            "train/, else rename it"
        )
    return {"train": ""}


def named_splits(folders: Iterable[str], where: str) -> dict[str, str]:
    """Returns the folder of each split among these."""
    found: dict[str, str] = {}
    for name in folders:
        split = SPLIT_NAMES.get(name.lower())
        if split in found:
            raise SourceError(
                f"{where}: has two folders of the split {split}, {found[split]} and {name}; remove or rename one"
            )
        if split:
            found[split] = name
    return found


def _above(folders: list[list[str]], splits: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the paths of the folders that have a folder of one of these splits with class folders in it.

    A folder named like a split that is itself below a split is a class.
    """
    found = set()
    for path in folders:
        at = next((i for i, part in enumerate(path[:-1]) if SPLIT_NAMES.get(part.lower()) in splits), None)
        if at is not None and not any(part.lower() in SPLIT_NAMES for part in path[:at]):
            found.add(tuple(path[:at]))
    return sorted(found)


class ClassPaths:
    """The classes of the folders below the splits' folders ``tops``, which `find_splits` returned.

    ``of_folder`` has for each split the class of each folder with images, by its path below the split's folder.
    ``empty`` are the classes of train without images. Raises SourceError if a class folder holds another one.
    """

    def __init__(self, tree: FileTree, folders: list[str], tops: dict[str, str]) -> None:
        below = {
            split: [f.removeprefix(top) for f in folders if f.startswith(top) and f] for split, top in tops.items()
        }
        paths = {path for found in below.values() for path in found}
        for path in sorted(paths):
            if outer := next((parent for parent in _parents(path) if parent in paths), None):
                raise SourceError(
                    f"{tree.path}: {path}/ is a subfolder of a class folder, {outer}/, that holds images too; move its "
                    f"images into {outer}/, or make it a class folder beside it"
                )
        ends = {path.rpartition("/")[2] for path in paths}
        same_end = len(ends) == 1 and all("/" in p for p in paths) and {end.lower() for end in ends} <= set(COLLECTIONS)
        kept = {path: path.rpartition("/")[0] if same_end else path for path in paths}
        empty = _empty_folders(tree, tops["train"], set(kept.values())) if "train" in tops else []
        names = {path: path.rpartition("/")[2] for path in (*kept.values(), *empty)}
        by_split = [{kept[path] for path in found} for found in below.values()]
        if not _are_unique(names, [*by_split, {*empty, *(kept[p] for p in below.get("train", ()))}]):
            names = {path: path for path in names}
        self.of_folder = {split: {path: names[kept[path]] for path in found} for split, found in below.items()}
        self.empty = [names[path] for path in empty]
        self.nested = next((path for path in names if "/" in path), "")
        self.nested_class = names.get(self.nested, "")


def _are_unique(names: dict[str, str], splits: list[set[str]]) -> bool:
    """Whether the folders' names tell the classes apart: no split has a name twice, and equal ones are one class.

    They are if the path of one ends in that of the other, as animal/dog in train and dog in val.
    """
    of_name: dict[str, list[str]] = {}
    for path in sorted(names, key=len, reverse=True):
        of_name.setdefault(names[path], []).append(path)
    return all(len({names[path] for path in split}) == len(split) for split in splits) and all(
        f"/{longest}".endswith(f"/{path}") for longest, *others in of_name.values() for path in others
    )


def _empty_folders(tree: FileTree, top: str, classes: set[str]) -> list[str]:
    """Returns the folders below ``top`` that stand beside the class folders but hold no image, in sorted order."""
    groups = {"", *(parent for path in classes for parent in _parents(path))}
    found: set[str] = set()
    for folder in folders_of(name[len(top) :] for name in tree.files if name.startswith(top)):
        found.update(path for path in (*_parents(folder), folder) if path.rpartition("/")[0] in groups)
    for folder in tree.empty_folders:
        if folder.startswith(top) and folder[len(top) :].rpartition("/")[0] in groups:
            found.add(folder[len(top) :])
    return sorted(found - groups - classes)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
