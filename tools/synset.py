"""imgtool synset"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imgtool.wordnet import Synset


@click.command()
@click.argument("key")
@click.option("--full", is_flag=True, help="Look in all of WordNet's nouns, not only above ImageNet-1k's classes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def synset(key: str, full: bool, as_json: bool) -> None:
    """Look up a synset: a wnid (n02084071), an NLTK name (dog.n.01), a class index (207), or a word (crane)."""
    from imgtool import wordnet

    hierarchy = wordnet.load("full" if full else "in1k")
    if key.isdigit():
        found = [hierarchy[int(key)]]
    elif key in hierarchy:
        found = [hierarchy[key]]
    else:
        # A word that names no synset by itself may name several; if none, the lookup's own error helps more.
        found = hierarchy.find(key) or [hierarchy[key]]
    if as_json:
        click.echo(json.dumps([_describe(s) for s in found]))
        return
    for number, s in enumerate(found):
        if number:
            click.echo()
        _show(_describe(s))


def _describe(s: Synset) -> dict[str, Any]:
    return {
        "wnid": s.wnid,
        "synset": s.name,
        "lemmas": list(s.lemmas),
        "class_index": s.class_index,
        "name": None if s.class_index is None else s.hierarchy.name(s.class_index),
        "gloss": s.gloss,
        "lexname": s.lexname,
        "depth": list(s.depth),
        "parents": [p.name for p in s.parents],
        "children": [c.name for c in s.children],
        "paths": [[a.name for a in path] for path in s.paths()],
        "classes": [int(i) for i in s.classes],
    }


def _show(d: dict[str, Any]) -> None:
    index = "" if d["class_index"] is None else f"  class {d['class_index']} ({d['name']})"
    click.echo(f"{d['wnid']}  {d['synset']}{index}")
    click.echo(f"  {', '.join(d['lemmas'])}: {d['gloss']}")
    for title in ("parents", "children"):
        if d[title]:
            click.echo(f"  {title:9} {', '.join(d[title])}")
    for path in d["paths"]:
        click.echo(f"  path      {' > '.join(path)}")
    classes = d["classes"]
    if classes and classes != [d["class_index"]]:
        shown = ", ".join(map(str, classes[:12])) + (", …" if len(classes) > 12 else "")
        click.echo(f"  classes   {len(classes)}: {shown}")
