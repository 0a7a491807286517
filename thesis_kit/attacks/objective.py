"""What the attacks share: the checks at the door, the value they ascend, and the gradient at the input.

``Goal`` turns (loss, y, target) into one number per image to make large and one decision per image: is it
fooled yet?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module, ask, plain
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
from thesis_kit.models.seen import check_has_classes
from thesis_kit.randomness import ImageRandom


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
        return type(self)(self.loss, self.y[index], None if self.target is None else self.target[index])


def prepare(
    model: Model, x: Tensor, y: Tensor, *, eps: float, norm: str, loss: str | Loss, target: Tensor | None
) -> tuple[nn.Module, Tensor, Goal, Linf | L2]:
    """Check what an attack was given; return the model as a module, the images without graph, the goal and the norm."""
    model = as_module(model)
    check_images(x)
    check_labels(y, len(x))
    ball = choose(norm, NORMS, "norm")
    check_eps(eps, norm=norm)
    check_same_device(model, x), check_has_classes(model)
    _check_beside(x, y, "labels")
    if target is not None:
        check_labels(target, len(x), what="targets")
        _check_beside(x, target, "targets")
        if (target == y).any():
            raise ValueError("a target equals the true label: a targeted attack must aim at another class")
    loss = loss if callable(loss) else choose(loss, LOSSES, "loss")
    return model, plain(x), Goal(loss, plain(y), None if target is None else plain(target)), ball


def _check_beside(x: Tensor, classes: Tensor, what: str) -> None:
    if classes.device != x.device:
        raise ValueError(
            f"the images are on {x.device} and the {what} are on {classes.device}: move one with .to(device)"
        )


def checked_logits(model: nn.Module, x: Tensor, goal: Goal) -> Tensor:
    """The model's logits, finite and with a class for every label."""
    logits = ask(model, x)
    check_logits(logits, len(x))
    check_labels(goal.y, len(x), logits.shape[1])
    if goal.target is not None:
        check_labels(goal.target, len(x), logits.shape[1], what="targets")
    return logits


def ascent(model: nn.Module, x: Tensor, goal: Goal, *, check: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and one backward pass: the goal's gradient at x, its values (n,), and the logits (n, k).

    Values and gradient are always checked to be finite; ``check`` looks at the shapes and the label range as
    well.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = checked_logits(model, x, goal) if check else ask(model, x)
        value = goal.value(logits)
        if check:
            _check_value_shape(value, len(x))
        if not value.requires_grad:
            raise ValueError(
                "the model's output does not depend on its input in a differentiable way: "
                "use an attack without gradients (attacks.square)"
            )
        (gradient,) = torch.autograd.grad(value.sum(), x)
    value = value.detach()
    _check_finite(value, gradient)
    return gradient, value, logits.detach()


def score(model: nn.Module, x: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """One forward pass without a graph: the goal's values (n,), and whether it is reached (n,)."""
    with torch.no_grad():
        logits = checked_logits(model, x, goal)
        value = goal.value(logits)
    _check_value_shape(value, len(x))
    _check_finite(value)
    return value, goal.reached(logits)


def _check_value_shape(value: Tensor, n: int) -> None:
    if value.shape != (n,):
        raise ValueError(f"a loss must return one number an image, shape ({n},), got {tuple(value.shape)}")


def _check_finite(value: Tensor, gradient: Tensor | None = None) -> None:
    finite = torch.isfinite(value).all()
    if gradient is not None:  # the sign of NaN is 0: unchecked, a broken gradient would look like robustness
        finite = finite & torch.isfinite(gradient).all()
    if finite:
        return
    if not torch.isfinite(value).all():
        raise NonFiniteOutput("the loss is NaN or infinite: check the loss and the model's precision")
    raise NonFiniteOutput(
        "the gradient at the images is NaN or infinite: look for roots and divisions at zero in the model"
    )


Run = Callable[[int, Tensor, ImageRandom], tuple[Tensor, Tensor, Tensor]]


def best_of(x: Tensor, random: ImageRandom, runs: int, run: Run) -> Tensor:
    """Keep per image the first point that reaches the goal, or else the one of highest value.

    ``run(r, left, random)`` is the r-th attempt, on the images ``left`` (their indices) that no earlier one
    has fooled; it returns their points, the values there, and whether the goal is reached.
    """
    best, best_value = x.clone(), torch.full((len(x),), -torch.inf, device=x.device, dtype=torch.float64)
    left = torch.arange(len(x), device=x.device)
    for attempt in range(runs):
        x_adv, value, reached = run(attempt, left, random.fork(attempt)[left])
        better = reached | (value > best_value[left])
        best[left[better]], best_value[left[better]] = x_adv[better], value[better].double()
        left = left[~reached]
        if len(left) == 0:
            break
    return best
