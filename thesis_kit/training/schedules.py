"""Learning-rate schedules: progress, 0 at the first update and 1 after the last, -> share of the peak rate."""

from __future__ import annotations

import math


def one_cycle(progress: float, *, warm_up: float = 0.3) -> float:
    """Linear from 0 to the peak over the first ``warm_up`` of training, then linear to 0 (Wong et al. 2020)."""
    return progress / warm_up if progress < warm_up else (1 - progress) / (1 - warm_up)


def cosine(progress: float) -> float:
    """Half a cosine from the peak to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


def steps(progress: float) -> float:
    """The peak, a tenth from the half, a hundredth from three quarters (Shafahi et al. 2019: 40k and 60k of 80k)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def constant(progress: float) -> float:
    """The peak throughout."""
    return 1.0


SCHEDULES = {"one-cycle": one_cycle, "cosine": cosine, "steps": steps, "constant": constant}
