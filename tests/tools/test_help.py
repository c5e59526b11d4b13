"""The help of every command, and docs/cli.md, which is made from it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imgtool.cli import main

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "cli.md"
CLI = runpy.run_path(str(DOCS / "cli.py"))
COMMANDS = list(CLI["commands"]())


def options(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def test_the_reference_is_up_to_date() -> None:
    """It has every command and every option."""
    made = CLI["page"]()
    assert REFERENCE.read_text("utf-8") == made, "make docs"
    for name, command in COMMANDS:
        assert f"\n## {name}\n" in made
        assert all(f"`{one}`" in made for option in options(command) for one in (*option.opts, *option.secondary_opts))


def test_every_command_and_option_has_help() -> None:
    lacking = [name for name, command in COMMANDS if not command.help]
    lacking += [f"{name} {one.opts[0]}" for name, command in COMMANDS for one in options(command) if not one.help]
    assert not lacking


@pytest.mark.parametrize("name", ["prepare", "train", "val", "predict", "export"])
def test_long_help_is_grouped(name: str) -> None:
    """Each option is shown once, under a heading; in the reference too."""
    shown = CliRunner().invoke(main, [name, "--help"]).stdout
    headings = re.findall(r"^(\w[\w ]*):$", shown, re.M)
    assert len(headings) >= 4 and headings[-1] == "Other" and len(set(headings)) == len(headings)
    for option in options(dict(COMMANDS)[f"imgtool {name}"]):
        assert len(re.findall(rf"^  {option.opts[0]}(?![\w-])", shown, re.M)) == 1, option.opts[0]
    section = REFERENCE.read_text("utf-8").split(f"\n## imgtool {name}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\w[\w ]*) \| \|$", section, re.M) == headings[:-1]
