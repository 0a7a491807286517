"""Figures of chapter 1's second half: what a head inherits, what retraining costs, what distillation and few images do.

All draw from the recorded result of the scenes arena.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from thesis_kit.chapters.defenses.settings import Transfer
from thesis_kit.chapters.defenses.transfer_arms import N_BLOCKS, ROUTES
from thesis_kit.data import Part
from thesis_kit.ledger.results import Result
from thesis_kit.show.figures import COLORS, Shown, canvas, folded, present, style
from thesis_kit.show.tables import table

_SERIES = {
    "N": ("clean images", COLORS["gray"], "s"),
    "R": ("under PGD-20", COLORS["blue"], "o"),
}


def _means(recorded: Result, measure: str, arms: Sequence[str]) -> tuple[list[float], list[list[float]]]:
    """Means in percent and the two sides of their intervals."""
    found = [recorded.mean(measure, arm) for arm in arms]
    sides = [[100 * (f.value - f.low) for f in found], [100 * (f.high - f.value) for f in found]]
    return [100 * f.value for f in found], sides


def settings_card(settings: Transfer, part: Part, network: nn.Module) -> Shown:
    """The settings of the transfer experiments, folded.

    Args:
        settings: the recorded ones. part: images of the target task. network: a source network.
    """
    s, (channels, height, width) = settings, part.x.shape[1:]
    few = ", ".join(f"{updates:,} at {lr:g}" for updates, lr in s.few_trials)
    return folded(
        "The settings: radius, network, optimizer, attacks",
        {
            "Radius ε": f"{255 * s.eps:g}/255, in the maximum norm. An image is {channels} × {height} × {width}",
            "Images": f"a stream without end for the source, {len(part):,} of the target to train on, "
            f"{s.target.data_options['n_validation']:,} to choose with, {s.target.data_options['n_test']:,} to test on",
            "Network": f"a small residual network of {N_BLOCKS} blocks (the first convolution, then two at each of "
            f"three widths), {sum(one.numel() for one in network.parameters()):,} weights",
            "Source": f"{s.source_updates:,} updates of SGD, minibatches of {s.batch_size}, peak rate {s.source_lr:g}",
            "Head": f"penalty chosen on validation images of {', '.join(f'{one:g}' for one in s.penalties)}",
            "Blocks drawn anew": f"{s.depth_updates:,} updates, peak rate {s.depth_lr:g}",
            "Distillation": f"{s.distill_updates:,} updates, peak rate {s.distill_lr:g}",
            "Free training on few images": f"8 replays; trials of updates and rate: {few}",
            "Attack": "PGD-20 of the first half, at this radius",
        },
    )


def inherited_figure(recorded: Result, arms: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """Clean and robust accuracy of several models side by side; ``arms`` maps a recorded arm to its name."""
    with style():
        figure, axis = canvas(size=(7, 0.62 * len(arms) + 1.4))
        for shift, (measure, (name, color, marker)) in zip((-0.12, 0.12), _SERIES.items(), strict=True):
            value, error = _means(recorded, measure, list(arms))
            rows = [row + shift for row in range(len(arms))]
            axis.errorbar(value, rows, xerr=error, fmt=marker, color=color, capsize=3, markersize=8, label=name)
        axis.set_yticks(range(len(arms)), list(arms.values())), axis.invert_yaxis()
        axis.set_xlim(-2, 102), axis.set_xlabel("accuracy on the target's test images (%)")
        axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    said = "; ".join(f"{name}: {_said(recorded, arm)}" for arm, name in arms.items())
    return present(
        figure, label=label, caption=caption, alt=f"Clean and robust accuracy of transferred models. {said}."
    )


def _said(recorded: Result, arm: str) -> str:
    clean, robust = (100 * recorded.mean(measure, arm).value for measure in ("N", "R"))
    return f"clean {clean:.0f}%, robust {robust:.0f}%"


def accuracy_table(recorded: Result, arms: Mapping[str, str]) -> Shown:
    """Clean and robust accuracy of several models with their intervals, a row a model; ``arms`` maps arm to name."""
    rows = []
    for arm, name in arms.items():
        found = (recorded.mean(measure, arm) for measure in ("N", "R"))
        clean, robust = (f"{100 * f.value:.1f}% [{100 * f.low:.1f}, {100 * f.high:.1f}]" for f in found)
        rows.append((name, clean, robust))
    return table(rows, ("network", "clean images", "under PGD-20"))


def depth_figure(recorded: Result, depths: Mapping[str, int], *, label: str, caption: str) -> Shown:
    """Clean and robust accuracy against the number of blocks retrained on clean images."""
    with style():
        figure, axis = canvas(size=(7, 3.8))
        for measure, (name, color, marker) in _SERIES.items():
            value, error = _means(recorded, measure, list(depths))
            axis.errorbar(list(depths.values()), value, yerr=error, marker=marker, color=color, capsize=3, label=name)
        axis.set_xlabel("blocks retrained on clean images, counted from the last")
        axis.set_ylabel("accuracy (%)"), axis.set_ylim(0, 102)
        axis.legend(loc="lower left")
    said = "; ".join(f"{k} blocks: {_said(recorded, arm)}" for arm, k in depths.items())
    return present(figure, label=label, caption=caption, alt=f"Accuracy against retrained blocks. {said}.")


def distillation_figure(recorded: Result, *, label: str, caption: str) -> Shown:
    """Clean and robust validation accuracy against the strength of distillation, from the trials, means over seeds.

    A strength with which training diverged has no point.
    """
    points = {arm: _validation(recorded, arm) for arm in ("lwf", "fine-tuned")}
    with style():
        figure, axis = canvas(size=(7, 3.8))
        plain = points["fine-tuned"][0.0]
        for (name, color, marker), *at, without in zip(_SERIES.values(), *points["lwf"].values(), plain, strict=True):
            axis.plot(list(points["lwf"]), at, marker=marker, color=color, label=name)
            axis.axhline(without, color=color, linestyle=":")
        axis.set_xscale("log"), axis.minorticks_off()
        axis.set_xticks(list(points["lwf"]), [f"{strength:g}" for strength in points["lwf"]])
        axis.set_xlabel("strength λ of distillation (dotted: without, λ = 0)")
        axis.set_ylabel("validation accuracy (%)"), axis.set_ylim(0, 102)
        axis.legend(loc="lower left")
    places = {**points["fine-tuned"], **points["lwf"]}  # λ = 0 first
    said = "; ".join(f"λ = {s:g}: clean {x:.0f}%, robust {y:.0f}%" for s, (x, y) in places.items())
    alt = f"Clean and robust accuracy as distillation grows stronger. {said}."
    return present(figure, label=label, caption=caption, alt=alt)


def _validation(recorded: Result, arm: str) -> dict[float, tuple[float, float]]:
    """Strength → clean and robust validation accuracy in percent, where training did not diverge with any seed."""
    found: dict[float, list[tuple[float, float]]] = {}
    for cell in recorded.cells[arm].values():
        for trial in cell["trials"]:
            found.setdefault(trial["strength"], []).append((trial["N"], trial["R"]))
    means = {strength: 100 * np.mean(scores, axis=0) for strength, scores in found.items() if np.min(scores) >= 0}
    return {strength: (float(clean), float(robust)) for strength, (clean, robust) in means.items()}


def low_data_figure(recorded: Result, per_class: Sequence[int], *, label: str, caption: str) -> Shown:
    """Clean (left) and robust (right) accuracy against the number of target images a class, one line a route."""
    with style():
        figure, axes = canvas(1, 2, size=(7.4, 3.8), sharey=True)
        for axis, measure, what in ((axes[0], "N", "clean images"), (axes[1], "R", "under PGD-20")):
            for route, (name, _, _, look) in ROUTES.items():
                value, error = _means(recorded, measure, [f"{route}@{n}" for n in per_class])
                marks = {"marker": look.marker, "color": COLORS[look.color], "capsize": 3}
                axis.errorbar(per_class, value, yerr=error, label=name, **marks)
            axis.set_xscale("log"), axis.minorticks_off(), axis.set_xticks(per_class, [str(n) for n in per_class])
            axis.set_xlabel("images a class"), axis.set_title(what)
        axes[0].set_ylabel("accuracy (%)"), axes[0].set_ylim(0, 102)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=1)
    said = "; ".join(
        f"{name}, {n} a class: {_said(recorded, f'{route}@{n}')}"
        for route, (name, *_) in ROUTES.items()
        for n in per_class
    )
    return present(figure, label=label, caption=caption, alt=f"Accuracy with few images. {said}.")
