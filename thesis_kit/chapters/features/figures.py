"""What chapter 5's notebook shows: the explorer of units, scores by block, the film of tokens, masks, and low-pass."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.features import Triples
from thesis_kit.ledger.results import Result
from thesis_kit.show.figures import COLORS, Shown, canvas, card, present, style
from thesis_kit.show.pictures import bars, grid, image_uri, montage, pixels, rows_of_pictures, tile, words
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.shown import require_words
from thesis_kit.show.tables import mean_with_ends, table
from thesis_kit.show.unit_explorer import UnitExplorer
from thesis_kit.show.unit_pictures import lit

_SMALL = 44  # pixels of a picture in the explorer
_MARKERS = {"hidden": ("blue", "o"), "q": ("orange", "s"), "k": ("green", "^"), "v": ("vermilion", "D")}


@dataclass(frozen=True)
class Explorer(Slider):
    """A slider over frames of units; with a kernel, any unit of any site of the network that ``ask`` knows."""

    ask: UnitExplorer | None = None

    def live(self):
        """Controls that ask the network; the slider's own where there is none."""
        return super().live() if self.ask is None else self.ask.widget()


def explorer(
    blocks: Sequence[Triples], *, label: str, caption: str, shown: int = 2, ask: UnitExplorer | None = None
) -> Explorer:
    """Units by block under a slider: each unit's optimum, its strongest images, and where it fires in them.

    Rows of the controls stand below. Nothing but the slider is needed to look around: no kernel, no network.

    Args:
        blocks: one ``Triples`` a block, from the first. shown: strong images of each unit.
        ask: what answers where there is a kernel, about units that are in no frame.
    """

    def render(number: float) -> tuple[str, str]:
        found = blocks[round(number) - 1]
        said = f"Block {round(number)} of {len(blocks)}."
        groups = {"units": found, "random directions of the same layer": found.rotated}
        groups["the same layer with random weights"] = found.untrained
        parts = [_cells(title, part, shown) for title, part in groups.items() if part is not None]
        return "".join(parts), said

    alt = "Units of a block, each with the image that excites it most, strong images, and where in them it fires."
    numbers = tuple(range(1, len(blocks) + 1))
    drawn = slider(render, numbers, start=len(blocks) - 1, name="block", label=label, caption=caption, alt=alt)
    return Explorer(**vars(drawn), ask=ask)


def _cells(title: str, part: Triples, shown: int) -> str:
    """HTML of a group of units, as many side by side as there is room for."""
    cells = []
    for i, name in enumerate(part.names):
        number = html.escape(name.rpartition(" ")[2])
        strip = image_uri(_strip(part, i, shown), lossless=0, quality=55)
        alt = html.escape(f"{name}: optimum, {shown} strong images, and where it fires in them", quote=True)
        look = "display:block;width:100%;border-radius:0;padding:0;margin:0"
        cells.append(f'<div><img src="{strip}" alt="{alt}" style="{look}"><div>{number}</div></div>')
    tracks = f"repeat(auto-fill,minmax({(1 + 2 * shown) * _SMALL}px,1fr))"
    order = f"each: optimum, {shown} strongest images, and where it fires in them"
    heading = f'<div style="margin:8px 0 2px"><strong>{html.escape(title)}</strong>; {order}</div>'
    return heading + grid(cells, tracks, widest=900, alt=title)


def _strip(part: Triples, i: int, shown: int):
    """The optimum, strong images and where the unit fires, side by side and small."""
    strong = part.images[i, :shown]
    seen = [lit(image, pattern) for image, pattern in zip(strong, part.maps[i, :shown], strict=True)]
    pictures = [part.optima[i], *strong, *seen]
    small = [F.interpolate(p[None].float(), (_SMALL, _SMALL), mode="bilinear", antialias=True)[0] for p in pictures]
    return montage(small, columns=len(small), gap=1)


