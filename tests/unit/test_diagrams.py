"""Diagrams fit a phone: every word inside the drawing and none of it small."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from thesis_kit.show import diagrams
from thesis_kit.show.drawing import WIDTH, smallest_text

EACH = [diagrams.free, diagrams.smoothing, diagrams.intervals, diagrams.shadow, diagrams.squeezing, diagrams.inversion]
SVG = "{http://www.w3.org/2000/svg}"


def svg_of(shown) -> str:
    return base64.b64decode(re.search(r"base64,([\w+/=]+)", shown.html)[1]).decode()


def width_of(text: str, size: float, bold: bool) -> float:
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")  # a wide one
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width


@pytest.mark.parametrize("draw", EACH, ids=lambda draw: draw.__name__)
def test_every_word_is_inside_and_large_enough(draw):
    svg = svg_of(draw("Figure 1.1"))
    assert smallest_text(svg) >= 12
    root = ElementTree.fromstring(svg)
    height = float(root.get("viewBox").split()[3])
    for text in root.iter(f"{SVG}text"):
        found = re.search(r"font:(600 )?([\d.]+)px", text.get("style"))
        for line in text:
            width = width_of(line.text, float(found[2]), bool(found[1]))
            left = float(text.get("x")) - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")] * width
            assert left >= 0, line.text
            assert left + width <= WIDTH, line.text
        assert 0 < float(text.get("y")) < height


@pytest.mark.parametrize("draw", EACH, ids=lambda draw: draw.__name__)
def test_every_color_is_the_pages(draw):
    svg = svg_of(draw("Figure 1.1"))
    assert not re.search(r"(?<!,)#[0-9a-f]{6}", svg)
    assert svg == svg_of(draw("Figure 1.2"))  # the same strokes every time


def test_free_counts_as_many_updates_as_passes():
    svg = svg_of(diagrams.free("Figure 1.1", replays=4, steps=3))
    assert "ordinary training: 4 updates" in svg
    assert "PGD-3: 1 update<" in svg
    assert "Free: 4 updates" in svg
