"""Bounds of a network in steps: interval bound propagation, CROWN-IBP and CROWN, as ``margins.py`` describes them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.certification.bounds.activations import Activation, ReLU
from thesis_kit.certification.bounds.boxes import CenteredBox, least
from thesis_kit.certification.bounds.operations import AffineStep, MaxPool, Pull, Step
from thesis_kit.certification.bounds.tracing import Network
from thesis_kit.checks import check_labels, check_logits

_ROWS = 256  # neurons whose bounds CROWN pulls back at a time


def ibp(network: Network, box: CenteredBox, y: Tensor) -> Tensor:
    """Lower bounds of the margins (n, k) by intervals, through the last affine layer at once."""
    inputs, logits = network.propagate(box)
    matrix, operation = _specification(logits, y), network.steps[-1].operation
    if not isinstance(operation, AffineStep):
        return least(matrix, logits)
    (matrix,), constant = operation.pull(inputs)(matrix)
    return least(matrix, *inputs) + constant


def crown_ibp(network: Network, box: CenteredBox, y: Tensor, lower_slope: str = "adaptive") -> Tensor:
    """Lower bounds of the margins (n, k) by one backward pass between interval bounds."""
    values, pulls = [box], []
    for operation, sources in network.steps:
        _forward(operation, sources, values, pulls, lower_slope)
    return _backward(network.steps, pulls, box, len(network.steps), _specification(values[-1], y))


def crown(
    network: Network, box: CenteredBox, y: Tensor, lower_slope: str = "adaptive", *, pure: bool = False
) -> Tensor:
    """Lower bounds of the margins (n, k) by CROWN; unless it is ``pure``, never below the other two's."""
    steps, values, pulls = network.steps, [box], []
    for operation, sources in steps:
        if (bends := _bends(steps, operation, sources[0])) is not None:
            values[sources[0]] = _tightened(steps, pulls, values, sources[0], bends, pure=pure)
        _forward(operation, sources, values, pulls, lower_slope)
    found = _backward(steps, pulls, box, len(steps), _specification(values[-1], y))
    if pure:
        return found
    return torch.maximum(found, torch.maximum(ibp(network, box, y), crown_ibp(network, box, y, lower_slope)))


def _specification(logits: CenteredBox, y: Tensor) -> Tensor:
    """The rows e_y − e_j for each image, (n, k, k): times the logits they are the margins."""
    check_logits(logits.center, len(logits.center))
    n, k = logits.center.shape
    check_labels(y, n, k)
    eye = torch.eye(k, dtype=logits.center.dtype, device=logits.center.device)
    return eye[y].unsqueeze(1) - eye


def _forward(operation: object, sources: tuple, values: list[CenteredBox], pulls: list[Pull], lower_slope: str) -> None:
    inputs = [values[source] for source in sources]
    values.append(operation.interval(inputs))
    pulls.append(operation.pull(inputs, lower_slope))


def _backward(steps: list[Step], pulls: list[Pull], box: CenteredBox, value: int, a: Tensor) -> Tensor:
    """Lower bounds (n, m) over the box of a · value, for coefficients ``a`` (n, m, *value)."""
    waiting, bound = {value: a}, 0.0
    for number in range(value, 0, -1):
        if number in waiting:
            passed, constant = pulls[number - 1](waiting.pop(number))
            bound = bound + constant
            for source, a in zip(steps[number - 1].sources, passed, strict=True):
                waiting[source] = waiting[source] + a if source in waiting else a
    return bound + least(waiting[0], box)


def _bends(steps: list[Step], operation: object, value: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Which neurons of the value before an operation want bounds by backward passes, from those they have; or None.

    Before an activation those where it bends: past the others its lines are exact whatever the bounds. Max pooling,
    which compares its inputs, wants all that are no image or straight from an activation, and that activation too.
    """
    if isinstance(operation, MaxPool):
        straight = value == 0 or isinstance(steps[value - 1].operation, Activation)
        return None if straight else _open
    if not isinstance(operation, Activation):
        return None
    outputs = [number + 1 for number, step in enumerate(steps) if step.operation is operation and value in step.sources]
    pooled = any(isinstance(step.operation, MaxPool) and step.sources[0] in outputs for step in steps)
    if not pooled:
        return operation.bends
    return _not_off if isinstance(operation, ReLU) else _open


def _open(lower: Tensor, upper: Tensor) -> Tensor:
    return lower < upper


def _not_off(lower: Tensor, upper: Tensor) -> Tensor:
    return (upper > 0) & (lower < upper)


def _tightened(
    steps: list[Step], pulls: list[Pull], values: list[CenteredBox], value: int, bends: Callable, *, pure: bool
) -> CenteredBox:
    """Bounds by a backward pass for neurons that want them, the intervals' where these are better unless ``pure``.

    A neuron is looked at in all images if it is wanted in one, but only where it is wanted its bounds change, so that
    images do not see their neighbors.
    """
    lower, upper = values[value].lower.flatten(1), values[value].upper.flatten(1)
    n, neurons = lower.shape
    wanted = bends(lower, upper)
    for some in wanted.any(dim=0).nonzero()[:, 0].split(_ROWS):
        rows = F.one_hot(some, neurons).to(lower).unflatten(1, values[value].center.shape[1:])
        both = torch.cat([rows, -rows]).expand(n, -1, *rows.shape[1:])
        low, minus_high = _backward(steps, pulls, values[0], value, both).chunk(2, dim=1)
        old, high = (lower[:, some], upper[:, some]), -minus_high
        if not pure:
            low, high = torch.maximum(old[0], low), torch.minimum(old[1], high)
        lower = lower.index_copy(1, some, torch.where(wanted[:, some], low, old[0]))
        upper = upper.index_copy(1, some, torch.where(wanted[:, some], high, old[1]))
    shape = values[value].center.shape
    return CenteredBox.between(lower.view(shape), upper.view(shape))
