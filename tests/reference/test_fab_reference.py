"""FAB beside a slow, plain re-implementation of its published algorithm, and beside closed forms.

The re-implementation takes one image at a time, in float64 and Python loops; it finds the steps to the boundary by
bisection, and shares nothing with the package but the random numbers of a restart's first point.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import nn

from thesis_kit.attacks import fab_targeted
from thesis_kit.attacks.fab import boundary_step
from thesis_kit.attacks.norms import NORMS
from thesis_kit.passes import count_passes
from thesis_kit.randomness import ImageRandom

SHAPE, N = (2, 4, 4), 10
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def network(k: int, seed: int = 0) -> nn.Module:
    """Smooth, so that rounding is not amplified at kinks."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 24), nn.Tanh(), nn.Linear(24, k)).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


def images(model: nn.Module, n: int = N):
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64) * 1.2 - 0.1).clamp(0, 1)
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def streams(n: int = N) -> ImageRandom:
    return ImageRandom(11, torch.arange(50, 50 + n))


def size(v: list[float], norm: str) -> float:
    return max(abs(value) for value in v) if norm == "linf" else math.sqrt(sum(value**2 for value in v))


def minus(a: list[float], b: list[float]) -> list[float]:
    return [p - q for p, q in zip(a, b, strict=True)]


def into_box(point: list[float]) -> list[float]:
    return [min(max(p, 0.0), 1.0) for p in point]


def plain_step(x: list[float], w: list[float], lead: float, norm: str) -> list[float]:
    """δ of least norm with ⟨w, δ⟩ = −lead and x + δ in the box: its sizes are min(λ, room) or min(λ|w|, room)."""
    sign = -1.0 if lead > 0 else 1.0

    def moved(level: float) -> list[float]:
        delta = []
        for p, value in zip(x, w, strict=True):
            up = sign * value > 0
            room = 0.0 if value == 0 else (1 - p if up else p)
            length = min(level if norm == "linf" else level * abs(value), room)
            delta.append(length if up else -length)
        return delta

    low, high = 0.0, 1.0
    for _ in range(200):  # until the plane is passed, or everything has hit the box
        if sum(value * d for value, d in zip(w, moved(high), strict=True)) * sign >= abs(lead) or high > 1e12:
            break
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        enough = sum(value * d for value, d in zip(w, moved(middle), strict=True)) * sign >= abs(lead)
        low, high = (low, middle) if enough else (middle, high)
    return moved(high)


def logits(model: nn.Module, point: list[float]) -> list[float]:
    with torch.no_grad():
        return model(torch.tensor(point, dtype=torch.float64).view(1, *SHAPE))[0].tolist()


def predicted(z: list[float]) -> int:
    return max(range(len(z)), key=z.__getitem__)


def lead_and_gradient(model: nn.Module, point: list[float], t: int, c: int) -> tuple[float, list[float]]:
    x = torch.tensor(point, dtype=torch.float64).view(1, *SHAPE).requires_grad_()
    z = model(x)[0]
    (gradient,) = torch.autograd.grad(z[t] - z[c], x)
    return (z[t] - z[c]).item(), gradient.flatten().tolist()


def plain_walk(model, x, c, t, norm, steps, eps, point) -> tuple[list[float], float]:
    """Croce and Hein 2020, Algorithm 1, toward one class; ends early where a point of the ball is misclassified."""
    alpha_max, eta, beta = 0.1, 1.05, 0.9
    found, u = x, math.inf
    for _ in range(steps):
        lead, w = lead_and_gradient(model, point, t, c)
        delta = plain_step(point, w, lead, norm)
        lead_at_x = lead + sum(value * d for value, d in zip(w, minus(x, point), strict=True))
        delta_x = plain_step(x, w, lead_at_x, norm)
        a, b = size(delta, norm), size(delta_x, norm)
        alpha = min(a / (a + b), alpha_max) if a + b > 0 else 0.0
        point = into_box([
            (1 - alpha) * (p + eta * d) + alpha * (q + eta * e)
            for p, d, q, e in zip(point, delta, x, delta_x, strict=True)
        ])  # fmt: skip
        if predicted(logits(model, point)) != c:
            distance = size(minus(point, x), norm)
            if distance < u:
                found, u = point, distance
            if u <= eps:
                return found, u
            point = [(1 - beta) * q + beta * p for q, p in zip(x, point, strict=True)]
    return final_search(model, x, c, found, norm) if u < math.inf else (found, u)


def final_search(model, x, c, found, norm) -> tuple[list[float], float]:
    """Eq. 10, but 0.99 of the way."""
    near, far = x, found
    for _ in range(3):
        z_far, z_near = logits(model, far), logits(model, near)
        s = max((k for k in range(len(z_far)) if k != c), key=z_far.__getitem__)
        share = 0.99 * (z_far[s] - z_far[c]) / (z_far[s] - z_far[c] + z_near[c] - z_near[s])
        middle = [f - share * (f - n) for f, n in zip(far, near, strict=True)]
        if predicted(logits(model, middle)) != c:
            far = middle
        else:
            near = middle
    return far, size(minus(far, x), norm)


