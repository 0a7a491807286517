"""Tables that fit a phone: real rows and cells where there is HTML, aligned text where there is none.

A table of few short columns stays as it is; a wider one stands its cells under each other on a phone, each behind the
name of its column.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence

from thesis_kit.ledger.results import Result
from thesis_kit.show.shown import Shown

_FITS = 44  # letters of a row that a phone shows without breaking a word
_NUMBERS = set("0123456789.,+-−–×%±[]() /εσ∞")
_WHOLE = re.compile(r"\(−?[\d.,]+%? to −?[\d.,]+%?\)|\d{4}-\d\d-\d\d")  # intervals and days, never broken over lines
Cells = Sequence[object]


def table(
    rows: Sequence[Cells] | Mapping[str, object], columns: Sequence[str] = (), *, caption: str = "",
    bold: int | None = None, prose: bool = False,
) -> Shown:  # fmt: skip
    """A table of a chapter, shown by a notebook cell that ends in it; ``print`` it for aligned text.

    Args:
        rows: the rows, each as long as the others; or a mapping from the name of a row to its value or values. Cells
            are shown as ``str`` writes them, and nothing in them is markup.
        columns: the names of the columns; without them there is no head. A mapping's first column may be left
            unnamed: "".
        caption: a line above the table, such as what is counted.
        bold: index of a row that stands out.
        prose: whether cells hold sentences; a phone then shows them from the left, under their row's name.

    Raises:
        ValueError: there are no rows, or rows and columns differ in length.
    """
    if isinstance(rows, Mapping):
        rows = [(name, *(value if _several(value) else (value,))) for name, value in rows.items()]
    lines = [[str(cell) for cell in row] for row in rows]
    widths = {len(line) for line in [*lines, *([list(columns)] if columns else [])]}
    if not lines or len(widths) != 1:
        raise ValueError(f"a table needs rows of one length, its head included, got lengths {sorted(widths)}")
    return Shown(_html(lines, list(columns), caption, bold, prose), as_text(lines, columns, caption))


def _several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def as_text(lines: Sequence[Sequence[str]], columns: Sequence[str] = (), caption: str = "") -> str:
    """The rows in columns of equal width, numbers to the right."""
    everything = [list(columns), *lines] if columns else list(lines)
    widths = [max(_width(line[place]) for line in everything) for place in range(len(lines[0]))]
    right = _right(lines)
    said = [
        "  ".join(_padded(cell, width, side) for cell, width, side in zip(line, widths, right, strict=True)).rstrip()
        for line in everything
    ]
    return "\n".join([caption] * bool(caption) + said)


def _width(text: str) -> int:
    return sum(not unicodedata.combining(letter) for letter in text)


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _right(lines: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers, and so stand to the right; the first names the rows."""
    numeric = [all(set(line[place]) <= _NUMBERS for line in lines) for place in range(len(lines[0]))]
    return [place > 0 and is_number for place, is_number in enumerate(numeric)]


def _html(lines: list[list[str]], columns: list[str], caption: str, bold: int | None, prose: bool) -> str:
    everything = [*lines, *([columns] if columns else [])]
    letters = sum(max(_longest_word(line[place]) for line in everything) for place in range(len(lines[0])))
    kind = "tk-table" if letters + 2 * len(lines[0]) <= _FITS else "tk-table tk-stacks" + " tk-prose" * prose
    right = _right(lines)
    head = "".join(_cell("th", name, side, scope="col") for name, side in zip(columns, right, strict=bool(columns)))
    body = "".join(
        f'<tr role="row"{" class=tk-bold" * (number == bold)}>'
        + "".join(_entry(line, place, columns, right) for place in range(len(line)))
        + "</tr>"
        for number, line in enumerate(lines)
    )
    above = f"<caption>{html.escape(caption)}</caption>" * bool(caption)
    head = f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>' * bool(columns)
    return f'<table class="{kind}" role="table">{above}{head}<tbody role="rowgroup">{body}</tbody></table>'


def _longest_word(text: str) -> int:
    """Letters of a cell that cannot be broken: a number, or the longest word of a name."""
    words = [*_WHOLE.findall(text), *text.split()]
    return max(map(len, words), default=0) if set(text) - _NUMBERS else len(text)


def _entry(line: list[str], place: int, columns: list[str], right: list[bool]) -> str:
    if place == 0 and len(line) > 1:
        return _cell("th", line[0], False, scope="row")
    return _cell("td", line[place], right[place], label=columns[place] if columns else "")


def _cell(kind: str, text: str, right: bool, *, scope: str = "", label: str = "") -> str:
    """One cell; a phone shows its ``label`` before it."""
    role = {"col": "columnheader", "row": "rowheader"}.get(scope, "cell")
    marks = f' role="{role}"' + f' scope="{scope}"' * bool(scope)
    marks += f' data-label="{html.escape(label, quote=True)}"' * bool(label)
    marks += ' style="text-align:right"' if right else ' style="text-align:left"'
    said = _WHOLE.sub(r'<span style="white-space:nowrap">\g<0></span>', html.escape(text))
    return f"<{kind}{marks}>{said}</{kind}>"


def mean_with_ends(recorded: Result, measure: str, arm: str, *, percent: bool) -> str:
    """A recorded number of several networks: the mean, and in brackets its 95% interval over networks; of two networks
    each one's number, for an interval from two says nothing.

    Args:
        percent: the number is a share.
    """

    def said(number: float) -> str:
        scale, digits = (100, 0) if percent else (1, 2)
        return f"{round(scale * number, digits) + 0.0:.{digits}f}"  # no −0

    every, found = list(recorded.scalars(measure, arm).values()), recorded.mean(measure, arm)
    high = min(1.0, found.high) if percent else found.high  # Student's knows no largest share
    known = f"{said(found.low)} to {said(high)}" if len(every) > 2 else ", ".join(map(said, every))
    told = f"({known})" if len(every) > 1 else "(one network)"
    return f"{said(found.value)}{'%' * percent} {told}".replace("-", "−")