def scores_figure(
    by_block: Mapping[str, Sequence[Mapping[str, float]]], untrained: Mapping[str, Sequence[Mapping[str, float]]],
    what: str, *, name: str, label: str, caption: str,
) -> Shown:  # fmt: skip
    """A score by block: a line a kind of site, dotted for random directions, gray for random weights."""
    said = []
    with style():
        figure, axis = canvas(size=(7, 3.8))
        for kind, (color, marker) in _MARKERS.items():
            for suffix, dash in (("", "-"), (" rotated", ":")):
                if kind + suffix in by_block and (not suffix or kind == "hidden"):
                    line = [block[what] for block in by_block[kind + suffix]]
                    called = kind if not suffix else "hidden, random directions"
                    axis.plot(_from_one(line), line, dash, color=COLORS[color], marker=marker, label=called)
                    said.append(f"{called}: {line[0]:.2f} in the first block, {line[-1]:.2f} in the last")
        line = [block[what] for block in untrained["hidden"]]
        axis.plot(_from_one(line), line, "--", color=COLORS["gray"], marker="x", label="hidden, random weights")
        said.append(f"random weights: {line[-1]:.2f} in the last")
        axis.set_xlabel("block"), axis.set_ylabel(name), axis.set_xticks(_from_one(line))
        figure.legend(loc="outside lower center", ncols=3)
    return present(figure, label=label, caption=caption, alt=f"{name.capitalize()} by block. {'; '.join(said)}.")


def _from_one(line: Sequence[float]) -> list[int]:
    return list(range(1, len(line) + 1))


def cohort_table(
    recorded: Result, rows: Mapping[str, Sequence[str | tuple[str, str]]], head: Sequence[str], *, caption: str,
    percent: bool = False,
) -> Shown:  # fmt: skip
    """Recorded numbers of several networks: the mean, and in brackets its 95% interval over networks; of two networks
    each one's number, for an interval from two says nothing.

    Args:
        rows: what a row is called → its cells, each a recorded number as (measure, arm), or words as they are.
        head: of the columns, the first one's included. percent: numbers are shares.
    """

    def said(cell: str | tuple[str, str]) -> str:
        return cell if isinstance(cell, str) else mean_with_ends(recorded, *cell, percent=percent)

    return table([(called, *map(said, cells)) for called, cells in rows.items()], head, caption=caption)


