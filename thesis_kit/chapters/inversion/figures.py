"""Figures of chapter 4: who recognizes an inversion, what each augmentation adds, and the images themselves.

Figures of a recording draw the arms that it has, and refuse only where it has none of them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from thesis_kit.inversion import FACTORS, combinations
from thesis_kit.ledger.results import NotRecorded, Result
from thesis_kit.ledger.statistics import Interval, items_interval
from thesis_kit.ledger.thumbnails import unpack_picture
from thesis_kit.show.figures import (
    COLORS,
    Shown,
    canvas,
    card,
    folded,
    present,
    require_words,
    style,
)
from thesis_kit.show.library import Axes
from thesis_kit.show.pictures import grid, pixels, rows_of_pictures, tile
from thesis_kit.show.players import Slider, slider

METHODS = {  # as arms say before the @, with a look
    "ce": ("cross-entropy alone", "gray", "s"),
    "ce+jitter": ("cross-entropy and jitter", "sky", "P"),
    "tv+l2": ("TV + ℓ₂", "orange", "^"),
    "deep": ("DeepInversion", "vermilion", "v"),
    "pii": ("Plug-In Inversion", "blue", "o"),
    "real": ("real images", "green", "D"),
}
_QUALITY = 42  # of pictures; noise, of which there is much here, is large at more
VERIFIERS = {"natural": ("trained in the ordinary way", "sky", "o"), "robust": ("adversarially trained", "blue", "D")}


def recorded_pictures(recorded: Result, arm: str) -> dict[str, Tensor]:
    """The images that were kept of an arm, "class 0", … and where it has stages "stage 1", …, each (3, h, w).

    Raises:
        NotRecorded: none were kept.
    """
    for cell in recorded.cells.get(arm, {}).values():
        if cell.get("pictures"):
            return {name: unpack_picture(text) for name, text in cell["pictures"].items()}
    raise NotRecorded(f"no picture of {arm} was kept: take an arm such as pii@resnet, or invert the network here")


def _there(recorded: Result, arms: Iterable[str]) -> list[str]:
    """Those of the arms that are recorded."""
    arms = list(arms)
    found = [arm for arm in arms if arm in recorded.arms]
    if not found:
        raise NotRecorded(
            f"none of {', '.join(arms)} is recorded in {recorded.name}: measure them with `thesis-kit claims run`"
        )
    return found


def main_effect(recorded: Result, factor: str, network: str = "resnet") -> Interval:
    """How much V gains where an augmentation is there, mean over the four combinations of the other two.

    Raises:
        NotRecorded: one of the eight arms has no seed that all have.
    """
    signs = {f"{name}@{network}": 1 if on[factor] else -1 for name, on in combinations().items()}
    missing = [arm for arm in signs if arm not in recorded.arms]
    tables = {arm: recorded.per_image("recognized", arm) for arm in signs if arm not in missing}
    seeds = sorted(set.intersection(*map(set, tables.values()))) if tables else []
    if missing or not seeds:
        raise NotRecorded(f"a main effect needs all eight combinations, {', '.join(missing) or 'a common seed'} lacks")
    groups = [recorded.cells[next(iter(signs))][seed]["group"] for seed in seeds]
    half = len(signs) / 2
    values = [sum(sign * tables[arm][seed] for arm, sign in signs.items()) / half for seed in seeds]
    return items_interval(groups, values, recorded.units(next(iter(signs))))


# Figures of a recording


def _mark(
    axis: Axes, interval: Interval, row: float, *, color: str, marker: str, label: str | None = None, least: float = 0
) -> str:  # fmt: skip
    """A point with its interval, cut off at ``least`` and 100, on a horizontal axis in percent; returns it in words."""
    value, low, high = (100 * number for number in (interval.value, interval.low, interval.high))
    sides = [[value - max(low, least)], [min(high, 100) - value]]
    axis.errorbar(value, row, xerr=sides, fmt=marker, color=COLORS[color], capsize=3, markersize=8, label=label)
    return f"{value:.0f}%"


def _rows(axis: Axes, names: Sequence[str], *, percent: bool = True) -> None:
    axis.set_yticks(range(len(names)), names), axis.set_ylim(len(names) - 0.5, -0.5)
    if percent:
        axis.set_xlim(-2, 102)


def recognition_figure(
    recorded: Result, networks: Mapping[str, str], *, label: str, caption: str,
    methods: Sequence[str] = ("ce", "pii", "real"),
) -> Shown:  # fmt: skip
    """V a row a network, with a mark a method: ``networks`` maps a network's arm name to what it is called.

    ``methods`` are keys of ``METHODS``; real images have no network and stand in every row.
    """
    arm_of = {(m, n): m if m == "real" else f"{m}@{n}" for n in networks for m in methods}
    there, said, named = _there(recorded, arm_of.values()), [], set()
    with style():
        figure, axis = canvas(size=(7, 0.62 * len(networks) + 1.5))
        for row, (network, called) in enumerate(networks.items()):
            for place, method in enumerate(methods):
                if (arm := arm_of[method, network]) not in there:
                    continue
                name, color, marker = METHODS[method]
                look = {"color": color, "marker": marker, "label": None if method in named else name}
                shift = 0.16 * (place - (len(methods) - 1) / 2)
                v = _mark(axis, recorded.mean("recognized", arm), row + shift, **look)
                said.append(f"{called}, {name}: {v}"), named.add(method)
        _rows(axis, list(networks.values()))
        axis.set_xlabel("recognized by verifiers (%)")
        figure.legend(loc="outside lower center", ncols=len(methods) if len(methods) < 4 else 2)
    alt = f"How many images independent networks recognize. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def effects_figure(recorded: Result, *, label: str, caption: str, network: str = "resnet") -> Shown:
    """V of all combinations of the three augmentations, and the main effect of each where all are recorded."""
    every = combinations()
    there, said = _there(recorded, [f"{name}@{network}" for name in every]), []
    with style():
        figure, (left, right) = canvas(1, 2, size=(8.6, 3.9), width_ratios=(3, 2))
        for row, name in enumerate(every):
            if (arm := f"{name}@{network}") in there:
                v = _mark(left, recorded.mean("recognized", arm), row, color="blue", marker="o")
                said.append(f"{_spelled(name)}: {v}")
        _rows(left, [_spelled(name) for name in every]), left.set_xlabel("recognized by verifiers (%)")
        for row, factor in enumerate(FACTORS):
            try:
                effect, look = main_effect(recorded, factor, network), {"color": "vermilion", "marker": "D"}
                gain = _mark(right, effect, row, least=-100, **look)
                said.append(f"main effect of {factor}: {gain.replace('%', ' points')}")
            except NotRecorded:
                right.text(0, row, "not all combinations recorded", ha="center", va="center")
        _rows(right, FACTORS, percent=False), right.axvline(0, color="#A0A0A0", linewidth=1), right.margins(x=0.2)
        right.set_xlabel("main effect (points)")
    return present(figure, label=label, caption=caption, alt=f"V by the augmentations in use. {'; '.join(said)}.")


def _spelled(name: str) -> str:
    return {"pii": "all three", "none": "none"}.get(name, name.replace("+", " + "))


def weights_figure(recorded: Result, networks: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """V against the weight of total variation with and without ColorShift, a panel a network, a thin line a seed; above
    the dotted line weights are usable."""
    kinds = {"sweep+color": ("with ColorShift", "blue", "o"), "sweep": ("without", "orange", "s")}
    there, said = _there(recorded, [f"{kind}@{network}" for network in networks for kind in kinds]), []
    with style():
        figure, axes = canvas(1, len(networks), size=(4 * len(networks) + 0.6, 3.6), squeeze=False, sharey=True)
        for axis, (network, called) in zip(axes[0], networks.items(), strict=True):
            for kind, look in kinds.items():
                if (arm := f"{kind}@{network}") in there:
                    said.append(f"{called}, {look[0]}: {_sweep(axis, recorded, arm, *look)}")
            axis.set_xscale("log"), axis.set_ylim(-2, 102), axis.set_title(called)
            axis.set_xlabel("weight λ of total variation")
        axes[0, 0].set_ylabel("recognized by verifiers (%)")
        lines = {line.get_label(): line for axis in axes[0] for line in axis.get_lines()}
        named = [name for name, _, _ in kinds.values() if name in lines]
        figure.legend([lines[name] for name in named], named, loc="outside lower center", ncols=2)
    alt = f"V against the weight of total variation. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def _sweep(axis: Axes, recorded: Result, arm: str, name: str, color: str, marker: str) -> str:
    """The lines of one sweep, and what they say in words."""
    curves = np.array(list(recorded.curves("V", arm).values()))  # (seeds, weights, 2)
    weights, v = curves[0, :, 0], 100 * curves[:, :, 1]
    usable, floor = (recorded.mean(what, arm).value for what in ("usable", "floor"))
    axis.plot(weights, v.T, color=COLORS[color], linewidth=0.8, alpha=0.5)
    axis.plot(weights, v.mean(axis=0), color=COLORS[color], marker=marker, label=name)
    axis.axhline(100 * floor, color=COLORS["gray"], linestyle=":", linewidth=1.2)
    return f"{usable:.1f} of {len(weights)} weights usable, best {v.mean(axis=0).max():.0f}%"


def copies_figure(recorded: Result, arms: Mapping[int, str], *, label: str, caption: str) -> Shown:
    """V against the number of copies in a step: ``arms`` maps a number to its arm, such as {8: "pii@resnet"}."""
    there = _there(recorded, arms.values())
    points = {copies: recorded.mean("recognized", arm) for copies, arm in sorted(arms.items()) if arm in there}
    value, low, high = 100 * np.array([(p.value, max(p.low, 0), min(p.high, 1)) for p in points.values()]).T
    with style():
        figure, axis = canvas(size=(6, 3.4))
        sides = [value - low, high - value]
        axis.errorbar(list(points), value, yerr=sides, fmt="o-", color=COLORS["blue"], capsize=3, markersize=8)
        axis.set_xscale("log", base=2), axis.set_xticks(list(points), [str(copies) for copies in points])
        axis.set_ylim(-2, 102), axis.set_xlabel("copies in every step")
        axis.set_ylabel("recognized by verifiers (%)")
    said = "; ".join(f"{copies}: {v:.0f}%" for copies, v in zip(points, value, strict=True))
    return present(figure, label=label, caption=caption, alt=f"V against the number of copies. {said}.")


def twins_figure(recorded: Result, arms: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """What each verifier recognizes and how far from real images they are, a row an arm: arm → what it is called."""
    there, said = _there(recorded, arms), []
    with style():
        figure, (left, right) = canvas(1, 2, size=(8.6, 0.6 * len(arms) + 1.6), sharey=True)
        for row, (arm, called) in enumerate(arms.items()):
            if arm not in there:
                continue
            for shift, (verifier, (name, color, marker)) in zip((-0.13, 0.13), VERIFIERS.items(), strict=True):
                look = {"color": color, "marker": marker, "label": None if arm != there[0] else name}
                v = _mark(left, recorded.mean(f"right_{verifier}", arm), row + shift, **look)
                said.append(f"{called}, verifier {name}: {v}")
            kid = recorded.mean("kid", arm)
            sides = [[kid.value - kid.low], [kid.high - kid.value]] if np.isfinite(kid.half_width) else None
            right.errorbar(kid.value, row, xerr=sides, fmt="o", color=COLORS["gray"], capsize=3, markersize=8)
            said.append(f"{called}: KID {kid.value:.3g}")
        _rows(left, list(arms.values())), left.set_xlabel("recognized (%)")
        right.set_xlabel("KID to real images")
        figure.legend(loc="outside lower center", ncols=2)
    return present(figure, label=label, caption=caption, alt=f"Recognition and KID. {'; '.join(said)}.")


# Pictures


def _tile(image: Tensor, alt: str) -> str:
    """HTML of one image: some four thousand letters at 64 pixels."""
    return tile(pixels(image), alt, quality=_QUALITY)


def _figure(shown: str, *, label: str, caption: str) -> Shown:
    return Shown(card(shown, label=label, caption=caption), f"{label}. {caption}")


def picture_grid(
    rows: Mapping[str, Sequence[Tensor] | Tensor], columns: Sequence[str], *, label: str, caption: str, alt: str,
    fold: int | None = None,
) -> Shown:  # fmt: skip
    """Images (c, h, w) in rows of a name each, under the columns' names; values outside [0, 1] are shown as its ends.

    It shows one class over networks, several classes over methods, or the combinations of augmentations. Where no row
    has a name there is no column of names. On a phone ``fold`` tiles stand beside each other.

    Raises:
        ValueError: a row has another number of images than there are columns; there is no row.
    """
    if not rows or any(len(images) != len(columns) for images in rows.values()):
        lengths = {name: len(images) for name, images in rows.items()}
        raise ValueError(f"every row needs {len(columns)} images, one a column, got {lengths}")
    require_words(alt=alt)
    tiles = {
        name: [_tile(image, f"{column}: {name}".strip(": ")) for image, column in zip(images, columns, strict=True)]
        for name, images in rows.items()
    }
    return _figure(rows_of_pictures(tiles, columns, alt=alt, fold=fold), label=label, caption=caption)


def recorded_grid(
    recorded: Result, arms: Mapping[str, str], columns: Mapping[int, str], *, label: str, caption: str
) -> Shown:
    """Images that were kept, a row an arm with its V, a column a class.

    Args:
        arms: arm → what it is called. columns: label of a class → its name.

    Raises:
        NotRecorded: no arm is recorded, or one of them has no picture of a class.
    """
    rows = {}
    for arm in _there(recorded, arms):
        pictures = recorded_pictures(recorded, arm)
        lacking = [name for place, name in columns.items() if f"class {place}" not in pictures]
        if lacking:
            raise NotRecorded(f"no picture of {', '.join(lacking)} by {arm} was kept: leave the class or the arm out")
        v = f"V = {100 * recorded.mean('recognized', arm).value:.0f}%"
        rows[f"{arms[arm]}\n{v}"] = [pictures[f"class {place}"] for place in columns]
    said = "; ".join(name.replace("\n", ", ") for name in rows)
    alt = f"Images of {', '.join(columns.values())}, a row each of: {said}."
    return picture_grid(rows, list(columns.values()), label=label, caption=caption, alt=alt)


def stages_slider(
    stages: Sequence[Float[Tensor, "n c _ _"]], names: Sequence[str], *, label: str, caption: str
) -> Slider:
    """Images at the end of every stage, each as large as it then was: a slider over the stages.

    Raises:
        ValueError: there are fewer than two stages, or not one name an image.
    """
    if len(stages) < 2 or any(len(images) != len(names) for images in stages):
        raise ValueError(f"every stage needs {len(names)} images, one a name, got {[len(images) for images in stages]}")
    largest = max(images.shape[-1] for images in stages)

    def render(number: float) -> tuple[str, str]:
        images = stages[round(number) - 1]
        side = images.shape[-1]
        said = f"After stage {round(number)} of {len(stages)}: {side} × {side} pixels."
        look = f"width:{100 * side / largest:.1f}%;margin:auto"
        tiles = [f'<div style="{look}">{_tile(image, f"{name}: {said}")}</div>'
                 for image, name in zip(images, names, strict=True)]  # fmt: skip
        return rows_of_pictures({"": tiles}, list(names), alt=said, cell=165), said

    numbers = tuple(range(1, len(stages) + 1))
    return slider(render, numbers, start=len(stages) - 1, name="stage", label=label, caption=caption,
                  alt=f"What {', '.join(names)} look like so far.")  # fmt: skip


def blind_grid(
    images: Float[Tensor, "n c h w"], answers: Sequence[str], *, label: str, caption: str, seed: int = 0
) -> Shown:
    """Images in a drawn order under numbers alone, for a reader to guess, with the answers folded up below.

    Args:
        images: in [0, 1]. answers: what each of them is, in the same order. seed: of the order.
    """
    if len(images) != len(answers) or not len(images):
        raise ValueError(f"every image needs its answer, got {len(images)} images and {len(answers)} answers")
    order = enumerate(np.random.default_rng(seed).permutation(len(images)).tolist(), start=1)
    named = {number: (images[place], answers[place]) for number, place in order}
    cells = [
        f'<div style="text-align:center">{_tile(image, f"drawing {number}")}{number}</div>'
        for number, (image, _) in named.items()
    ]
    alt = f"{len(images)} images under numbers, to be named before the answers below are opened."
    tracks = "repeat(auto-fill,minmax(86px,1fr))"  # as many in a line as a screen has room for
    shown = _figure(grid(cells, tracks, widest=850, alt=alt), label=label, caption=caption)
    said = folded("Answers", {str(number): answer for number, (_, answer) in named.items()})
    return Shown(shown.html + said.html, f"{shown.text}\n{html.unescape(said.text)}")
