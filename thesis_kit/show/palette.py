"""The colors of the book's figures: Okabe and Ito's (2008), and what stands around them."""

from __future__ import annotations

COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "gray": "#6B6B6B",
}
PAPER, INK, GRID, RULE, PALE = "#ffffff", "#1a1a1a", "#e4e4e4", "#a0a0a0", "#c8c8c8"
