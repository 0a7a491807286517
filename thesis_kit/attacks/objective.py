"""What the attacks share: the checks at the door, the value they ascend, and the gradient at the input.

``Goal`` turns (loss, y, target) into one number per image to make large and one decision per image: is it fooled yet?
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thesis_kit.attacks.losses import LOSSES, Loss
from thesis_kit.attacks.norms import L2, NORMS, Linf
from thesis_kit.checks import (
    NonFiniteOutput,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
    choose,
)


@dataclass(frozen=True)
class Goal:
    """Make the loss of ``y`` large, or with a ``target`` the loss of the target small."""

    loss: Loss
    y: Tensor
    target: Tensor | None = None

    def value(self, logits: Tensor) -> Tensor:
        """What the attack ascends: (n, k) -> (n,)."""
        if self.target is None:
            return self.loss(logits, self.y)
        return -self.loss(logits, self.target)

    def reached(self, logits: Tensor) -> Tensor:
        """Whether each image is misclassified, or classified as its target: (n, k) -> (n,) bool."""
        predicted = logits.argmax(dim=1)
        return predicted != self.y if self.target is None else predicted == self.target

    def __getitem__(self, index: Tensor) -> Goal:
        return Goal(self.loss, self.y[index], None if self.target is None else self.target[index])


def prepare(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: str, loss: str | Loss, target: Tensor | None
) -> tuple[Goal, Linf | L2]:
    """Check what an attack was given; return its goal and its norm."""
    check_images(x)
    check_labels(y, len(x))
    check_eps(eps)
    check_same_device(model, x)
    if target is not None:
        check_labels(target, len(x), what="targets")
        if (target == y).any():
            raise ValueError("a target equals the true label: a targeted attack must aim at another class")
    loss = loss if callable(loss) else choose(loss, LOSSES, "loss")
    return Goal(loss, y, target), choose(norm, NORMS, "norm")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradients for the parameters inside the block; their flags come back as they were."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def checked_logits(model: nn.Module, x: Tensor, goal: Goal) -> Tensor:
    """The model's logits, finite and with a class for every label."""
    logits = model(x)
    check_logits(logits, len(x))
    check_labels(goal.y, len(x), logits.shape[1])
    if goal.target is not None:
        check_labels(goal.target, len(x), logits.shape[1], what="targets")
    return logits


def ascent(model: nn.Module, x: Tensor, goal: Goal, *, check: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and one backward pass: the goal's gradient at x, its values (n,), and the logits (n, k)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = checked_logits(model, x, goal) if check else model(x)
        value = goal.value(logits)
        if not value.requires_grad:
            raise ValueError(
                "the model's output does not depend on its input in a differentiable way: "
                "use an attack without gradients (attacks.square)"
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
    if check and not torch.isfinite(value).all():
        raise NonFiniteOutput("the loss is NaN or infinite at the first step: check the loss function and the logits")
    return gradient, value.detach(), logits.detach()
