"""Class queries, such as `"dog.n.01 - poodle.n.01, n02123045"`, evaluated to class indices.

A query consists of keys and operators. A key is a wnid, an NLTK name, a lemma or a class index in digits, as in
`h[key]`, and stands for the classes at or below its synset. A key that contains spaces or operators is written in
single or double quotes: `"domestic dog"`.

| operator | meaning | precedence |
| --- | --- | --- |
| `( )` | grouping | |
| `&` | intersection | highest |
| `+` and `\\|` | union | the same as `-`, from left to right |
| `-` | difference | the same as `+`, from left to right |
| `,` | union of whole queries | lowest |

So `a - b + c & d, e` means `((a - b) + (c & d)), e`, and in `a, b - c` only b is reduced by c. A hyphen within a word
is part of the word ("black-footed ferret" needs quotes only because of its space). A minus therefore needs a space
before it, except after a wnid or an NLTK name, where it cannot be a hyphen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imgtool.wordnet.errors import InputError, UnknownSynsetError
from imgtool.wordnet.graph.types import SynsetGraph

_PRECEDENCE = {"&": 3, "+": 2, "|": 2, "-": 2, ",": 1, "(": 0}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator>[-+|&,()])
        | "(?P<double>[^"]*)" | '(?P<single>[^']*)'(?![^\s+|&,()-])   # 'hood is a word
        | (?P<key> n\d{8}(?=-) | [^\s+|&,()"]*?\.n\.\d+(?=-) | [^\s+|&,()"]+ )
    )""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    column: int  # from 1
    text: str
    is_operator: bool = False
    is_quoted: bool = False


def query(h: SynsetGraph, text: str) -> npt.NDArray[np.int64]:
    """Evaluates a query; the module's docstring defines the grammar.

    Returns:
        int64 class indices in ascending order; may be empty.

    Raises:
        UnknownSynsetError: a key matches no synset, or several; the message gives the column.
        InputError: a syntax error; the message gives the column.
    """
    operands: list[npt.NDArray[np.bool_]] = []
    waiting: list[_Token] = []  # operators and open parentheses, as in Dijkstra's shunting yard
    wants_key = True
    for token in _tokens(text):
        if wants_key:
            if not token.is_operator:
                operands.append(_classes(h, text, token))
                wants_key = False
            elif token.text == "(":
                waiting.append(token)
            else:
                raise _error(text, token.column, f"expected a key, not {token.text!r}")
        elif not token.is_operator or token.text == "(":
            hint = "" if token.is_operator else "; write a key of several words in quotes"
            raise _error(text, token.column, f"expected an operator (+ | - & or a comma) before {token.text!r}{hint}")
        elif token.text == ")":
            _reduce(operands, waiting, 1)
            if not waiting:
                raise _error(text, token.column, "')' has no matching '('")
            waiting.pop()
        else:
            _reduce(operands, waiting, _PRECEDENCE[token.text])
            waiting.append(token)
            wants_key = True
    if wants_key:
        raise _error(text, len(text) + 1, "expected a key, not the end of the query")
    _reduce(operands, waiting, 1)
    if waiting:
        raise _error(text, waiting[-1].column, "'(' is not closed")
    return np.flatnonzero(operands.pop())


def _tokens(text: str) -> Iterator[_Token]:
    end = len(text.rstrip())
    position = 0
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise _error(text, column, "the quote is not closed")
        kind = str(match.lastgroup)
        column = match.start(kind) + 1 - (kind in ("double", "single"))
        yield _Token(column, match[kind], kind == "operator", kind in ("double", "single"))
        position = match.end()


def _classes(h: SynsetGraph, text: str, token: _Token) -> npt.NDArray[np.bool_]:
    """Returns bool [classes]: whether the class is at or below the synset of a key."""
    key = int(token.text) if token.text.isdecimal() and not token.is_quoted else token.text
    chosen = np.zeros(h.num_classes, np.bool_)
    try:
        chosen[h.classes(under=key)] = True
    except UnknownSynsetError as error:
        raise UnknownSynsetError(str(_error(text, token.column, str(error)))) from None
    return chosen


def _reduce(operands: list[npt.NDArray[np.bool_]], waiting: list[_Token], precedence: int) -> None:
    """Applies the waiting operators of at least this precedence."""
    while waiting and _PRECEDENCE[waiting[-1].text] >= precedence:
        operator, right, left = waiting.pop().text, operands.pop(), operands.pop()
        operands.append(left & right if operator == "&" else left & ~right if operator == "-" else left | right)


def _error(text: str, column: int, what: str) -> InputError:
    return InputError(f"query {text!r}, column {column}: {what}")
