"""Figures of chapter 3: rankings as attacks grow stronger, loss surfaces, tangents beside what attacks find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from thesis_kit.chapters.regularization.arms import WAYS
from thesis_kit.evaluation import MaskingReport, Surface
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.statistics import items_interval
from thesis_kit.show.figures import COLORS, Shown, canvas, present, style
from thesis_kit.show.library import Figure
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.tables import table

NAMES = {name: way.look.name or way.title for name, way in WAYS.items()}
_LOOK = {name: (way.look.color, way.look.marker) for name, way in WAYS.items()}


def strength_slider(
    recorded: Result, rungs: Mapping[str, str], arms: Sequence[str], *, since: str, label: str, caption: str
) -> Slider:
    """A slider over attacks of growing strength: how many images of each arm survive everything tried so far.

    ``rungs`` maps recorded measures, from weak to strong, to what the attack is called. The slider stands at the
    strongest first; a pale line shows what has been lost ``since`` one of them.
    """
    measures = list(rungs)

    def survivors(arm: str, upto: int) -> tuple[float, float, float]:
        tables = [recorded.per_image(measure, arm) for measure in measures[: upto + 1]]
        seeds = sorted(tables[0])
        groups = [recorded.cells[arm][seed]["group"] for seed in seeds]
        found = items_interval(groups, [100 * np.min([table[seed] for table in tables], axis=0) for seed in seeds])
        return found.value, found.low, found.high

    def render(upto: float) -> tuple[Figure, str]:
        upto = round(upto)
        found, before = ({arm: survivors(arm, at) for arm in arms} for at in (upto, min(measures.index(since), upto)))
        order = sorted(arms, key=lambda arm: -found[arm][0])
        with style():
            figure, axis = canvas(size=(7, 0.42 * len(arms) + 1.2))
            for row, arm in enumerate(order):
                value, low, high = found[arm]
                color, marker = _LOOK[arm]
                sides = [[value - low], [high - value]]
                axis.plot([value, before[arm][0]], [row, row], color=COLORS[color], linewidth=6, alpha=0.25)
                axis.errorbar(value, row, xerr=sides, fmt=marker, color=COLORS[color], capsize=3, markersize=8)
            axis.set_yticks(range(len(order)), [NAMES[arm] for arm in order]), axis.invert_yaxis()
            axis.set_xlim(-2, 102), axis.set_xlabel("images that survive everything so far (%)")
        best = ", ".join(f"{NAMES[arm]} {found[arm][0]:.0f}%" for arm in order[:3])
        return figure, f"{rungs[measures[upto]]}. In front: {best}."

    alt = "Share of images that survive, a row a way to train, the best on top."
    return slider(render, tuple(range(len(rungs))), start=len(rungs) - 1, name="strength of the attack", label=label,
                  caption=caption, alt=alt)  # fmt: skip


def gains_figure(recorded: Result, gains: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """What each arm has over its control, by the weak attack and in the worst case: arm → control, a row an arm."""

    def gain(measure: str, arm: str) -> tuple[float, float, float]:
        mine, theirs = recorded.per_image(measure, arm), recorded.per_image(measure, gains[arm])
        seeds = sorted(mine)
        groups = [recorded.cells[arm][seed]["group"] for seed in seeds]
        differences = [100.0 * np.asarray(mine[seed]) - 100.0 * np.asarray(theirs[seed]) for seed in seeds]
        found = items_interval(groups, differences)
        return found.value, found.low, found.high

    with style():
        figure, axis = canvas(size=(7, 0.5 * len(gains) + 1.4))
        said = []
        for row, arm in enumerate(gains):
            for offset, measure, color, marker, name in (
                (-0.14, "weak", "orange", "^", "by a weak attack"),
                (0.14, "worst", "blue", "D", "in the worst case of all"),
            ):
                value, low, high = gain(measure, arm)
                axis.errorbar(value, row + offset, xerr=[[value - low], [high - value]], fmt=marker, capsize=3,
                              color=COLORS[color], markersize=8, label="_" * bool(row) + name)  # fmt: skip
                said.append(f"{NAMES[arm]} over {NAMES[gains[arm]]} {name}: {value:+.0f} points")
        rows = [f"{NAMES[arm]}\nover {NAMES[control]}" for arm, control in gains.items()]
        axis.set_yticks(range(len(rows)), rows), axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.axvline(0, color="#A0A0A0", linewidth=1), axis.set_xlabel("images gained (points)")
        figure.legend(loc="outside lower center", ncols=2)
    return present(figure, label=label, caption=caption, alt=f"What each way to train gains. {'; '.join(said)}.")


def attacks_figure(reports: Mapping[str, MaskingReport], *, label: str, caption: str) -> Shown:
    """Every attack of a diagnosis as a point, a row a network: what a weak attack says, and what remains of it."""
    with style():
        figure, axis = canvas(size=(7, 0.75 * len(reports) + 1.5))
        said = []
        for row, (name, report) in enumerate(reports.items()):
            accuracies = [100 * outcome.accuracy for outcome in report.robust.attacks]
            worst, given = 100 * report.robust.robust_accuracy, report.as_given is not None
            weak = 100 * report.as_given if given else np.nan  # no mark
            hide = "_" * bool(row)
            axis.plot([worst, weak], [row, row], color="#C8C8C8", linewidth=4, zorder=1)
            axis.plot(accuracies, [row] * len(accuracies), "|", color=COLORS["gray"], markersize=12,
                      label=f"{hide}each attack")  # fmt: skip
            axis.plot(weak, row, "^", color=COLORS["orange"], markersize=10, label=f"{hide}weak attack, as published")
            axis.plot(worst, row, "D", color=COLORS["blue"], markersize=9, label=f"{hide}worst case of all")
            first = f"{weak:.0f}% under the weak attack" if given else "no gradient for the weak attack"
            said.append(f"{name}: {first}, {worst:.0f}% in the worst case")
        axis.set_yticks(range(len(reports)), list(reports)), axis.set_ylim(len(reports) - 0.5, -0.5)
        axis.set_xlim(-2, 102), axis.set_xlabel("images that stay right (%)")
        figure.legend(loc="outside lower center", ncols=3)
    return present(figure, label=label, caption=caption, alt=f"Accuracy under many attacks. {'; '.join(said)}.")


def surfaces_figure(surfaces: Mapping[str, Surface], *, images: int, eps: float, label: str, caption: str) -> Shown:
    """Loss surfaces as pictures: a row a network, a column an image; blue is right, red is wrong, black the border."""
    with style():
        size = 1.75 * images + 1, 1.75 * len(surfaces) + 0.4
        figure, axes = canvas(len(surfaces), images, size=size, squeeze=False, sharex=True, sharey=True)
        said = []
        for row, (name, surface) in zip(axes, surfaces.items(), strict=True):
            values, offsets = surface.values.cpu().numpy(), surface.offsets.cpu().numpy() / eps
            for axis, value in zip(row, values, strict=False):
                reach = max(float(np.abs(value).max()), 1e-12)
                axis.pcolormesh(offsets, offsets, value, cmap="RdBu_r", vmin=-reach, vmax=reach, rasterized=True)
                if value.min() < 0 < value.max():  # a border
                    axis.contour(offsets, offsets, value, levels=[0.0], colors="#1A1A1A", linewidths=1.5)
                axis.plot(0, 0, "o", color="#1A1A1A", markersize=4), axis.grid(False)
                axis.set_xticks([-1, 0, 1]), axis.set_yticks([-1, 0, 1])
            row[0].set_ylabel(f"{name}\n\ngradient (ε)")
            said.append(f"{name}: {surface.fooled[:images].double().mean():.0%} of the plane is misread")
        for axis in axes[-1]:
            axis.set_xlabel("random (ε)")
    alt = f"The margin around images, up the gradient and along a random direction. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def tangent_figure(recorded: Result, arms: Sequence[str], *, eps: float, label: str, caption: str) -> Shown:
    """For every test image, where the tangent says the border is against where an attack really crosses it."""
    with style():
        columns = min(len(arms), 2 + len(arms) % 2)
        rows = math.ceil(len(arms) / columns)
        size = 7, 7 / columns * rows + 0.4
        figure, axes = canvas(rows, columns, size=size, sharex=True, sharey=True, squeeze=False)
        said, top = [], 3.2  # in units of ε
        for axis, arm in zip(axes.flat, arms, strict=False):
            seed = min(recorded.cells[arm])
            kept = (np.asarray(recorded.per_image(name, arm)[seed]) for name in ("margin", "distance"))
            tangent, found = (distance / eps for distance in kept)
            axis.plot([0, top], [0, top], color="#A0A0A0", linewidth=1)
            axis.axhline(1, color="#A0A0A0", linewidth=1, linestyle=":")
            color = COLORS[_LOOK[arm][0]]
            axis.plot(tangent.clip(0, top), found.clip(0, top), ".", color=color, markersize=3, alpha=0.7)
            axis.set_title(NAMES[arm]), axis.set_aspect("equal")
            axis.set_xlim(0, top), axis.set_ylim(0, top)
            said.append(f"{NAMES[arm]}: median {np.median(tangent):.2f} ε by the tangent, {np.median(found):.2f} found")
        for axis in axes.flat[len(arms) :]:
            axis.set_visible(False)
        for axis in axes[-1]:
            axis.set_xlabel("distance by the tangent")
        for axis in axes[:, 0]:
            axis.set_ylabel("distance found by PGD")
    alt = f"Distance to the border, a dot an image. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def sweep_figure(recorded: Result, arms: Mapping[str, tuple[str, str]], *, label: str, caption: str) -> Shown:
    """Validation accuracy under the weak attack over strength and noise, mean over seeds: arm → (its knob, symbol)."""
    with style():
        figure, axes = canvas(1, len(arms), size=(3.5 * len(arms), 3.2), squeeze=False)
        said = []
        for axis, (arm, (knob, symbol)) in zip(axes[0], arms.items(), strict=True):
            trials = [trial for cell in recorded.cells[arm].values() for trial in cell["trials"]]
            strengths, sigmas = (sorted({trial[name] for trial in trials}) for name in (knob, "sigma"))
            scores: dict[tuple, list[float]] = {}
            for trial in trials:
                scores.setdefault((trial[knob], trial["sigma"]), []).append(100 * max(trial["validation"], 0.0))
            grid = np.array([[np.mean(scores[a, s]) for s in sigmas] for a in strengths])
            axis.imshow(grid, cmap="cividis", vmin=0, vmax=100, aspect="auto"), axis.grid(False)
            for i, j in np.ndindex(grid.shape):
                color = "white" if grid[i, j] < 55 else "#1A1A1A"
                axis.text(j, i, f"{grid[i, j]:.0f}", ha="center", va="center", color=color)
            axis.set_xticks(range(len(sigmas)), [f"{s:g}" for s in sigmas]), axis.set_xlabel("noise σ")
            axis.set_yticks(range(len(strengths)), [f"{a:g}" for a in strengths]), axis.set_ylabel(symbol)
            axis.set_title(NAMES[arm])
            a, s = np.unravel_index(grid.argmax(), grid.shape)
            said.append(f"{NAMES[arm]}: best {grid.max():.0f}% at {symbol} = {strengths[a]:g}, σ = {sigmas[s]:g}")
    alt = f"Accuracy under a weak attack by setting. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def scales_figure(recorded: Result, arms: Sequence[str], *, label: str, caption: str) -> Shown:
    """Accuracy under PGD-20 with the logits divided by T, for cross-entropy (lines) and DLR (dotted)."""
    with style():
        figure, axis = canvas(size=(7, 3.6))
        said = []
        for arm in arms:
            color, marker = _LOOK[arm]
            for loss, line in (("ce", "-"), ("dlr", ":")):
                curves = np.array([cell["curves"][loss] for cell in recorded.cells[arm].values()])  # seeds × T × 2
                temperatures, mean = curves[0, :, 0], 100 * curves[:, :, 1].mean(axis=0)
                name = f"{NAMES[arm]}, {'cross-entropy' if loss == 'ce' else 'DLR'}"
                axis.plot(temperatures, mean, line, marker=marker, color=COLORS[color], label=name)
                said.append(f"{name}: {mean.min():.0f}% to {mean.max():.0f}%")
        axis.set_xscale("log"), axis.set_ylim(0, 102), axis.set_xlabel("logits divided by T")
        axis.set_ylabel("accuracy under PGD-20 (%)")
        figure.legend(loc="outside lower center", ncols=2)
    return present(figure, label=label, caption=caption, alt=f"Accuracy against the logits' scale. {'; '.join(said)}.")


def gap_table(recorded: Result, arms: Sequence[str]) -> Shown:
    """Medians over all test images, a row an arm: logit gap, gradient gap, their ratio, and what an attack found.

    The last two are distances, in units of the ε that the arms were recorded with. Where the attack had not crossed the
    border at the largest radius tried, that is "beyond".
    """
    rows = []
    for arm in arms:
        columns = {
            name: np.concatenate(list(recorded.per_image(name, arm).values()))
            for name in ("logit_gap", "log_gradient_gap", "margin", "distance")
        }
        logit, slope, tangent, found = (float(np.median(column)) for column in columns.values())
        eps = next(iter(recorded.cells[arm].values()))["settings"]["eps"]
        border = f"{found / eps:.2f} ε" if found < 1 else "beyond"  # recorded as 1, for no pixel can move further
        rows.append((NAMES[arm], f"{logit:.2f}", f"{np.exp(slope):.1f}", f"{tangent / eps:.2f} ε", border))
    return table(rows, ("training", "gap", "slope", "tangent", "found"))
