"""Figures of chapter 2: votes under noise, radii and their budgets, forged certificates beside honest ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from thesis_kit.asking import evaluating
from thesis_kit.certification import Certificate, Certificates, certify
from thesis_kit.ledger.results import Result
from thesis_kit.show.figures import COLORS, Shown, canvas, card, present, style
from thesis_kit.show.pictures import bars, grid, pixels, rows_of_pictures, tile, words
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.tables import table

SERIES = (("blue", "o"), ("orange", "s"), ("green", "^"), ("vermilion", "D"), ("purple", "v"))
_VOTES = 200  # noisy copies whose answers a picture shows


def noise_slider(
    networks: Mapping[float, nn.Module], image: Tensor, class_names: Sequence[str], *, n: int, label: str, caption: str,
    start: int = 0,
) -> Slider:  # fmt: skip
    """A slider over σ: noisy copies of an image (1, c, h, w), the votes of σ's network, the certified radius."""
    device = next(next(iter(networks.values())).parameters()).device

    def render(sigma: float) -> tuple[str, str]:
        sigma = min(networks, key=lambda known: abs(known - sigma))  # a network belongs to its noise
        noise = torch.randn(_VOTES, *image.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
        noisy, model = image.to(device) + sigma * noise, networks[sigma]
        with evaluating(model), torch.no_grad():
            votes = torch.bincount(model(noisy).argmax(dim=1), minlength=len(class_names)) / _VOTES
        found = certify(model, image.to(device), sigma=sigma, n=n, progress=False)[0]
        said = _certified(found, class_names)
        return _votes(noisy[:3].cpu(), dict(zip(class_names, votes.tolist(), strict=True)), said), said

    alt = "Noisy copies of an image above the answers that the network gives to them."
    words = {"name": "standard deviation of the noise", "label": label, "caption": caption, "alt": alt}
    return slider(render, tuple(networks), start=start, **words)


def _votes(noisy: Tensor, votes: Mapping[str, float], said: str) -> str:
    tiles = [tile(pixels(image), f"noisy copy {number}, {said}") for number, image in enumerate(noisy, start=1)]
    copies = rows_of_pictures({"": tiles}, (), alt=f"Three noisy copies. {said}")
    return copies + '<div style="height:8px"></div>' + bars(votes, alt=f"Share of answers. {said}")


def _certified(found: Certificate, class_names: Sequence[str]) -> str:
    budget = found.budget
    if found.abstained:
        return f"σ = {budget.sigma:g}: no certificate ({budget.n:,} samples)"
    return (
        f"σ = {budget.sigma:g}: {class_names[found.label]}, certified radius {found.radius:.2f} of at most "
        f"{budget.largest_radius:.2f} ({budget.n:,} samples)"
    )


def caps_figure(alpha: float, *, label: str, caption: str) -> Shown:
    """The largest radius that n agreeing samples certify, in units of σ, against n."""
    sizes = np.unique(np.geomspace(np.ceil(np.log2(1 / alpha)) + 1, 1e6, 200).astype(int))
    marked = [100, 1000, 10_000, 100_000]

    def radius(n: Sequence[int] | np.ndarray) -> np.ndarray:
        return scipy.stats.norm.ppf(alpha ** (1 / np.asarray(n, dtype=float)))

    with style():
        figure, axis = canvas(size=(7, 3.4))
        axis.plot(sizes, radius(sizes), color=COLORS["blue"])
        axis.plot(marked, radius(marked), "o", color=COLORS["blue"])
        for n, r in zip(marked, radius(marked), strict=True):
            axis.annotate(f"{r:.2f} σ", (n, r), textcoords="offset points", xytext=(4, -14))
        axis.set_xscale("log"), axis.set_ylim(0, None)
        axis.set_xlabel("samples n, all agreeing"), axis.set_ylabel("largest radius (σ)")
    said = "; ".join(f"{n:,} samples {r:.2f} σ" for n, r in zip(marked, radius(marked), strict=True))
    alt = f"The largest certifiable radius grows slowly with the number of samples: {said}."
    return present(figure, label=label, caption=caption, alt=alt)


def triptych(
    columns: Mapping[str, tuple[Tensor, Certificates]], class_names: Sequence[str], *, label: str, caption: str
) -> Shown:
    """Kinds of images side by side, one row a scene: images (n, c, h, w), each over its certified label and radius."""
    kinds = {}
    for name, (images, certificates) in columns.items():
        texts = [
            "abstains" if found.abstained else f"{class_names[found.label]},\nradius {found.radius:.2f}"
            for found in certificates
        ]
        tiles = [
            f"<div>{tile(pixels(image), f'{name}: {text}')}{words(text)}</div>"
            for image, text in zip(images, texts, strict=True)
        ]
        kinds[name] = tiles, texts
    cells = [words(name, end=True) for name in kinds]
    cells += [shown for row in zip(*(tiles for tiles, _ in kinds.values()), strict=True) for shown in row]
    said = [f"{name}: {text}" for name, (_, texts) in kinds.items() for text in texts]
    listed = "; ".join(said).replace("\n", " ")
    alt = f"Scenes with the label and the radius that are certified for them. {listed}."
    shown = grid(cells, f"repeat({len(kinds)},minmax(0,1fr))", widest=190 * len(kinds), alt=alt)
    return Shown(card(shown, label=label, caption=caption), f"{label}. {caption}")


def accuracy_curves(recorded: Result, sigmas: Sequence[float], *, label: str, caption: str) -> Shown:
    """Certified accuracy against the radius, a line for each σ."""
    with style():
        figure, axis = canvas(size=(7, 3.8))
        said = []
        for sigma, (color, _) in zip(sigmas, SERIES, strict=False):
            radii = np.concatenate(list(recorded.per_image("radius", f"all@{sigma:g}").values()))
            right = np.concatenate(list(recorded.per_image("certified", f"all@{sigma:g}").values()))
            steps = np.linspace(0, 1.01 * radii.max(), 400)
            share = [100 * ((radii >= step) & (right > 0)).mean() for step in steps]
            axis.plot(steps, share, color=COLORS[color], label=f"σ = {sigma:g}")
            said.append(f"σ = {sigma:g} starts at {share[0]:.0f}% and ends at radius {radii.max():.2f}")
        axis.set_xlabel("ℓ₂ radius"), axis.set_ylabel("certified accuracy (%)"), axis.set_ylim(0, 102)
        axis.set_xlim(0, None), axis.legend()
    alt = f"Certified accuracy against the radius; the curves cross. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def radii_figure(recorded: Result, sigmas: Sequence[float], *, label: str, caption: str) -> Shown:
    """Mean certified radii of natural and of Shadow images, in units of σ, with the largest that the budget allows."""
    budget = recorded.settings(f"natural@{sigmas[0]:g}")
    cap = float(scipy.stats.norm.ppf(budget["alpha"] ** (1 / budget["n"])))
    with style():
        figure, axis = canvas(size=(7, 3.6))
        said = []
        kinds = (("natural", "natural image, right label", -0.1), ("shadow", "Shadow image, wrong label", 0.1))
        for (kind, name, shift), (color, marker) in zip(kinds, SERIES, strict=False):
            found = [recorded.mean("radius", f"{kind}@{sigma:g}") for sigma in sigmas]
            value, low, high = np.array([(f.value, f.low, f.high) for f in found]).T / np.asarray(sigmas)
            marks = {"fmt": marker, "color": COLORS[color], "capsize": 3, "markersize": 8, "label": name}
            axis.errorbar(np.arange(len(sigmas)) + shift, value, yerr=[value - low, high - value], **marks)
            said += [f"σ = {s:g}, {name}: {v:.2f} σ" for s, v in zip(sigmas, value, strict=True)]
        axis.axhline(cap, color=COLORS["gray"], linestyle=":", label=f"largest with {budget['n']:,} samples")
        axis.set_xticks(range(len(sigmas)), [f"σ = {sigma:g}" for sigma in sigmas])
        axis.set_ylabel("mean certified radius (σ)"), axis.set_ylim(0, 1.1 * cap)
        figure.legend(loc="outside lower center", ncols=2)
    alt = f"Mean certified radii of natural and Shadow images. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def budget_figure(recorded: Result, *, label: str, caption: str) -> Shown:
    """Certified radii of the same images with growing budgets, a thin line an image, and the caps."""
    nested = recorded.settings(next(arm for arm in recorded.arms if arm.startswith("n=")))
    sizes, alpha, sigma = nested["sizes"], nested["alpha"], nested["sigma"]
    lines = np.stack([np.concatenate(list(recorded.per_image("radius", f"n={n}").values())) for n in sizes])
    caps = sigma * scipy.stats.norm.ppf(alpha ** (1 / np.asarray(sizes, dtype=float)))
    with style():
        figure, axis = canvas(size=(7, 3.6))
        axis.plot(sizes, lines, color=COLORS["sky"], linewidth=0.8, alpha=0.8)
        axis.plot(sizes, lines.mean(axis=1), color=COLORS["blue"], marker="o", label="mean")
        axis.plot(sizes, caps, color=COLORS["gray"], linestyle=":", label="largest possible")
        axis.set_xscale("log"), axis.minorticks_off(), axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axis.set_xlabel("samples n"), axis.set_ylabel("certified radius"), axis.set_ylim(0, None)
        axis.legend(loc="upper left")
    means = zip(sizes, lines.mean(axis=1), caps, strict=True)
    said = "; ".join(f"{n:,} samples: mean {mean:.2f} of at most {cap:.2f}" for n, mean, cap in means)
    return present(figure, label=label, caption=caption, alt=f"Certified radius against the budget. {said}.")


def bars_figure(
    recorded: Result, measure: str, arms: Mapping[str, str], *, axis_label: str, label: str, caption: str,
    percent: bool = False,
) -> Shown:  # fmt: skip
    """One mean a row with its interval: ``arms`` maps a recorded arm to its name."""
    scale = 100 if percent else 1
    found = [recorded.mean(measure, arm) for arm in arms]
    value = [scale * f.value for f in found]
    sides = [[scale * (f.value - f.low) for f in found], [scale * (f.high - f.value) for f in found]]
    with style():
        figure, axis = canvas(size=(7, 0.5 * len(arms) + 1.1))
        ends = {"capsize": 3, "ecolor": COLORS["gray"]}
        axis.barh(range(len(arms)), value, xerr=sides, color=COLORS["sky"], error_kw=ends)
        axis.set_yticks(range(len(arms)), list(arms.values())), axis.invert_yaxis()
        axis.set_xlabel(axis_label), axis.set_xlim(0, None)
    unit = "%" if percent else ""
    said = "; ".join(f"{name}: {v:.3g}{unit}" for name, v in zip(arms.values(), value, strict=True))
    return present(figure, label=label, caption=caption, alt=f"{axis_label.capitalize()}. {said}.")


def bounds_figure(recorded: Result, arms: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """What interval bounds verify: natural images with the right label, and forged ones with a wrong label."""
    kinds = {"verified": "natural image, right label", "forged": "Shadow image, wrong label"}
    with style():
        figure, axis = canvas(size=(7, 0.75 * len(arms) + 1.4))
        said = []
        for shift, (measure, name), (color, marker) in zip((-0.13, 0.13), kinds.items(), SERIES, strict=False):
            found = [recorded.mean(measure, arm) for arm in arms]
            sides = [[100 * (f.value - f.low) for f in found], [100 * (f.high - f.value) for f in found]]
            value = [100 * f.value for f in found]
            rows = [row + shift for row in range(len(arms))]
            axis.errorbar(value, rows, xerr=sides, fmt=marker, color=COLORS[color], capsize=3, markersize=8, label=name)
            said += [f"{arm}, {name}: {v:.0f}%" for arm, v in zip(arms.values(), value, strict=True)]
        axis.set_yticks(range(len(arms)), list(arms.values())), axis.invert_yaxis()
        axis.set_xlim(-2, 102), axis.set_xlabel("verified (%)")
        figure.legend(loc="outside lower center", ncols=2)
    return present(figure, label=label, caption=caption, alt=f"Share of images verified. {'; '.join(said)}.")


def radii_table(recorded: Result, arms: Mapping[str, str], *, share: str = "forged") -> Shown:
    """Share certified and mean radius of several arms with their intervals, a row an arm."""
    rows = []
    for arm, name in arms.items():
        part, radius = recorded.mean(share, arm), recorded.mean("radius", arm)
        said = f"{100 * part.value:.1f}% [{100 * part.low:.1f}, {100 * part.high:.1f}]"
        rows.append((name, said, f"{radius.value:.3f} [{radius.low:.3f}, {radius.high:.3f}]"))
    return table(rows, ("images", "certified", "mean radius"))


def share_at_cap(recorded: Result, arm: str, sigma: float) -> float:
    """Share of an arm's images whose certificate is the largest that the recorded budget allows."""
    budget = recorded.settings(arm)
    cap = sigma * scipy.stats.norm.ppf(budget["alpha"] ** (1 / budget["n"]))
    return float(np.mean(np.concatenate(list(recorded.per_image("radius", arm).values())) >= cap * (1 - 1e-5)))
