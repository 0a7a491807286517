"""Pictures of scenes for the book: sheets of images with words under them, and what is known about a scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from thesis_kit.data.scenes import Scenes
from thesis_kit.show.figures import card
from thesis_kit.show.pictures import grid, montage, pixels, rows_of_pictures, tile, words
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.shown import Shown, require_words
from thesis_kit.show.tables import table

_QUALITY = 80
_TITLED, _BARE = 86, 38  # pixels that an image of a sheet is wide at least


def sheet_html(images: Tensor, titles: Sequence[str] | None = None, *, columns: int, alt: str) -> str:
    """Images (n, 3, s, s) row by row, each over its title; a narrow screen shows fewer in a row."""
    names = titles or [f"image {number}" for number in range(1, len(images) + 1)]
    cells = [
        f"<div>{tile(pixels(image), name, quality=_QUALITY)}{words(name) if titles else ''}</div>"
        for image, name in zip(images, names, strict=True)
    ]
    least = _TITLED if titles else _BARE
    tracks = f"repeat(auto-fill,minmax(max({least}px,calc((100% - {5 * (columns - 1)}px)/{columns})),1fr))"
    return grid(cells, tracks, widest=135 * columns, alt=alt)


def sheet(
    images: Tensor, titles: Sequence[str] | None = None, *, columns: int, label: str, caption: str, alt: str
) -> Shown:
    """``sheet_html`` as a figure of the book."""
    require_words(alt=alt)
    shown = sheet_html(images, titles, columns=columns, alt=alt)
    return Shown(card(shown, label=label, caption=caption), f"{label}. {caption}")


def truth_figure(scenes: Scenes, *, label: str, caption: str) -> Shown:
    """Scenes in columns: the image, each object's mask, the background's, and a true sentence."""
    masks = [*scenes.masks.unbind(dim=1), scenes.rendered.background_mask]
    names = ["image", *(f"object {k}" for k in range(len(masks) - 1)), "background"]
    sentences = scenes.captions()
    layers = [scenes.images, *(mask[:, None].float() for mask in masks)]
    rows = {
        name: [tile(pixels(image), f"{name}: {said}") for image, said in zip(layer, sentences, strict=True)]
        for name, layer in zip(names, layers, strict=True)
    }
    alt = "Scenes with the exact mask of every object and of the background. " + "; ".join(sentences) + "."
    shown = rows_of_pictures(rows, (), alt=alt, below=sentences)
    return Shown(card(shown, label=label, caption=caption), f"{label}. {caption}")


def knob_slider(
    draw: Callable[[float], Scenes], values: Sequence[float], *, name: str, label: str, caption: str, columns: int = 8,
    start: int = 0,
) -> Slider:  # fmt: skip
    """The same scenes while one knob of their distribution turns: ``draw`` maps its value to scenes."""
    alt = f"A sheet of scenes that changes with the {name}."

    def render(value: float) -> tuple[str, str]:
        said = f"{name}: {value:g}"
        sheet_of_all = montage(draw(value).images, columns=columns)
        return grid([tile(sheet_of_all, f"{alt} {said}", quality=85)], "1fr", widest=135 * columns, alt=said), said

    return slider(render, values, name=name, label=label, caption=caption, alt=alt, start=start)


def distributions_table(distributions: Mapping) -> Shown:
    """The frozen distributions as a table: name, what sets it apart, and the hash a result carries."""
    rows = [(name, _apart(one), one.data_hash()[:12]) for name, one in distributions.items()]
    return table(rows, ("name", "what sets it apart", "hash"))


def _apart(distribution) -> str:
    """The knobs that differ from the defaults, in words."""
    default, changed = type(distribution)(distribution.name), []
    for key, value in vars(distribution).items():
        if value != getattr(default, key):
            said = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            said = ", ".join(f"{k} {v:.0%}" for k, v in value.items()) if isinstance(value, Mapping) else said
            changed.append(f"{key}: {said}")
    return "; ".join(changed) or "all knobs at their defaults"
