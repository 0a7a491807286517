"""Certified lower bounds of classification margins over an ℓ∞ box of images: interval bounds, CROWN-IBP and CROWN.

The margin of label y over class j is z_y − z_j. A positive lower bound for every j ≠ y proves that no image of the box
is classified otherwise. Interval bound propagation (Gowal et al. 2018) pushes a box through the layers, in about two
forward passes. CROWN (Zhang et al. 2018) pulls a linear function of the logits back to the image, past lines above and
below each ReLU; CROWN-IBP (Zhang et al. 2020) does so once, with the lines from interval bounds.

The bounds are those of the network in evaluation mode, whatever its modules' modes, which are neither read nor changed:
BatchNorm is the affine map of its running statistics and dropout does nothing. Training on bounds therefore needs
ordinary forward passes in training mode beside them, or the running statistics stay as they are. Bounds have gradients
with respect to parameters and images, come in the precision of the images, and hold up to rounding in that precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import scipy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn import functional as F

from thesis_kit.checks import (
    check_count,
    check_eps,
    check_images,
    check_labels,
    check_logits,
    check_same_device,
    choose,
)
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.residual import PreActivationBlock
from thesis_kit.progress import track

_SUPPORTED = (
    "Linear, Conv2d padded with zeros, BatchNorm1d and BatchNorm2d with running statistics, ReLU, AvgPool2d, "
    "AdaptiveAvgPool2d, AdaptiveMaxPool2d, Flatten from dimension 1, Identity, Dropout, Sequential, Classifier without "
    "resizing, and PreActivationBlock"
)
_ROWS = 256  # neurons whose bounds CROWN pulls back at a time

# Slope of the line through 0 below a ReLU on [lower, upper] ∋ 0, where the line above it has slope ``above``.
_LOWER_SLOPES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "adaptive": lambda lower, upper, above: (upper > -lower).to(above),
    "zero": lambda lower, upper, above: torch.zeros_like(above),
    "one": lambda lower, upper, above: torch.ones_like(above),
    "same": lambda lower, upper, above: above,
}


class UnsupportedLayer(ValueError):
    """A layer of the model that no bounds are known for; the message names it and lists those that are supported."""


@dataclass(frozen=True)
class Box:
    """All images between two corners: ``lower`` ≤ ``upper``, each (n, c, h, w) with pixels in [0, 1].

    Raises:
        ValueError, TypeError: corners outside the pixel range, of different shapes, or in the wrong order.
    """

    lower: Float[Tensor, "n c h w"]
    upper: Float[Tensor, "n c h w"]

    def __post_init__(self) -> None:
        check_images(self.lower), check_images(self.upper)
        if self.lower.shape != self.upper.shape:
            seen = f"{tuple(self.lower.shape)} and {tuple(self.upper.shape)}"
            raise ValueError(f"the corners of a box must have the same shape, got {seen}")
        if (wrong := self.lower > self.upper).any():
            raise ValueError(
                f"lower must not exceed upper, but does in {int(wrong.sum())} of {wrong.numel()} pixels: swap them?"
            )

    @classmethod
    def around(cls, x: Float[Tensor, "n c h w"], eps: float) -> Box:
        """The images within ℓ∞ distance ``eps`` ≥ 0 of ``x`` that have pixels in [0, 1]."""
        return cls(*_corners(x, eps))


def ibp_margins(
    model: nn.Module, x: Float[Tensor, "n c h w"] | Box, y: Int[Tensor, " n"], eps: float | None = None
) -> Float[Tensor, "n k"]:
    """Lower bounds of the margins z_y − z_j over a box, by interval bound propagation.

    The margins are bounded through the last affine layer at once, which is tighter than to subtract bounds of logits.

    Args:
        model: pixels to logits, of supported layers.
        x: images with pixels in [0, 1], and the box is [x − eps, x + eps] ∩ [0, 1]; or a ``Box``, without eps.
        y: labels.
        eps: ℓ∞ radius of at least 0.

    Returns:
        (n, k), column j for class j; 0 where j = y.

    Raises:
        UnsupportedLayer: a layer that no bounds are known for. ValueError, TypeError: unfit images, labels or eps.

    Source: Gowal et al. 2018, section 3 (the merged last layer: the elision of the last layer there).
    """
    box, steps = _prepare(model, x, eps)
    inputs, logits = _propagate(steps, box)
    matrix, operation = _specification(logits, y), steps[-1].operation
    if not isinstance(operation, _Affine):
        return _least(matrix, logits)
    matrix, constant = operation.pull(inputs)(matrix)
    return _least(matrix, *inputs) + constant


def crown_ibp_margins(
    model: nn.Module, x: Float[Tensor, "n c h w"] | Box, y: Int[Tensor, " n"], eps: float | None = None, *,
    lower_slope: str = "adaptive",
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Lower bounds of the margins by one backward pass of CROWN between interval bounds.

    Args:
        model, x, y, eps: as for ``ibp_margins``.
        lower_slope: of the line below a ReLU on [l, u] with l < 0 < u: "adaptive" (1 if u > −l, else 0), "zero",
            "one", or "same" (u / (u − l), as above it). With "zero" the bounds are never below ``ibp_margins``.

    Returns, raises: as ``ibp_margins``.

    Source: Zhang et al. 2020 (arXiv 1906.06316), section 3; max pooling: Singh et al. 2019 (DeepPoly).
    """
    return _crown(model, x, y, eps, lower_slope, tighten=False)


