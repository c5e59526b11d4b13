"""The architecture: what each folder and room may import, how large they may be, and that all of them are packaged."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ["wordnet", "pipelines", "training", "tools"]  # each imports those before it
ROOMS = {  # the sub-packages and modules of a floor, in order: each imports those before it
    "wordnet": ["errors", "tables", "graph", "hierarchy", "imagenet", "tasks", "metrics"],
    "pipelines": [
        *("rng", "threads", "storage", "records", "archives", "annotations", "sources"),
        *("codec", "shards", "dataset", "report", "prepare", "loaders"),
    ],
    "training": [
        *("parallel", "models", "recipes", "checkpoints", "runtimes", "evaluation", "runs", "engine", "export"),
        *("job", "execute", "classifier"),
    ],
}
SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
IN_ROOMS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ROOMS]
MAX_LINES = 400
MAX_FILES = 12


def name_of(path: Path) -> str:
    """Returns ``imgtool.wordnet.graph.dag`` for wordnet/graph/dag.py, and the package's name for an ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["imgtool", *(part for part in parts if part not in ("tools", "__init__"))])


MODULES = {name_of(path): path for path in SOURCES}


@cache
def imported(path: Path) -> frozenset[str]:
    """Returns imgtool's modules that this file imports anywhere, also in functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = {name for name in names if name.startswith("imgtool.")}
    return frozenset(name if name in MODULES else name.rpartition(".")[0] for name in ours)


def floor_and_room(module: str) -> tuple[str, str]:
    """Returns ("wordnet", "graph") for ``imgtool.wordnet.graph.dag``; the room is empty for a floor's ``__init__``."""
    _, *parts = module.split(".")
    floor, *rest = parts if parts and parts[0] in FLOORS else ["tools", *parts]
    return floor, rest[0] if rest else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    floor, room = floor_and_room(name_of(path))
    for name in imported(path):
        target, target_room = floor_and_room(name)
        assert FLOORS.index(target) <= FLOORS.index(floor), f"{path} imports {name}"
        if target == floor and floor in ROOMS and room:  # a floor's __init__ is its public face and imports any room
            order = ROOMS[floor]
            assert target_room, f"{path} imports {name}, the public face of its floor"
            assert order.index(target_room) <= order.index(room), f"{path} imports {name} from a later room"


def test_no_modules_import_each_other():
    """There is no cycle, not even with an import inside a function."""
    graph = {name_of(path): {name for name in imported(path) if name != name_of(path)} for path in IN_ROOMS}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" ← ".join(error.args[1]))


@pytest.mark.parametrize("floor", ROOMS)
def test_rooms_are_small_and_in_the_order(floor):
    found = {floor_and_room(name_of(path))[1] for path in IN_ROOMS if path.relative_to(ROOT).parts[0] == floor}
    assert found - {""} == set(ROOMS[floor])
    for folder in {path.parent for path in IN_ROOMS if path.relative_to(ROOT).parts[0] == floor}:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MAX_FILES, f"{folder} has {len(modules)} modules: split it"


@pytest.mark.parametrize("floor", ROOMS)
def test_tests_mirror_the_rooms(floor):
    for path in (ROOT / "tests" / floor).rglob("test_*.py"):
        room = path.relative_to(ROOT / "tests" / floor).parts[0]
        assert room == path.name or room in ROOMS[floor], f"{path} is in no room's folder"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_package_is_named_in_pyproject():
    """An editable install finds a package that is not named there, but a wheel would lack it."""
    text = (ROOT / "pyproject.toml").read_text()
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            assert f'"{name}"' in text, f"{name} is missing from [tool.setuptools] packages"
