"""Option types and options that the benchmarks share: lists, input and output paths, and the rehearsal.

Every option is checked when it is parsed, so that a wrong one is refused before anything is measured.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
SIZES = click.Choice(list("nsmlx"))
DRAWN = object()
"""In `rehearsal`: stands for the path of a synthetic source in ILSVRC2012's layout, with 40 training and 10
validation images of ten classes."""


class CommaList(click.ParamType):
    """Distinct values separated by commas, as a tuple. ``item`` converts and checks each of them."""

    name = "list"

    def __init__(self, item: click.ParamType) -> None:
        self.item = item

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):  # converted already
            return value
        words = [word.strip() for word in str(value).split(",")]
        if not all(words):
            self.fail(f"{value!r} has an empty value before, between or after its commas.", param, ctx)
        out = tuple(self.item.convert(word, param, ctx) for word in words)
        if repeated := [one for one in out if out.count(one) > 1]:
            self.fail(f"{repeated[0]!r} occurs twice in {value!r}.", param, ctx)
        return out


class FiniteRange(click.FloatRange):
    """A FloatRange without NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class SourcePath(click.ParamType):
    """A path that exists, or a URL, which is checked when it is opened."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if "://" not in str(value) and not Path(value).exists():
            self.fail(f"{value}: no such file or folder.", param, ctx)
        return str(value)


class OutputFile(click.Path):
    """A file to write, in a folder that exists. Its name must end in one of ``endings``, if any are given."""

    def __init__(self, *endings: str) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"{path.parent}: no such folder.", param, ctx)
        if not os.access(path.parent, os.W_OK):
            self.fail(f"{path.parent}: the folder is not writable.", param, ctx)
        if self.endings and path.suffix.lower() not in self.endings:
            self.fail(f"{path}: the file name must end in one of {', '.join(self.endings)}.", param, ctx)
        return path


json_option = click.option("--json", "json_path", type=OutputFile(), help="Write the raw numbers to this file.")


def plot_option(what: str) -> Decorator:
    return click.option(
        "--plot", "plot_path", type=OutputFile(".png", ".svg", ".pdf"), help=f"Plot {what} to this file."
    )


def rehearsal(**small: Any) -> Decorator:
    """Adds the flag --rehearse. It makes the values in ``small`` the defaults of the other options."""

    def shrink(ctx: click.Context, _param: click.Parameter, chosen: bool) -> bool:
        if chosen and not ctx.resilient_parsing:
            ctx.default_map = {name: _drawn(ctx) if value is DRAWN else value for name, value in small.items()}
            click.echo("a rehearsal: its figures mean nothing", err=True)
        return chosen

    return click.option(
        "--rehearse",
        is_flag=True,
        is_eager=True,
        callback=shrink,
        help="Take every step once, on a few synthetic images: all other options get small defaults.",
    )


def _drawn(ctx: click.Context) -> str:
    """Makes a synthetic source, which is deleted when the command ends."""
    from imgtool.sample import write_sample

    folder = Path(ctx.with_resource(tempfile.TemporaryDirectory())) / "ILSVRC2012"
    write_sample(folder, train_count=4, val_count=1)
    return str(folder)


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Writes the raw numbers, if there is a path."""
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def versions(names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those distributions that are installed."""
    out = {}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out
