"""Training on certified bounds: IBP (Gowal et al. 2018) and CROWN-IBP (Zhang et al., ICLR 2020).

Both descend on κ · cross-entropy(z) + (1 − κ) · cross-entropy(−m), where m are lower bounds of the margins over the
box of radius ε: m = β · m_CROWN-IBP + (1 − β) · m_IBP. The radius grows from 0 to its final value while κ falls from 1
and, for CROWN-IBP, β from 1 to theirs, all in step. IBP is β = 0 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.certification.bounds import BOUNDS_OF_STEPS, CenteredBox, steps_of
from thesis_kit.checks import check_eps, choose
from thesis_kit.training.method import Classification
from thesis_kit.training.run import Run

_MIDDLE = 0.25  # of the smoothed ramp: a quartic before, a line after


def linear_ramp(progress: float) -> float:
    """A straight line from 0 to 1."""
    return progress


def smoothed_ramp(progress: float) -> float:
    """A quartic up to a quarter of the way, then a line of the same value and slope there, to 1.

    Source: Zhang et al. 2020, the released code's "SmoothedLinear" schedule.
    """
    a = 1 / (4 * (1 - _MIDDLE) * _MIDDLE**3 + _MIDDLE**4)
    if progress < _MIDDLE:
        return a * progress**4
    start = a * _MIDDLE**4
    return start + (1 - start) * (progress - _MIDDLE) / (1 - _MIDDLE)


RAMPS = {"linear": linear_ramp, "smoothed": smoothed_ramp}


@dataclass
class CrownIBP(Classification):
    """CROWN-IBP training. Its bounds go around the model's own forward pass: the pass counter does not see them.

    Bounds are those of the network in evaluation mode, so BatchNorm takes part with its running statistics; the
    cross-entropy on clean images, which is computed in training mode, moves them. Every update reads the network's
    layers anew and refuses what ``ibp_margins`` does; the first one also compares them with what the model computes.

    Args:
        eps: final ℓ∞ radius; published runs on CIFAR-10 train at 1.1 times the radius tested at.
        beta_end: share of CROWN-IBP in the bound at the end; 0 ends on plain IBP, as the released code does.
        kappa_end: weight of the clean cross-entropy at the end.
        warm_up: share of the updates with ε = 0.
        ramp: share of the updates in which ε grows.
        shape: of the ramp, "smoothed" or "linear".
    """

    eps: float
    beta_end: float = 0.0
    kappa_end: float = 0.5
    warm_up: float = 0.05
    ramp: float = 0.6
    shape: str = "smoothed"

    beta_start = 1.0
    _looked = False  # whether this run's model has been compared with its layers

    def __post_init__(self) -> None:
        check_eps(self.eps, norm="linf")
        choose(self.shape, RAMPS, "ramp")
        for name in ("beta_end", "kappa_end", "warm_up", "ramp"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.warm_up + self.ramp > 1:
            raise ValueError(f"warm_up and ramp take {self.warm_up + self.ramp:g} of the updates: at most 1 is there")

    def at(self, progress: float) -> tuple[float, float, float]:
        """ε, κ and β when a share ``progress`` of the updates is done."""
        into = min(1.0, max(0.0, progress - self.warm_up) / self.ramp) if self.ramp else float(progress >= self.warm_up)
        share = RAMPS[self.shape](into)
        beta = self.beta_start * (1 - share) + min(self.beta_end, self.beta_start) * share
        return share * self.eps, 1 - share * (1 - self.kappa_end), beta

    def restore(self, state: dict[str, Tensor]) -> None:
        """Another run begins: its model is compared anew with what bounds are read from."""
        self._looked = False

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """Descend on clean and certified cross-entropy."""
        eps, kappa, beta = self.at(run.done / run.updates)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            clean = run.loss(x, y)
            if kappa == 1:
                return clean
            network, box = steps_of(run.model, x, eps, look=not self._looked), CenteredBox.around(x, eps)
            self._looked = True
            margins = BOUNDS_OF_STEPS["ibp"](network, box, y)
            if beta > 0:
                margins = torch.lerp(margins, BOUNDS_OF_STEPS["crown-ibp"](network, box, y), beta)
            return kappa * clean + (1 - kappa) * F.cross_entropy(-margins, y)

        run.descend(x, y, loss=loss)


@dataclass
class IBP(CrownIBP):
    """IBP training (Gowal et al. 2018): CROWN-IBP without CROWN, about three times as fast on small networks."""

    beta_start = 0.0
