"""Groups files into samples: an image and the files beside it that describe it, such as its label."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from imgtool.pipelines.archives import magic
from imgtool.pipelines.archives.file_tree import FileTree
from imgtool.pipelines.archives.reader import LocatorReader
from imgtool.pipelines.records import IMAGE_SUFFIXES, OTHER_SUFFIXES, Locator

CLASS_ENDINGS = ("cls", "label", "class")
LABEL_ENDINGS = (*CLASS_ENDINGS, "json", "txt")
_ENDINGS = tuple(f".{ending}" for ending in LABEL_ENDINGS)


@dataclasses.dataclass(slots=True)
class Sample:
    """A sample's files by ending (``jpg``, ``cls``, ``seg.png``); ``key`` is their common name with its folders.

    ``others`` are further files with an ending that another file has.
    """

    key: str
    files: dict[str, Locator] = dataclasses.field(default_factory=dict)
    others: list[Locator] = dataclasses.field(default_factory=list)
    image: Locator | None = None

    @property
    def is_labelled(self) -> bool:
        return not self.files.keys().isdisjoint(LABEL_ENDINGS)


def samples_of(tree: FileTree) -> list[Sample]:
    """Returns the files of an archive or folder by sample, in the order of the samples' first files.

    Files of one sample need not stand beside each other. A sample may lack the image or the label.
    """
    samples: dict[str, Sample] = {}
    stems = _dotted_stems(tree.files)
    groups = {_first_part(stem) for stem in stems}
    for name, locator in tree.files.items():
        key, ending = _key(name, stems, groups)
        sample = samples.get(key)
        if sample is None:
            sample = samples[key] = Sample(key)
        if ending in sample.files:
            sample.others.append(locator)
            continue
        sample.files[ending] = locator
        if sample.image is None and f".{ending}" in IMAGE_SUFFIXES:
            sample.image = locator
    return _with_images_by_content(tree, list(_split_up(samples)))


def _key(name: str, stems: set[str], groups: set[str]) -> tuple[str, str]:
    """Returns the sample's name and the ending of a file: they are divided by the first dot, or where names have dots
    themselves (``stems``), by the dot that ends such a name."""
    folder, slash, base = name.rpartition("/")
    first_part, _, ending = base.partition(".")
    if groups and f"{folder}{slash}{first_part}" in groups:
        for dot in [at for at, character in enumerate(base) if character == "."]:
            if f"{folder}{slash}{base[:dot]}" in stems:
                return f"{folder}{slash}{base[:dot]}", base[dot + 1 :].lower()
        if "." in ending:
            stem, _, ending = name.rpartition(".")
            return stem, ending.lower()
    return f"{folder}{slash}{first_part}", ending.lower()


def _dotted_stems(files: Iterable[str]) -> set[str]:
    """Returns the names with dots, without ending, that an image and a label have in common (``img.0`` of img.0.jpg and
    img.0.cls), unless what precedes their first dot is a sample itself."""
    images: set[str] = set()
    labels: set[str] = set()
    plain: set[str] = set()
    for name in files:
        stem, dot, ending = name.rpartition(".")
        is_image = f".{ending.lower()}" in IMAGE_SUFFIXES
        if not dot or not (is_image or ending.lower() in LABEL_ENDINGS):
            continue
        if "." in stem.rpartition("/")[2]:
            (images if is_image else labels).add(stem)
        elif is_image:
            plain.add(stem)
    return {stem for stem in images & labels if _first_part(stem) not in plain}


def _first_part(stem: str) -> str:
    folder, slash, base = stem.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _split_up(samples: dict[str, Sample]) -> Iterator[Sample]:
    """Yields the samples; images that have only the beginning of their names in common, and no label, are several."""
    for sample in samples.values():
        if sample.image or sample.is_labelled:
            yield sample
            continue
        for ending in [ending for ending in sample.files if f".{ending}".endswith(IMAGE_SUFFIXES)]:
            at = sample.files.pop(ending)
            stem, _, last = ending.rpartition(".")
            yield Sample(f"{sample.key}.{stem}", {last: at}, image=at)
        if sample.files:
            yield sample


def _with_images_by_content(tree: FileTree, samples: list[Sample]) -> list[Sample]:
    """Finds the image of the samples in which no ending states one: the first file of unknown ending that is one."""
    unknown = [
        (sample, ending)
        for sample in samples
        if sample.image is None and (sample.is_labelled or any(at.member for at in sample.files.values()))
        for ending in sample.files
        if not f".{ending}".endswith((*OTHER_SUFFIXES, *_ENDINGS))
    ]
    with LocatorReader(tree.root) as reader:
        heads = reader.heads([sample.files[ending] for sample, ending in unknown], magic.HEAD_BYTES)
        for (sample, ending), head in zip(unknown, heads, strict=True):
            if sample.image is None and magic.is_image_head(head):
                sample.image = sample.files[ending]
    return samples
