"""Scores, sizes and radii of the zoo as a person would say them."""

from __future__ import annotations

from thesis_kit.models.zoo import Score


def score_text(score: Score) -> str:
    """A score with its interval: "91.3% (89.9 to 92.5) of 2,000 test images classified rightly"."""
    return f"{percent(score.value)} ({100 * score.low:.1f} to {100 * score.high:.1f}) of {score.n:,} {score.what}"


def percent(share: float) -> str:
    """A share of one as a percentage: "97.4%". One image short of all is not all: 0.9995 is "99.95%"."""
    digits = 1
    while 0 < share < 1 and float(f"{100 * share:.{digits}f}") in (0, 100):
        digits += 1
    return f"{100 * share:.{digits}f}%"


def size_text(count: int) -> str:
    """A number of bytes as a person would say it: "310 kB", "2.4 MB"."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def radius_text(eps: float, norm: str = "linf") -> str:
    """A radius as it is said: "0.1", or in steps of 1/255 where it is a whole number of them: "8/255"; one in l2 says
    so: "0.5 l2"."""
    steps = 255 * eps
    in_steps = abs(steps - round(steps)) < 1e-6 and abs(eps - round(eps, 2)) > 1e-6
    text = f"{steps:.0f}/255" if in_steps else f"{eps:g}"
    return text if norm == "linf" else f"{text} {norm}"
