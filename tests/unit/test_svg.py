"""Plots as SVG: text that stays text, colors that the page decides, and a second layout for a phone."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from thesis_kit.show.drawing import smallest_text
from thesis_kit.show.figures import COLORS, canvas, style
from thesis_kit.show.narrow import LEAST, WIDTH, narrowed
from thesis_kit.show.svg import key_of, render

LONG = "accuracy of a network that was trained on many images under PGD with twenty steps (%)"


def plot(columns: int = 1, *, size=(8, 3.5), names=("first", "second"), **options):
    with style():
        figure, axes = canvas(1, columns, size=size, squeeze=False, **options)
        for axis in axes[0]:
            for color, name in zip(COLORS.values(), names, strict=False):
                axis.errorbar([0, 1, 2], [10, 40, 90], yerr=[[1, 2, 3]] * 2, color=color, marker="o", label=name)
            axis.set_xlabel("steps")
        axes[0, 0].set_ylabel(LONG)
    return figure


def extents(figure) -> list[tuple[str, float, float, float, float]]:
    """Every text in sight with its box in points, from the lower left corner of the canvas."""
    figure.draw_without_rendering()
    found = []
    for text in figure.findobj(lambda artist: hasattr(artist, "get_text")):
        axis = text.axes
        if text.get_text().strip() and text.get_visible() and (axis is None or axis.get_visible()):
            box = text.get_window_extent()
            if box.width > 1:
                found.append((text.get_text(), *(72 / figure.dpi * np.array([box.x0, box.y0, box.x1, box.y1]))))
    return found


def test_text_stays_text_and_names_no_font_of_this_machine():
    svg = render(plot(), key="k")
    assert ">steps</text>" in svg
    assert "DejaVu" not in svg
    assert smallest_text(svg) == 11


def test_colors_are_variables_with_themselves_behind_them():
    svg = render(plot(), key="k")
    assert f"stroke: var(--tk-blue,{COLORS['blue'].lower()})" in svg
    assert "fill: var(--tk-ink,#1a1a1a)" in svg
    assert not re.search(r"(fill|stroke): #(0072b2|1a1a1a|e4e4e4|000000)", svg)


def test_the_same_figure_gives_the_same_bytes_and_another_key_other_names():
    one, other = render(plot(), key="a"), render(plot(), key="b")
    assert one == render(plot(), key="a")
    names = [set(re.findall(r'id="(\w+)"', svg)) for svg in (one, other)]
    assert names[0]
    assert not names[0] & names[1]


def test_an_svg_says_nothing_of_when_and_by_whom():
    svg = render(plot(), key="k")
    assert svg.startswith("<svg ")
    assert "<metadata>" not in svg
    assert "<!--" not in svg
    assert not re.search(r"\d\.\d{3}", svg)
    assert not re.search(r'<svg[^>]* (width|height)="', svg)


def test_a_cloud_of_dots_is_one_picture():
    with style():
        figure, axis = canvas()
        axis.plot(np.arange(5000) % 71, np.arange(5000) % 83, ".")
    svg = render(figure, key="k")
    assert svg.count("<image") == 1
    assert "data:image/webp;base64," in svg
    assert "data:image/png" not in svg
    assert svg.count("<use") < 100


def test_panels_stand_under_each_other_on_a_phone():
    figure = plot(3, sharey=True)
    narrow = narrowed(figure)
    narrow.draw_without_rendering()
    lefts = {round(axis.get_position().x0, 2) for axis in narrow.axes}
    tops = [axis.get_position().y1 for axis in narrow.axes]
    assert len(lefts) == 1
    assert tops == sorted(tops, reverse=True)
    assert all(label.get_visible() for axis in narrow.axes for label in axis.get_yticklabels())
    assert all(LONG[:20] in axis.get_title(loc="left") + axis.get_ylabel() for axis in narrow.axes)


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("names", [("first", "second"), tuple(f"a long name of a method, {n}" for n in range(6))])
def test_nothing_is_cut_off_on_a_phone_and_no_text_is_small(columns, names):
    figure = plot(columns, names=names)
    with style():
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    narrow = narrowed(figure)
    narrow.draw_without_rendering()
    drawn, canvas_of = narrow.get_tightbbox(), narrow.bbox_inches
    assert 72 * canvas_of.width == pytest.approx(WIDTH)
    assert min(drawn.x0, drawn.y0) >= -0.02
    assert drawn.x1 <= canvas_of.x1 + 0.02
    assert drawn.y1 <= canvas_of.y1 + 0.02
    assert smallest_text(render(narrow, key="k")) >= LEAST


def test_names_of_rows_leave_room_for_the_plot():
    with style():
        figure, axis = canvas(size=(8, 3))
        axis.plot([1, 2], [0, 1], "o")
        axis.set_yticks([0, 1], ["a network trained without color augmentation", "another"])
    narrow = narrowed(figure)
    narrow.draw_without_rendering()
    assert narrow.axes[0].get_position().width > 0.55
    assert narrow.axes[0].get_yticklabels()[0].get_text().count("\n") >= 2


def test_names_of_rows_do_not_run_into_each_other():
    with style():
        figure, axis = canvas(size=(7, 3))
        axis.plot(range(8), range(8), "o")
        axis.set_yticks(range(8), [f"a long way to train {n}\nover ordinary training" for n in range(8)])
    boxes = sorted((box for box in extents(narrowed(figure)) if "ordinary" in box[0]), key=lambda box: box[2])
    assert len(boxes) == 8
    assert all(below[4] <= above[2] + 1 for below, above in itertools.pairwise(boxes))


def test_names_under_an_axis_do_not_run_into_each_other():
    with style():
        figure, axis = canvas(size=(9, 3))
        axis.plot(["no attack at all", "ten small steps", "twenty steps", "a strong ensemble"], [1, 2, 3, 4])
    narrow = narrowed(figure)
    boxes = [box for box in extents(narrow) if "\n" in box[0] or "steps" in box[0] or "ensemble" in box[0]]
    boxes.sort(key=lambda box: box[1])
    assert len(boxes) == 4
    assert all(left[3] < right[1] for left, right in itertools.pairwise(boxes))


def test_the_figure_itself_stays_as_it_was():
    figure = plot(2)
    render(figure, key="k")  # which also settles the layout
    before = render(figure, key="k")
    narrowed(figure)
    assert render(figure, key="k") == before


def test_keys_differ_where_texts_do():
    assert key_of("a", "b") == key_of("a", "b")
    assert len({key_of("a", "b"), key_of("ab"), key_of("a", "c"), key_of("b", "a")}) == 4
