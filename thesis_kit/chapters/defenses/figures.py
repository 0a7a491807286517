"""Chapter 1's figures and tables: an attack under a slider, the settings, cost against robustness, what m does, and
where single steps collapse.

Each takes numbers, live or recorded, and returns something a notebook displays.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thesis_kit import training
from thesis_kit.chapters.defenses.arms import EXPERIMENTS
from thesis_kit.data.parts import Part, Splits
from thesis_kit.evaluation import reference_attack, weak_attack
from thesis_kit.ledger.results import Result
from thesis_kit.show.figures import COLORS, Shown, canvas, folded, present, style
from thesis_kit.show.library import Figure
from thesis_kit.show.pictures import pixels, rows_of_pictures, tile
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.tables import table

_ARMS = {arm.name: arm for arm in EXPERIMENTS["digits"].arms}
NAMES = {name: arm.short for name, arm in _ARMS.items() if "@" not in name}


def _look(arm: str) -> dict[str, str]:
    look = _ARMS[arm].look
    return {"color": COLORS[look.color], "marker": look.marker, "fillstyle": look.fill}


@dataclass(frozen=True)
class Point:
    """A share with its interval, each in 0 … 1, of one way to train (``arm``); ``passes`` in multiples of ordinary
    training's."""

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

    def render(eps: float) -> tuple[str, str]:
        x_adv = attack(eps)
        with torch.no_grad():
            sure, answer = model(x_adv).softmax(dim=1).max(dim=1)
        wrong = int((answer != part.y).sum())
        said = f"ε = {eps:.2f}: {wrong} of {len(part)} misread."
        return _images_and_changes(part, x_adv, answer, sure, said), said

    alt = "Handwritten digits under attack, the change below each, and the answer of the network above it."
    return slider(render, radii, name="attack radius ε", label=label, caption=caption, alt=alt, start=start)


def _images_and_changes(part: Part, x_adv: torch.Tensor, answer: torch.Tensor, sure: torch.Tensor, said: str) -> str:
    """HTML of a column an image: the answer, the image attacked, the change."""
    read = list(zip(answer.tolist(), sure.tolist(), (answer == part.y).tolist(), strict=True))
    answers = [f"{'✓' if right else '✗'} {name}\n{share:.0%}" for name, share, right in read]
    ink = "ink" if part.x.shape[1] == 1 else "gray"
    seen = [
        tile(pixels(image, colors=ink), f"what it sees as {name}")
        for image, (name, *_) in zip(x_adv, read, strict=True)
    ]
    changes = [tile(pixels(change, colors="signed", reach=0.3), "what changed") for change in x_adv - part.x]
    rows = {"what it sees": seen, "what changed": changes}
    return rows_of_pictures(rows, answers, alt=f"Images under attack. {said}", cell=95)


def recorded_points(recorded: Result, arms: Iterable[str], measure: str = "R") -> list[Point]:
    """A measure of several recorded arms, each with its passes in training as a multiple of ordinary training's."""
    points, ordinary = [], recorded.mean("passes", "natural").value
    for arm in arms:
        found = recorded.mean(measure, arm)
        passes = recorded.mean("passes", arm).value / ordinary
        points.append(Point(arm, passes, found.value, found.low, found.high))
    return points


def cost_table(
    reports: Mapping[str, training.TrainingReport], methods: Mapping[str, training.Method], part: Part, batch_size: int
) -> Shown:
    """What runs cost, a row a run: passes an update, updates an epoch, epochs, and passes in all."""
    rows = []
    minibatches = -(-len(part) // batch_size)
    for name, report in reports.items():
        passes, epoch = report.passes.backward, minibatches * methods[name].replays
        counts = (f"{passes / report.updates:g}", str(epoch), f"{report.updates / epoch:.4g}")
        rows.append((name, *counts, f"{report.updates:,}", f"{passes:,}"))
    return table(rows, ("run", "passes an update", "updates an epoch", "epochs", "updates", "passes"))


def settings_card(live: Any, recorded: Any, splits: Splits, model: nn.Module) -> Shown:
    """The chapter's settings, folded: of the runs that were made live, and where the recorded ones differ.

    Args:
        live, recorded: the chapter's table of ``profiles`` in the two profiles.
        splits: the images of the live runs. model: the network they train.
    """
    return folded(
        "The settings: radius, network, optimizer, attacks",
        {
            "Radius ε": _radius(live.eps, splits.train),
            "Images": f"{len(splits.train):,} to train on, {len(splits.validation):,} to choose with, "
            f"{len(splits.test):,} to test on (run 0; the recorded runs divide them anew)",
            "Network": _network(live.model, model),
            "Optimizer": f"SGD with momentum {_default(training.train, 'momentum'):g} and weight decay "
            f"{live.weight_decay:g}; {live.updates:,} weight updates on minibatches of {live.batch_size}",
            "Learning rate": f"{live.schedule} schedule: it rises to a peak and falls to zero. The peak is "
            f"{live.learning_rate:g} in the live runs; in the recorded ones the best on validation images of "
            f"{', '.join(f'{lr:g}' for lr in recorded.learning_rates)}",
            "PGD-7, in training": f"{training.PGD(live.eps).steps} steps of ε/4 from a random start",
            "PGD-20, in testing": _steps(reference_attack(live.eps)["PGD-20"].keywords),
            "PGD-10, small steps": _steps(weak_attack(live.eps)["PGD-10 weak"].keywords),
            "Strong ensemble": f"PGD and APGD with {recorded.strong_steps} steps, PGD with {recorded.strong_restarts} "
            f"restarts, Square with at most {recorded.queries:,} queries",
            "Single steps that might collapse": f"ε = {recorded.collapse_eps:g}, peak {recorded.learning_rate:g}. On "
            f"enlarged digits ε = {recorded.enlarged_eps:g}, Adam at a constant {recorded.enlarged_learning_rate:g}, "
            f"{recorded.enlarged_updates} updates",
        },
    )


def _radius(eps: float, part: Part) -> str:
    levels, (height, width) = len(part.x[:1000].unique()) - 1, part.x.shape[-2:]
    return (
        f"{eps:.3g}. Between 0 and 1 a pixel of these images has {levels} steps; ε is {eps * levels:.3g} of them. Each "
        f"of the {height} × {width} pixels may change by so much, up or down"
    )


def _network(name: str, model: nn.Module) -> str:
    convolutions = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    linear = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)]
    channels = f" ({', '.join(map(str, convolutions))} channels)" * (len(convolutions) < 5)
    weights = sum(parameter.numel() for parameter in model.parameters())
    return f"{name}: {len(convolutions)} convolutions{channels}, {len(linear)} linear layers, {weights:,} weights"


