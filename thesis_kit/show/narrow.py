"""A figure drawn again for the width of a phone: panels under each other, long words wrapped, no text under 11 points.

A plot laid out for a desktop has text of five pixels on a phone. Here the same axes get a canvas as wide as a phone's
column, and whatever no longer fits is moved: panels to a single column, legends to fewer columns, names to more lines.
"""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Iterable, Sequence
from textwrap import wrap

from thesis_kit.show.library import Axes, Figure, MaxNLocator, NullFormatter, ScalarFormatter, Text

WIDTH = 340  # points, which a phone of 390 pixels shows as some 350 pixels
LEAST = 11.0  # points
_PANEL = 165  # points a panel is high at least
_NAMES = 0.36  # share of the width that row names may take


def narrowed(figure: Figure) -> Figure:
    """A copy of the figure for a column of 340 points; the figure itself stays as it is."""
    copy = pickle.loads(pickle.dumps(figure))
    raise_text(copy, LEAST)
    panels = _panels(copy)
    _resize(copy, panels)
    _restack(copy, panels)
    for axis in panels:
        _wrap_rows(axis)
        _raise_name(axis)
    _relegend(copy, panels)
    copy.draw_without_rendering()
    for axis in panels:
        _wrap_labels(axis)
        _thin_ticks(axis)
    if copy.get_suptitle():
        copy.suptitle("\n".join(wrap(copy.get_suptitle(), 48)), fontsize=12)
    return copy


def raise_text(figure: Figure, least: float) -> None:
    """Give every text of a figure at least this size in points."""
    figure.draw_without_rendering()  # tick labels are made when they are first drawn
    for axis in figure.axes:
        size = max(least, *(label.get_size() for label in _ticks(axis)), 0)
        axis.tick_params(labelsize=size)
    for text in figure.findobj(Text):
        text.set_size(max(least, text.get_size()))


def _ticks(axis: Axes) -> list[Text]:
    return [*axis.get_xticklabels(), *axis.get_yticklabels()]


def _panels(figure: Figure) -> list[Axes]:
    """The axes that stand in a grid of their own, in reading order; color bars and insets are none."""
    return [axis for axis in figure.axes if axis.get_visible() and axis.get_subplotspec() is not None]


def _pictures(axis: Axes) -> bool:
    """Whether axes show an image and no scale, so that they may stay small beside each other."""
    return bool(axis.images) and not any(label.get_text() for label in _ticks(axis))


def _restacked(panels: Sequence[Axes]) -> bool:
    plots = all(axis.get_subplotspec().get_gridspec() is panels[0].get_subplotspec().get_gridspec() for axis in panels)
    return plots and len(panels) > 1 and not all(map(_pictures, panels)) and not any(_square(axis) for axis in panels)


def _square(axis: Axes) -> bool:
    """Whether a panel is as narrow as it is high by design, so that two fit beside each other."""
    return axis.get_aspect() == 1 and not axis.images


def _resize(figure: Figure, panels: Sequence[Axes]) -> None:
    width, height = (72 * inches for inches in figure.get_size_inches())
    if not panels:
        figure.set_size_inches(WIDTH / 72, height / width * WIDTH / 72)
        return
    grid = panels[0].get_subplotspec().get_gridspec()
    if _restacked(panels):
        height = len(panels) * max(_PANEL, 0.8 * height / grid.nrows) + 20
    elif all(map(_pictures, panels)) or any(map(_square, panels)):
        height *= WIDTH / width
        height += 14 * grid.nrows
    figure.set_size_inches(WIDTH / 72, height / 72)


def _restack(figure: Figure, panels: Sequence[Axes]) -> None:
    """Panels that stood beside each other under each other, each with its own names and scale."""
    if not _restacked(panels) or panels[0].get_subplotspec().get_gridspec().ncols == 1:
        return
    rows = figure.add_gridspec(len(panels), 1)
    first = panels[0]
    for axis, place in zip(panels, rows, strict=True):
        axis.set_subplotspec(place)
        axis.tick_params(labelleft=True, labelbottom=True)
        if not axis.get_ylabel() and axis.get_shared_y_axes().joined(axis, first):
            axis.set_ylabel(first.get_ylabel())


