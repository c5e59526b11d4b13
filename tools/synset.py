"""imgtool synset"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from imgtool.wordnet import Hierarchy, Synset

F = TypeVar("F", bound=Callable[..., Any])


class ShowByDefault(click.Group):
    """``imgtool synset KEY`` is ``imgtool synset show KEY``, unless KEY is the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = ["show", *args]
        return super().parse_args(ctx, args)


def _common(command: F) -> F:
    """Adds the options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print as JSON."),
        click.option("--full", is_flag=True, help="Use all of WordNet's nouns; short for --set full."),
        click.option(
            "--set",
            "class_set",
            default="in1k",
            show_default=True,
            help="Class set whose hierarchy to use: in1k, in12k, in21k, in22k, full, or a prepared data set's path.",
        ),
    ):
        command = option(command)
    return command


def _load(class_set: str, full: bool) -> Hierarchy:
    from imgtool import wordnet

    return wordnet.load("full" if full else class_set)


def _key(text: str) -> str | int:
    return int(text) if text.isdigit() else text


@click.group(cls=ShowByDefault)
def synset() -> None:
    """Look up synsets, their ancestors and their descendants.

    A KEY is a wnid (n02084071), an NLTK name (dog.n.01), a class index (207), or a word that names one synset.
    `imgtool synset KEY` is short for `imgtool synset show KEY`.
    """


@synset.command()
@click.argument("key")
@_common
def show(key: str, class_set: str, full: bool, as_json: bool) -> None:
    """Show a synset: names, gloss, neighbours, paths and classes. A word (crane) shows all its synsets."""
    hierarchy = _load(class_set, full)
    # A word that names no single synset may name several; if it names none, the error of the lookup helps more.
    several = [] if key.isdigit() or key in hierarchy else hierarchy.find(key)
    found = several or [hierarchy[_key(key)]]
    if as_json:
        click.echo(json.dumps([_describe(s) for s in found]))
        return
    for number, s in enumerate(found):
        if number:
            click.echo()
        _show(_describe(s))


@synset.command()
@click.argument("key")
@click.option(
    "--depth", type=click.IntRange(min=0), show_default="all", help="Number of levels to draw below the synset."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "svg", "dot"]),
    default="text",
    show_default=True,
    help="Indented text, an SVG drawing, or Graphviz DOT.",
)
@_common
def tree(key: str, depth: int | None, format_: str, class_set: str, full: bool, as_json: bool) -> None:
    """Draw the descendants of a synset. One with several parents is repeated as a reference, marked ↑."""
    hierarchy = _load(class_set, full)
    if as_json:
        from imgtool.wordnet.graph.drawing import edges

        top = hierarchy[_key(key)]
        pairs = edges(hierarchy, top, max_depth=depth)
        nodes = list(dict.fromkeys([top, *(child for _, child in pairs)]))
        click.echo(
            json.dumps(
                {
                    "nodes": [_line(s) for s in nodes],
                    "edges": [[parent.wnid, child.wnid] for parent, child in pairs],
                }
            )
        )
        return
    click.echo(hierarchy.draw(under=_key(key), format=format_, max_depth=depth), nl=False)


@synset.command()
@click.argument("query")
@_common
def classes(query: str, class_set: str, full: bool, as_json: bool) -> None:
    """List the classes of a synset or a query.

    A query is, for example, "dog.n.01 - poodle.n.01".
    """
    hierarchy = _load(class_set, full)
    found = hierarchy.classes(under=query) if query in hierarchy else hierarchy.query(query)
    _list([hierarchy[int(index)] for index in found], as_json)


@synset.command()
@click.argument("key")
@_common
def path(key: str, class_set: str, full: bool, as_json: bool) -> None:
    """Print every path from the root to a synset, longest first."""
    s = _load(class_set, full)[_key(key)]
    paths = sorted(s.paths(), key=lambda path: (path != s.path, -len(path)))
    if as_json:
        click.echo(json.dumps([[above.name for above in path] for path in paths]))
        return
    for path in paths:
        click.echo(" > ".join(above.name for above in path))


@synset.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--by",
    type=click.Choice(["depth", "height"]),
    default="depth",
    show_default=True,
    help="Deepest common ancestor, as in NLTK (depth), or the one of least height, as in mistake severity.",
)
@_common
def lca(a: str, b: str, by: Literal["depth", "height"], class_set: str, full: bool, as_json: bool) -> None:
    """Print the lowest common ancestor of two synsets.

    Its depth and its height are printed too.
    """
    hierarchy = _load(class_set, full)
    s = hierarchy.lca(_key(a), _key(b), by=by)
    height = int(hierarchy.heights[s.node])
    if as_json:
        click.echo(json.dumps(_line(s) | {"by": by, "depth": list(s.depth), "height": height}))
        return
    click.echo(f"{s.wnid}  {s.name}  by {by}; depth {s.depth[0]} to {s.depth[1]}, height {height}")


@synset.command()
@click.argument("word")
@_common
def find(word: str, class_set: str, full: bool, as_json: bool) -> None:
    """List the synsets of a word, in WordNet's sense order.

    These are the synsets that have the word, or the singular of a plural, as a lemma.
    """
    hierarchy = _load(class_set, full)
    found = hierarchy.find(word)
    _list(found or [hierarchy[word]], as_json)  # the error of the lookup names near words


def _line(s: Synset) -> dict[str, Any]:
    return {
        "wnid": s.wnid,
        "synset": s.name,
        "class_index": s.class_index,
        "name": None if s.class_index is None else s.hierarchy.name(s.class_index),
        "definition": s.definition,
    }


def _list(synsets: list[Synset], as_json: bool) -> None:
    lines = [_line(s) for s in synsets]
    if as_json:
        click.echo(json.dumps(lines))
        return
    for d in lines:
        index = "" if d["class_index"] is None else str(d["class_index"])
        click.echo(f"{index:>5}  {d['wnid']}  {d['synset']}: {d['definition']}")


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
