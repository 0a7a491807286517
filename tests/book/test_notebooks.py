"""The committed notebooks: in step with their sources, executed in order, and fit to be published."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from tools import build_notebooks as tool

pytestmark = pytest.mark.book
ROOT = tool.ROOT
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
TAGS = {"setup", "nbval-check-output", "nbval-skip", "hide-input", "hide-output", "hide-cell", "remove-input"}
IMAGE = re.compile(r"<img\b[^>]*>")
ALT = re.compile(r"""\balt=(?:"[^"]+"|'[^']+')""")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def outputs(notebook) -> list[tuple[str, nbformat.NotebookNode]]:
    return [(cell.id, out) for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def test_notebooks_are_what_their_sources_say():
    assert tool.differences(ROOT) == []


def test_all_notebooks_together_stay_under_the_cap():
    assert sum(path.stat().st_size for path in NOTEBOOKS) <= tool.BOOK_BYTES


@each_notebook
def test_a_notebook_stays_under_the_cap(path):
    assert path.stat().st_size <= tool.NOTEBOOK_BYTES


@each_notebook
def test_ids_say_the_position(path):
    cells = read(path).cells
    assert [cell.id for cell in cells] == [f"cell-{i:03d}" for i in range(len(cells))]


@each_notebook
def test_cells_were_run_once_from_top_to_bottom(path):
    run = [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))


@each_notebook
def test_outputs_are_fit_to_be_published(path):
    for place, output in outputs(read(path)):
        assert output.output_type != "error", place
        tool.refuse_unpublishable(output, f"{path.stem}: {place}")


@each_notebook
def test_nothing_of_one_run_is_kept(path):
    notebook = read(path)
    assert "widgets" not in notebook.metadata
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata]
    assert not [place for place, output in outputs(notebook) if tool.WIDGET_VIEW in output.get("data", {})]


@each_notebook
def test_the_setup_cell_is_the_shared_one(path):
    cells = [cell.source for cell in read(path).cells if "setup" in cell.metadata.get("tags", [])]
    assert cells == [tool.SETUP.format(repository=tool.repository_url(ROOT))]


@each_notebook
def test_tags_are_known(path):
    assert {tag for cell in read(path).cells for tag in cell.metadata.get("tags", [])} <= TAGS


@each_notebook
def test_every_picture_has_words(path):
    """Pictures in HTML carry alt; a bare image output would need it in the cell's metadata."""
    notebook = read(path)
    silent = [
        place
        for place, output in outputs(notebook)
        for image in IMAGE.findall("".join(output.get("data", {}).get("text/html", "")))
        if not ALT.search(image)
    ]
    for cell in notebook.cells:
        pictures = [o for o in cell.get("outputs", []) if any(k.startswith("image/") for k in o.get("data", {}))]
        if pictures and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
            silent.append(cell.id)
        if cell.cell_type == "markdown":
            silent += [cell.id for image in IMAGE.findall(cell.source) if not ALT.search(image)]
            silent += [cell.id] * len(re.findall(r"!\[\s*\]\(", cell.source))
    assert silent == []


@each_notebook
def test_some_cells_are_compared_when_notebooks_run_again(path):
    assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in read(path).cells)