def _wrap_rows(axis: Axes) -> None:
    """Names of rows in as many lines as they need to leave the plot most of the width."""
    names = [label.get_text() for label in axis.get_yticklabels()]
    if not names or _numeric(names):
        return
    letters = int(_NAMES * WIDTH / (0.56 * LEAST))
    names = [_wrapped(name, letters) for name in names]
    axis.set_yticks(axis.get_yticks(), names)
    figure, lines = axis.figure, len(names) * max(name.count("\n") + 1 for name in names)
    if len(figure.axes) == 1:  # names under each other need their height
        figure.set_figheight(max(figure.get_figheight(), (1.3 * LEAST * lines + 60) / 72))


def _numeric(names: Iterable[str]) -> bool:
    return all(re.fullmatch(r"(\$\\mathdefault\{.*\}\$)|[\d\s.,%×−+-]*", name) for name in names)


def _wrapped(text: str, letters: int) -> str:
    return "\n".join(line for part in text.split("\n") for line in wrap(part, max(letters, 4)) or [""])


def _raise_name(axis: Axes) -> None:
    """The name of an upright scale above it, where it costs no width and is read without turning the head."""
    if axis.get_ylabel() and not axis.get_title() and not _square(axis):
        axis.set_title(_wrapped(axis.get_ylabel(), 44), loc="left", fontsize=LEAST)
        axis.set_ylabel("")


def _relegend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Legends below the plot, in as many columns as fit, and the canvas higher by their lines."""
    legends = list(figure.legends)
    if len(panels) == 1 and panels[0].get_legend() is not None:
        legends.append(panels[0].get_legend())
    known = {}
    for axis in panels:
        handles, names = axis.get_legend_handles_labels()
        known |= dict(zip(names, handles, strict=True))
    for legend in legends:
        names = [text.get_text() for text in legend.get_texts()]
        handles = [known.get(name, own) for name, own in zip(names, legend.legend_handles, strict=True)]
        legend.remove()
        columns = _legend_below(figure, handles, [_wrapped(name, 46) for name in names])
        lines = -(-len(names) // columns)
        figure.set_figheight(figure.get_figheight() + max(0, lines - 2) * 16 / 72)


def _legend_below(figure: Figure, handles: Sequence[object], names: Sequence[str]) -> int:
    """Put a legend under everything in the largest number of columns that the width allows, and say how many."""
    look = {"fontsize": LEAST, "frameon": False, "columnspacing": 1.0, "handletextpad": 0.4, "handlelength": 1.6}
    for columns in range(min(len(names), 4), 0, -1):
        legend = figure.legend(handles, names, loc="outside lower center", ncols=columns, **look)
        if columns == 1 or legend.get_window_extent().width * 72 / figure.dpi <= WIDTH - 6:
            return columns
        legend.remove()
    raise AssertionError("one column always returns")


def _wrap_labels(axis: Axes) -> None:
    """Names of axes and titles no longer than the axes themselves."""
    box = axis.get_window_extent()
    for text, room in ((axis.xaxis.label, box.width), (axis.yaxis.label, box.height), (axis.title, box.width)):
        letters = max(10, int(72 / axis.figure.dpi * room / (0.55 * text.get_size())))
        if text.get_text():
            text.set_text(_wrapped(text.get_text(), letters))


def _thin_ticks(axis: Axes) -> None:
    """Fewer numbers, or names in more lines, where the labels below an axis run into each other."""
    if not _collide(axis):
        return
    names = [label.get_text() for label in axis.get_xticklabels()]
    if _numeric(names) and isinstance(axis.xaxis.get_major_formatter(), ScalarFormatter | NullFormatter):
        axis.xaxis.set_major_locator(MaxNLocator(5))
    elif len(names) > 1:
        room = WIDTH * 0.8 / len(names)
        axis.set_xticks(axis.get_xticks(), [_wrapped(name, int(room / (0.55 * LEAST))) for name in names])
    axis.figure.draw_without_rendering()
    if _collide(axis):
        axis.tick_params(axis="x", rotation=90 if len(names) > 9 else 40)
        for label in axis.get_xticklabels():
            label.set_horizontalalignment("right")


def _collide(axis: Axes) -> bool:
    axis.figure.draw_without_rendering()
    low, high = sorted(axis.get_xlim())
    places = zip(axis.get_xticks(), axis.get_xticklabels(), strict=False)
    seen = [label for place, label in places if low <= place <= high and label.get_text() and label.get_visible()]
    boxes = sorted((label.get_window_extent() for label in seen), key=lambda box: box.x0)
    return any(right.x0 < left.x1 + 6 for left, right in itertools.pairwise(boxes))
