"""What each method does, as a drawing: the one picture that carries a chapter's idea before any number.

The drawings hold no measurement. Lengths of bars are chosen to be seen; what was measured stands in the figures.
Without a label a drawing comes alone, as the SVG that a page takes.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from thesis_kit.show.drawing import WIDTH, arrow, box, circle, drawing, interval, line, paint, words
from thesis_kit.show.figures import drawn
from thesis_kit.show.shown import Shown


def _shown(height: float, parts: Sequence[str], label: str | None, caption: str, alt: str) -> Shown:
    svg = drawing(height, parts)
    if label is not None:
        return drawn(svg, label=label, caption=caption, alt=alt)
    return Shown(svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" ', 1), alt)


def thesis() -> Shown:
    """The two halves of the thesis in one picture: what may turn a network's answer, and what it shows when asked."""
    parts = [words(4, 16, "How easily is it fooled?", anchor="start", bold=True)]
    parts += [_canvas(32, 58, 0, 0), words(68, 63, "+", size=18), _speckled(104, 58), arrow([(136, 58), (160, 58)])]
    parts += [box(164, 36, 72, 44, "network"), arrow([(236, 58), (262, 58)])]
    parts += [
        words(268, 54, "“star”", anchor="start", color="vermilion", bold=True),
        words(268, 72, "and sure", anchor="start"),
    ]
    parts += [
        line([(4, 104), (336, 104)], color="grid"),
        words(4, 128, "What has it learned?", anchor="start", bold=True),
    ]
    parts += [
        words(52, 166, "“draw a disk”", bold=True),
        words(52, 184, "and its gradient"),
        arrow([(108, 168), (160, 168)]),
    ]
    parts += [box(164, 146, 72, 44, "network"), arrow([(236, 168), (262, 168)]), _drawn_disk(298, 168)]
    alt = (
        "Above, a picture of a disk and a small change enter a network, which answers star and is sure. Below, a "
        "network is asked to draw a disk and does."
    )
    return _shown(202, parts, None, "", alt)


def _speckled(x: float, y: float) -> str:
    """A change too small to be noticed: pale grains."""
    random = np.random.default_rng(1)
    grains = [circle(x + gx, y + gy, 1.1, fill="ink", opacity=0.3) for gx, gy in random.uniform(-25, 25, (70, 2))]
    return "".join([box(x - 27, y - 27, 54, 54, fill="paper", edge="rule"), *grains])


def _drawn_disk(x: float, y: float) -> str:
    """A disk as a network might draw it: rings that do not quite meet, on an uneven ground."""
    random = np.random.default_rng(2)
    parts = [box(x - 27, y - 27, 54, 54, fill="grid", edge="rule")]
    for gx, gy in random.normal(0, 6.5, (130, 2)).clip(-13, 13):
        parts.append(circle(x + gx, y + gy, 3, fill="vermilion", opacity=0.35))
    return "".join(parts)


def free(label: str | None = None, *, replays: int = 8, steps: int = 7) -> Shown:
    """What Free adversarial training reuses: one backward pass moves the weights and the image."""
    parts = [*_key(18)]
    rows = (("ordinary training", "w" * (steps + 1)), (f"PGD-{steps}", "x" * steps + "w"), ("Free", "b" * replays))
    for place, (name, passes) in enumerate(rows):
        parts += _passes(58 + 74 * place, name, passes)
    alt = (
        f"Eight passes of three ways to train. In ordinary training each moves the weights. In PGD-{steps} {steps} "
        "move the image and one moves the weights. In Free each moves both."
    )
    caption = (
        f"What {steps + 1} passes buy. A pass runs the network forward and backward once. PGD-{steps} spends {steps} "
        "of them on the attack before the weights move once; Free takes both gradients from every pass."
    )
    return _shown(266, parts, label, caption, alt)


def _key(y: float) -> list[str]:
    return [
        box(20, y - 10, 13, 13, fill="blue", edge="blue"),
        words(38, y + 1, "moves the weights", anchor="start"),
        box(175, y - 10, 13, 13, fill="orange", edge="orange"),
        words(193, y + 1, "moves the image", anchor="start", size=12),
    ]


