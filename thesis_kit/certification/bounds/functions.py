"""Functions, methods and operators of torch that a traced ``forward`` may call on values made from the image.

Each takes ``Values`` and what the call was given, in torch's own order, and returns what the call makes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.certification.bounds import curves, layers
from thesis_kit.certification.bounds.activations import Activation, Pieces, ReLU
from thesis_kit.certification.bounds.layers import Unbounded
from thesis_kit.certification.bounds.operations import AffineStep, Concatenation, Difference, Operation, Sum

if TYPE_CHECKING:
    from thesis_kit.certification.bounds.tracing import Tracer


_MIXES = "which does not keep images apart in dimension 0"


@dataclass(frozen=True)
class Value:
    """A traced value: its number, and the memory that it lies in."""

    number: int
    memory: int


class Values:
    """Makes values from values; ``written`` is the memory that the last call has written into, if any."""

    def __init__(self, tracer: Tracer):
        self.tracer, self.dtype, self.written, self._memories = tracer, tracer.dtype, None, 0

    def new(self, number: int) -> Value:
        """A value in memory of its own."""
        self._memories += 1
        return Value(number, self._memories)

    def made(self, number: int, source: Value, *, inplace: bool = False, shares: bool = False) -> Value:
        """What was made from a source: in its memory if in place, if it shares that, or if nothing was done to it."""
        if inplace:
            self.written = source.memory
        return Value(number, source.memory) if inplace or shares or number == source.number else self.new(number)

    def apply(self, operation: Operation | None, *sources: Value, inplace: bool = False) -> Value:
        """The value of an operation."""
        number = (
            sources[0].number if operation is None else self.tracer.add(operation, *(one.number for one in sources))
        )
        return self.made(number, sources[0], inplace=inplace)

    def rearranged(self, source: Value, function: Callable[[Tensor], Tensor], *, copies: bool = False) -> Value:
        """Sums, means, parts and orders of an image's own numbers, with coefficients of at least 0."""
        probe = self.probe(source)
        together, alone = function(probe), [function(one) for one in probe.split(1)]
        apart = (
            together.ndim > 0 and len(together) == len(probe) and all(one.shape == together[:1].shape for one in alone)
        )
        if not (apart and torch.allclose(torch.cat(alone), together, rtol=1e-3, atol=1e-5)):
            raise Unbounded(_MIXES)
        number = self.tracer.add(AffineStep(lambda x, *_: function(x)), source.number)
        return self.new(number) if copies else Value(number, source.memory)

    def probe(self, value: Value) -> Tensor:
        """It at a few images."""
        return self.tracer.probe(value.number)

    @staticmethod
    def traced(thing: object) -> bool:
        """Whether something is a value."""
        return isinstance(thing, Value)

    def anywhere(self, thing: object) -> bool:
        """Whether there is a value in nested arguments."""
        if isinstance(thing, dict):
            thing = list(thing.values())
        return self.traced(thing) or (isinstance(thing, list | tuple) and any(map(self.anywhere, thing)))

    def shares(self, thing: object, memory: int) -> bool:
        """Whether something lies in a memory, or holds a value that does."""
        if isinstance(thing, list | tuple):
            return any(self.shares(one, memory) for one in thing)
        return isinstance(thing, Value) and thing.memory == memory

    def constant(self, thing: object, like: Value) -> Tensor:
        """A number or tensor as one that goes with every image of a value."""
        if self.anywhere(thing) or not isinstance(thing, int | float | Tensor):
            raise Unbounded("of two values that both depend on the image")
        shape = self.probe(like).shape
        tensor = torch.as_tensor(thing, dtype=self.dtype, device=self.probe(like).device)
        if tensor.ndim > len(shape) or (tensor.ndim == len(shape) and tensor.shape[0] != 1):
            raise Unbounded("with a constant of another number for each image")
        return tensor


def _activation(made: Callable[..., Activation], **settings: object) -> Callable:
    """A function of a value, the settings of an activation with these defaults, and whether it is in place."""

    def apply(values: Values, input: Value, *given: object, inplace: bool = False, **named: object) -> Value:
        names = [*settings, "inplace"]
        found = {**settings, "inplace": inplace, **dict(zip(names, given, strict=False)), **named}
        if len(given) > len(names) or {*found} != {*names}:
            raise Unbounded("with other settings")
        inplace = bool(found.pop("inplace"))
        return values.apply(made(*found.values()), input, inplace=inplace)

    return apply


