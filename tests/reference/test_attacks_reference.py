"""The attacks beside slow, plain re-implementations written from the papers' equations, and beside closed forms.

The re-implementations take one image at a time, in float64 and Python loops, and share nothing with the package but
the random numbers of the start.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from thesis_kit.attacks import apgd, apgd_targeted, fgsm, pgd, square
from thesis_kit.passes import count_passes
from thesis_kit.randomness import ImageRandom

SHAPE, K, N = (2, 4, 4), 5, 12
EPS = {"linf": 0.06, "l2": 0.2}
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


def network(k: int = K, seed: int = 0) -> nn.Module:
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


# Losses of one image, from its logits z.


def ce(z: torch.Tensor, y: int) -> torch.Tensor:
    return -(z[y] - torch.log(sum(torch.exp(value) for value in z)))


def rival(z: torch.Tensor, y: int) -> torch.Tensor:
    return max(z[c] for c in range(len(z)) if c != y)


def margin(z: torch.Tensor, y: int) -> torch.Tensor:
    return rival(z, y) - z[y]


def dlr(z: torch.Tensor, y: int) -> torch.Tensor:
    ordered = sorted(z, reverse=True)
    return -(z[y] - rival(z, y)) / (ordered[0] - ordered[2])


def dlr_toward(z: torch.Tensor, y: int, t: int) -> torch.Tensor:
    if len(z) == 2:
        return -(z[y] - z[t])
    ordered = sorted(z, reverse=True)
    low, lower = ordered[1:3] if len(z) == 3 else ordered[2:4]
    return -(z[y] - z[t]) / (ordered[0] - (low + lower) / 2)


# Points are flat lists of numbers.


def evaluate(model: nn.Module, point: list[float], loss) -> tuple[float, list[float], int]:
    """Loss, its gradient and the predicted class at one point."""
    x = torch.tensor(point, dtype=torch.float64).view(1, *SHAPE).requires_grad_()
    z = model(x)[0]
    value = loss(z)
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient.flatten().tolist(), int(z.argmax())


def unit(v: list[float], norm: str) -> list[float]:
    if norm == "linf":
        return [float(np.sign(value)) for value in v]
    length = math.sqrt(sum(value**2 for value in v))
    return [value / length for value in v]


def ahead(point: list[float], step: float, direction: list[float]) -> list[float]:
    return [p + step * d for p, d in zip(point, direction, strict=True)]


def project(point: list[float], x: list[float], eps: float, norm: str) -> list[float]:
    delta = [p - c for p, c in zip(point, x, strict=True)]
    if norm == "linf":
        delta = [min(max(d, -eps), eps) for d in delta]
    else:
        length = math.sqrt(sum(d**2 for d in delta))
        delta = [d * eps / length for d in delta] if length > eps else delta
    return [min(max(c + d, 0.0), 1.0) for c, d in zip(x, delta, strict=True)]


def start(random: ImageRandom, x: list[float], eps: float, norm: str) -> list[float]:
    """Uniform in the ball, with the numbers of the image's own stream, clipped to the pixel range."""
    if norm == "linf":
        delta = [eps * (2 * u - 1) for u in random.uniform(*SHAPE, dtype=torch.float64)[0].flatten().tolist()]
    else:
        direction = unit(random.normal(*SHAPE, dtype=torch.float64)[0].flatten().tolist(), norm)
        radius = eps * random.uniform(1, dtype=torch.float64).item() ** (1 / len(x))
        delta = [radius * value for value in direction]
    return [min(max(c + d, 0.0), 1.0) for c, d in zip(x, delta, strict=True)]


def plain_pgd(model, x, loss, eps, norm, steps, step_size, random) -> list[float]:
    """Madry et al. 2018: x_{t+1} = Π(x_t + α · unit(∇ loss))."""
    point = start(random, x, eps, norm)
    for _ in range(steps):
        _, gradient, _ = evaluate(model, point, loss)
        point = project(ahead(point, step_size, unit(gradient, norm)), x, eps, norm)
    return point


def plain_checkpoints(steps: int) -> list[int]:
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    return sorted({math.ceil(round(share * steps, 9)) for share in p})


