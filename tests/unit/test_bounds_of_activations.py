"""Lines above and below activations, and their ranges: never violated, and as tight as lines can be."""

from __future__ import annotations

import math
from functools import partial

import pytest
import scipy
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit.certification.bounds import curves, layers
from thesis_kit.certification.bounds.activations import ReLU
from thesis_kit.certification.bounds.boxes import CenteredBox

ACTIVATIONS = {
    "sigmoid": (curves.SIGMOID, torch.sigmoid),
    "tanh": (curves.TANH, torch.tanh),
    "silu": (curves.SILU, F.silu),
    "gelu": (layers.gelu(), F.gelu),
    "gelu by tanh": (layers.gelu("tanh"), partial(F.gelu, approximate="tanh")),
    "elu": (layers.elu(1.0), F.elu),
    "flat elu": (layers.elu(0.3), partial(F.elu, alpha=0.3)),
    "celu": (layers.celu(2.0), partial(F.celu, alpha=2.0)),
    "softplus": (layers.softplus(1, 20), F.softplus),
    "softplus cut short": (layers.softplus(3, 1), partial(F.softplus, beta=3, threshold=1)),
    "leaky relu": (layers.leaky_relu(0.1), partial(F.leaky_relu, negative_slope=0.1)),
    "rising leaky relu": (layers.leaky_relu(2.0), partial(F.leaky_relu, negative_slope=2.0)),
    "bent leaky relu": (layers.leaky_relu(-0.5), partial(F.leaky_relu, negative_slope=-0.5)),
    "relu6": (layers.clip(0.0, 6.0), F.relu6),
    "hardtanh": (layers.clip(-1.0, 0.5), partial(F.hardtanh, min_val=-1.0, max_val=0.5)),
    "hardsigmoid": (layers.hardsigmoid(), F.hardsigmoid),
    "clamp": (layers.clip(None, 0.3), partial(torch.clamp, max=0.3)),
    "relu": (ReLU(), torch.relu),
}


