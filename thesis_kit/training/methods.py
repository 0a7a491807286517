"""Ways to train: what each does with one minibatch.

All share one loop (``training.train``) and one update: ``run.descend(x, y)`` makes one forward and one backward pass
and updates the weights; the gradient at its input comes along for next to nothing if asked for. A method is the choice
of the images it descends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thesis_kit.asking import KeepMode
from thesis_kit.attacks.norms import NORMS
from thesis_kit.attacks.pgd import pgd
from thesis_kit.checks import check_count, check_eps, choose
from thesis_kit.training.method import Classification

if TYPE_CHECKING:
    from thesis_kit.training.run import Run


@dataclass
class Natural(Classification):
    """Training on the images as they are. One pass an update."""

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """Descend on x."""
        run.descend(x, y)


@dataclass
class PGD(Classification):
    """Adversarial training with K-step PGD (Madry et al. 2018). K + 1 passes an update.

    The attack is made in the precision of the update, and in training mode: on batch statistics, which it moves.

    Args:
        eps: radius of the ball.
        steps: K, 7 in the CIFAR-10 experiments of the paper.
        step_size: eps/4 unless given (2/255 at 8/255).
        norm: "linf" or "l2".
    """

    eps: float
    steps: int = 7
    step_size: float | None = None
    norm: str = "linf"

    def __post_init__(self) -> None:
        choose(self.norm, NORMS, "norm")
        check_eps(self.eps, norm=self.norm)
        check_count(self.steps, what="steps")

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """Descend on the end of a PGD run from x."""
        knobs = {"eps": self.eps, "steps": self.steps, "step_size": self.step_size, "norm": self.norm}
        run.descend(pgd(KeepMode(run.attacked), x, y, generator=run.random(x), **knobs), y)


@dataclass
class FGSM(Classification):
    """Adversarial training with a single step. Two passes an update.

    Starts at x plus uniform noise of size ``start``·ε, steps ``step``·ε along the gradient's sign there, and clips the
    sum to the ball (``clip``) and the pixel range. The three published settings have names of their own: ``fgsm``,
    ``fgsm_rs`` and ``n_fgsm``.
    """

    eps: float
    start: float
    step: float
    clip: bool

    def __post_init__(self) -> None:
        check_eps(self.eps, norm="linf")

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """Descend on the image after one signed step from a noisy start."""
        noise = run.random(x).uniform(*x.shape[1:], low=-1, high=1, dtype=x.dtype) * (self.start * self.eps)
        gradient = run.ascent_gradient((x + noise).clamp(0, 1), y)
        perturbation = noise + self.step * self.eps * gradient.sign()
        if self.clip:
            perturbation = perturbation.clamp(-self.eps, self.eps)
        run.descend((x + perturbation).clamp(0, 1), y)


def fgsm(eps: float) -> FGSM:
    """FGSM training (Goodfellow et al. 2015): one full step from the image itself.

    Examples:
        >>> tk.training.fgsm(0.1)
        FGSM(eps=0.1, start=0.0, step=1.0, clip=True)
    """
    return FGSM(eps, start=0.0, step=1.0, clip=True)


def fgsm_rs(eps: float) -> FGSM:
    """FGSM with a random start (Wong et al. 2020): uniform noise in the ball, a step of 1.25 ε, clipped to the ball.

    Examples:
        >>> tk.training.fgsm_rs(0.1)
        FGSM(eps=0.1, start=1.0, step=1.25, clip=True)
    """
    return FGSM(eps, start=1.0, step=1.25, clip=True)


def n_fgsm(eps: float) -> FGSM:
    """N-FGSM (de Jorge et al. 2022): noise of twice the radius, a step of ε, no clipping to the ball.

    Examples:
        >>> tk.training.n_fgsm(0.1)
        FGSM(eps=0.1, start=2.0, step=1.0, clip=False)
    """
    return FGSM(eps, start=2.0, step=1.0, clip=False)


@dataclass
class Free(Classification):
    """Free adversarial training (Shafahi, Najibi, Ghiasi et al. 2019, Algorithm 1). One pass an update.

    Each minibatch is replayed m times. Every replay makes a single backward pass; its weight gradient updates the
    weights and its input gradient updates the perturbation, which is carried over to the next minibatch. The gradient
    is the one at the network's input, x + δ after clipping to [0, 1], so δ goes on moving where clipping holds a pixel.

    Args:
        eps: radius of the ball, and the ascent step.
        replays: m, the number of updates a minibatch serves; 8 on CIFAR-10, 4 on ImageNet in the paper.
        warm_start: carry the perturbation across minibatches (the paper) or begin each with zeros (ablation).
    """

    eps: float
    replays: int = 8
    warm_start: bool = True

    def __post_init__(self) -> None:
        check_eps(self.eps, norm="linf")
        check_count(self.replays, what="replays")
        self._perturbation: Tensor | None = None

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """The paper's inner loop."""
        delta = self._carried(x)
        for _ in range(min(self.replays, run.updates_left)):
            x_adv = (x + delta).clamp(0, 1)
            gradient = run.descend(x_adv, y, at_input=True)
            delta += self.eps * gradient.sign()
            delta.clamp_(-self.eps, self.eps)

    def _carried(self, x: Tensor) -> Tensor:
        """The perturbation left by the minibatch before; a smaller last minibatch uses its first rows."""
        if self._perturbation is None or len(self._perturbation) < len(x):
            self._perturbation = torch.zeros_like(x)
        elif not self.warm_start:
            self._perturbation.zero_()
        return self._perturbation[: len(x)]

    def state(self) -> dict[str, Tensor]:
        """The carried perturbation."""
        return {} if self._perturbation is None else {"perturbation": self._perturbation}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the carried perturbation."""
        self._perturbation = state.get("perturbation")
