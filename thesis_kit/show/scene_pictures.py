"""Pictures of scenes for the book: sheets of images with words under them, and what is known about a scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

from matplotlib.figure import Figure
from torch import Tensor

from thesis_kit.data.scenes import Scenes
from thesis_kit.show.figures import Shown, canvas, present, style
from thesis_kit.show.players import Slider, slider

_INCHES = 0.95  # of an image on a sheet


def draw_sheet(images: Tensor, titles: Sequence[str] | None = None, *, columns: int, lines: int = 1) -> Figure:
    """Images (n, 3, s, s) row by row, each with its title below in at most ``lines`` lines."""
    rows = math.ceil(len(images) / columns)
    height = _INCHES + (0.2 * lines + 0.05 if titles else 0.06)
    with style():
        figure, axes = canvas(rows, columns, size=(columns * (_INCHES + 0.06), rows * height), squeeze=False)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
        for axis in axes.flat:
            axis.set_axis_off()
        for i, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
            axis.imshow(image.detach().cpu().permute(1, 2, 0), interpolation="nearest", vmin=0, vmax=1)
            if titles:
                words = fill(titles[i], max(10, round(58 / columns)))
                axis.text(0.5, -0.04, words, transform=axis.transAxes, ha="center", va="top", fontsize=9)
    return figure


def sheet(
    images: Tensor, titles: Sequence[str] | None = None, *, columns: int, label: str, caption: str, alt: str,
    lines: int = 1,
) -> Shown:  # fmt: skip
    """``draw_sheet`` as a figure of the book."""
    return present(draw_sheet(images, titles, columns=columns, lines=lines), label=label, caption=caption, alt=alt)


def truth_figure(scenes: Scenes, *, label: str, caption: str) -> Shown:
    """Scenes in columns: the image, each object's mask, the background's, and a true sentence."""
    masks = [*scenes.masks.unbind(dim=1), scenes.rendered.background_mask]
    names = ["image", *(f"object {k}" for k in range(len(masks) - 1)), "background"]
    sentences = scenes.captions()
    with style():
        columns = len(scenes)
        figure, axes = canvas(len(names), columns, size=(1.3 * columns, 1.25 * len(names) + 1.1), squeeze=False)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
        for column in range(columns):
            shown = [scenes.images[column].permute(1, 2, 0), *(mask[column] for mask in masks)]
            for axis, picture in zip(axes[:, column], shown, strict=True):
                axis.imshow(picture.cpu(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set_xticks([]), axis.set_yticks([]), axis.grid(False)
            axes[-1, column].set_xlabel(fill(sentences[column], 18), fontsize=9)
        for axis, name in zip(axes[:, 0], names, strict=True):
            axis.set_ylabel(name)
    alt = "Scenes with the exact mask of every object and of the background. " + "; ".join(sentences) + "."
    return present(figure, label=label, caption=caption, alt=alt)


def knob_slider(
    draw: Callable[[float], Scenes], values: Sequence[float], *, name: str, label: str, caption: str, columns: int = 8,
    start: int = 0,
) -> Slider:  # fmt: skip
    """The same scenes while one knob of their distribution turns: ``draw`` maps its value to scenes."""

    def render(value: float) -> tuple[Figure, str]:
        return draw_sheet(draw(value).images, columns=columns), f"{name}: {value:g}"

    alt = f"A sheet of scenes that changes with the {name}."
    return slider(render, values, name=name, label=label, caption=caption, alt=alt, start=start)


def distributions_table(distributions: Mapping) -> str:
    """The frozen distributions as an HTML table: name, what sets it apart, and the hash a result carries."""
    rows = "".join(
        f"<tr><td><code>{name}</code></td><td>{_apart(one)}</td><td><code>{one.data_hash()[:12]}</code></td></tr>"
        for name, one in distributions.items()
    )
    head = "<tr><th>name</th><th>what sets it apart</th><th>hash</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _apart(distribution) -> str:
    """The knobs that differ from the defaults, in words."""
    default, changed = type(distribution)(distribution.name), []
    for key, value in vars(distribution).items():
        if value != getattr(default, key):
            said = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            said = ", ".join(f"{k} {v:.0%}" for k, v in value.items()) if isinstance(value, Mapping) else said
            changed.append(f"{key}: {said}")
    return "; ".join(changed) or "all knobs at their defaults"
