"""Training on noisy images: which noise, how much of it, and that it makes certificates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thesis_kit import training
from thesis_kit.certification import certify
from thesis_kit.data import Part
from thesis_kit.training.gaussian import Gaussian


class Watching(nn.Module):
    """A linear classifier that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(64, 2), []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.layer(x.flatten(1))


def gray(n=64):
    return Part(torch.full((n, 1, 8, 8), 0.5), torch.arange(n) % 2, torch.arange(n))


def noise_of(seed=0, **knobs):
    model = Watching()
    training.train(model, gray(), Gaussian(**knobs), updates=20, batch_size=64, lr=0.01, seed=seed, progress=False)
    return torch.stack(model.seen) - 0.5  # (updates, n, 1, 8, 8)


def test_the_noise_is_normal_fresh_and_not_clipped():
    noise = noise_of(sigma=0.4)
    assert noise.shape == (20, 64, 1, 8, 8)
    assert noise.std().item() == pytest.approx(0.4, rel=0.01)
    assert abs(noise.mean().item()) < 0.4 * 4 / noise.numel() ** 0.5
    assert (noise.abs() > 0.8).double().mean().item() == pytest.approx(0.0455, abs=0.004)  # beyond two sigma
    flat = noise.flatten(2).flatten(0, 1)
    assert len(torch.unique(flat, dim=0)) == len(flat)
    assert torch.equal(noise_of(sigma=0.4), noise)
    assert not torch.equal(noise_of(sigma=0.4, seed=1), noise)


def test_a_ramp_rises_from_nothing_to_sigma():
    spread = noise_of(sigma=0.4, ramp=0.5).flatten(1).std(dim=1)
    expected = 0.4 * (torch.arange(20) / 10).clamp(max=1)
    assert torch.allclose(spread, expected, rtol=0.06)


def test_noise_in_training_makes_certificates():
    """Two classes a small step apart in every pixel: noise is no harm to a classifier that knows it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 2
    x = (0.45 + 0.1 * y)[:, None, None, None] + 0.02 * torch.randn(400, 1, 8, 8, generator=generator)
    data = Part(x.clamp(0, 1), y, torch.arange(400))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    training.train(model, data, Gaussian(0.25), updates=200, batch_size=64, lr=0.1, progress=False)
    found = certify(model, data.x[:50], sigma=0.25, n=500)
    assert found.accuracy(data.y[:50], radius=0.1) > 0.9


@pytest.mark.bad_input
@pytest.mark.parametrize("knobs", [{"sigma": 0}, {"sigma": -1}, {"sigma": float("inf")}, {"sigma": 1, "ramp": 1.5}])
def test_what_cannot_be_meant_is_refused(knobs):
    with pytest.raises(ValueError, match="must"):
        Gaussian(**knobs)