def _clamp(values: Values, input: Value, min: object = None, max: object = None, *, inplace: bool = False) -> Value:
    if isinstance(min, Tensor) or isinstance(max, Tensor) or (min is None and max is None):
        raise Unbounded("between tensors")
    low, high = (end if end is None else float(end) for end in (min, max))
    if low is not None and high is not None and low >= high:
        raise Unbounded("between ends in the wrong order")
    return values.apply(layers.clip(low, high), input, inplace=inplace)


def _prelu(values: Values, input: Value, weight: Tensor) -> Value:
    return values.apply(layers.prelu(weight, values.dtype), input)


def _dropout(values: Values, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    if training:
        raise Unbounded("with training=True, which makes the model random")
    return input


def _same(values: Values, input: Value, *_: object, **__: object) -> Value:
    return input


def _copied(values: Values, input: Value, **_: object) -> Value:
    return values.new(input.number)


def _cast(values: Values, input: Value, *given: object, **named: object) -> Value:
    given = (*given, *named.values())
    if values.anywhere(given) or any(isinstance(one, Tensor) for one in given):
        raise Unbounded("like another tensor")
    if any(isinstance(one, torch.dtype) and one != values.dtype for one in given):
        raise Unbounded(f"to another precision than the images' {values.dtype}")
    return input


def _to(dtype: torch.dtype) -> Callable:
    return lambda values, input: _cast(values, input, dtype)


def _add(values: Values, input: object, other: object, *, alpha: float = 1, inplace: bool = False) -> Value:
    if alpha != 1:
        other = _multiply(values, other, alpha) if values.traced(other) else other * alpha
    if values.traced(input) and values.traced(other):
        return values.apply(_two(values, Sum(), input, other), input, other, inplace=inplace)
    value, constant = (input, other) if values.traced(input) else (other, input)
    shift = values.constant(constant, value)
    return _affine(values, value, torch.ones_like(shift), shift, inplace)


def _subtract(values: Values, input: object, other: object, *, alpha: float = 1, inplace: bool = False) -> Value:
    if alpha != 1:
        other = _multiply(values, other, alpha) if values.traced(other) else other * alpha
    if values.traced(input) and values.traced(other):
        return values.apply(_two(values, Difference(), input, other), input, other, inplace=inplace)
    if values.traced(input):
        shift = -values.constant(other, input)
        return _affine(values, input, torch.ones_like(shift), shift, inplace)
    shift = values.constant(input, other)
    return _affine(values, other, -torch.ones_like(shift), shift, inplace)


def _multiply(values: Values, input: object, other: object, *, inplace: bool = False) -> Value:
    value, constant = (input, other) if values.traced(input) else (other, input)
    return _affine(values, value, values.constant(constant, value), None, inplace)


def _divide(
    values: Values, input: object, other: object, *, rounding_mode: str | None = None, inplace: bool = False
) -> Value:
    if rounding_mode is not None or not values.traced(input):
        raise Unbounded("of a constant by a value" if rounding_mode is None else "with rounding")
    return _affine(values, input, 1 / values.constant(other, input), None, inplace)


def _two(values: Values, operation: Operation, first: Value, second: Value) -> Operation:
    shapes = [tuple(values.probe(one).shape[1:]) for one in (first, second)]
    if shapes[0] != shapes[1]:
        raise Unbounded(f"of different shapes {shapes[0]} and {shapes[1]}")
    return operation


def _affine(values: Values, value: Value, scale: Tensor, shift: Tensor | None, inplace: bool) -> Value:
    def function(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        return x * scale if shift is None else x * scale + shift

    return values.apply(AffineStep(function, scale, shift), value, inplace=inplace)


def _linear(values: Values, input: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    return values.apply(layers.linear(weight, bias, values.dtype), input)


def _convolution(function: Callable) -> Callable:
    def apply(
        values: Values, input: Value, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Value:  # fmt: skip
        shape = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return values.apply(layers.convolution(function, weight, bias, values.dtype, **shape), input)

    return apply


def _batch_norm(
    values: Values, input: Value, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Value:  # fmt: skip
    if training or running_mean is None or running_var is None:
        raise Unbounded("with the statistics of a batch")
    return values.apply(layers.batch_norm(running_mean, running_var, weight, bias, eps, values.dtype), input)


def _max_pool(
    values: Values, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Value:  # fmt: skip
    if return_indices or values.probe(input).ndim != 4:
        raise Unbounded("but for images, without indices")
    return values.apply(layers.max_pool(kernel_size, stride, padding, dilation, ceil_mode), input)


def _adaptive_max_pool(values: Values, input: Value, output_size: Any, return_indices: bool = False) -> Value:
    if return_indices:
        raise Unbounded("with indices")
    return values.apply(layers.adaptive_max_pool(output_size), input)


def _average(
    values: Values, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Value:  # fmt: skip
    if (divisor_override or 1) < 0:
        raise Unbounded("with a divisor below 0")
    stride = kernel_size if stride is None or stride == () else stride
    knobs = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return values.rearranged(input, lambda x: F.avg_pool2d(x, *knobs), copies=True)


def _adaptive_average(values: Values, input: Value, output_size: Any) -> Value:
    return values.rearranged(input, lambda x: F.adaptive_avg_pool2d(x, output_size), copies=True)


def _pad(values: Values, input: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    if mode == "constant" and value:
        raise Unbounded("with another value than 0")
    return values.rearranged(input, lambda x: F.pad(x, pad, mode), copies=True)


def _concatenate(values: Values, tensors: Sequence[object], dim: int = 0) -> Value:
    if not all(map(values.traced, tensors)):
        raise Unbounded("of a value and a constant")
    dim = dim % values.probe(tensors[0]).ndim
    if dim == 0:
        raise Unbounded("of images")
    return values.new(values.tracer.add(Concatenation(dim), *(one.number for one in tensors)))


def _view(values: Values, input: Value, *shape: object, **named: object) -> Value:
    probe = values.probe(input)
    shape = named.get(
        "shape", named.get("size", shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
    )
    if isinstance(shape, torch.dtype):
        raise Unbounded("of another type")
    found = probe.reshape(shape)
    if len(found) != len(probe):
        raise Unbounded(_MIXES)
    tail = found.shape[1:]
    return values.rearranged(input, lambda x: x.reshape(len(x), *tail))


def _method(name: str, *, copies: bool = False) -> Callable:
    """A method of tensors that rearranges an image's numbers, with the arguments it was called with."""

    def apply(values: Values, input: Value, *given: object, **named: object) -> Value:
        if values.anywhere((given, named)) or any(isinstance(one, torch.dtype) for one in (*given, *named.values())):
            raise Unbounded("with such arguments")
        return values.rearranged(input, lambda x: getattr(x, name)(*given, **named), copies=copies)

    return apply


def _matmul(values: Values, input: object, other: object) -> Value:
    if not values.traced(input) or not isinstance(other, Tensor) or other.ndim != 2:
        raise Unbounded("but of a value by a constant matrix")
    return _linear(values, input, other.mT)


def _parts(name: str) -> Callable:
    """A method that cuts a value in several."""

    def apply(values: Values, input: Value, *given: object, **named: object) -> list[Value]:
        number = len(getattr(values.probe(input), name)(*given, **named))
        return [values.rearranged(input, lambda x, i=i: getattr(x, name)(*given, **named)[i]) for i in range(number)]

    return apply


def _item(values: Values, thing: object, index: object) -> object:
    if not values.traced(thing):
        return thing[index]
    if values.anywhere(index) or not isinstance(index, tuple):
        raise Unbounded(_MIXES)
    return values.rearranged(thing, lambda x: x[index])


def _attribute(values: Values, thing: object, name: str, *_: object) -> object:
    if name not in ("shape", "ndim", "dtype", "device", "requires_grad", "is_cuda"):
        raise Unbounded(f"{name} of a value")
    return getattr(values.probe(thing), name)


def _asked(name: str) -> Callable:
    """A method that asks for the shape, answered with that of the probe."""
    return lambda values, input, *given, **named: getattr(values.probe(input), name)(*given, **named)


def _writing(function: Callable) -> Callable:
    """The same in place, which must be that of a value: constants stay what they are."""

    def apply(values: Values, input: object, *given: object, **named: object) -> Value:
        if not values.traced(input):
            raise Unbounded("into a constant")
        return function(values, input, *given, inplace=True, **named)

    return apply


def _negative(values: Values, input: Value, *, inplace: bool = False) -> Value:
    return _multiply(values, input, -1, inplace=inplace)


_SIGMOID, _TANH, _SILU = (
    _activation(lambda curve=curve: curve) for curve in (curves.SIGMOID, curves.TANH, curves.SILU)
)
_RELU, _ABS = _activation(ReLU), _activation(lambda: Pieces(torch.abs, (0.0,)))
_REARRANGING = ("flatten", "permute", "transpose", "movedim", "swapaxes", "squeeze", "unsqueeze", "unflatten", "narrow")

# What is a method of tensors and a function of torch under the same name.
_BOTH: dict[str, Callable] = {
    "relu": _RELU, "sigmoid": _SIGMOID, "tanh": _TANH, "abs": _ABS, "clamp": _clamp, "clip": _clamp, "prelu": _prelu,
    "add": _add, "sub": _subtract, "subtract": _subtract, "mul": _multiply, "multiply": _multiply, "div": _divide,
    "divide": _divide, "true_divide": _divide, "neg": _negative, "negative": _negative, "matmul": _matmul,
    "reshape": _view, "chunk": _parts("chunk"), "split": _parts("split"), "unbind": _parts("unbind"),
    "detach": _same, "clone": _copied, "mean": _method("mean", copies=True), "sum": _method("sum", copies=True),
    "flip": _method("flip", copies=True), "roll": _method("roll", copies=True),
    **{name: _method(name) for name in _REARRANGING},
}  # fmt: skip

METHODS: dict[str, Callable] = {
    **_BOTH, "view": _view, "contiguous": _same, "to": _cast, "float": _to(torch.float32), "double": _to(torch.float64),
    "half": _to(torch.float16), "bfloat16": _to(torch.bfloat16),
    "size": _asked("size"), "dim": _asked("dim"), "numel": _asked("numel"),
    **{
        f"{name}_": _writing(_BOTH[name])
        for name in ("relu", "sigmoid", "tanh", "abs", "clamp", "add", "sub", "mul", "div", "neg")
    },
}  # fmt: skip

FUNCTIONS: dict[Callable, Callable] = {
    **{getattr(torch, name): made for name, made in _BOTH.items() if hasattr(torch, name)},
    **{
        getattr(operator, f"{prefix}{name}"): _writing(made) if prefix else made
        for prefix in ("", "i")
        for name, made in (("add", _add), ("sub", _subtract), ("mul", _multiply), ("truediv", _divide))
    },
    operator.neg: _negative, operator.abs: _ABS, abs: _ABS, operator.matmul: _matmul, operator.getitem: _item,
    getattr: _attribute, torch.cat: _concatenate, torch.concat: _concatenate, torch.concatenate: _concatenate,
    F.relu: _RELU, F.relu_: _writing(_RELU), torch.relu_: _writing(_RELU),
    F.leaky_relu: _activation(layers.leaky_relu, negative_slope=0.01), F.prelu: _prelu,
    F.relu6: _activation(lambda: layers.clip(0.0, 6.0)), F.hardsigmoid: _activation(layers.hardsigmoid),
    F.hardtanh: _activation(lambda low, high: layers.clip(float(low), float(high)), min_val=-1.0, max_val=1.0),
    F.sigmoid: _SIGMOID, F.tanh: _TANH, F.silu: _SILU, F.gelu: _activation(layers.gelu, approximate="none"),
    F.elu: _activation(layers.elu, alpha=1.0), F.celu: _activation(layers.celu, alpha=1.0),
    F.softplus: _activation(layers.softplus, beta=1.0, threshold=20.0),
    F.linear: _linear, F.conv1d: _convolution(F.conv1d), F.conv2d: _convolution(F.conv2d), F.batch_norm: _batch_norm,
    F.max_pool2d: _max_pool, torch.max_pool2d: _max_pool, F.adaptive_max_pool2d: _adaptive_max_pool,
    F.avg_pool2d: _average, F.adaptive_avg_pool2d: _adaptive_average, F.pad: _pad,
    F.dropout: _dropout, F.dropout1d: _dropout, F.dropout2d: _dropout, F.dropout3d: _dropout,
    F.alpha_dropout: _dropout, F.feature_alpha_dropout: _dropout,
}  # fmt: skip
