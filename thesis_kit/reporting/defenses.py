"""Chapter 1's figures: an attack under a slider, cost against robustness, what m does, and where single steps collapse.

Each takes numbers, live or recorded, and returns something a notebook displays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import nn

from thesis_kit.data.parts import Part
from thesis_kit.reporting.figures import COLORS, Shown, canvas, present, style
from thesis_kit.reporting.players import Slider, slider
from thesis_kit.reporting.results import Result

NAMES = {
    "natural": "Natural",
    "free-2": "Free, m = 2",
    "free-4": "Free, m = 4",
    "free-8": "Free, m = 8",
    "fgsm-rs": "FGSM-RS",
    "n-fgsm": "N-FGSM",
    "pgd-7": "PGD-7",
}
_LOOK = {  # color and marker of a family, so that neither carries the meaning alone
    "natural": (COLORS["gray"], "s"),
    "free": (COLORS["blue"], "o"),
    "fgsm-rs": (COLORS["orange"], "^"),
    "n-fgsm": (COLORS["purple"], "v"),
    "fgsm": (COLORS["vermilion"], "X"),
    "pgd": (COLORS["green"], "D"),
}
_FILL = {"free-2": "none", "free-4": "bottom"}  # fuller with m


def _look(arm: str) -> dict[str, str]:
    arm = arm.split("@")[0]
    family = arm if arm in _LOOK else arm.split("-")[0]
    color, marker = _LOOK[family]
    return {"color": color, "marker": marker, "fillstyle": _FILL.get(arm, "full")}


@dataclass(frozen=True)
class Measured:
    """A share with its interval, each in 0 … 1, of one way to train (``arm``) at ``passes`` a weight update."""

    arm: str
    passes: float
    value: float
    low: float
    high: float


def attack_slider(
    model: nn.Module, part: Part, attack: Callable[[float], torch.Tensor], radii: Sequence[float], *, start: int,
    label: str, caption: str,
) -> Slider:  # fmt: skip
    """A few images under an attack of growing radius: the images, what was added, and what the model answers.

    Args:
        model: the classifier attacked.
        part: the images shown, one column each.
        attack: radius -> adversarial images of ``part``.
        radii: the slider's values. start: index of the one shown first.
    """

    def render(eps: float):
        x_adv = attack(eps)
        with torch.no_grad():
            sure, answer = model(x_adv).softmax(dim=1).max(dim=1)
        wrong = int((answer != part.y).sum())
        figure = _images_and_changes(part, x_adv, answer, sure, eps)
        return figure, f"ε = {eps:.2f}: {wrong} of {len(part)} misread."

    alt = "Handwritten digits under attack, the change below each, and the answer of the network above it."
    return slider(render, radii, name="attack radius ε", label=label, caption=caption, alt=alt, start=start)


def _images_and_changes(
    part: Part, x_adv: torch.Tensor, answer: torch.Tensor, sure: torch.Tensor, eps: float
) -> Figure:
    with style():
        figure, axes = canvas(2, len(part), size=(1.35 * len(part), 3.2), squeeze=False)
        for i, (above, below) in enumerate(axes.T):
            above.imshow(_pixels(x_adv[i]), cmap="gray_r", vmin=0, vmax=1)
            below.imshow(_pixels(x_adv[i] - part.x[i]), cmap="RdBu_r", vmin=-0.3, vmax=0.3)
            right = answer[i] == part.y[i]
            above.set_title(f"{'✓' if right else '✗'} {answer[i]}  {sure[i]:.0%}", fontsize=11,
                            color="black" if right else COLORS["vermilion"])  # fmt: skip
        for axis in axes.flat:
            axis.set_xticks([]), axis.set_yticks([]), axis.grid(False)
            axis.spines[:].set_visible(False)
        axes[0, 0].set_ylabel("what it sees"), axes[1, 0].set_ylabel("what changed")
        figure.suptitle(f"ε = {eps:.2f}", fontsize=12)
    return figure


def _pixels(image: torch.Tensor):
    image = image.detach().cpu()
    return image[0] if image.shape[0] == 1 else (image.permute(1, 2, 0) + 0.5 * (image.min() < 0)).clamp(0, 1)


def recorded_points(recorded: Result, arms: Iterable[str], measure: str = "R") -> list[Measured]:
    """A measure of several recorded arms, each with what it costs a weight update."""
    points = []
    for arm in arms:
        found = recorded.mean(measure, arm)
        passes = recorded.mean("passes_per_update", arm).value
        points.append(Measured(arm, passes, found.value, found.low, found.high))
    return points


def draw_cost(points: Sequence[Measured]) -> Figure:
    """Robust accuracy against the passes a weight update costs, one point a way to train."""
    with style():
        figure, axis = canvas(size=(7, 4.4))
        for point, shift in zip(points, _spread([p.passes for p in points]), strict=True):
            error = [[100 * (point.value - point.low)], [100 * (point.high - point.value)]]
            look = {"capsize": 3, "markersize": 8, "linestyle": "none", **_look(point.arm)}
            name = NAMES.get(point.arm, point.arm)
            axis.errorbar(point.passes * shift, 100 * point.value, yerr=error, label=name, **look)
        ticks = sorted({point.passes for point in points})
        axis.set_xscale("log"), axis.minorticks_off()
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xlabel("forward + backward passes per weight update (log scale)")
        axis.set_ylabel("accuracy under PGD-20 (%)"), axis.set_ylim(0, 100)
        _legend_below(figure)
    return figure


def cost_figure(points: Sequence[Measured], *, label: str, caption: str) -> Shown:
    """``draw_cost`` with its caption."""
    said = "; ".join(f"{NAMES.get(p.arm, p.arm)} {100 * p.value:.0f}% at {p.passes:g} passes" for p in points)
    return present(draw_cost(points), label=label, caption=caption, alt=f"Robust accuracy against cost. {said}.")


def _legend_below(figure: Figure) -> None:
    """The legend under the axes, where it costs no width on a phone."""
    figure.legend(loc="outside lower center", ncols=4, columnspacing=1.2, handletextpad=0.4)


def _spread(passes: Sequence[float]) -> list[float]:
    """Factors that set points of equal cost side by side."""
    shifts = []
    for i, cost in enumerate(passes):
        twins = [j for j, other in enumerate(passes) if other == cost]
        shifts.append(1.08 ** (twins.index(i) - (len(twins) - 1) / 2))
    return shifts


def replays_figure(clean: Mapping[int, Measured], robust: Mapping[int, Measured], *, label: str, caption: str) -> Shown:
    """Clean and robust accuracy of Free against its number of replays m, at equal numbers of weight updates."""
    with style():
        figure, axes = canvas(1, 2, size=(7.4, 3.6))
        for axis, series, what, color in (
            (axes[0], clean, "accuracy on clean images (%)", COLORS["gray"]),
            (axes[1], robust, "accuracy under PGD-20 (%)", COLORS["blue"]),
        ):
            replays = sorted(series)
            value = [100 * series[m].value for m in replays]
            error = [[100 * (series[m].value - series[m].low) for m in replays],
                     [100 * (series[m].high - series[m].value) for m in replays]]  # fmt: skip
            axis.errorbar(replays, value, yerr=error, capsize=3, marker="o", color=color)
            axis.set_xticks(replays), axis.set_xlabel("replays m"), axis.set_ylabel(what)
    said = "; ".join(f"m = {m}: clean {100 * clean[m].value:.1f}%, robust {100 * robust[m].value:.1f}%" for m in clean)
    return present(figure, label=label, caption=caption, alt=f"Accuracy of Free against its replays. {said}.")


def attacks_figure(accuracies: Mapping[str, Mapping[str, float]], *, label: str, caption: str) -> Shown:
    """Accuracy of several models (arm -> attack -> share) as attacks grow stronger, one line a model."""
    with style():
        figure, axis = canvas(size=(7, 4))
        for arm, by_attack in accuracies.items():
            axis.plot(list(by_attack), [100 * share for share in by_attack.values()], markersize=7,
                      label=NAMES.get(arm, arm), **_look(arm))  # fmt: skip
        axis.set_ylabel("images still read rightly (%)"), axis.set_ylim(0, 102)
        _legend_below(figure)
    said = "; ".join(f"{NAMES.get(arm, arm)} falls from {100 * max(a.values()):.0f}% to {100 * min(a.values()):.0f}%"
                     for arm, a in accuracies.items())  # fmt: skip
    return present(figure, label=label, caption=caption, alt=f"Accuracy under stronger and stronger attacks. {said}.")


def collapse_figure(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]], *, label: str, caption: str
) -> Shown:
    """Robust accuracy through training: arm -> one curve (epoch, share) a seed, one panel an arm."""
    with style():
        figure, axes = canvas(1, len(curves), size=(2.7 * len(curves), 3.2), sharey=True, squeeze=False)
        for axis, (arm, runs) in zip(axes[0], curves.items(), strict=True):
            for run in runs:
                axis.plot([x for x, _ in run], [100 * y for _, y in run], linewidth=1, alpha=0.7,
                          color=_look(arm)["color"])  # fmt: skip
            axis.set_title({"fgsm": "FGSM"}.get(arm.split("@")[0], NAMES.get(arm.split("@")[0], arm)))
            axis.set_xlabel("epoch")
        axes[0, 0].set_ylabel("accuracy under PGD-20 (%)")
    said = "; ".join(f"{arm.split('@')[0]} ends between {100 * min(r[-1][1] for r in runs):.0f}% and "
                     f"{100 * max(r[-1][1] for r in runs):.0f}%" for arm, runs in curves.items())  # fmt: skip
    return present(figure, label=label, caption=caption, alt=f"Robust accuracy by epoch, one line a seed. {said}.")


def one_step_figure(pairs: Mapping[str, tuple[float, float]], *, label: str, caption: str) -> Shown:
    """What a single step finds against what PGD finds: name -> (accuracy under FGSM, accuracy under PGD-20)."""
    with style():
        figure, axis = canvas(size=(7, 0.55 * len(pairs) + 1.2))
        for row, (one_step, many) in enumerate(pairs.values()):
            axis.plot([100 * one_step, 100 * many], [row, row], color="#B0B0B0", linewidth=3, zorder=1)
            axis.plot(100 * one_step, row, "^", color=COLORS["orange"], markersize=9, label=f"{'_' * row}one step")
            axis.plot(100 * many, row, "D", color=COLORS["blue"], markersize=8, label=f"{'_' * row}PGD-20")
        axis.set_yticks(range(len(pairs)), list(pairs)), axis.invert_yaxis()
        axis.set_xlim(-2, 102), axis.set_xlabel("accuracy under attack (%)")
        axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    said = "; ".join(f"{name}: one step {100 * a:.0f}%, PGD {100 * b:.0f}%" for name, (a, b) in pairs.items())
    return present(figure, label=label, caption=caption, alt=f"Accuracy under a single step and under PGD. {said}.")
