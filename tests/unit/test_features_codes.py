"""Sparse codes: planted directions are found, few are used at a time, and what cannot be meant is refused."""

from __future__ import annotations

import pytest
import torch

from thesis_kit.checks import NonFiniteOutput
from thesis_kit.features import codes


def planted(n: int = 4000, width: int = 8, u: int = 6, seed: int = 0):
    """Tokens, each the sum of two of ``width`` directions in ``u`` dimensions."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(width, u, generator=draw), dim=1)
    first = torch.randint(width, (n,), generator=draw)
    second = (first + torch.randint(1, width, (n,), generator=draw)) % width
    strength = 1 + torch.rand(n, 2, generator=draw)
    return strength[:, :1] * directions[first] + strength[:, 1:] * directions[second], directions


def test_it_explains_far_more_than_random_directions_do():
    a, _ = planted()
    learned, drawn = (codes.learn(a, 16, 2, steps=steps, batch=256, lr=1e-2) for steps in (400, 0))
    assert learned.explained(a) > 0.8
    assert learned.explained(a) > drawn.explained(a) + 0.3


def test_a_token_uses_k_codes_at_most_and_directions_have_length_one():
    a, _ = planted(500)
    found = codes.learn(a, 16, 3, steps=20)
    code = found.encode(a.view(5, 100, 6))
    assert code.shape == (5, 100, 16)
    assert (code >= 0).all()
    assert (code > 0).sum(dim=2).max() <= 3
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(16))
    torch.testing.assert_close(found.decode(code), found.decode(code.flatten(0, 1)).view(5, 100, 6))


def test_the_share_explained_is_one_minus_what_is_lost():
    a, _ = planted(200)
    found = codes.learn(a, 8, 2, steps=5)
    lost = (found.decode(found.encode(a)) - a).var(dim=0, correction=0) + (found.decode(found.encode(a)) - a).mean(
        dim=0
    ).square()
    assert found.explained(a) == pytest.approx(1 - (lost.sum() / a.var(dim=0, correction=0).sum()).item(), abs=1e-5)


def test_the_same_seed_gives_the_same_codes_and_leaves_the_callers_randomness():
    a, _ = planted(300)
    before = torch.random.get_rng_state()
    one, other, third = (codes.learn(a, 8, 2, steps=3, seed=seed).encode(a) for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.bad_input
def test_what_cannot_be_meant_is_refused():
    a, _ = planted(50)
    with pytest.raises(ValueError, match="at most 4 can be used"):
        codes.learn(a, 4, 5)
    with pytest.raises(ValueError, match="all the same"):
        codes.learn(torch.ones(9, 3), 4, 1)
    with pytest.raises(ValueError, match=r"tokens must have shape \(n, u\), got \(1, 50"):
        codes.learn(a[None], 4, 1)
    with pytest.raises(TypeError, match="tokens must be a floating-point tensor"):
        codes.learn(a.long(), 4, 1)
    with pytest.raises(ValueError, match=r"tokens must have 3 units as their last dimension, got \(2, 4\)"):
        codes.learn(torch.rand(9, 3), 4, 1, steps=0).encode(torch.rand(2, 4))
    a[0, 0] = torch.nan
    with pytest.raises(NonFiniteOutput, match="tokens contain NaN"):
        codes.learn(a, 4, 1)


def test_tokens_may_have_a_graph_and_another_precision():
    a = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = codes.learn(a * 2, 8, 2, steps=3, batch=8)
    assert a.grad is None
    assert torch.equal(found.encode(a.detach().double()), found.encode(a.detach()))
    with pytest.raises(ValueError, match="one token alone has no variance"):
        found.explained(a[:1].detach())