def crown_margins(
    model: nn.Module, x: Float[Tensor, "n c h w"] | Box, y: Int[Tensor, " n"], eps: float | None = None, *,
    lower_slope: str = "adaptive",
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Lower bounds of the margins by CROWN, with bounds before each ReLU by backward passes too.

    Where interval bounds before a ReLU are better, they are kept. The cost is two backward passes for each neuron that
    can be active, so this is for small networks.

    Arguments, returns, raises: as ``crown_ibp_margins``.

    Source: Zhang et al. 2018 (CROWN), section 3.
    """
    return _crown(model, x, y, eps, lower_slope, tighten=True)


BOUNDS = {"ibp": ibp_margins, "crown-ibp": crown_ibp_margins, "crown": crown_margins}


@dataclass(frozen=True)
class Verification:
    """Which images are proved to be classified rightly in their whole box: ``verified`` (n,) bool.

    ``bound`` names the bound that proved it, ``eps`` is the ℓ∞ radius of the boxes.
    """

    verified: Bool[Tensor, " n"]
    eps: float
    bound: str

    @property
    def error(self) -> float:
        """Verified error: the share of images without a proof, those that are classified wrongly included."""
        return 1 - self.verified.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of ``error``."""
        found = scipy.stats.binomtest(int((~self.verified).sum()), len(self.verified)).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def verified_error(
    model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], eps: float, *, bound: str = "crown-ibp",
    batch_size: int = 256, progress: bool | None = None,
) -> Verification:  # fmt: skip
    """Find the images that are certainly classified rightly within ℓ∞ radius ``eps``: all margins bounded above 0.

    Args:
        model, x, y, eps: as for ``ibp_margins``.
        bound: "ibp", "crown-ibp" or "crown".
        batch_size: images at a time.
        progress: show a bar; None follows the session.

    Raises:
        ValueError: there are no images; and what ``ibp_margins`` raises. UnknownName: there is no such bound.
    """
    margins = choose(bound, BOUNDS, "bound")
    check_count(batch_size, what="batch_size")
    check_labels(y, len(x))
    if len(x) == 0:
        raise ValueError("there are no images to verify: give at least one")
    verified = []
    with torch.no_grad(), track("verifying", len(x), progress) as bar:
        for some, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            positive = margins(model, some, labels, eps) > 0
            verified.append(positive.scatter(1, labels.unsqueeze(1), True).all(dim=1))
            bar.advance(len(some))
    return Verification(torch.cat(verified), eps, bound)


class _Interval(NamedTuple):
    """All tensors within ``radius`` of ``center``, elementwise."""

    center: Tensor
    radius: Tensor

    @property
    def lower(self) -> Tensor:
        return self.center - self.radius

    @property
    def upper(self) -> Tensor:
        return self.center + self.radius

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor) -> _Interval:
        center = torch.lerp(lower, upper, 0.5)
        return cls(center, upper - center)


# Coefficients A (n, m, *output) -> coefficients B (n, m, *input) and constants b (n, m) or 0, such that
# A·output ≥ B·input + b for every input in the interval.
_Pull = Callable[[Tensor], tuple[Tensor, Tensor | float]]


