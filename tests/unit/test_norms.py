"""The balls: projections are nearest points, steps have unit length, starts are uniform, and rounding is undone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thesis_kit.attacks.norms import NORMS, within_ball
from thesis_kit.randomness import ImageRandom

both_norms = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@both_norms
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    eps=st.one_of(st.floats(0, 2), st.floats(0, 1e-4)),
    scale=st.floats(0, 3),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 50),
)
def test_within_ball_is_exact_in_every_dtype(norm, eps, scale, dtype, seed):
    x = noise(3, 2, 5, 4, seed=seed).add(0.5).clamp(0, 1).to(dtype)
    rough = norm.project((x + scale * noise(3, 2, 5, 4, seed=seed + 1)).to(dtype), x, eps)
    exact = within_ball(rough, x, eps, norm)
    assert exact.dtype == dtype
    assert exact.min() >= 0
    assert exact.max() <= 1
    assert (norm.size(exact.double() - x.double()) <= eps * (1 + 1e-6) + 1e-7).all()
    steps = (exact.double() - rough.double()).abs().max()
    assert steps <= 64 * torch.finfo(dtype).eps, "only rounding is undone"


@both_norms
def test_projection_is_the_nearest_point(norm):
    x = noise(20, 1, 3, 3).mul(0.1).add(0.5)
    eps = 0.05 if norm.name == "linf" else 0.1
    far = x + 0.1 * noise(20, 1, 3, 3, seed=1)
    near = norm.project(far, x, eps)
    for seed in range(2, 40):  # no other point of the ball is nearer
        other = norm.project(near + 0.02 * noise(20, 1, 3, 3, seed=seed), x, eps)
        assert ((other - far).flatten(1).norm(dim=1) >= (near - far).flatten(1).norm(dim=1) - 1e-12).all()
    torch.testing.assert_close(norm.project(near, x, eps), near)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1, 1e4])
def test_l2_steps_have_unit_length_however_small_the_gradient(dtype, scale):
    gradient = (noise(4, 3, 8, 8).clamp(-3, 3) * scale).to(dtype)
    if not gradient.any():
        pytest.skip("the dtype knows no number this small")
    lengths = NORMS["l2"].direction(gradient).double().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4).double(), rtol=0, atol=50 * torch.finfo(dtype).eps)


@both_norms
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_gradient_no_step(norm, dtype):
    assert not norm.direction(torch.zeros(2, 1, 4, 4, dtype=dtype)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_projection_of_nothing(dtype):
    x = torch.full((2, 1, 4, 4), 0.5, dtype=dtype)
    for eps in (0.0, 1e-6, 0.1):
        assert torch.equal(NORMS["l2"].project(x, x, eps), x)


def test_random_starts_are_uniform_in_the_ball():
    x, n, d = torch.full((4000, 1, 2, 2), 0.5, dtype=torch.float64), 4000, 4
    random = ImageRandom(3, torch.arange(n))
    cube = NORMS["linf"].random_start(random.fork(0), x, 0.2) - x
    assert stats.kstest(cube.flatten() / 0.4 + 0.5, "uniform").pvalue > 1e-3
    ball = (NORMS["l2"].random_start(random.fork(1), x, 0.2) - x).flatten(1)
    assert stats.kstest((ball.norm(dim=1) / 0.2) ** d, "uniform").pvalue > 1e-3
    share = (ball > 0).double().mean(dim=0)
    assert ((share - 0.5).abs() < 4 * 0.5 / n**0.5).all()
