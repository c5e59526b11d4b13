"""Class queries, compared with Python's sets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool import wordnet
from imgtool.wordnet import Hierarchy, InputError, UnknownSynsetError

H = wordnet.load()


def under(key: str | int) -> set[int]:
    return set(H.classes(under=key).tolist())


def ask(text: str) -> set[int]:
    found = H.query(text).tolist()
    assert found == sorted(set(found))
    return set(found)


def test_every_kind_of_key(h: Hierarchy) -> None:
    dogs = under("dog.n.01")
    for key in ("dog.n.01", "n02084071", "dog.n.01 ", '"domestic dog"', "'domestic dog'", "domestic_dog"):
        assert ask(key) == dogs
    assert ask("207") == {207}
    assert ask("207, 0,1") == {0, 1, 207}


def test_operators_and_their_precedence() -> None:
    dog, poodle, cat, carnivore = (under(f"{name}.n.01") for name in ("dog", "poodle", "cat", "carnivore"))
    assert ask("dog.n.01 - poodle.n.01") == dog - poodle
    text = "dog.n.01 - poodle.n.01 + cat.n.01 & carnivore.n.01, n02123045"
    assert ask(text) == (dog - poodle) | (cat & carnivore) | {281}
    assert ask("carnivore.n.01 - (dog.n.01 | cat.n.01)") == carnivore - dog - cat
    assert ask("carnivore.n.01 - dog.n.01 | cat.n.01") == (carnivore - dog) | cat
    assert ask("cat.n.01, carnivore.n.01 - cat.n.01") == carnivore  # the comma separates whole queries
    assert ask("cat.n.01 + carnivore.n.01 - cat.n.01") == carnivore - cat
    assert ask("dog.n.01-poodle.n.01") == ask("n02084071-poodle.n.01") == dog - poodle
    assert ask("cat.n.01 - cat.n.01") == set()


def test_hyphens_and_apostrophes_within_words() -> None:
    assert ask("black-footed_ferret.n.01") == ask("'black-footed ferret'") == {359}
    assert ask("jack-o'-lantern") == {607}
    assert ask("n02123045 -281") == set()


leaves = st.sampled_from(["dog.n.01", "cat.n.01", "carnivore.n.01", "n02123045", "207", "'domestic dog'", "bird.n.01"])


@st.composite
def queries(draw: st.DrawFn, depth: int = 0) -> tuple[str, set[int]]:
    """A fully parenthesised query and the classes it stands for."""
    if depth == 4 or draw(st.booleans()):
        leaf = draw(leaves)
        return leaf, under(int(leaf) if leaf.isdecimal() else leaf.strip("'"))
    (a, left), (b, right) = draw(queries(depth + 1)), draw(queries(depth + 1))
    operator = draw(st.sampled_from("+|-&,"))
    result = left & right if operator == "&" else left - right if operator == "-" else left | right
    space = draw(st.sampled_from([" ", "  "]))
    return f"({a}{space}{operator} {b})", result


@given(queries())
def test_any_query(case: tuple[str, set[int]]) -> None:
    text, expected = case
    assert ask(text) == expected


@given(st.lists(leaves, min_size=2, max_size=6), st.data())
def test_precedence(keys: list[str], data: st.DataObject) -> None:
    """`&` binds more tightly than `+`, and `+` more tightly than a comma."""
    operators = [data.draw(st.sampled_from("&+,")) for _ in keys[1:]]
    text = keys[0] + "".join(f" {operator} {key}" for operator, key in zip(operators, keys[1:], strict=True))
    values = {key: under(int(key) if key.isdecimal() else key.strip("'")) for key in keys}
    groups = [[values[keys[0]]]]
    for operator, key in zip(operators, keys[1:], strict=True):
        if operator == "&":
            groups[-1].append(values[key])
        else:
            groups.append([values[key]])
    assert ask(text) == set().union(*(set.intersection(*group) for group in groups))


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ("", 1, "expected a key, not the end.*"),
        ("dog.n.01 -", 11, "expected a key, not the end.*"),
        ("dog.n.01 - + cat.n.01", 12, r"expected a key, not '\+'"),
        ("- dog.n.01", 1, "expected a key, not '-'"),
        ("dog.n.01 cat.n.01", 10, "expected an operator.* before 'cat.n.01'.*quotes"),
        ("dog.n.01 (cat.n.01)", 10, "expected an operator.* before '('"),
        ("dog.n.01 - (cat.n.01, 3", 12, "'(' is not closed"),
        ("dog.n.01) - 3", 9, "')' has no matching '('"),
        ('3,  "domestic dog', 5, "the quote is not closed"),
        ("()", 2, "expected a key, not ')'"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, what: str) -> None:
    pattern = what.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=f"^query {re.escape(repr(text))}, column {column}: {pattern}$"):
        ask(text)


def test_unknown_keys() -> None:
    with pytest.raises(UnknownSynsetError, match=r"column 12: no synset 'poodel\.n\.01'.*poodle\.n\.01"):
        ask("dog.n.01 - poodel.n.01")
    with pytest.raises(UnknownSynsetError, match="column 5: no class 1000: class indices go from 0 to 999"):
        ask("0 + 1000")
    with pytest.raises(UnknownSynsetError, match="'crane' is ambiguous"):
        ask("crane")


def test_deep_parentheses() -> None:
    assert ask("(" * 50_000 + "0" + ")" * 50_000) == {0}
