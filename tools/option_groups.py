"""Options listed under headings: a command of 30 options is unreadable as one list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that ``--help`` lists under ``heading``."""

    def __init__(self, *args: Any, heading: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading
        if isinstance(self.type, click.IntRange | click.FloatRange):
            self.metavar = "N"  # instead of INTEGER RANGE


class GroupedCommand(click.Command):
    """A command that lists its options under their headings, in the order in which the headings first occur."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, options in by_heading(self.get_params(ctx)).items():
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            with formatter.section(heading):
                formatter.write_dl(records)


def option_group(heading: str) -> Callable[..., Callable[..., Any]]:
    """Returns a decorator like click.option, whose options belong to the heading."""
    return partial(click.option, cls=GroupedOption, heading=heading)


def backend_option(group: Callable[..., Callable[..., Any]]) -> Callable[..., Any]:
    """Returns the decorator of the option --backend, in a group of `option_group`."""
    return group(
        "--backend",
        type=click.Choice(["auto", "native", "ffcv", "dali", "torchvision"]),
        default="auto",
        show_default=True,
        help="Loader. auto: native.",
    )


def by_heading(params: list[click.Parameter]) -> dict[str, list[click.Option]]:
    """Sorts options by heading; those without one, such as --help, come under "Options" or "Other"."""
    groups: dict[str, list[click.Option]] = {}
    rest = []
    for param in params:
        if isinstance(param, GroupedOption):
            groups.setdefault(param.heading, []).append(param)
        elif isinstance(param, click.Option):
            rest.append(param)
    return {**groups, **({"Other" if groups else "Options": rest} if rest else {})}
