"""The attacks' losses: values by hand, what they are blind to, and the odd numbers of classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thesis_kit.attacks import cross_entropy, dlr, margin, targeted_dlr

LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0, 0.0], [0.5, 4.0, -2.0, 1.0, 3.0]], dtype=torch.float64)
Y = torch.tensor([0, 0])


def random_logits(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_values_by_hand():
    assert margin(LOGITS, Y).tolist() == [-1, 3.5]
    torch.testing.assert_close(dlr(LOGITS, Y), torch.tensor([-1 / 2, 3.5 / 3]).double())
    target = torch.tensor([1, 1])
    expected = torch.tensor([-2 / (3 - (1 + 0) / 2), 3.5 / (4 - (1 + 0.5) / 2)]).double()
    torch.testing.assert_close(targeted_dlr(LOGITS, Y, target), expected)
    torch.testing.assert_close(cross_entropy(LOGITS, Y), LOGITS.logsumexp(dim=1) - LOGITS[:, 0])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(k=st.integers(3, 12), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_dlr_sees_neither_scale_nor_shift(k, scale, shift, seed):
    logits, y = random_logits(6, k, seed), torch.arange(6) % k
    target = (y + 1) % k
    for loss in (dlr, lambda z, y: targeted_dlr(z, y, target)):
        torch.testing.assert_close(loss(scale * logits + shift, y), loss(logits, y), rtol=1e-6, atol=1e-7)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(k=st.integers(2, 12), seed=st.integers(0, 99))
def test_a_positive_margin_is_a_wrong_label(k, seed):
    logits, y = random_logits(20, k, seed), torch.arange(20) % k
    wrong = logits.argmax(dim=1) != y
    assert torch.equal(margin(logits, y) > 0, wrong)
    assert torch.equal(dlr(logits, y) > 0, wrong)


@pytest.mark.parametrize("k", [2, 3, 4, 10])
def test_targeted_dlr_has_a_slope_for_every_target(k):
    """With fewer classes than its formula needs, a naive denominator would cancel the numerator."""
    logits = random_logits(1, k).sort(dim=1, descending=True).values.requires_grad_()
    for t in range(1, k):
        (slope,) = torch.autograd.grad(targeted_dlr(logits, torch.tensor([0]), torch.tensor([t])).sum(), logits)
        assert slope[0, t] > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_ties_give_finite_values_and_slopes(k, dtype):
    tied = torch.zeros(4, k)
    tied[1] = 5
    tied[2, 0], tied[3, 0] = -1, -100  # the label alone is below
    y, target = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    for loss in (margin, dlr, lambda z, y: targeted_dlr(z, y, target)):
        logits = tied.to(dtype).requires_grad_()
        value = loss(logits, y)
        (slope,) = torch.autograd.grad(value.sum(), logits)
        assert torch.isfinite(value).all()
        assert torch.isfinite(slope).all()
