"""The house's walls: which folder may import which, and what the package ships."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ["wordnet", "pipelines", "training", "tools"]  # each imports those before it, never those behind
SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
MAX_LINES = 400


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("imgtool.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    for name in imported(path):
        part = name.split(".")[1]
        target = FLOORS.index(part) if part in FLOORS else FLOORS.index("tools")
        assert target <= floor, f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_package_is_named_in_pyproject():
    """An editable install finds a package that is not named; a wheel would lack it."""
    text = (ROOT / "pyproject.toml").read_text()
    for path in SOURCES:
        if path.name == "__init__.py":
            folder = path.parent.relative_to(ROOT)
            name = (
                "imgtool"
                if folder == Path("tools")
                else "imgtool." + str(folder).removeprefix("tools/").replace("/", ".")
            )
            assert f'"{name}"' in text, f"{name} is missing from [tool.setuptools] packages"