@dataclass(frozen=True)
class _Affine:
    """``function(input, weight, bias)``, monotone in the input where the weights are not negative."""

    function: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def interval(self, inputs: list[_Interval]) -> _Interval:
        center, radius = inputs[0]
        size = None if self.weight is None else self.weight.abs()
        return _Interval(self.function(center, self.weight, self.bias), self.function(radius, size, None))

    def pull(self, inputs: list[_Interval], lower_slope: str | None = None) -> _Pull:
        if self.function is F.linear and inputs[0].center.ndim == 2:  # what follows, without its detours
            return lambda a: (a @ self.weight, 0.0 if self.bias is None else a @ self.bias)
        zero = inputs[0].center.new_zeros(1, *inputs[0].center.shape[1:])
        offset, adjoint = vjp(lambda input: self.function(input, self.weight, self.bias), zero)
        transposed = vmap(lambda row: adjoint(row.unsqueeze(0))[0].squeeze(0))

        def pull(a: Tensor) -> tuple[Tensor, Tensor | float]:
            constant = 0.0 if self.bias is None else _product(a, offset)
            return transposed(a.flatten(0, 1)).unflatten(0, a.shape[:2]), constant

        return pull


class _ReLU:
    """max(input, 0), elementwise."""

    def interval(self, inputs: list[_Interval]) -> _Interval:
        lower, upper = inputs[0].lower.relu_(), inputs[0].upper.relu_()
        if torch.is_grad_enabled():
            return _Interval.between(lower, upper)
        center = lower.lerp_(upper, 0.5)  # the same in the memory that is there
        return _Interval(center, upper.sub_(center))

    def pull(self, inputs: list[_Interval], lower_slope: str) -> _Pull:
        lower, upper = inputs[0].lower, inputs[0].upper
        unstable = (lower < 0) & (upper > 0)
        above = torch.where(unstable, upper / torch.where(unstable, upper - lower, 1), (lower >= 0).to(lower))
        below = torch.where(unstable, _LOWER_SLOPES[lower_slope](lower, upper, above), above)
        intercept = torch.where(unstable, -above * lower, 0)

        def pull(a: Tensor) -> tuple[Tensor, Tensor]:
            positive, negative = a.clamp_min(0), a.clamp_max(0)
            return positive * below.unsqueeze(1) + negative * above.unsqueeze(1), _product(negative, intercept)

        return pull


@dataclass(frozen=True)
class _MaxPool:
    """The largest input of each window, ``size`` windows an image as in ``nn.AdaptiveMaxPool2d``."""

    size: int | tuple[int | None, ...]

    def interval(self, inputs: list[_Interval]) -> _Interval:
        pool = partial(F.adaptive_max_pool2d, output_size=self.size)
        return _Interval.between(pool(inputs[0].lower), pool(inputs[0].upper))

    def pull(self, inputs: list[_Interval], lower_slope: str) -> _Pull:
        """Below a maximum is the input with the largest lower bound; above it too if no other can exceed that."""
        lower, upper = inputs[0].lower, inputs[0].upper
        largest, chosen = F.adaptive_max_pool2d(lower, self.size, return_indices=True)
        decided = self._rivals(upper, chosen) <= largest
        highest = torch.where(decided, 0, F.adaptive_max_pool2d(upper, self.size))

        def pull(a: Tensor) -> tuple[Tensor, Tensor]:
            negative = a.clamp_max(0)
            through = (a.clamp_min(0) + negative * decided.unsqueeze(1)).flatten(3)
            index = chosen.flatten(2).unsqueeze(1).expand_as(through)
            b = a.new_zeros(*a.shape[:3], math.prod(lower.shape[2:])).scatter_add(3, index, through)
            return b.unflatten(3, lower.shape[2:]), _product(negative, highest)

        return pull

    @torch.no_grad()
    def _rivals(self, upper: Tensor, chosen: Tensor) -> Tensor:
        """The largest upper bound in each window (n, c, i, j) but for that of the chosen input."""
        windows = chosen.flatten(2).unsqueeze(3)  # (n, c, i · j, 1)
        copies = upper.flatten(2).unsqueeze(2).repeat(1, 1, windows.shape[2], 1)  # one a window
        copies = copies.scatter(3, windows, -torch.inf).unflatten(3, upper.shape[2:]).flatten(1, 2)
        pooled = F.adaptive_max_pool2d(copies, self.size).flatten(2).unflatten(1, windows.shape[1:3])
        return pooled.diagonal(dim1=2, dim2=3).view_as(chosen)


