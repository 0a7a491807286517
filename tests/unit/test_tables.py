"""Tables: cells that hold no markup, names that a phone can show, aligned text for a terminal."""

from __future__ import annotations

import pytest
from docutils import nodes

from tests.unit.test_figures import NASTY, Elements
from thesis_kit.show.shown import html_id
from thesis_kit.show.tables import table

ROWS = [("Free, m = 8", "79.4%", "1,000"), ("PGD-7", "84.0%", "8,000")]
COLUMNS = ("way to train", "robust", "passes")


def test_a_table_has_a_head_and_a_row_a_line():
    elements = Elements(table(ROWS, COLUMNS).html)
    assert elements.open == []
    assert "".join(elements.text) == "".join([*COLUMNS, *ROWS[0], *ROWS[1]])
    assert [cell["scope"] for cell in elements.all("th")] == ["col"] * 3 + ["row"] * 2
    assert [cell["data-label"] for cell in elements.all("td")] == ["robust", "passes"] * 2


def test_its_text_is_aligned_with_numbers_to_the_right():
    assert table(ROWS, COLUMNS, caption="Recorded.").text.splitlines() == [
        "Recorded.",
        "way to train  robust  passes",
        "Free, m = 8    79.4%   1,000",
        "PGD-7          84.0%   8,000",
    ]


def test_a_mapping_names_its_rows():
    shown = table({"clean": "99%", "attacked": "12%"})
    assert shown.text == "clean     99%\nattacked  12%"
    assert [tag for tag, _ in Elements(shown.html).tags].count("tr") == 2
    assert table({"clean": ("99%", "98%")}).text == "clean  99%  98%"


def test_nothing_in_a_cell_is_markup():
    elements = Elements(table([(NASTY, NASTY)], (NASTY, NASTY), caption=NASTY).html)
    assert elements.open == []
    assert elements.all("b") == elements.all("script") == []
    assert "".join(elements.text) == NASTY * 5
    assert elements.all("td")[0]["data-label"] == NASTY


def test_a_wide_table_stacks_on_a_phone_and_a_small_one_does_not():
    assert Elements(table(ROWS, COLUMNS).html).all("table")[0]["class"] == "tk-table"
    wide = [("a method", *["99.5% [99.1, 99.8]"] * 3)]
    assert Elements(table(wide).html).all("table")[0]["class"] == "tk-table tk-stacks"


def test_a_row_can_stand_out():
    rows = Elements(table(ROWS, bold=1).html).all("tr")
    assert [row.get("class") for row in rows] == [None, "tk-bold"]


@pytest.mark.parametrize(("rows", "columns"), [([], ()), ([("a", "b"), ("c",)], ()), ([("a", "b")], ("one",))])
def test_rows_of_different_lengths_are_refused(rows, columns):
    with pytest.raises(ValueError, match="a table needs rows of one length, its head included"):
        table(rows, columns)


@pytest.mark.parametrize("name", ["claim-radius-0.12", "zoo-cnn-digits-crown-ibp-0.1", "A b"])
def test_ids_are_spelled_as_docutils_spells_them(name):
    assert html_id(name) == nodes.make_id(name)
