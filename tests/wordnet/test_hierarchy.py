"""The graph and its classes, compared with published facts."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError

Fact = Callable[[str], str]


def test_edges_are_imagenets_own(full: Hierarchy, fact: Fact) -> None:
    published = [tuple(line.split()) for line in fact("wordnet_is_a.txt").splitlines()]
    edges = {(parent.wnid, synset.wnid) for synset in full for parent in synset.parents}
    assert len(published) == 75_850
    assert edges == set(published)


def test_words_are_imagenets_own(full: Hierarchy, fact: Fact) -> None:
    ours = [f"{synset.wnid}\t{', '.join(synset.lemmas)}" for synset in full]
    assert ours == fact("words.txt").splitlines()


def test_in1k_wnids(h: Hierarchy, fact: Fact) -> None:
    assert h.wnids == fact("ilsvrc2012_wnids.txt").split()


def test_in1k_counts(h: Hierarchy) -> None:
    assert (len(h), h.num_classes) == (1860, 1000)
    assert sum(len(synset.parents) for synset in h) == 1937
    assert sum(len(synset.parents) > 1 for synset in h) == 75
    assert sum(len(h[index].paths()) > 1 for index in range(1000)) == 304
    assert not any(synset.instance_of for synset in h)
    assert [synset.name for synset in h if not synset.parents] == ["entity.n.01"]


@pytest.mark.parametrize(
    ("name", "count"),
    [("animal", 398), ("dog", 118), ("bird", 59), ("artifact", 522), ("mammal", 218), ("entity", 1000)],
)
def test_class_counts(h: Hierarchy, name: str, count: int) -> None:
    classes = h.classes(under=f"{name}.n.01")
    assert classes.dtype == np.int64 and len(classes) == count
    assert (np.diff(classes) > 0).all()
    assert all(h.is_a(int(index), f"{name}.n.01") for index in classes)


def test_every_dog_is_a_mammal(h: Hierarchy) -> None:
    assert set(h["dog.n.01"].classes) < set(h["mammal.n.01"].classes)


def test_minus_and_several_keys(h: Hierarchy) -> None:
    dogs, poodles = h.classes(under="dog.n.01"), h.classes(under="poodle.n.01")
    assert len(poodles) == 3
    assert h.classes(under="dog.n.01", minus="poodle.n.01").tolist() == sorted(set(dogs) - set(poodles))
    assert h.classes(under=["dog.n.01", "poodle.n.01"]).tolist() == dogs.tolist()
    assert h.classes(under=["bird.n.01", 0]).tolist() == sorted({0, *h.classes(under="bird.n.01")})
    assert len(h.classes()) == 1000
    assert len(h.classes(minus=["animal.n.01", "artifact.n.01"])) == 1000 - 398 - 522
    assert h.classes(under="dog.n.01", minus="entity.n.01").tolist() == []
    with pytest.raises(UnknownSynsetError):
        h.classes(under="dgo.n.01")


def test_is_a(h: Hierarchy, full: Hierarchy) -> None:
    assert h.is_a("poodle.n.01", "dog.n.01") and h.is_a("poodle.n.01", "domestic_animal.n.01")
    assert not h.is_a("dog.n.01", "poodle.n.01")
    assert not h.is_a("dog.n.01", "cat.n.01")
    assert h.is_a("dog.n.01", "dog.n.01")
    assert full.is_a("sun.n.01", "star.n.01")  # an instance


def test_instances_are_not_kinds(full: Hierarchy) -> None:
    sun, star = full["sun.n.01"], full["star.n.01"]
    assert sun.parents == () and sun.instance_of == (star,)
    assert sun in star.instances and sun not in star.children
    assert sun in star.descendants() and star in sun.ancestors()
    assert sun.depth[1] == star.depth[1] + 1


def test_a_synset(h: Hierarchy) -> None:
    tench = h[0]
    assert (tench.wnid, tench.name, tench.class_index) == ("n01440764", "tench.n.01", 0)
    assert tench.lemmas == ("tench", "Tinca tinca")
    assert tench.lexname == "noun.animal"
    assert tench.gloss.startswith("freshwater dace-like game fish")
    assert [parent.name for parent in tench.parents] == ["cyprinid.n.01"]
    assert tench.children == () and tench.classes.tolist() == [0]
    dog = h["dog.n.01"]
    assert dog.class_index is None and len(dog.classes) == 118
    assert [path[0].name for path in dog.paths()] == ["entity.n.01"] * 2
    assert dog.path == max(dog.paths(), key=len)
    assert dog.depth == (8, 13)
    assert dog.ancestors()[:2] == list(dog.parents) and dog not in dog.ancestors()
    assert repr(dog) == "Synset('dog.n.01', 'n02084071')"


def test_gloss_definition_and_examples(full: Hierarchy) -> None:
    whole = full["whole.n.02"]
    assert whole.definition == "an assemblage of parts that is regarded as a single entity"
    assert whole.examples == ("how big is that part compared to the whole?", "the team is a unit")
    assert whole.gloss == whole.definition + "; " + "; ".join(f'"{example}"' for example in whole.examples)


def test_synsets_are_equal_across_hierarchies_and_immutable(h: Hierarchy, full: Hierarchy) -> None:
    assert h["dog.n.01"] == full["dog.n.01"] and hash(h["dog.n.01"]) == hash(full["dog.n.01"])
    assert h["dog.n.01"] != h["cat.n.01"] and h["dog.n.01"] != "dog.n.01"
    with pytest.raises(AttributeError):
        h["dog.n.01"].wnid = "n00000000"  # type: ignore[misc]


def test_class_lists_in_any_order(fact: Fact) -> None:
    wnids = fact("imagenet_r_synsets.txt").split()
    h = wordnet.load(reversed(wnids))
    assert h.wnids == sorted(wnids) and h.num_classes == 200
    assert all(h[wnid].class_index == index for index, wnid in enumerate(sorted(wnids)))
    full = wordnet.load("full")
    closure = set(wnids) | {above.wnid for wnid in wnids for above in full[wnid].ancestors()}
    assert {synset.wnid for synset in h} == closure


def test_a_class_above_another() -> None:
    h = wordnet.load(["n02084071", "n02113712"])  # dog and miniature poodle
    assert h["poodle.n.01"].class_index is None
    assert h.classes(under="dog.n.01").tolist() == [0, 1]
    assert h.classes(under="poodle.n.01").tolist() == [1]


def test_an_instance_as_class() -> None:
    h = wordnet.load(["n09450163"])  # the Sun, a class of ImageNet-22k
    assert h.classes(under="star.n.01").tolist() == [0]
    assert h[0].path[0].name == "entity.n.01"


def test_full(full: Hierarchy) -> None:
    assert len(full) == 82_115
    assert full.wnids == [] and full.num_classes == 0
    assert full.classes(under="dog.n.01").tolist() == []


def test_wrong_class_lists() -> None:
    with pytest.raises(UnknownSynsetError, match=r"2 of 3 classes are not nouns of WordNet 3\.0: cats, n99999999"):
        wordnet.load(["n99999999", "n02084071", "cats"])
    with pytest.raises(InputError, match="twice: n02084071"):
        wordnet.load(["n02084071", "n02084071"])
    with pytest.raises(InputError, match="no classes"):
        wordnet.load([])
    with pytest.raises(InputError, match="in1k"):
        wordnet.load("imagenet")


def test_pickle(h: Hierarchy) -> None:
    copy = pickle.loads(pickle.dumps(h["dog.n.01"]))
    assert copy == h["dog.n.01"] and copy.classes.tolist() == h["dog.n.01"].classes.tolist()
    assert len(pickle.dumps(h)) < 200_000  # without the tables
