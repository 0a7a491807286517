"""The layers and activations of torch that bounds are known for, as operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.certification.bounds import curves
from thesis_kit.certification.bounds.activations import Activation, Pieces, ReLU
from thesis_kit.certification.bounds.operations import AffineStep, MaxPool, Operation, adaptive_windows, sliding_windows

SUPPORTED = (
    "Linear, Conv1d and Conv2d padded with zeros, BatchNorm1d and BatchNorm2d with running statistics, ReLU, "
    "LeakyReLU, PReLU, ReLU6, Hardtanh, Hardsigmoid, Sigmoid, Tanh, SiLU, GELU, ELU with alpha in (0, 1], CELU, "
    "Softplus, AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Flatten from dimension 1, Identity, "
    "Dropout, Sequential, Classifier without resizing, PreActivationBlock, and forwards that torch.fx can trace to "
    "these, sums, differences, concatenations, and arithmetic with constants"
)


class Unbounded(Exception):
    """A layer or call that no bounds are known for as it is set up, and why."""


Weights = Callable[[str], Tensor | None]


def linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> AffineStep:
    """``F.linear``."""
    return AffineStep(F.linear, *_as(dtype, weight, bias))


def convolution(
    function: Callable, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, **shape: object
) -> AffineStep:
    """``F.conv1d`` or ``F.conv2d``, padded with zeros."""
    return AffineStep(partial(function, **shape), *_as(dtype, weight, bias))


def batch_norm(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> AffineStep:
    """Batch normalization by running statistics: channels scaled and shifted."""
    scale = (var.to(dtype) + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return AffineStep(scaled, *_as(dtype, scale, shift if bias is None else shift + bias))


def scaled(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Channels (dimension 1) times ``scale``, plus ``shift``."""
    shape = (-1, *[1] * (x.ndim - 2))
    return x * scale.view(shape) if shift is None else torch.addcmul(shift.view(shape), x, scale.view(shape))


def _as(dtype: torch.dtype, *tensors: Tensor | None) -> list[Tensor | None]:
    return [one if one is None else one.to(dtype) for one in tensors]


def leaky_relu(slope: float) -> Activation:
    """z above 0, a multiple of z below."""
    return Pieces(partial(F.leaky_relu, negative_slope=slope), (0.0,))


def prelu(weight: Tensor, dtype: torch.dtype) -> Activation:
    """z above 0, a multiple of z below, one for all or one a channel."""
    return Pieces(partial(F.prelu, weight=weight.to(dtype)), (0.0,))


def clip(low: float | None, high: float | None) -> Activation:
    """z held between two numbers, either of which may be None."""
    return Pieces(partial(torch.clamp, min=low, max=high), tuple(end for end in (low, high) if end is not None))


def gelu(approximate: str = "none") -> Activation:
    """GELU, exact or by the hyperbolic tangent."""
    return {"none": curves.GELU, "tanh": curves.GELU_TANH}[approximate]


def elu(alpha: float) -> Activation:
    """ELU, convex for alpha in (0, 1]."""
    _require(0 < alpha <= 1, f"with alpha {alpha}")
    return curves.elu(float(alpha))


def celu(alpha: float) -> Activation:
    """CELU, convex for every alpha > 0."""
    _require(alpha > 0, f"with alpha {alpha}")
    return curves.celu(float(alpha))


def softplus(beta: float, threshold: float) -> Activation:
    """Softplus."""
    _require(beta > 0, f"with beta {beta}")
    return curves.softplus(float(beta), float(threshold))


def hardsigmoid() -> Activation:
    """z/6 + 1/2 held between 0 and 1."""
    return Pieces(F.hardsigmoid, (-3.0, 3.0))