def _steps(knobs: Mapping[str, float]) -> str:
    return f"{knobs['steps']} steps of ε/{knobs['eps'] / knobs['step_size']:g} from a random start"


def _default(function: Callable, name: str) -> float:
    return inspect.signature(function).parameters[name].default


def draw_cost(points: Sequence[Point]) -> Figure:
    """Robust accuracy against passes in training, one point a way to train; points of equal cost side by side."""
    with style():
        figure, axis = canvas(size=(7, 4.4))
        for point, shift in zip(points, _spread([p.passes for p in points]), strict=True):
            error = [[100 * (point.value - point.low)], [100 * (point.high - point.value)]]
            look = {"capsize": 3, "markersize": 8, "linestyle": "none", **_look(point.arm)}
            name = _ARMS[point.arm].short
            axis.errorbar(point.passes * shift, 100 * point.value, yerr=error, label=name, **look)
        ticks = sorted({point.passes for point in points})
        axis.set_xscale("log"), axis.minorticks_off()
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xlabel("passes in training, as a multiple of ordinary training (log scale)")
        axis.set_ylabel("accuracy under PGD-20 (%)"), axis.set_ylim(0, 100)
        _legend_below(figure)
    return figure


def cost_figure(points: Sequence[Point], *, label: str, caption: str) -> Shown:
    """``draw_cost`` with its caption."""
    said = "; ".join(f"{_ARMS[p.arm].short} {100 * p.value:.0f}% at {p.passes:g} × the passes" for p in points)
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


def replays_figure(clean: Mapping[int, Point], robust: Mapping[int, Point], *, label: str, caption: str) -> Shown:
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
                      label=_ARMS[arm].short, **_look(arm))  # fmt: skip
        axis.set_ylabel("images still read rightly (%)"), axis.set_ylim(0, 102)
        _legend_below(figure)
    said = "; ".join(f"{_ARMS[arm].short} falls from {100 * max(a.values()):.0f}% to {100 * min(a.values()):.0f}%"
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
            axis.set_title(_ARMS[arm].short)
            axis.set_xlabel("epoch")
        axes[0, 0].set_ylabel("accuracy under PGD-20 (%)")
    said = "; ".join(f"{arm.split('@')[0]} ends between {100 * min(r[-1][1] for r in runs):.0f}% and "
                     f"{100 * max(r[-1][1] for r in runs):.0f}%" for arm, runs in curves.items())  # fmt: skip
    return present(figure, label=label, caption=caption, alt=f"Robust accuracy by epoch, one line a seed. {said}.")


def one_step_figure(found: Mapping[str, tuple[float, float, float]], *, label: str, caption: str) -> Shown:
    """What a single step finds against what PGD finds: name -> accuracy on clean images, under FGSM, under PGD-20."""
    with style():
        figure, axis = canvas(size=(7, 0.55 * len(found) + 1.2))
        for row, (clean, one_step, many) in enumerate(found.values()):
            axis.plot(100 * clean, row, "s", color=COLORS["gray"], markersize=7, label=f"{'_' * row}clean images")
            axis.plot([100 * one_step, 100 * many], [row, row], color="#B0B0B0", linewidth=3, zorder=1)
            axis.plot(100 * one_step, row, "^", color=COLORS["orange"], markersize=9, label=f"{'_' * row}one step")
            axis.plot(100 * many, row, "D", color=COLORS["blue"], markersize=8, label=f"{'_' * row}PGD-20")
        axis.set_yticks(range(len(found)), list(found)), axis.invert_yaxis()
        axis.set_xlim(-2, 102), axis.set_xlabel("accuracy (%)")
        axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    said = "; ".join(
        f"{name}: clean {100 * clean:.0f}%, one step {100 * one_step:.0f}%, PGD {100 * many:.0f}%"
        for name, (clean, one_step, many) in found.items()
    )
    alt = f"Accuracy on clean images, under a single step and under PGD. {said}."
    return present(figure, label=label, caption=caption, alt=alt)
