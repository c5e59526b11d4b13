"""The documentation's site: it builds without a broken link, every page is in its menu, and it needs no other host."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

if sys.version_info < (3, 11):
    pytest.skip("zensical needs Python 3.11", allow_module_level=True)
pytest.importorskip("zensical")
pytest.importorskip("mkdocstrings_handlers.python")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    runpy.run_path(str(ROOT / "docs" / "site.py"))["build"](out)
    return out


def test_every_page_is_in_the_menu(site: Path) -> None:
    menu = (ROOT / "docs" / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", menu, re.M)) == pages | {"README.md", "CONTRIBUTING.md", "SECURITY.md"}
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert built == {page.replace("README", "index").replace(".md", ".html") for page in pages} | {
        "index.html",
        "CONTRIBUTING.html",
        "SECURITY.html",
        "404.html",
    }


def test_the_reference_has_the_public_names_with_their_docstrings(site: Path) -> None:
    from imgtool import Classifier, wordnet
    from imgtool.pipelines.loaders import open_loader
    from imgtool.wordnet.errors import DatasetError

    for page, name, documented in (
        ("imgtool", "imgtool.training.classifier.Classifier", Classifier),
        ("imgtool", "imgtool.training.classifier.Classifier.train", Classifier.train),
        ("wordnet", "imgtool.wordnet.load", wordnet.load),
        ("wordnet", "imgtool.wordnet.Hierarchy.find", wordnet.Hierarchy.find),
        ("pipelines", "imgtool.pipelines.loaders.open_loader", open_loader),
        ("errors", "imgtool.wordnet.errors.DatasetError", DatasetError),
    ):
        html = (site / "docs" / "api" / f"{page}.html").read_text("utf-8")
        assert f'id="{name}"' in html, name
        assert documented.__doc__ is not None
        first = " ".join(documented.__doc__.split()[:2])
        assert first in " ".join(re.sub(r"<[^>]+>", " ", html.split(f'id="{name}"')[1]).split()), name


def test_it_opens_and_searches_without_a_server_or_network(
    site: Path, browser: Any, open_page: Callable[..., list[str]], wait_until: Callable[..., None]
) -> None:
    said = open_page(browser, site / "index.html")
    assert not [line for line in said if not line.startswith(site.as_uri())]
    browser.find_element("css selector", "body").send_keys("/")
    browser.switch_to.active_element.send_keys("quasi-random")
    shadows = "return [...document.querySelectorAll('*')].map(e => e.shadowRoot?.textContent ?? '').join() + "
    shown = shadows + "document.body.innerText"
    wait_until(lambda: "Sample order" in browser.execute_script(shown), "a search result")
