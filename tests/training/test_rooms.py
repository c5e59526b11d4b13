"""The rooms of training/: each imports those before it and never those after it, and no modules import in a circle.

Imports within functions and under TYPE_CHECKING count too.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[2] / "training"
PACKAGE = "imgtool.training"
ROOMS = [
    "parallel",
    "models",
    "recipes",
    "checkpoints",
    "runtimes",
    "evaluation",
    "runs",
    "engine",
    "export",
    "job",
    "classifier",
]


def name_of(path: Path) -> str:
    parts = path.relative_to(TRAINING).with_suffix("").parts
    return ".".join([PACKAGE, *(part for part in parts if part != "__init__")])


MODULES = {name_of(path): path for path in sorted(TRAINING.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """The modules of training/ that a file imports; a package where it imports a name that is no module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in full]
        else:
            continue
        found |= {name for name in names if name in MODULES}
    return found


def room_of(module: str) -> int:
    return ROOMS.index(module.removeprefix(f"{PACKAGE}.").partition(".")[0])


def test_every_room_has_its_place() -> None:
    found = {name.removeprefix(f"{PACKAGE}.").partition(".")[0] for name in MODULES if name != PACKAGE}
    assert found == set(ROOMS)


@pytest.mark.parametrize("module", [name for name in MODULES if name != PACKAGE])
def test_rooms_import_one_way(module: str) -> None:
    later = [name for name in imported(MODULES[module]) if room_of(name) > room_of(module)]
    assert not later, f"{module} imports {', '.join(later)}, which come after it in {ROOMS}"


def test_no_modules_import_in_a_circle() -> None:
    TopologicalSorter(
        {module: imported(path) for module, path in MODULES.items()}
    ).prepare()  # CycleError has the circle


def test_rooms_are_small() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        count = sum(1 for path in folder.glob("*.py") if path.name != "__init__.py")
        assert count <= 12, f"{folder.relative_to(TRAINING.parent)} has {count} modules: make rooms in it"