def plain_apgd(model, x, loss, reached, eps, norm, steps, random) -> tuple[list[float], float, bool]:
    """Croce and Hein 2020, Algorithm 1, with whole histories; ends early where the goal is reached."""
    w, alpha, rho = plain_checkpoints(steps), 0.75, 0.75
    xs = [start(random, x, eps, norm)]  # x^(k); an entry is overwritten where the search returns to x_max
    fs, gradients, labels = ([seen] for seen in evaluate(model, xs[0], loss))
    if reached(labels[0]):
        return xs[0], fs[0], True
    x_max, f_max, gradient_max = xs[0], [fs[0]], gradients[0]  # f_max after each step
    etas, rises = [2 * eps], []  # η^(k), in force at step k + 1; whether step k + 1 raised f
    for k in range(steps):
        z = project(ahead(xs[k], etas[k], unit(gradients[k], norm)), x, eps, norm)
        if k > 0:
            mixed = [
                now + alpha * (new - now) + (1 - alpha) * (now - old)
                for new, now, old in zip(z, xs[k], xs[k - 1], strict=True)
            ]
            z = project(mixed, x, eps, norm)
        f, gradient, label = evaluate(model, z, loss)
        if reached(label):
            return z, f, True
        rises.append(f > fs[k])
        if f > f_max[-1]:
            x_max, gradient_max = z, gradient
        f_max.append(max(f, f_max[-1]))
        xs.append(z), fs.append(f), gradients.append(gradient), etas.append(etas[k])
        if k + 1 in w:
            now, before = k + 1, w[w.index(k + 1) - 1]
            first = sum(rises[before:now]) < rho * (now - before)
            # η at the last checkpoint is the one in force before it decided, as it is now
            second = etas[now] == etas[max(before - 1, 0)] and f_max[now] == f_max[before]
            if first or second:
                etas[now], xs[now], fs[now], gradients[now] = etas[now] / 2, x_max, f_max[now], gradient_max
    return x_max, f_max[-1], False


def best_run(runs) -> tuple[list[float], float, bool]:
    """The first run that reaches the goal, else the one of highest loss; later runs are not even started."""
    best = (None, -math.inf, False)
    for run in runs:
        best = run if run[2] or run[1] > best[1] else best
        if best[2]:
            break
    return best