def intervals(n, dtype):
    """Narrow and wide ones, empty ones too, around 0 and far from it."""
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(n, generator=generator, dtype=torch.float64) * 4
    lower[::3] *= 0.2
    width = 10 ** (torch.rand(n, generator=generator, dtype=torch.float64) * 9 - 7.5)
    width[::7] = 0
    return CenteredBox.between(lower.to(dtype), (lower + width).to(dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_point_lies_beyond_a_line_or_out_of_the_range(name, dtype, tolerance):
    activation, function = ACTIVATIONS[name]
    box = intervals(5000, dtype)
    lower, upper = box.lower, box.upper
    points = torch.lerp(lower, upper, torch.linspace(0, 1, 41, dtype=dtype).view(-1, 1))  # 205,000
    values = function(points)
    assert torch.equal(activation.value([points]), values)
    below, above = activation.lines(lower, upper, "adaptive")
    least = below.slope * points + (0 if below.offset is None else below.offset)
    room = tolerance * (1 + points.abs() + values.abs())
    assert (least <= values + room).all()
    assert (values <= above.slope * points + above.offset + room).all()
    reach = activation.interval([CenteredBox(*(one.clone() for one in box))])
    assert (reach.lower <= values + room).all()
    assert (values <= reach.upper + room).all()
    if name != "softplus cut short":
        straight = ~activation.bends(lower, upper)
        found = above.slope[straight] * lower[straight] + above.offset[straight]
        assert torch.allclose(found, values[0][straight], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ("relu", "softplus cut short")])
def test_no_line_leaves_less_area(name):
    """In the middle m the best line above is as high as min over slopes a of max f(z) − a(z − m)."""
    activation, function = ACTIVATIONS[name]
    box = intervals(150, torch.float64)
    lower, upper, middle = box.lower, box.upper, box.center
    points = torch.lerp(lower, upper, torch.linspace(0, 1, 1501, dtype=torch.float64).view(-1, 1))
    for line, sign in zip(activation.lines(lower, upper, "adaptive"), (-1, 1), strict=True):
        low, high = torch.full_like(middle, -3), torch.full_like(middle, 3)
        values = sign * function(points)

        def height(slope, values=values):
            return (values - slope * (points - middle)).amax(dim=0)

        for _ in range(50):
            first, second = torch.lerp(low, high, 1 / 3), torch.lerp(low, high, 2 / 3)
            falls = height(first) <= height(second)
            low, high = torch.where(falls, low, first), torch.where(falls, second, high)
        best, found = height((low + high) / 2), sign * (line.slope * middle + line.offset)
        assert (found - best <= 1e-3 * (upper - lower) + 1e-8).all()  # the points miss the corners


@pytest.mark.parametrize(("activation", "function", "bottom"), [
    (curves.SILU, F.silu, -0.27846454276107379), (curves.GELU, F.gelu, -0.16997120747990369),
    (curves.GELU_TANH, partial(F.gelu, approximate="tanh"), -0.17004075057125406),
])  # fmt: skip
def test_the_range_of_what_falls_and_rises_is_exact(activation, function, bottom):
    ends = torch.tensor([[-3.0, 2.0], [-3.0, -2.0], [-0.5, 0.5], [-3.0, -0.5], [0.5, 1.0]], dtype=torch.float64)
    found = activation.interval([CenteredBox.between(*ends.unbind(1))])
    values = function(ends)
    least = values.amin(dim=1)
    least[[0, 3]] = bottom
    assert torch.allclose(found.lower, least, rtol=0, atol=1e-15)
    assert torch.allclose(found.upper, values.amax(dim=1), rtol=0, atol=1e-15)


def test_lines_by_hand():
    def lines(activation, low, high):
        ends = (torch.tensor([end], dtype=torch.float64) for end in (low, high))
        return [(line.slope.item(), line.offset.item()) for line in activation.lines(*ends, "adaptive")]

    below, above = lines(layers.leaky_relu(0.1), -1.0, 2.0)
    assert above == pytest.approx((0.7, 0.6))
    assert below == pytest.approx((1.0, 0.0))
    below, above = lines(layers.clip(0.0, 6.0), -2.0, 8.0)  # through the corners (6, 6) and (0, 0), and the far ends
    assert above == pytest.approx((6 / 8, 1.5))
    assert below == pytest.approx((6 / 8, 0.0))
    below, above = lines(curves.SIGMOID, 1.0, 3.0)  # concave: the chord below, the tangent at 2 above
    s = [1 / (1 + math.exp(-z)) for z in (1, 2, 3)]
    assert below == pytest.approx(((s[2] - s[0]) / 2, s[0] - (s[2] - s[0]) / 2))
    assert above == pytest.approx((s[1] * (1 - s[1]), s[1] - 2 * s[1] * (1 - s[1])))
    below, above = lines(curves.TANH, -3.0, 1.0)  # Zhang et al. 2018: the tangent through (−3, tanh −3), at about 0.3
    touch = scipy.optimize.brentq(lambda d: math.tanh(d) - math.tanh(-3) - (1 - math.tanh(d) ** 2) * (d + 3), 0.01, 1)
    slope = 1 - math.tanh(touch) ** 2
    assert 0 < touch < 1
    assert above == pytest.approx((slope, math.tanh(-3) + 3 * slope), abs=1e-6)
    at = scipy.optimize.brentq(lambda d: math.tanh(1) - math.tanh(d) - (1 - math.tanh(d) ** 2) * (1 - d), -3, -0.01)
    assert at > -1  # the middle is further left: the line below touches there
    assert below == pytest.approx((1 - math.tanh(-1) ** 2, math.tanh(-1) + 1 - math.tanh(-1) ** 2), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ("relu",)])
def test_gradients_of_lines_and_ranges(name):
    activation, _ = ACTIVATIONS[name]
    lower = torch.tensor([-2.6, -1.9, -0.9, -0.4, 0.9, -3.1], dtype=torch.float64)
    upper = lower + torch.tensor([3.25, 1.0, 2.2, 0.72, 0.8, 7.4], dtype=torch.float64)
    a = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 2, 1).expand(6, 2, 1)

    def margins(lower, upper):
        box = CenteredBox.between(lower.unsqueeze(1), upper.unsqueeze(1))
        (slopes,), constant = activation.pull([box], "adaptive")(a)
        return slopes.sum() + constant.sum(), *activation.interval([box])

    ends = (lower.requires_grad_(), upper.requires_grad_())
    assert torch.autograd.gradcheck(margins, ends, eps=1e-5, atol=1e-3, rtol=1e-3)


def test_layers_and_functions_have_the_same_activations():
    torch.manual_seed(0)
    for module in (nn.PReLU(3), nn.Softplus(2, 10), nn.CELU(0.5), nn.GELU("tanh"), nn.Hardtanh(-2, 1)):
        activation = layers.LAYERS[type(module)](module, partial(getattr, module), torch.float32)
        x = torch.randn(50, 3)
        assert torch.equal(activation.value([x]), module(x))
