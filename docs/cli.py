"""Writes docs/cli.md, every command and option of the command line: `make docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from imgtool.cli import main

HEAD = """# The command line

Every command with its options, as `imgtool COMMAND --help` shows them. `make docs` makes this page from the commands; a
test fails when it is not up to date.
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


def commands(command: click.Command, name: str = "imgtool") -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, with the names they are called by."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


def page() -> str:
    return "\n".join([HEAD, *(section(name, command) for name, command in commands(main))])


def section(name: str, command: click.Command) -> str:
    arguments = [argument(one) for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option)]
    usage = [name, *(["[OPTIONS]"] if options else []), *arguments]
    usage += ["COMMAND …"] if isinstance(command, click.Group) else []
    lines = [f"## {name}", "", f"    {' '.join(usage)}", "", text(command), ""]
    if options:
        lines += ["| option | |", "| --- | --- |", *map(row, options), ""]
    return "\n".join(lines)


def text(command: click.Command) -> str:
    """What --help says, without click's marks for lines that are not to be wrapped."""
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def argument(one: click.Argument) -> str:
    name = (one.name or "").upper() + (" …" if one.nargs == -1 else "")
    return name if one.required else f"[{name}]"


def row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    notes = []
    if isinstance(option.type, click.Choice):
        notes.append("one of " + ", ".join(f"`{choice}`" for choice in option.type.choices))
    elif not option.is_flag:
        notes.append(f"`{option.metavar or VALUES.get(option.type.name, 'TEXT')}`")
    if option.required:
        notes.append("required")
    elif option.show_default:
        default = (option.opts if option.default else option.secondary_opts)[0] if option.is_flag else option.default
        notes.append(f"default `{default}`")
    about = (option.help or "").replace("|", "\\|")
    return f"| {names} | {about}" + (f" ({'; '.join(notes)})" if notes else "") + " |"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