def _passes(y: float, name: str, passes: str) -> list[str]:
    """A row of passes: w moves the weights, x the image, b both."""
    side, gap = 30, 8
    updates = sum(letter in "wb" for letter in passes)
    parts = [words(20, y, f"{name}: {updates} update{'s' * (updates != 1)}", anchor="start", bold=True)]
    for place, letter in enumerate(passes):
        x = 20 + place * (side + gap)
        colors = {"w": ("blue", "blue"), "x": ("orange", "orange"), "b": ("orange", "blue")}[letter]
        parts += [
            f'<path d="M{x} {y + 8}h{side}v{side / 2}h-{side}z" style="fill:{paint(colors[0])}"/>',
            f'<path d="M{x} {y + 8 + side / 2}h{side}v{side / 2}h-{side}z" style="fill:{paint(colors[1])}"/>',
        ]
        if letter in "wb":
            parts.append(line([(x, y + 44), (x + side, y + 44)], color="ink", thick=2))
    return parts


def smoothing(label: str | None = None, *, seed: int = 0) -> Shown:
    """What randomized smoothing votes on: noisy copies of one image, each named by the network."""
    random = np.random.default_rng(seed)
    parts = [words(45, 16, "image"), _disk(45, 62), words(140, 16, "noisy copies")]
    for place, y in enumerate((52, 116, 180)):
        parts += [_disk(140, y, noise=random, side=52), arrow([(172, y), (196, 114 + 4 * (place - 1))])]
        parts.append(arrow([(82, 62 + 8 * (place - 1)), (108, y)]))
    parts += [box(199, 90, 62, 50, "network"), arrow([(261, 114), (281, 114)])]
    parts += [
        words(308, 62, "votes"),
        *_bar(288, 84, 44, "blue"),
        *_bar(288, 104, 14, "pale"),
        *_bar(288, 124, 7, "pale"),
    ]
    parts += [
        words(310, 158, "lead of\nthe first\nis large", size=12),
        box(58, 232, 224, 44, "radius within which no change of\nthe image can turn the vote"),
        arrow([(310, 194), (310, 214), (170, 214), (170, 232)]),
    ]
    alt = (
        "An image, three noisy copies of it, a network that names each, the votes as bars, and from the lead of the "
        "first a radius within which no change of the image can turn the vote."
    )
    caption = "What randomized smoothing votes on: the network never judges the image itself, only noisy copies of it."
    return _shown(286, parts, label, caption, alt)


def _disk(x: float, y: float, *, noise: np.random.Generator | None = None, side: float = 60) -> str:
    """A picture of a disk, with grains over it."""
    half = side / 2
    parts = [box(x - half, y - half, side, side, fill="grid", edge="rule"), circle(x, y, 0.28 * side, fill="vermilion")]
    if noise is not None:
        for gx, gy, shade in noise.uniform(-half + 2, half - 2, (90, 3)):
            parts.append(circle(x + gx, y + gy, 1.4, fill="ink" if shade > 0 else "paper", opacity=0.75))
    return "".join(parts)


def _bar(x: float, y: float, length: float, color: str) -> list[str]:
    return [box(x, y - 7, length, 13, fill=color, edge=color, round_by=1)]