def assert_same_points(found: torch.Tensor, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(found.flatten(1).numpy(), np.array(expected), rtol=0, atol=1e-9)


def rows(x: torch.Tensor, y: torch.Tensor) -> list[tuple[int, list[float], int]]:
    return list(zip(range(len(y)), x.flatten(1).tolist(), y.tolist(), strict=True))


@both_norms
@pytest.mark.parametrize("loss", [ce, margin, dlr])
def test_pgd(norm, loss):
    model = network()
    x, y = images(model)
    eps, random = EPS[norm], streams()
    found = pgd(model, x, y, eps=eps, norm=norm, steps=10, step_size=eps / 3, loss=loss.__name__, generator=random)
    expected = [
        plain_pgd(model, row, partial(loss, y=label), eps, norm, 10, eps / 3, random.fork(0)[i : i + 1])
        for i, row, label in rows(x, y)
    ]
    assert_same_points(found, expected)


@both_norms
def test_pgd_with_restarts_and_targets(norm):
    model = network()
    x, y = images(model)
    target, eps, random = (y + 2) % K, 2 * EPS[norm], streams()
    found = pgd(model, x, y, eps=eps, norm=norm, steps=6, restarts=4, target=target, generator=random)

    def run(i, row, t, restart):
        def loss(z):
            return -ce(z, t)

        point = plain_pgd(model, row, loss, eps, norm, 6, eps / 4, random.fork(restart)[i : i + 1])
        value, _, label = evaluate(model, point, loss)
        return point, value, label == t

    best = [best_run(run(i, row, t, restart) for restart in range(4)) for i, row, t in rows(x, target)]
    assert_same_points(found, [point for point, _, _ in best])
    assert 0 < sum(hit for _, _, hit in best) < N, "both kinds of end should occur"


@both_norms
def test_fgsm(norm):
    model = network()
    x, y = images(model)
    found = fgsm(model, x, y, eps=EPS[norm], norm=norm)
    expected = []
    for _, row, label in rows(x, y):
        _, gradient, _ = evaluate(model, row, partial(ce, y=label))
        expected.append(project(ahead(row, EPS[norm], unit(gradient, norm)), row, EPS[norm], norm))
    assert_same_points(found, expected)


def plain_untargeted(model, loss, eps, norm, steps, random, i, row, label, restart):
    return plain_apgd(
        model, row, partial(loss, y=label), lambda c: c != label, eps, norm, steps, random.fork(restart)[i : i + 1]
    )


@both_norms
@pytest.mark.parametrize("loss", [ce, dlr])
@pytest.mark.parametrize("steps", [1, 9, 60])
def test_apgd(norm, loss, steps):
    model = network()
    x, y = images(model)
    eps, random = EPS[norm], streams()
    found = apgd(model, x, y, eps=eps, norm=norm, steps=steps, loss=loss.__name__, generator=random)
    run = partial(plain_untargeted, model, loss, eps, norm, steps, random)
    ends = [run(i, row, label, restart=0) for i, row, label in rows(x, y)]
    assert_same_points(found, [point for point, _, _ in ends])
    if steps == 60:
        assert 0 < sum(hit for _, _, hit in ends) < N, "both kinds of end should occur"


@both_norms
def test_apgd_with_restarts(norm):
    model = network()
    x, y = images(model)
    eps, random = EPS[norm] / 2, streams()
    found = apgd(model, x, y, eps=eps, norm=norm, steps=12, restarts=3, generator=random)
    run = partial(plain_untargeted, model, ce, eps, norm, 12, random)
    best = [best_run(run(i, row, label, restart) for restart in range(3)) for i, row, label in rows(x, y)]
    assert_same_points(found, [point for point, _, _ in best])


@both_norms
@pytest.mark.parametrize("k", [2, 3, 5])
def test_targeted_apgd(norm, k):
    model = network(k, seed=k)
    x, y = images(model)
    y[0] = (y[0] + 1) % k  # misclassified from the start
    eps, random = EPS[norm], streams()
    found = apgd_targeted(model, x, y, eps=eps, norm=norm, steps=10, n_targets=3, generator=random)

    def run(i, row, label, rank, t):
        return plain_apgd(
            model, row, partial(dlr_toward, y=label, t=t), lambda c: c != label, eps, norm, 10,
            random.fork(rank)[i : i + 1],
        )  # fmt: skip

    expected = []
    for i, row, label in rows(x, y):
        logits = model(x[i : i + 1])[0].tolist()
        likeliest = sorted(range(k), key=logits.__getitem__, reverse=True)
        wrong = [c for c in likeliest if c != label][:3]
        if likeliest[0] == label:
            row, _, _ = best_run(run(i, row, label, rank, t) for rank, t in enumerate(wrong))
        expected.append(row)
    assert_same_points(found, expected)


def linear(k: int, ahead: float = 40.0) -> tuple[nn.Module, torch.Tensor]:
    """Logits W x + b with class 0 far ahead, and the weights."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(math.prod(SHAPE), k).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
        layer.bias.zero_()
        layer.bias[0] = ahead
    return nn.Sequential(nn.Flatten(), layer), layer.weight.detach()


def inner_images(n: int = 6):
    """Images of class 0 whose pixels are far from the ends of the range."""
    generator = torch.Generator().manual_seed(4)
    x = 0.35 + 0.3 * torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.zeros(n, dtype=torch.int64)


def gap_rise(model: nn.Module, x: torch.Tensor, x_adv: torch.Tensor, c: int) -> torch.Tensor:
    """By how much z_c − z_0 rose."""
    with torch.no_grad():
        z, z_adv = model(x), model(x_adv)
    return (z_adv[:, c] - z_adv[:, 0]) - (z[:, c] - z[:, 0])


def optimum(weight: torch.Tensor, c: int, eps: float, norm: str) -> float:
    """ε times the dual norm of w_c − w_0."""
    return eps * (weight[c] - weight[0]).norm(p=1 if norm == "linf" else 2).item()


GRADIENT_ATTACKS = {
    "fgsm": partial(fgsm, loss="margin"),
    "pgd": partial(pgd, loss="margin", steps=100),
    "pgd ce": partial(pgd, steps=100),
    "apgd": partial(apgd, loss="margin"),
    "apgd dlr": partial(apgd, loss="dlr"),
    "apgd targeted": apgd_targeted,
}


@both_norms
@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_optimum_on_a_linear_model(name, norm):
    """Away from the pixel bounds the logit gap closes by exactly ε · ‖w_1 − w_0‖ in the dual norm."""
    model, weight = linear(2, ahead=15 if "ce" in name else 40)
    x, y = inner_images()
    eps = {"linf": 0.1, "l2": 0.3}[norm]
    x_adv = GRADIENT_ATTACKS[name](model, x, y, eps=eps, norm=norm, generator=streams(len(x)))
    expected = torch.full((len(x),), optimum(weight, 1, eps, norm), dtype=torch.float64)
    torch.testing.assert_close(gap_rise(model, x, x_adv, 1), expected, rtol=1e-6, atol=0)


@both_norms
def test_optimum_of_a_target_on_a_linear_model(norm):
    model, weight = linear(4)
    x, y = inner_images()
    eps, target = {"linf": 0.03, "l2": 0.1}[norm], torch.full((len(x),), 2)

    def lag(logits, c):
        return logits[:, 0] - logits.gather(1, c[:, None])[:, 0]

    x_adv = pgd(model, x, y, eps=eps, norm=norm, steps=100, loss=lag, target=target, generator=streams(len(x)))
    expected = torch.full((len(x),), optimum(weight, 2, eps, norm), dtype=torch.float64)
    torch.testing.assert_close(gap_rise(model, x, x_adv, 2), expected, rtol=1e-6, atol=0)


def test_square_finds_the_linf_optimum_of_a_linear_model():
    """Its last squares are single pixels, one sign a channel; on a linear model nothing can trap it."""
    model, weight = linear(2)
    x, y = inner_images(3)
    x_adv = square(model, x, y, eps=0.1, queries=1500, generator=streams(len(x)))
    expected = torch.full((len(x),), optimum(weight, 1, 0.1, "linf"), dtype=torch.float64)
    torch.testing.assert_close(gap_rise(model, x, x_adv, 1), expected, rtol=1e-9, atol=0)


def test_square_approaches_the_l2_optimum_of_a_linear_model():
    model, weight = linear(2)
    x, y = inner_images(3)
    x_adv = square(model, x, y, eps=0.3, norm="l2", queries=1500, generator=streams(len(x)))
    assert (gap_rise(model, x, x_adv, 1) > 0.6 * optimum(weight, 1, 0.3, "l2")).all()
    length = (x_adv - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(length, torch.full_like(length, 0.3), rtol=1e-9, atol=0)


class Register(nn.Module):
    """Knows its images by their first pixel, counts their queries, and gives way at the query told."""

    def __init__(self, marks: torch.Tensor, gives_way: list[int]):
        super().__init__()
        self.marks, self.gives_way, self.counts = marks.tolist(), gives_way, Counter()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        logits = torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)
        for row, mark in enumerate(x[:, 0, 0, 0].tolist()):
            which = self.marks.index(mark)
            self.counts[which] += 1
            if self.counts[which] >= self.gives_way[which]:
                logits[row] = torch.tensor([0.0, 1.0])
        return logits


@both_norms
@pytest.mark.parametrize("queries", [1, 2, 60])
def test_square_counts_its_queries(norm, queries):
    """Image i, turned at its q_i-th query, costs exactly min(q_i, queries); the initial point is the first."""
    gives_way = [1, 2, 7, 59, 60, 61, 10_000]
    x = torch.linspace(0.1, 0.9, len(gives_way))[:, None, None, None].repeat(1, 1, 5, 5)
    model = Register(x[:, 0, 0, 0], gives_way)
    square(model, x, torch.zeros(len(x), dtype=torch.int64), eps=0, norm=norm, queries=queries)
    assert [model.counts[i] for i in range(len(x))] == [min(q, queries) for q in gives_way]


@pytest.fixture(scope="module")
def trained():
    """A small network trained for a moment on handwritten digits, and digits it has not seen."""
    bunch = load_digits()
    x, y = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.tensor(bunch.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 32), nn.ReLU(), nn.Linear(32, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(6):
            for index in torch.randperm(1500).split(50):
                optimizer.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()
    return model.eval(), x[1500:1650], y[1500:1650]


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).double().mean().item()


@both_norms
def test_square_lowers_accuracy(trained, norm):
    model, x, y = trained
    knobs = {"eps": {"linf": 0.12, "l2": 0.7}[norm], "norm": norm, "generator": streams(len(x))}
    left = [accuracy(model, square(model, x, y, queries=queries, **knobs), y) for queries in (1, 50, 500)]
    clean = accuracy(model, x, y)
    assert clean > 0.85
    assert clean >= left[0] > left[1] > left[2]
    assert left[2] < clean - 0.3


@both_norms
def test_stronger_attacks_leave_fewer_images(trained, norm):
    model, x, y = trained
    knobs = {"eps": {"linf": 0.08, "l2": 0.35}[norm], "norm": norm, "generator": streams(len(x))}
    left = {
        "fgsm": accuracy(model, fgsm(model, x, y, **knobs), y),
        "pgd": accuracy(model, pgd(model, x, y, **knobs), y),
        "apgd": accuracy(model, apgd(model, x, y, steps=50, **knobs), y),
        "targeted": accuracy(model, apgd_targeted(model, x, y, steps=50, **knobs), y),
    }
    assert accuracy(model, x, y) > left["fgsm"] >= left["pgd"] >= left["apgd"] - 0.01
    assert left["apgd"] >= left["targeted"]


def test_fooled_images_leave_the_batch(trained):
    model, x, y = trained
    with count_passes(model) as spent:
        x_adv = apgd(model, x, y, eps=0.1, steps=50, generator=streams(len(x)))
    survivors = accuracy(model, x_adv, y) * len(x)
    assert 51 * survivors <= spent.forward_images < 0.7 * 51 * len(x)
