"""Builds the documentation as a static site: `make docs` writes it to build/site, which a browser opens from there.

The pages are README.md, CONTRIBUTING.md, SECURITY.md and docs/, copied into one folder in the layout of the repository,
so that the same relative links work in both. The API reference is made from the docstrings, which are read, not
imported.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROLE = re.compile(r":(?:attr|class|func|meth|mod):`~?([^`]+)`")  # Sphinx's markup of names


def build(site: Path) -> None:
    """Builds the folder ``site``. Raises CalledProcessError for a link, an anchor or a name that does not exist."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        copy_pages(stage / "pages")
        copy_package(stage / "imgtool")
        shutil.copy(ROOT / "docs" / "mkdocs.yml", stage)
        subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=stage, check=True)
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(stage / "site", site)


def copy_pages(pages: Path) -> None:
    unwanted = shutil.ignore_patterns("*.py", "*.yml", "__pycache__")
    shutil.copytree(ROOT / "docs", pages / "docs", ignore=unwanted)
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"):
        shutil.copy(ROOT / name, pages)


def copy_package(package: Path) -> None:
    """Copies the Python files to where they are when installed."""
    for folder in ("tools", "wordnet", "pipelines", "training"):
        for source in (ROOT / folder).rglob("*.py"):
            target = package / source.relative_to(ROOT / "tools" if folder == "tools" else ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(ROLE.sub(r"`\1`", source.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    build(ROOT / "build" / "site")
