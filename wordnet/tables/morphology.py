"""Base forms of inflected nouns."""

from __future__ import annotations

from imgtool.wordnet.tables.nouns import lemma_key, tables

# Rules of detachment, (ending of the plural, ending of the singular): those of morphy(7WN), and NLTK's "ves".
DETACHMENT_RULES = (
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
    *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
)


def base_forms(word: str) -> list[str]:
    """Returns the lemmas that a word may be a form of: "poodles" → ["poodle"].

    Works like NLTK's morphy for nouns: an irregular form is looked up in WordNet's noun.exc; for any other word, each
    rule of detachment is applied once. Only lemmas of WordNet 3.0 are kept.

    Args:
        word: case, spaces and underscores do not matter.

    Returns:
        Distinct lower-cased lemmas with underscores, the word itself first if it is a lemma; may be empty.
    """
    form = lemma_key(word)
    forms = tables().exceptions.get(form)
    if forms is None:
        forms = tuple(form.removesuffix(old) + new for old, new in DETACHMENT_RULES if form.endswith(old))
    return [form for form in dict.fromkeys((form, *forms)) if tables().senses(form)]