def max_pool(
    kernel_size: int | tuple, stride: int | tuple | None = None, padding: int | tuple = 0, dilation: int | tuple = 1,
    ceil_mode: bool = False,
) -> MaxPool:  # fmt: skip
    """``F.max_pool2d``."""
    kernel, padding, dilation = (_pair(one) for one in (kernel_size, padding, dilation))
    stride = kernel if stride is None or stride == [] else _pair(stride)
    shape = {"stride": stride, "padding": padding, "dilation": dilation}
    pool = partial(F.max_pool2d, kernel_size=kernel, ceil_mode=ceil_mode, **shape)

    def windows(height: int, width: int) -> Tensor:
        outputs = tuple(pool(torch.zeros(1, 1, height, width)).shape[2:])
        return sliding_windows(height, width, outputs=outputs, kernel=kernel, **shape)

    return MaxPool(pool, windows)


def adaptive_max_pool(size: int | tuple[int | None, ...]) -> MaxPool:
    """``F.adaptive_max_pool2d``."""
    return MaxPool(partial(F.adaptive_max_pool2d, output_size=size), partial(adaptive_windows, size=_pair(size)))


def _pair(value: int | tuple | list) -> tuple:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)


def nothing(*_: object) -> None:
    """The identity is no operation."""
    return None


def _require(fine: bool, why: str) -> None:
    if not fine:
        raise Unbounded(why)


def _conv(function: Callable, module: nn.Module, weights: Weights, dtype: torch.dtype) -> AffineStep:
    _require(module.padding_mode == "zeros", "with such padding")
    shape = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups")}
    return convolution(function, weights("weight"), weights("bias"), dtype, **shape)


def _norm(module: nn.Module, weights: Weights, dtype: torch.dtype) -> AffineStep:
    _require(module.running_mean is not None, "with the statistics of a batch")
    return batch_norm(*map(weights, ("running_mean", "running_var", "weight", "bias")), module.eps, dtype)


def _averaged(module: nn.Module, *_: object) -> AffineStep:
    _require((getattr(module, "divisor_override", None) or 1) > 0, "with a divisor below 0")
    return AffineStep(lambda x, *_: module.forward(x))


def _flattened(module: nn.Flatten, *_: object) -> AffineStep:
    _require(module.start_dim >= 1, "of images together")
    return AffineStep(lambda x, *_: module.forward(x))


def _pooled(module: nn.MaxPool2d, *_: object) -> MaxPool:
    _require(not module.return_indices, "with indices")
    return max_pool(module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)


def _adaptively_pooled(module: nn.AdaptiveMaxPool2d, *_: object) -> MaxPool:
    _require(not module.return_indices, "with indices")
    return adaptive_max_pool(module.output_size)


# (module, its weights by name, precision) -> operation, None for the identity; raises Unbounded.
LAYERS: dict[type[nn.Module], Callable[[nn.Module, Weights, torch.dtype], Operation | None]] = {
    nn.Linear: lambda m, w, dtype: linear(w("weight"), w("bias"), dtype),
    nn.Conv1d: partial(_conv, F.conv1d),
    nn.Conv2d: partial(_conv, F.conv2d),
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.AvgPool2d: _averaged,
    nn.AdaptiveAvgPool2d: _averaged,
    nn.MaxPool2d: _pooled,
    nn.AdaptiveMaxPool2d: _adaptively_pooled,
    nn.Flatten: _flattened,
    nn.ReLU: lambda *_: ReLU(),
    nn.LeakyReLU: lambda m, *_: leaky_relu(m.negative_slope),
    nn.PReLU: lambda m, w, dtype: prelu(w("weight"), dtype),
    nn.ReLU6: lambda *_: clip(0.0, 6.0),
    nn.Hardtanh: lambda m, *_: clip(float(m.min_val), float(m.max_val)),
    nn.Hardsigmoid: lambda *_: hardsigmoid(),
    nn.Sigmoid: lambda *_: curves.SIGMOID,
    nn.Tanh: lambda *_: curves.TANH,
    nn.SiLU: lambda *_: curves.SILU,
    nn.GELU: lambda m, *_: gelu(m.approximate),
    nn.ELU: lambda m, *_: elu(m.alpha),
    nn.CELU: lambda m, *_: celu(m.alpha),
    nn.Softplus: lambda m, *_: softplus(m.beta, m.threshold),
    **dict.fromkeys(
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        nothing,
    ),
}
