"""Writes docs/cli.md, the reference of all commands and options: `make docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from imgtool.cli import main
from imgtool.option_groups import by_heading

HEAD = """# The command line

All commands and options, as `imgtool COMMAND --help` shows them. `make docs` writes this page from the commands, and a
test fails when it is out of date.
"""
VALUES = {
    "integer": "N",
    "integer range": "N",
    "float range": "X",
    "list": "A,B,…",
    "file": "FILE",
    "path": "PATH",
    "directory": "FOLDER",
}


def commands(command: click.Command = main, name: str = "imgtool") -> Iterator[tuple[str, click.Command]]:
    """Yields the command and all its subcommands, each with the words that call it."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


def page() -> str:
    return "\n".join([HEAD, *(section(name, command) for name, command in commands())])


def section(name: str, command: click.Command) -> str:
    arguments = [argument(param) for param in command.params if isinstance(param, click.Argument)]
    groups = by_heading(command.params)
    usage = [name, *(["[OPTIONS]"] if groups else []), *arguments]
    usage += ["COMMAND …"] if isinstance(command, click.Group) else []
    lines = [f"## {name}", "", f"    {' '.join(usage)}", "", text(command), ""]
    for heading, options in groups.items():
        lines += [f"| {heading} | |", "| --- | --- |", *map(row, options), ""]
    return "\n".join(lines)


def text(command: click.Command) -> str:
    """Returns the text of --help, without click's marks for lines that are not wrapped."""
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def argument(param: click.Argument) -> str:
    name = (param.name or "").upper() + (" …" if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    notes = []
    if isinstance(option.type, click.Choice):
        notes.append("one of " + ", ".join(f"`{choice}`" for choice in option.type.choices))
    elif not option.is_flag:
        notes.append(f"`{option.metavar or VALUES.get(option.type.name, 'TEXT')}`")
    if option.required:
        notes.append("required")
    elif isinstance(option.show_default, str):
        notes.append(f"default: {option.show_default}")
    elif option.show_default:
        default = (option.opts if option.default else option.secondary_opts)[0] if option.is_flag else option.default
        notes.append(f"default: `{default}`")
    help_text = (option.help or "").replace("|", "\\|")
    return f"| {names} | {help_text}" + (f" ({'; '.join(notes)})" if notes else "") + " |"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
