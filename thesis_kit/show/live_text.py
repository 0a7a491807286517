"""A figure that answers a line of text: the page shows one answer, and with a kernel the reader asks for others."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

from thesis_kit.extras import needs
from thesis_kit.show.shown import Shown, display_with_widget, require_words


@dataclass(frozen=True)
class TextBox:
    """A figure of ``text``, and a box that draws it for other texts; see ``text_box``."""

    render: Callable[[str], Shown]
    text: str
    name: str
    first: Shown

    def _repr_html_(self) -> str:
        return self.first.html

    def __repr__(self) -> str:
        return repr(self.first)

    def live(self):
        """ipywidgets' line of text and a button, which draw when it is pressed; needs a running kernel.

        What cannot be drawn is answered with the sentence that says why, and the last figure goes.
        """
        ipywidgets = needs("ipywidgets")
        line = ipywidgets.Text(self.text, description=self.name, layout={"width": "min(32em, 100%)"})
        button = ipywidgets.Button(description="Draw", tooltip=f"Draw for this {self.name}")
        output = ipywidgets.HTML()

        def draw(pressed: object) -> None:
            button.disabled, output.value = True, "<p>Drawing …</p>"
            try:
                output.value = self.render(line.value).html
            except ValueError as error:
                output.value = f'<p role="alert">{html.escape(str(error))}</p>'
            finally:
                button.disabled = False

        button.on_click(draw)
        return ipywidgets.VBox([ipywidgets.HBox([line, button]), output])

    def _ipython_display_(self) -> None:
        display_with_widget(self.first.html, self.live)


def text_box(render: Callable[[str], Shown], text: str, *, name: str) -> TextBox:
    """Draw ``render(text)``, and offer a box for other texts where a kernel runs.

    Args:
        render: a text to a figure. A ``ValueError`` of it is shown to the reader as the sentence that it is.
        text: what is drawn first, and stands in the box.
        name: what the text is ("prompt"), shown before the box.

    Returns:
        A ``TextBox``, which displays itself.
    """
    require_words(name=name)
    return TextBox(render, text, name, render(text))
