"""The book's pages: all listed, all built without a warning, the package's public names documented."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
from sphinx.util.inventory import InventoryFile

import thesis_kit
from tests.listing import PAGES as LISTED
from tests.listing import ROOT

pytestmark = pytest.mark.book
BOOK = ROOT / "book"
WRITTEN = [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb"), *BOOK.glob("api/*.md")]


def test_every_page_is_listed_once():
    assert sorted(LISTED) == sorted(path.relative_to(BOOK).with_suffix("").as_posix() for path in WRITTEN)


def test_the_site_builds_without_a_warning(site):
    assert [page for page in LISTED if not (site / f"{page}.html").exists()] == []


def test_nothing_but_the_book_is_published(site):
    """No virtual environment, no sources of the notebooks, no private folder ends in the site."""
    published = {path.relative_to(site).parts[0] for path in site.rglob("*")}
    assert published <= {
        *(f"{name}.html" for name in [*LISTED, "genindex", "search", "py-modindex"] if not name.startswith("api/")),
        *("api", "_images", "_modules", "_sources", "_sphinx_design_static", "_static"),
        *(".buildinfo", "objects.inv", "searchindex.js"),
    }
    sources = {path.relative_to(site / "_sources") for path in (site / "_sources").rglob("*") if path.is_file()}
    assert {path.with_suffix("").as_posix() for path in sources} <= set(LISTED)
    assert {path.relative_to(site).with_suffix("").as_posix() for path in (site / "api").iterdir()} <= set(LISTED)


def public_names() -> set[str]:
    """Every name that a public module of the package offers, with the module's."""
    names = set()
    for room in (getattr(thesis_kit, name) for name in thesis_kit.__all__):
        if type(room) is type(thesis_kit):
            offered = getattr(room, "__all__", None) or [n for n in vars(room) if own(room, n)]
            names |= {f"{room.__name__}.{name}" for name in offered}
    return names


def own(module, name: str) -> bool:
    value = getattr(module, name)
    return not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__


def test_the_api_page_leads_to_every_room():
    index = (BOOK / "api.md").read_text(encoding="utf-8")
    assert "automodule" not in index, "functions stand on the pages of their rooms, api/*.md"
    rooms = re.findall(r"^\| \[[^]]+\]\(api/(\w+)\.md\) \| \S.* \|$", index, re.MULTILINE)
    assert [f"api/{room}" for room in rooms] == [page for page in LISTED if page.startswith("api/")]


def test_the_api_pages_document_every_public_name(site):
    with open(site / "objects.inv", "rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    documented = {name for kind, entries in inventory.items() if kind.startswith("py:") for name in entries}
    constants = {name for name in public_names() if name.rpartition(".")[2].isupper()}
    assert public_names() - constants - documented == set()
    last = {name.rpartition(".")[2] for name in documented}
    assert {n for n in thesis_kit.__all__ if type(getattr(thesis_kit, n)) is not type(thesis_kit)} <= last


def test_public_lists_are_true():
    for module in [thesis_kit, *map(importlib.import_module, submodules())]:
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module.__name__}.__all__ offers {name}, which is not there"


def submodules() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(thesis_kit.__path__, "thesis_kit.") if m.ispkg]


def test_every_work_of_the_bibliography_is_cited():
    """A key that a page cites is in references.bib (the build would warn); here none is there twice, or for nobody."""
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(keys) == len(set(keys))
    pages = [*(ROOT / "book").rglob("*.md"), *(ROOT / "book" / "src").glob("*.py")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    cited = {key.strip() for found in re.findall(r"\{cite[^}]*\}`([^`]+)`", text) for key in found.split(",")}
    assert not set(keys) - cited, "cite them on a page, or leave them out of references.bib"