def intervals(label: str | None = None) -> Shown:
    """What an interval bound carries through a network: a lowest and a highest value for every number."""
    names = ("pixels", "after a layer", "after another", "logits")
    spread = ((9, 9, 9, 9), (14, 20, 16, 18), (26, 34, 22, 30))
    middles = ((70, 96, 84, 110), (84, 66, 110, 92), (76, 104, 88, 70))
    parts = []
    for place, (name, halves, centers) in enumerate(zip(names, spread, middles, strict=False)):
        x = 14 + 88 * place
        parts.append(words(x + 30, 18, name))
        for column, (half, center) in enumerate(zip(halves, centers, strict=True)):
            parts.append(interval(x + 6 + 16 * column, center - half, center + half))
        parts.append(arrow([(x + 66, 88), (x + 82, 88)]))
    parts += [words(304, 18, names[-1]), interval(288, 44, 84, color="green", width=14)]
    parts += [interval(308, 92, 124, color="gray", width=14), interval(326, 100, 134, color="gray", width=14)]
    parts += [
        line([(276, 88), (336, 88)], color="vermilion", dash="4 3"),
        words(WIDTH / 2, 162, "Verified if the true class's lowest value (green)\nlies above every other's highest."),
        words(WIDTH / 2, 200, "Layers widen them: bounds are loose unless\na network was trained to keep them tight."),
    ]  # fmt: skip
    alt = (
        "Bars from a lowest to a highest value, for pixels and after two layers, growing longer; at the logits the bar "
        "of the true class lies wholly above the others."
    )
    caption = (
        "What an interval bound carries: not values but the range that each can take while pixels move by at most ε."
    )
    return _shown(228, parts, label, caption, alt)


def shadow(label: str | None = None) -> Shown:
    """What the Shadow attack adds: something large, smooth and nearly colorless."""
    side, y = 82, 32
    parts = [_defs()]
    for place, (name, above) in enumerate((("image", ""), ("what is added", "+"), ("Shadow image", "="))):
        x = 16 + 113 * place
        parts += [words(x + side / 2, 20, name), *([words(x - 16, y + side / 2 + 6, above, size=20)] if above else [])]
    parts += [_shaded(16, y, side, 0), _shaded(129, y, side, 1), _shaded(242, y, side, 2)]
    limits = ("smooth: neighbors change alike", "colorless: channels change alike", "faint on average, bounded nowhere")
    parts.append(words(WIDTH / 2, 138, "three penalties hold it, and no radius does:", bold=True))
    parts += [words(60, 158 + 18 * place, f"•  {text}", anchor="start") for place, text in enumerate(limits)]
    parts += [
        words(
            WIDTH / 2,
            218,
            "Averaged over noisy copies, it makes a wrong class\nwin by so much that its certificate is large.",
        ),
    ]
    alt = "An image, a smooth shade that is added, and the shaded image; below, three penalties that shape the shade."
    caption = (
        "What Shadow adds. An attack inside the radius cannot succeed, for the certificate is sound; so it leaves the "
        "radius and stays natural to the eye instead."
    )
    return _shown(240, parts, label, caption, alt)


def _defs() -> str:
    stops = "".join(
        f'<stop offset="{at}" style="stop-color:{paint("ink")};stop-opacity:{opacity}"/>'
        for at, opacity in ((0, 0.55), (0.6, 0.15), (1, 0.0))
    )
    return f'<defs><radialGradient id="tk-shade" cx="0.2" cy="0.15" r="1">{stops}</radialGradient></defs>'


def _shaded(x: float, y: float, side: float, kind: int) -> str:
    """The image (0), the shade (1), or both (2)."""
    parts = [box(x, y, side, side, fill="grid" if kind != 1 else "paper", edge="rule")]
    if kind != 1:
        parts.append(circle(x + side / 2, y + side / 2, 0.28 * side, fill="vermilion"))
    if kind:
        parts.append(f'<rect x="{x}" y="{y}" width="{side}" height="{side}" rx="4" style="fill:url(#tk-shade)"/>')
    return "".join(parts)


def squeezing(label: str | None = None) -> Shown:
    """What squeezing squeezes: all logits, so the lead of the right class and the slope of the loss with it."""
    parts = []
    for x, name, scale in ((10, "ordinary training", 1.0), (182, "squeezed", 0.3)):
        parts += [words(x + 74, 16, name, bold=True), *_logits(x, 30, scale)]
    parts += [
        words(
            WIDTH / 2,
            172,
            "The lead shrinks, and the slope with it: their ratio,\nhow far an attack must go, can stay.",
        ),
    ]
    alt = "Bars of five logits, the first of them leading. Squeezed, all bars are shorter and the lead is smaller."
    caption = (
        "What squeezing squeezes. A small logit gap looks weak and a small slope looks strong; robustness is the one "
        "divided by the other."
    )
    return _shown(196, parts, label, caption, alt)


