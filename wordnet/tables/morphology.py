"""From an inflected noun to its base forms."""

from __future__ import annotations

from imgtool.wordnet.tables.nouns import lemma_key, tables

# The endings of plurals and what stands in their place: WordNet's, morphy(7WN), and NLTK's "ves".
DETACHMENT = (
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
    *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
)


def base_forms(word: str) -> list[str]:
    """The lemmas that ``word`` may be a form of, itself first if it is one: "poodles" → ["poodle"].

    As NLTK's morphy for nouns: an irregular form is looked up in WordNet's noun.exc; from any other the ending is
    detached, once. What then is no lemma of WordNet 3.0 is left out.

    Args:
        word: case, spaces and underscores do not matter.

    Returns:
        lower-cased lemmas with underscores, no two alike; perhaps none.
    """
    form = lemma_key(word)
    forms = tables().exceptions.get(form)
    if forms is None:
        forms = tuple(form.removesuffix(old) + new for old, new in DETACHMENT if form.endswith(old))
    return [form for form in dict.fromkeys((form, *forms)) if tables().senses(form)]
