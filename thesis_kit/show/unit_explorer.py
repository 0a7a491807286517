"""An explorer of units that asks the network itself, for whoever has a kernel: any site, any unit."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit import features, recording
from thesis_kit.extras import needs
from thesis_kit.show.pictures import pixels, rows_of_pictures, tile
from thesis_kit.show.unit_pictures import lit

_KINDS = ("hidden", "residual", "q", "k", "v")


class UnitExplorer:
    """What is known of a unit, asked as it is chosen: its strongest images, where it fires in them, and its optimum.

    Args:
        model: a network from images to anything, as for ``features.triples``.
        images: real images in [0, 1], among which the strongest are looked for.
        strongest: how many of them are shown.
        effort: arguments of ``features.visualize``, for optima.
    """

    def __init__(
        self, model: nn.Module, images: Float[Tensor, "n c h w"], *, strongest: int = 4,
        effort: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self._model, self._images, self._strongest = model, images, strongest
        self._effort = {"progress": False, **(effort or {})}
        listed = recording.sites(model)
        self.sites = [site.name for kind in _KINDS for site in listed.values() if site.kind == kind]

    def answer(self, site: str, unit: int, optimum: bool = False) -> str:
        """HTML of one unit; a sentence where it cannot be shown, such as a unit that the site does not have."""
        try:
            return self._answered(site, unit, optimum)
        except ValueError as error:
            return f"<p>{html.escape(str(error))}</p>"

    def _answered(self, site: str, unit: int, optimum: bool) -> str:
        found = recording.top_examples(self._model, self._images, site, self._strongest, units=[unit], patterns=True)
        if found.pattern is None or found.pattern.ndim != 4:
            raise ValueError(f"{site} has no patches that form a grid, so that there are no maps: choose another site")
        strong = self._images[found.index[0].to(self._images.device)].cpu()
        maps = [lit(image, pattern) for image, pattern in zip(strong, found.pattern[0].cpu(), strict=True)]
        called = f"{site}, unit {unit}"
        rows = {
            "strongest": [tile(pixels(image), f"{called}: strong image") for image in strong],
            "where": [tile(pixels(image), f"{called}: where it fires") for image in maps],
        }
        values = [f"{value:.2f}" for value in found.value[0].tolist()]
        shown = rows_of_pictures(rows, (), alt=called, cell=110, below=values)
        return shown + self._optimum(site, unit) if optimum else shown

    def _optimum(self, site: str, unit: int) -> str:
        made = features.visualize(self._model, site, [unit], **self._effort)
        name = f"{site}, unit {unit}: the image that excites it most"
        return rows_of_pictures({"optimum": [tile(pixels(made.images[0]), name)]}, (), alt=name, cell=110)

    def widget(self):
        """Controls that ask as they are changed; needs a running kernel."""
        widgets = needs("ipywidgets")
        site = widgets.Dropdown(options=self.sites, value=self.sites[0], description="site")
        unit = widgets.BoundedIntText(0, min=0, max=10**6, description="unit")
        draw = widgets.Button(description="draw its optimum")
        seen = widgets.HTML()

        def ask(optimum: bool) -> None:
            seen.value = self.answer(site.value, unit.value, optimum)

        for control in (site, unit):
            control.observe(lambda change: ask(False), names="value")
        draw.on_click(lambda button: ask(True))
        ask(False)
        return widgets.VBox([widgets.HBox([site, unit, draw]), seen])