def plain_start(random: ImageRandom, x: list[float], reach: float, norm: str) -> list[float]:
    if norm == "linf":
        direction = [2 * value - 1 for value in random.uniform(*SHAPE, dtype=torch.float64)[0].flatten().tolist()]
    else:
        direction = random.normal(*SHAPE, dtype=torch.float64)[0].flatten().tolist()
    length = size(direction, norm)
    return into_box([p + reach / 2 * d / length for p, d in zip(x, direction, strict=True)])


def plain_fab(model, x, c, norm, steps, n_targets, restarts, eps, random) -> list[float]:
    """The nearest point over classes and restarts, or the first one in the ball, or the image itself."""
    z = logits(model, x)
    if predicted(z) != c:
        return x
    likeliest = sorted((k for k in range(len(z)) if k != c), key=z.__getitem__, reverse=True)[:n_targets]
    best, u = x, math.inf
    for restart in range(restarts):
        for rank, t in enumerate(likeliest):
            reach = min(u, {"linf": 0.3, "l2": 1.0}[norm] if eps is None else eps)
            own = random.fork(restart * len(likeliest) + rank)
            point = plain_start(own, x, reach, norm) if restart else x
            found, length = plain_walk(model, x, c, t, norm, steps, -1.0 if eps is None else eps, point)
            if length < u:
                best, u = found, length
            if eps is not None and u <= eps:
                return best
    return best if eps is None else x


@both_norms
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("ball", [True, False], ids=["ball", "nearest"])
def test_fab(norm, k, ball):
    model = network(k, seed=k)
    x, y = images(model, N if ball else 4)
    y[0] = (y[0] + 1) % k  # misclassified from the start
    eps = {"linf": 0.05, "l2": 0.2}[norm] if ball else None
    knobs = {"norm": norm, "steps": 12, "n_targets": 3, "restarts": 2, "eps": eps}
    found = fab_targeted(model, x, y, generator=streams()[: len(x)], **knobs)
    expected = [
        plain_fab(model, row, label, random=streams()[i : i + 1], **knobs)
        for i, (row, label) in enumerate(zip(x.flatten(1).tolist(), y.tolist(), strict=True))
    ]
    np.testing.assert_allclose(found.flatten(1).numpy(), np.array(expected), rtol=0, atol=1e-7)
    turned = model(found).argmax(dim=1) != y
    assert turned.all() if eps is None else 0 < int(turned.sum()) < N, "both kinds of end should occur in a ball"


@both_norms
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.01, 3), share=st.floats(-1.3, 1.3))
def test_a_step_to_the_boundary_is_the_shortest_in_the_box(norm, seed, spread, share):
    """Beside bisection, and beside general solvers of the same problem; reachable planes and ones out of reach."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(2, 1, 2, 3, generator=generator, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1)
    w = torch.randn(2, 1, 2, 3, generator=generator, dtype=torch.float64) * spread
    w[0, 0, 0, 0] = 0
    towards = torch.where((w > 0) == (share < 0), 1 - x, x) * (w != 0)
    lead = share * (w.abs() * towards).flatten(1).sum(dim=1)  # |share| > 1: no point of the box lies on the plane
    step = boundary_step(x, w, lead, NORMS[norm])
    for i in range(2):
        row, normal = x[i].flatten(), w[i].flatten()
        plain = plain_step(row.tolist(), normal.tolist(), lead[i].item(), norm)
        found, plain = step[i].flatten(), torch.tensor(plain, dtype=torch.float64)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-9 if norm == "linf" else 1e-8)
        assert (row + found).min() >= -1e-12
        assert (row + found).max() <= 1 + 1e-12
        left = (normal @ found + lead[i]).item()
        if abs(share) >= 1:
            assert abs(left) == pytest.approx((abs(share) - 1) / abs(share) * abs(lead[i].item()), abs=1e-9)
        else:
            assert left == pytest.approx(0, abs=1e-9)
            assert size(found.tolist(), norm) <= solved(row.numpy(), normal.numpy(), lead[i].item(), norm) + 1e-6


def solved(x: np.ndarray, w: np.ndarray, lead: float, norm: str) -> float:
    """The least norm by a general solver."""
    d = len(x)
    if norm == "linf":  # min λ: −λ ≤ δ_i ≤ λ, ⟨w, δ⟩ = −lead
        rows = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
        bounds = [(-p, 1 - p) for p in x] + [(0, None)]
        cost, plane = np.r_[np.zeros(d), 1.0], np.r_[w, 0.0][None]
        return linprog(cost, A_ub=rows, b_ub=np.zeros(2 * d), A_eq=plane, b_eq=[-lead], bounds=bounds).fun
    plane = {"type": "eq", "fun": lambda delta: w @ delta + lead}
    bounds = [(-p, 1 - p) for p in x]
    found = minimize(lambda delta: delta @ delta, np.zeros(d), bounds=bounds, constraints=plane, method="SLSQP")
    return math.sqrt(found.fun) if found.success else math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@both_norms
def test_a_step_without_a_gradient_stays(norm, dtype):
    x, w = torch.full((3, 1, 2, 2), 0.5, dtype=dtype), torch.zeros(3, 1, 2, 2, dtype=dtype)
    w[1, 0, 0, 0] = 1e-30  # of a saturated model: the nearest corner
    w[2, 0, 0, 0], w[2, 0, 0, 1] = torch.finfo(dtype).tiny / 4, 1.0
    lead = torch.tensor([-1.0, -1.0, -0.25], dtype=dtype)
    step = boundary_step(x, w, lead, NORMS[norm]).flatten(1)
    assert step[0].tolist() == [0, 0, 0, 0]
    assert step[1].tolist() == [0.5, 0, 0, 0]
    assert step[2, 1].item() == pytest.approx(0.25)
    assert step[2, 2:].tolist() == [0, 0]


def linear(k: int, ahead: float) -> tuple[nn.Module, torch.Tensor]:
    """Logits W x + b with class 0 ahead."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(math.prod(SHAPE), k).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
        layer.bias.zero_()
        layer.bias[0] = ahead
    return nn.Sequential(nn.Flatten(), layer), layer.weight.detach()


