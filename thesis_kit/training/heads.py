"""A linear head on frozen features: multinomial logistic regression, fitted to convergence.

The cheapest robust transfer of Shafahi et al. (ICLR 2020): the features are computed once, and what is left is a convex
problem with one solution, so nothing depends on a learning rate, an order or a seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import gradients
from thesis_kit.data.forms import Labelled
from thesis_kit.models import anatomy
from thesis_kit.training.transfer import check_target, source_features

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ITERATIONS, _FLAT = 5000, 1e-6  # at most so many steps, until no derivative is larger


def linear_head(model: nn.Module, data: Labelled, *, n_classes: int, penalty: float = 1e-2) -> nn.Module:
    """Return a copy of the model with a linear head fitted to ``data`` on frozen features.

    The head W, b minimizes mean cross-entropy + ``penalty``/2 · ‖W‖², for features that are standardized to mean 0 and
    standard deviation 1 over ``data``; that scaling is then folded into W and b. No adversarial example is made.

    Args:
        model: the source, left as it is; its features are taken in evaluation mode.
        data: clean images of the new task, in any form that ``evaluation.accuracy`` takes.
        n_classes: classes of the new task; ``data`` holds images of each.
        penalty: weight of ‖W‖²/2, positive. ``choose_penalty`` picks one on validation images.

    Raises:
        ValueError: a penalty or labels that cannot be meant, images on another device, or a model without linear head.

    Examples:
        >>> few = tk.training.few(tk.data.digits().train, 2, seed=0)
        >>> network = tk.training.linear_head(model, few, n_classes=10)
        >>> network(digits.x).shape
        torch.Size([4, 10])
    """
    _check_penalty(penalty)
    data = check_target(model, data, n_classes)
    weight, bias = _fit(source_features(model, data), data.y, n_classes, penalty)
    new = anatomy.replace_head(model, n_classes, seed=0)
    layer = anatomy.head(new)
    layer.weight = nn.Parameter(weight.to(layer.weight))
    layer.bias = nn.Parameter(bias.to(layer.weight))
    return new


def choose_penalty(
    model: nn.Module, data: Labelled, validation: Labelled, *, n_classes: int, penalties: Sequence[float] = PENALTIES
) -> float:
    """Return the penalty whose head, fitted to ``data``, is most often right on ``validation``; the largest of equals.

    Args:
        model, data, n_classes: as for ``linear_head``.
        validation: other images of the same task.
        penalties: what to choose from.

    Examples:
        >>> splits = tk.data.digits(seed=0)
        >>> tk.training.choose_penalty(model, splits.train[:50], splits.validation[:50], n_classes=10)
        0.01
    """
    if not len(penalties):
        raise ValueError("there are no penalties to choose from: give at least one")
    for penalty in penalties:
        _check_penalty(penalty)
    data, validation = (check_target(model, part, n_classes) for part in (data, validation))
    fitted, judged = (source_features(model, part) for part in (data, validation))

    def score(penalty: float) -> int:
        weight, bias = _fit(fitted, data.y, n_classes, penalty)
        return int((F.linear(judged.double().cpu(), weight, bias).argmax(dim=1) == validation.y.cpu()).sum())

    return max(penalties, key=lambda penalty: (score(penalty), penalty))


def _check_penalty(penalty: float) -> None:
    if not (math.isfinite(penalty) and penalty > 0):
        raise ValueError(
            f"penalty must be a positive number, got {penalty}: without one, separable classes have no best head"
        )


def _fit(
    features: Float[Tensor, "n d"], y: Int[Tensor, " n"], n_classes: int, penalty: float
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """W and b for the features as they are, in float64 on the CPU."""
    z, y = features.double().cpu(), y.cpu()
    mean, std = z.mean(dim=0), z.std(dim=0, correction=0)
    std = torch.where(std > 1e-6 * z.abs().amax(dim=0), std, 1.0)  # a constant feature, up to rounding, says nothing
    weight, bias = _logistic_regression((z - mean) / std, y, n_classes, penalty)
    return weight / std, bias - weight @ (mean / std)


def _logistic_regression(z: Tensor, y: Tensor, n_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """The minimum of mean cross-entropy + penalty/2 · ‖W‖², by L-BFGS from zero."""
    weight = torch.zeros(n_classes, z.shape[1], dtype=z.dtype, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=z.dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, max_eval=4 * _ITERATIONS, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=_FLAT / 100, tolerance_change=0.0,
    )  # fmt: skip

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(z, weight, bias), y) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with gradients("a linear head"):
        solver.step(loss)
        loss()
    slope = max(part.grad.abs().max().item() for part in (weight, bias))
    if not slope <= _FLAT:
        raise ValueError(f"the head did not converge (a derivative of {slope:.1e} is left): take a larger penalty")
    return weight.detach(), bias.detach()
