"""The commands of imgtool synset, and their JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from imgtool.cli import main

COMMANDS = ["show", "tree", "classes", "path", "lca", "find"]


def synset(*args: str) -> Result:
    return CliRunner().invoke(main, ["synset", *args])


def shown(*args: str) -> str:
    result = synset(*args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def as_json(*args: str) -> Any:
    return json.loads(shown(*args, "--json"))


def test_help_does_not_import_numpy() -> None:
    script = (
        "import sys, imgtool.cli\n"
        "from click.testing import CliRunner\n"
        f"for args in [[], *([c] for c in {COMMANDS})]:\n"
        "    result = CliRunner().invoke(imgtool.cli.main, ['synset', *args, '--help'])\n"
        "    assert result.exit_code == 0 and result.stdout.startswith('Usage: main synset'), result.output\n"
        "assert 'numpy' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_commands_are_listed() -> None:
    for command in COMMANDS:
        assert f"\n  {command} " in synset("--help").stdout
    assert synset("-h").stdout == synset("--help").stdout


def test_show_is_the_default() -> None:
    for args in (["dog.n.01"], ["crane"], ["207"], ["--json", "dog.n.01"], ["--full", "kitten.n.01"]):
        assert shown(*args) == shown("show", *args)
    assert "118: 151, 152" in shown("dog.n.01")
    assert [s["class_index"] for s in as_json("crane")] == [517, 134]
    assert "tree.n.01" in shown("show", "tree", "--full")  # a word that is a command's name


def test_tree() -> None:
    text = shown("tree", "cat.n.01", "--depth", "1")
    assert text == "cat.n.01\n├── domestic_cat.n.01\n└── wildcat.n.03\n"
    ElementTree.fromstring(shown("tree", "cat.n.01", "--format", "svg"))
    assert shown("tree", "cat.n.01", "--format", "dot").startswith("digraph")
    drawn = as_json("tree", "cat.n.01", "--depth", "1")
    assert [node["synset"] for node in drawn["nodes"]] == ["cat.n.01", "domestic_cat.n.01", "wildcat.n.03"]
    assert drawn["edges"] == [["n02121620", "n02121808"], ["n02121620", "n02124623"]]


def test_classes() -> None:
    lines = shown("classes", "poodle.n.01").splitlines()
    assert lines[0].split()[:2] == ["265", "n02113624"] and len(lines) == 3
    assert len(as_json("classes", "dog.n.01")) == 118
    assert len(as_json("classes", "dog.n.01 - poodle.n.01")) == 115
    assert [s["class_index"] for s in as_json("classes", "poodle.n.01 + cougar.n.01")] == [265, 266, 267, 286]
    assert as_json("classes", "domestic dog") == as_json("classes", "dog.n.01")  # a lemma with a space
    assert [s["class_index"] for s in as_json("classes", "207")] == [207]


def test_path() -> None:
    lines = shown("path", "dog.n.01").splitlines()
    assert len(lines) == 2 and len(lines[0]) > len(lines[1])
    assert all(line.startswith("entity.n.01 > ") and line.endswith(" > dog.n.01") for line in lines)
    assert [len(path) for path in as_json("path", "dog.n.01")] == [14, 9]


def test_lca() -> None:
    assert shown("lca", "281", "cougar.n.01").startswith("n02121620  cat.n.01  by depth; ")
    result = as_json("lca", "281", "282", "--by", "height")
    assert (result["synset"], result["height"], result["by"]) == ("domestic_cat.n.01", 1, "height")


def test_find() -> None:
    assert [s["class_index"] for s in as_json("find", "cranes")] == [517, 134]
    assert len(as_json("find", "crane", "--full")) == 5
    assert "wading bird" in shown("find", "crane")


def test_other_class_sets() -> None:
    (dog,) = as_json("dog.n.01", "--set", "in22k")
    assert dog["class_index"] is not None and len(dog["classes"]) > 118


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["dgo.n.01"], "dog.n.01"),
        (["tree", "dgo.n.01"], "dog.n.01"),
        (["classes", "dog.n.01 - "], "column"),
        (["classes", "dgo.n.01"], "dog.n.01"),
        (["path", "1000"], "0 to 999"),
        (["lca", "dog.n.01"], "Missing argument 'B'"),
        (["lca", "dog.n.01", "crane"], "ambiguous"),
        (["find", "nosuchword"], "no synset"),
        (["tree", "cat.n.01", "--format", "png"], "'png' is not one of"),
        (["dog.n.01", "--set", "in2k"], "in2k"),
    ],
)
def test_wrong_input(args: list[str], message: str) -> None:
    result = synset(*args)
    assert result.exit_code == 2
    assert message in result.stderr
