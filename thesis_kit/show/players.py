"""Interaction that needs no kernel: a slider over frames drawn beforehand.

Plain HTML and six lines of script inside the figure itself, so it works in the rendered book, in a saved notebook and
offline. Where a kernel runs, the same object offers an ipywidgets slider over values nobody has drawn yet.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thesis_kit.extras import needs
from thesis_kit.show.figures import card, picture, require_words, two_widths
from thesis_kit.show.library import Figure
from thesis_kit.show.shown import display_with_widget
from thesis_kit.show.svg import key_of

Render = Callable[[Any], tuple[Figure | str, str]]

_SCRIPT = """(function(){{var f=document.getElementById("{name}");if(!f)return;
var s=f.querySelector("input"),o=f.querySelector("output"),p=f.querySelectorAll(".tk-frame"),t={texts};
function show(){{for(var i=0;i<p.length;i++)p[i].style.display=i==s.value?"block":"none";
o.textContent=t[s.value];s.setAttribute("aria-valuetext",t[s.value]);}}
s.addEventListener("input",show);show();}})();"""

# Under a figure taller than the window the slider stays at the window's foot, so that one sees what it changes.
_IN_SIGHT = "position:sticky;bottom:0;background:#fff"


@dataclass(frozen=True)
class Slider:
    """A figure with a range slider; see ``slider``."""

    html: str
    text: str
    render: Render
    values: tuple
    start: int

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    def live(self):
        """An ipywidgets slider that draws as it moves, between the prepared values too; needs a running kernel."""
        ipywidgets = needs("ipywidgets")
        low, high = min(self.values), max(self.values)
        control = ipywidgets.FloatSlider(self.values[self.start], min=low, max=high, step=(high - low) / 100,
                                         continuous_update=False)  # fmt: skip
        output = ipywidgets.HTML()

        def draw(change: dict) -> None:
            seen, text = self.render(change["new"])
            if isinstance(seen, Figure):
                seen = f'<img src="{picture(seen)}" alt="{html.escape(text)}">'
            output.value = f"{seen}<p>{html.escape(text)}</p>"

        control.observe(draw, names="value")
        draw({"new": control.value})
        return ipywidgets.VBox([control, output])

    def _ipython_display_(self) -> None:
        display_with_widget(self.html, self.live)


def slider(
    render: Render,
    values: Sequence,
    *,
    name: str,
    label: str,
    caption: str,
    alt: str,
    start: int = 0,
) -> Slider:
    """Draw ``render(value)`` for every value and put a slider over the frames.

    Args:
        render: value -> (a matplotlib figure, or HTML such as ``pictures`` makes; one line of text that says what is
            seen at this value).
        values: what the slider goes through, in order; at least two.
        name: what the slider changes, read out by screen readers ("perturbation radius").
        label, caption, alt: as in ``figures.present``.
        start: index of the value shown first, also where scripts do not run.

    Returns:
        A ``Slider``, which displays itself; with a kernel it offers an ipywidgets slider too.
    """
    require_words(caption=caption, alt=alt, name=name)
    if len(values) < 2 or not 0 <= start < len(values):
        raise ValueError(f"a slider needs at least two values and a start among them, got {len(values)} and {start}")
    seen, texts = zip(*(render(value) for value in values), strict=True)
    key = key_of(name, label, *texts)
    frames = "".join(
        f'<div class="tk-frame" style="display:{"block" if i == start else "none"}">'
        f"{_frame(one, f'{key} {i}', f'{alt} {text}')}</div>"
        for i, (one, text) in enumerate(zip(seen, texts, strict=True))
    )
    control = (
        f'<div class="tk-control" style="{_IN_SIGHT}"><input type="range" min="0" max="{len(values) - 1}" '
        f'value="{start}" aria-label="{html.escape(name)}" style="width:100%;height:2em;accent-color:#0072B2">'
        f'<output aria-live="polite" style="display:block;min-height:3em">{html.escape(texts[start])}</output></div>'
    )
    script = "<script>" + _SCRIPT.format(name=key, texts=in_script(texts)) + "</script>"
    inner = f'<div id="{key}">{frames}{control}</div>{script}'
    return Slider(card(inner, label=label, caption=caption), f"{label}. {caption}", render, tuple(values), start)


def in_script(value: object) -> str:
    """JSON that stands inside a <script> element: nothing in it can end the element or begin a comment."""
    return json.dumps(value).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _frame(seen: Figure | str, key: str, alt: str) -> str:
    """HTML of one frame."""
    return two_widths(seen, key=key, alt=alt) if isinstance(seen, Figure) else seen