def locality_figure(recorded: Result, *, label: str, caption: str) -> Shown:
    """How local recorded networks are, by block, a line each: how far units' maps follow the object, and how much of
    what patches hold differs within an image, both beside random weights."""
    panels = {
        "correlation of maps with the object": {"trained": ("follows the object", "units@vit"),
                                                "random weights": ("follows the object", "units@random")},
        "variance within images (%)": {"trained": ("within", "tokens@vit"),
                                       "random weights": ("within", "variance@random")},
    }  # fmt: skip
    looks = {
        "trained": {"color": COLORS["blue"], "linestyle": "-", "marker": "o", "markersize": 4},
        "random weights": {"color": COLORS["gray"], "linestyle": "--", "marker": "x", "markersize": 4},
    }
    said = []
    with style():
        figure, axes = canvas(1, 2, size=(7.6, 3.6))
        for axis, (title, lines) in zip(axes, panels.items(), strict=True):
            scale = 100 if "%" in title else 1
            for called, (curve, arm) in lines.items():
                every = list(recorded.curves(curve, arm).values())
                for i, points in enumerate(every):
                    axis.plot(points[:, 0], scale * points[:, 1], **looks[called], label=called if i == 0 else None)
                mean = sum(scale * points[:, 1] for points in every) / len(every)
                said.append(f"{title}, {called}: {', '.join(f'{value:.2g}' for value in mean)}")
            axis.set_title(title), axis.set_xlabel("block"), axis.set_ylim(bottom=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return present(figure, label=label, caption=caption, alt=f"Means over networks by block. {'; '.join(said)}.")


def tokens_figure(
    curves: Mapping[str, Sequence[float]], names: Mapping[str, str], *, label: str, caption: str
) -> Shown:
    """Chance-corrected accuracies by the number of blocks: ``names`` maps a curve to what it is called."""
    looks, said = [("blue", "o"), ("orange", "s"), ("green", "^"), ("vermilion", "D")], []
    with style():
        figure, axis = canvas(size=(7, 3.8))
        for (key, called), (color, marker) in zip(names.items(), looks, strict=False):
            line = [100 * value for value in curves[key]]
            axis.plot(range(len(line)), line, color=COLORS[color], marker=marker, label=called)
            said.append(f"{called}: {', '.join(f'{value:.0f}' for value in line)}")
        axis.set_xlabel("blocks"), axis.set_ylabel("corrected accuracy (%)"), axis.set_ylim(-5, 105)
        axis.set_xticks(range(len(line)))
        figure.legend(loc="outside lower center", ncols=1)
    return present(figure, label=label, caption=caption, alt=f"Accuracy in percent by blocks. {'; '.join(said)}.")


def token_film(
    image: Float[Tensor, "c h w"], read: Sequence[Mapping[str, float]],
    patches: Sequence[Float[Tensor, "rows columns"]], *, label: str, caption: str,
) -> Slider:  # fmt: skip
    """What the class token knows after every block: shares of its best answers, and patches that know the class.

    Args:
        image: the scene. read: after so many blocks from 0, the likeliest classes and their probabilities.
        patches: after as many, each patch's probability of the right class.
    """

    def render(number: float) -> tuple[str, str]:
        best = max(read[round(number)], key=read[round(number)].get)
        said = f"After {round(number)} of {len(read) - 1} blocks the class token says {best}."
        lighted = lit(image, patches[round(number)]) if patches[round(number)].max() > 0.1 else 0.25 * image
        pictures = [tile(pixels(image), "the scene"), tile(pixels(lighted), "patches that know the class")]
        left = rows_of_pictures({"": pictures}, ["the scene", "patches that know"], alt=said, cell=150)
        return left + bars(read[round(number)], alt=said), said

    return slider(render, tuple(range(len(read))), start=len(read) - 1, name="number of blocks", label=label,
                  caption=caption, alt="What the class token and the patches know so far.")  # fmt: skip


def answers_grid(
    pictures: Mapping[str, Tensor], answers: Mapping[str, Sequence[str]], *, label: str, caption: str, alt: str
) -> Shown:
    """Pictures under a name each, with what networks say to each below: network → an answer a picture.

    On a phone they stand three beside each other.
    """
    require_words(alt=alt)
    cells = []
    for i, (name, image) in enumerate(pictures.items()):
        below = "\n".join(f"{network}: {said[i]}" for network, said in answers.items())
        cells.append(f"<div>{words(name)}{tile(pixels(image), name)}{words(below)}</div>")
    inner = grid(cells, "repeat(auto-fit,minmax(104px,1fr))", widest=155 * len(cells), alt=alt)
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def low_pass_slider(
    frames: Mapping[float, Tensor], answers: Mapping[float, Mapping[str, Sequence[str]]],
    shares: Mapping[float, Mapping[str, float]], *, label: str, caption: str,
) -> Slider:  # fmt: skip
    """Scenes without detail under a slider, with what networks say: cut-off → images, answers, and accuracies."""
    values = sorted(frames)

    def render(place: float) -> tuple[str, str]:
        cutoff = min(values, key=lambda known: abs(known - place))
        said = f"Up to {cutoff:g} cycles along a side."
        tiles = [tile(pixels(image), said) for image in frames[cutoff]]
        below = [
            "\n".join(f"{name}: {line[i]}" for name, line in answers[cutoff].items()) for i in range(len(tiles))
        ]
        seen = rows_of_pictures({"": tiles}, (), alt=said, cell=150, below=below)
        return seen + bars(shares[cutoff], alt="Share of scenes named rightly."), said

    return slider(render, values, start=len(values) // 2, name="highest frequency", label=label, caption=caption,
                  alt="Scenes of which fine detail is gone, and what networks take them for.")  # fmt: skip
