"""Training on noisy images, which makes a classifier fit to be smoothed (Cohen, Rosenfeld and Kolter, ICML 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thesis_kit.training.method import Classification
from thesis_kit.training.run import Run


@dataclass
class Gaussian(Classification):
    """Training on x + N(0, σ²), fresh for every update and not clipped to the pixel range. One pass an update.

    Args:
        sigma: standard deviation of the noise, in units of pixels in [0, 1]; the one to be smoothed with.
        ramp: reach sigma from 0 by a straight line over this share of the updates. The paper has no ramp (0).
    """

    sigma: float
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be a positive number, got {self.sigma}")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp must lie in [0, 1], got {self.ramp}")

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """Descend on noisy images."""
        done = run.done / run.updates
        sigma = self.sigma * min(1.0, done / self.ramp) if self.ramp else self.sigma
        seed = int(run.random(x[:1]).integers(high=2**53))  # of torch's own generator, many times faster than ours
        generator = torch.Generator(x.device).manual_seed(seed)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        run.descend(x + sigma * noise, y)