@both_norms
@pytest.mark.parametrize("k", [2, 5])
def test_the_nearest_point_of_a_linear_model(norm, k):
    """Away from the pixel bounds it is min over classes of (z_0 − z_t) / ‖w_t − w_0‖ in the dual norm."""
    model, weight = linear(k, ahead=3)
    x = 0.35 + 0.3 * torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y = torch.zeros(6, dtype=torch.int64)
    found = fab_targeted(model, x, y, eps=None, norm=norm, steps=40)
    with torch.no_grad():
        z = model(x)
        assert (model(found).argmax(dim=1) != 0).all()
    dual = (weight[1:] - weight[0]).norm(p=1 if norm == "linf" else 2, dim=1)
    nearest = ((z[:, :1] - z[:, 1:]) / dual).amin(dim=1)
    assert (found - x).abs().max() < 0.3, "the box should not matter"
    torch.testing.assert_close(NORMS[norm].size(found - x), nearest, rtol=1e-6, atol=0)


@both_norms
def test_the_nearest_point_of_a_linear_model_at_the_edge_of_the_range(norm):
    """Two classes: one step to the plane is the solution, and the search ends near it."""
    model, weight = linear(2, ahead=6)
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64).mul(1.6).sub(0.3)
    x, y = x.clamp(0, 1), torch.zeros(6, dtype=torch.int64)
    x = x[model(x).argmax(dim=1) == 0]
    assert len(x) >= 4
    found = fab_targeted(model, x, y[: len(x)], eps=None, norm=norm, steps=60)
    for row, image in zip(found, x, strict=True):
        z = model(image[None])[0]
        step = plain_step(image.flatten().tolist(), (weight[1] - weight[0]).tolist(), (z[1] - z[0]).item(), norm)
        assert 0 <= NORMS[norm].size((row - image)[None]).item() / size(step, norm) - 1 < 0.005


@both_norms
def test_more_restarts_come_nearer(norm):
    model = network(5, seed=3)
    with torch.no_grad():
        model[1].weight.mul_(6)  # a rugged boundary
    x, y = images(model, 30)
    lengths = []
    for restarts, seed in ((1, 0), (3, 0), (3, 1)):
        random = ImageRandom(seed, torch.arange(30))
        found = fab_targeted(model, x, y, eps=None, norm=norm, steps=10, restarts=restarts, generator=random)
        assert (model(found).argmax(dim=1) != y).all()
        lengths.append(NORMS[norm].size(found - x))
    assert (lengths[1] <= lengths[0]).all()
    assert (lengths[1] < lengths[0] - 1e-6).any()
    assert not torch.equal(lengths[1], lengths[2])


@both_norms
def test_passes(norm):
    """Two forward passes and one backward a step, after one that says which classes to try."""
    model = network(4)
    x, y = images(model)
    with count_passes(model) as spent:
        found = fab_targeted(model, x, y, eps=1e-6, norm=norm, steps=3, n_targets=2)
    assert torch.equal(found, x)
    assert spent.backward == 6
    assert 1 + 2 * 3 * 2 <= spent.forward <= 1 + 2 * (3 * 2 + 2 + 3)  # with and without a final search
    with count_passes(model) as spent:
        fab_targeted(model, x, (y + 1) % 4, eps=0.1, norm=norm)
    assert (spent.forward_images, spent.backward_images) == (N, 0)


@pytest.mark.parametrize(
    ("knob", "value", "said"),
    [
        ("alpha_max", 1.5, "alpha_max must lie in .0, 1."),
        ("eta", 0.9, "eta must be a finite number of at least 1"),
        ("beta", 1.0, "beta must lie in .0, 1."),
        ("steps", 0, "steps must be a whole number of at least 1"),
        ("restarts", 0, "restarts must be a whole number of at least 1"),
    ],
)
def test_knobs_out_of_range_are_refused(knob, value, said):
    model = network(3)
    x, y = images(model)
    with pytest.raises(ValueError, match=said):
        fab_targeted(model, x, y, eps=0.1, **{knob: value})