def _logits(x: float, y: float, scale: float) -> list[str]:
    heights = [scale * height for height in (92, 40, -30, 22, -46)]
    zero = y + 84
    parts = [line([(x, zero), (x + 140, zero)], color="rule")]
    for place, height in enumerate(heights):
        top = zero - max(height, 0)
        parts.append(box(x + 4 + 22 * place, top, 16, abs(height), fill="green" if place == 0 else "gray",
                         edge="none", round_by=1))  # fmt: skip
    low, high = zero - heights[1], zero - heights[0]
    parts += [
        arrow([(x + 118, low), (x + 118, high)]),
        line([(x + 20, high), (x + 124, high)], color="rule", dash="3 3"),
    ]
    parts += [line([(x + 42, low), (x + 124, low)], color="rule", dash="3 3")]
    parts.append(words(x + 124, (low + high) / 2 + 4, "lead", anchor="start"))
    return parts


def inversion(label: str | None = None) -> Shown:
    """What Plug-In Inversion does between two steps, and between two stages."""
    parts = [words(WIDTH / 2, 16, "every step", bold=True)]
    names = ((38, 110, "image"), (118, 110, "rolled"), (208, 119, "copies,\nrecolored"))  # below each picture
    parts += [words(x, y, name) for x, y, name in names]
    parts += [
        _canvas(38, 66, 0, 0),
        arrow([(68, 66), (88, 66)]),
        _canvas(118, 66, 11, -8),
        arrow([(148, 66), (161, 66)]),
    ]
    parts += [
        _canvas(190 + 9 * n, 54 + 11 * n, 11, -8, tint=tint) for n, tint in enumerate(("sky", "orange", "purple"))
    ]
    parts += [arrow([(238, 66), (258, 66)]), box(261, 44, 68, 44, "network"), line([(295, 88), (295, 146), (38, 146)])]
    parts += [arrow([(38, 146), (38, 120)]), words(180, 164, "one gradient, averaged, moves the image")]
    parts += [line([(10, 180), (330, 180)], color="grid"), words(WIDTH / 2, 200, "between two stages", bold=True)]
    parts += [_canvas(52, 250, 0, 0, side=40), arrow([(80, 250), (112, 250)]), _canvas(148, 250, 0, 0, side=62)]
    parts += [arrow([(186, 250), (218, 250)]), _bordered(268, 250)]
    parts += [words(52, 308, "small"), words(148, 308, "enlarged:\nzoom"), words(268, 308, "a new border:\ncentering")]
    alt = (
        "Every step the image is rolled, copied and recolored, the network looks at the copies, and one averaged "
        "gradient moves the image. Between two stages the image is enlarged and gets a new border of noise."
    )
    caption = (
        "What Plug-In Inversion does between two steps and between two stages. The loss stays the plain cross-entropy; "
        "only what the network is shown changes."
    )
    return _shown(330, parts, label, caption, alt)


def _canvas(x: float, y: float, dx: float, dy: float, *, tint: str = "grid", side: float = 54) -> str:
    """A picture in the making: a disk, moved by (dx, dy), on a ground of this color."""
    ground = box(x - side / 2, y - side / 2, side, side, fill="paper", edge="rule")
    ground += box(x - side / 2, y - side / 2, side, side, fill=tint, edge="rule", opacity=0.8)
    return ground + circle(x + dx, y + dy, 0.24 * side, fill="vermilion" if tint == "grid" else "ink", opacity=0.85)


def _bordered(x: float, y: float, *, grains: Sequence[int] = (7, 3)) -> str:
    """The picture inside a border of fresh noise."""
    random = np.random.default_rng(grains[0])
    parts = [box(x - 38, y - 38, 76, 76, fill="grid", edge="rule")]
    for gx, gy in random.uniform(-36, 36, (260, 2)):
        if max(abs(gx), abs(gy)) > 28:
            parts.append(circle(x + gx, y + gy, 1.5, fill="ink", opacity=0.6))
    return "".join([*parts, _canvas(x, y, 0, 0, side=54)])
