"""Writes the tables in data/ from the files of WordNet 3.0.

    python -m imgtool.wordnet.tables.build [--wordnet /usr/share/wordnet] [--out DIR] [--classes in22k=FILE …]

Reads data.noun, index.noun and noun.exc (formats: wndb(5WN)), as installed by Debian's package wordnet-base. The output
is a pure function of these files, byte for byte. nouns.py documents each array. The column class_sets is written only
if the published lists of wnids, one per line, are given.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgtool.wordnet.errors import ImgtoolError, InputError
from imgtool.wordnet.tables.nouns import CLASS_SETS, DATA, Array

NOUNS = 82_115  # WordNet 3.0's count, wnstats(7WN)


class Noun(NamedTuple):
    """One line of data.noun."""

    offset: int
    lexname: int
    lemmas: list[str]
    parents: list[tuple[int, bool]]  # (offset, is an instance pointer)
    gloss: str


def parse_noun(line: str) -> Noun:
    """Parses `offset lex_filenum ss_type w_cnt (word lex_id)… p_cnt (symbol offset pos source/target)… | gloss`."""
    columns, gloss = line.split("|", 1)
    fields = columns.split()
    word_count = int(fields[3], 16)
    lemmas = fields[4 : 4 + 2 * word_count : 2]
    pointers = fields[5 + 2 * word_count :]
    parents = [
        (int(offset), symbol == "@i")
        for symbol, offset in zip(pointers[::4], pointers[1::4], strict=True)
        if symbol in ("@", "@i")
    ]
    return Noun(int(fields[0]), int(fields[1]), lemmas, parents, gloss.strip())


def parse_senses(line: str) -> tuple[str, list[int]]:
    """Parses `lemma pos synset_cnt p_cnt symbol… sense_cnt tagsense_cnt offset…`; offsets are in sense order."""
    fields = line.split()
    return fields[0], [int(offset) for offset in fields[-int(fields[2]) :]]


def read(path: Path) -> tuple[list[str], list[str]]:
    """Reads the licence at the start of a WordNet file, whose lines begin with spaces, and the lines after it."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read: {error}; give the folder of WordNet 3.0's files (Debian: wordnet-base)"
        ) from error
    licence = [line for line in lines if line.startswith("  ")]
    return licence, lines[len(licence) :]


def indptr(lengths: list[int]) -> Array:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def make_arrays(nouns: list[Noun], senses: dict[str, list[int]]) -> dict[str, Array]:
    """Makes the arrays, by name. `nouns` are sorted by offset; `senses` maps a lower-cased lemma to offsets."""
    row = {noun.offset: i for i, noun in enumerate(nouns)}
    edges = [edge for noun in nouns for edge in noun.parents]
    words = [(lemma, noun.offset) for noun in nouns for lemma in noun.lemmas]
    sense = [senses[lemma.lower()].index(offset) + 1 for lemma, offset in words]
    by_lemma = sorted(range(len(words)), key=lambda word: (words[word][0].lower(), sense[word]))
    text = "".join(lemma for lemma, _ in words).encode("ascii")
    return {
        "offset": np.array([noun.offset for noun in nouns], np.int32),
        "lexname": np.array([noun.lexname for noun in nouns], np.uint8),
        "parent_indptr": indptr([len(noun.parents) for noun in nouns]),
        "parent": np.array([row[offset] for offset, _ in edges], np.int32),
        "parent_is_instance": np.array([is_instance for _, is_instance in edges], np.bool_),
        "lemma_indptr": indptr([len(noun.lemmas) for noun in nouns]),
        "text_indptr": indptr([len(lemma) for lemma, _ in words]),
        "text": np.frombuffer(text, np.uint8),
        "sense": np.array(sense, np.uint8),
        "by_lemma": np.array(by_lemma, np.int32),
    }


def class_bits(lists: Mapping[str, Path], offsets: Array) -> Array:
    """Makes the column class_sets, uint8 [nouns], from a list of wnids for each of CLASS_SETS.

    Raises:
        InputError: a list is missing, cannot be read, or contains something else than wnids of nouns.
    """
    if set(lists) != set(CLASS_SETS):
        raise InputError(f"give lists for all of {', '.join(CLASS_SETS)}, not only for {', '.join(lists)}")
    bits = np.zeros(len(offsets), np.uint8)
    for bit, name in enumerate(CLASS_SETS):
        try:
            wanted = np.array([int(wnid.removeprefix("n")) for wnid in lists[name].read_text("ascii").split()])
        except (OSError, ValueError) as error:
            raise InputError(f"{lists[name]}: cannot be read as a list of wnids: {error}") from error
        found = np.isin(offsets, wanted)
        if found.sum() != len(wanted):
            raise InputError(
                f"{lists[name]}: only {found.sum():,} of its {len(wanted):,} wnids are nouns of WordNet 3.0"
            )
        bits |= found.astype(np.uint8) << bit
    return bits


def build(wordnet: Path, out: Path, class_lists: Mapping[str, Path] | None = None) -> dict[str, Array]:
    """Reads the files of WordNet, writes the tables to `out`, and returns the arrays.

    Args:
        wordnet: the folder of WordNet's files.
        out: the folder to write to.
        class_lists: a file of wnids for each of CLASS_SETS; if None, class_sets.npy is not written.

    Raises:
        InputError: a file is missing, cannot be read, or is not from WordNet 3.0.
    """
    licence, lines = read(wordnet / "data.noun")
    try:
        nouns = sorted(map(parse_noun, lines))
        senses = dict(map(parse_senses, read(wordnet / "index.noun")[1]))
        arrays = make_arrays(nouns, senses)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{wordnet}: data.noun and index.noun cannot be parsed as WordNet 3.0: {error!r}") from error
    if len(nouns) != NOUNS:
        raise InputError(
            f"{wordnet}: has {len(nouns):,} nouns, but WordNet 3.0 has {NOUNS:,}; wnids are valid for 3.0 only"
        )
    if class_lists:
        arrays["class_sets"] = class_bits(class_lists, arrays["offset"])
    exceptions = read(wordnet / "noun.exc")[1]
    out.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", array, allow_pickle=False)
    for file, text in {
        "glosses.txt": [noun.gloss for noun in nouns],
        "noun.exc": exceptions,
        "LICENSE.wordnet": [re.sub(r"^ *\d+ ?", "", line).rstrip() for line in licence],
    }.items():
        (out / file).write_bytes("".join(line + "\n" for line in text).encode("ascii"))
    return arrays


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m imgtool.wordnet.tables.build", description="Writes the noun tables."
    )
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder with the files of WordNet 3.0"
    )
    parser.add_argument("--out", type=Path, default=DATA, help="folder for the tables (default: in the package)")
    parser.add_argument(
        "--classes",
        action="append",
        default=[],
        metavar="SET=FILE",
        help=f"a file of wnids, one per line; class_sets.npy needs all of {', '.join(CLASS_SETS)}",
    )
    options = parser.parse_args(argv)
    lists = {name: Path(file) for name, _, file in (given.partition("=") for given in options.classes)}
    try:
        arrays = build(options.wordnet, options.out, lists)
    except ImgtoolError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {len(arrays['offset']):,} nouns, {len(arrays['parent']):,} hypernym and instance pointers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