class _Sum:
    """The sum of its inputs."""

    def interval(self, inputs: list[_Interval]) -> _Interval:
        first, second = inputs
        return _Interval(first.center + second.center, first.radius + second.radius)

    def pull(self, inputs: list[_Interval], lower_slope: str) -> _Pull:
        return lambda a: (a, 0.0)  # for each of the inputs


class _Step(NamedTuple):
    """An operation and the numbers of the values that it is applied to."""

    operation: _Affine | _ReLU | _MaxPool | _Sum
    sources: tuple[int, ...]


class _Tracer:
    """Turns a model into steps; value 0 is the image, and step i makes value i + 1."""

    def __init__(self, image: Tensor):
        self.shape, self.dtype, self.steps = image.shape, image.dtype, []

    def trace(self, module: nn.Module, path: str, value: int = 0) -> int:
        """Append a module's steps on ``value``; returns the number of the module's output."""
        kind = type(module)  # not isinstance: a subclass may compute something else
        if kind is nn.Sequential:
            for name, child in module._modules.items():  # named_children would leave out repetitions
                value = self.trace(child, _joined(path, name), value)
            return value
        if kind is Classifier:
            return self._classifier(module, path, value)
        if kind is PreActivationBlock:
            return self._block(module, path, value)
        if kind in (nn.Identity, nn.Dropout):
            return value
        if kind is nn.ReLU:
            return self._add(_ReLU(), value)
        if kind is nn.AdaptiveMaxPool2d:
            return self._add(_MaxPool(module.output_size), value)
        if kind in (nn.AvgPool2d, nn.AdaptiveAvgPool2d) or (kind is nn.Flatten and module.start_dim == 1):
            return self._affine(lambda x, *_: module.forward(x), None, None, value)
        if kind is nn.Linear:
            return self._affine(F.linear, module.weight, module.bias, value)
        if kind is nn.Conv2d and module.padding_mode == "zeros":
            shape = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups")}
            return self._affine(partial(F.conv2d, **shape), module.weight, module.bias, value)
        if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and module.running_mean is not None:
            scale = (module.running_var.to(self.dtype) + module.eps).rsqrt()
            scale = scale if module.weight is None else scale * module.weight
            shift = -module.running_mean * scale
            return self._affine(_scaled, scale, shift if module.bias is None else shift + module.bias, value)
        seen = module if next(module.children(), None) is None else kind.__name__
        raise UnsupportedLayer(f"no bounds are known for {path or 'the model'}, {seen}: supported are {_SUPPORTED}")

    def _classifier(self, module: Classifier, path: str, value: int) -> int:
        if module.size not in (None, tuple(self.shape[-2:])):
            raise UnsupportedLayer(
                f"{path or 'the model'}, a Classifier, resizes images from {tuple(self.shape[-2:])} to {module.size}: "
                "bound it on images of that size"
            )
        if module.normalizes:
            channels = module.mean.shape[1]
            if self.shape[1] != channels:
                raise ValueError(f"the model takes {channels} channels, got images of shape {tuple(self.shape)}")
            scale = 1 / module.std.flatten().to(self.dtype)
            value = self._affine(_scaled, scale, -module.mean.flatten() * scale, value)
        return self.trace(module.network, _joined(path, "network"), value)

    def _block(self, module: PreActivationBlock, path: str, value: int) -> int:
        def chain(value: int, *names: str) -> int:
            for name in names:
                value = self.trace(getattr(module, name), _joined(path, name), value)
            return value

        activated = chain(value, "norm1", "act1")
        skipped = value if module.shortcut is None else chain(activated, "shortcut")
        return self._add(_Sum(), skipped, chain(activated, "conv1", "norm2", "act2", "conv2"))

    def _affine(self, function: Callable, weight: Tensor | None, bias: Tensor | None, value: int) -> int:
        weight, bias = (one if one is None else one.to(self.dtype) for one in (weight, bias))
        return self._add(_Affine(function, weight, bias), value)

    def _add(self, operation: _Affine | _ReLU | _MaxPool | _Sum, *sources: int) -> int:
        self.steps.append(_Step(operation, sources))
        return len(self.steps)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _scaled(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Channels (dimension 1) times ``scale``, plus ``shift``."""
    shape = (-1, *[1] * (x.ndim - 2))
    return x * scale.view(shape) if shift is None else torch.addcmul(shift.view(shape), x, scale.view(shape))


def _prepare(model: nn.Module, x: Tensor | Box, eps: float | None) -> tuple[_Interval, list[_Step]]:
    """The box and the model's steps."""
    if isinstance(x, Box) != (eps is None):
        raise ValueError("give images with eps, or a Box without")
    lower, upper = (x.lower, x.upper) if isinstance(x, Box) else _corners(x, eps)
    check_same_device(model, lower)
    tracer = _Tracer(lower)
    tracer.trace(model, "")
    return _Interval.between(lower, upper), tracer.steps


def _corners(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    check_images(x), check_eps(eps)
    return (x - eps).clamp_min(0), (x + eps).clamp_max(1)


def _propagate(steps: list[_Step], box: _Interval) -> tuple[list[_Interval], _Interval]:
    """Interval bounds of the inputs and the output of the last step; the others go once nothing needs them."""
    last_use = {source: number for number, step in enumerate(steps) for source in step.sources}
    values, inputs, output = {0: box}, [box], box
    for number, (operation, sources) in enumerate(steps):
        inputs = [values[source] for source in sources]
        values[number + 1] = output = operation.interval(inputs)
        for source in {*sources}:
            if last_use[source] == number:
                del values[source]
    return inputs, output


def _specification(logits: _Interval, y: Tensor) -> Tensor:
    """The rows e_y − e_j for each image, (n, k, k): times the logits they are the margins."""
    check_logits(logits.center, len(logits.center))
    n, k = logits.center.shape
    check_labels(y, n, k)
    eye = torch.eye(k, dtype=logits.center.dtype, device=logits.center.device)
    return eye[y].unsqueeze(1) - eye


def _crown(
    model: nn.Module, x: Tensor | Box, y: Tensor, eps: float | None, lower_slope: str, *, tighten: bool
) -> Tensor:
    choose(lower_slope, list(_LOWER_SLOPES), "lower slope")
    box, steps = _prepare(model, x, eps)
    values, pulls = [box], []
    for operation, sources in steps:
        if tighten and isinstance(operation, _ReLU):
            values[sources[0]] = _tightened(steps, pulls, values, sources[0])
        inputs = [values[source] for source in sources]
        values.append(operation.interval(inputs))
        pulls.append(operation.pull(inputs, lower_slope))
    return _backward(steps, pulls, box, len(steps), _specification(values[-1], y))


def _backward(steps: list[_Step], pulls: list[_Pull], box: _Interval, value: int, a: Tensor) -> Tensor:
    """Lower bounds (n, m) over the box of a · value, for coefficients ``a`` (n, m, *value)."""
    waiting, bound = {value: a}, 0.0
    for number in range(value, 0, -1):
        if number in waiting:
            a, constant = pulls[number - 1](waiting.pop(number))
            bound = bound + constant
            for source in steps[number - 1].sources:
                waiting[source] = waiting[source] + a if source in waiting else a
    return bound + _least(waiting[0], box)


def _tightened(steps: list[_Step], pulls: list[_Pull], values: list[_Interval], value: int) -> _Interval:
    """Bounds before a ReLU: the better of the interval's and a backward pass's, for neurons that can be active."""
    lower, upper = values[value].lower.flatten(1), values[value].upper.flatten(1)
    n, neurons = lower.shape
    for some in (upper > 0).any(dim=0).nonzero()[:, 0].split(_ROWS):
        rows = F.one_hot(some, neurons).to(lower).unflatten(1, values[value].center.shape[1:])
        both = torch.cat([rows, -rows]).expand(n, -1, *rows.shape[1:])
        least, minus_most = _backward(steps, pulls, values[0], value, both).chunk(2, dim=1)
        lower = lower.index_copy(1, some, torch.maximum(lower[:, some], least))
        upper = upper.index_copy(1, some, torch.minimum(upper[:, some], -minus_most))
    shape = values[value].center.shape
    return _Interval.between(lower.view(shape), upper.view(shape))


def _product(a: Tensor, value: Tensor) -> Tensor:
    """a · value, (n, m), for coefficients ``a`` (n, m, *shape) and one ``value`` (n, *shape) an image."""
    return (a.flatten(2) @ value.flatten(1).unsqueeze(2)).squeeze(2)


def _least(a: Tensor, interval: _Interval) -> Tensor:
    """The minimum of a · value over an interval, (n, m)."""
    return _product(a, interval.center) - _product(a.abs(), interval.radius)
