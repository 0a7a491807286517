"""Structural similarity against the paper's formula, window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thesis_kit.similarity import ssim


def plain(x, y):
    """Eq. 13 of Wang et al. 2004 for two images (h, w), over whole 11 × 11 windows, in float64."""
    line = [math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)]
    window = np.outer(line, line) / np.sum(np.outer(line, line))
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = np.sum(window * a), np.sum(window * b)
            va, vb = np.sum(window * (a - ma) ** 2), np.sum(window * (b - mb) ** 2)
            both = np.sum(window * (a - ma) * (b - mb))
            top = (2 * ma * mb + 0.01**2) * (2 * both + 0.03**2)
            values.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
    return np.mean(values)


def pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, 13, 15, generator=generator, dtype=torch.float64)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_it_is_the_papers_formula():
    x, y = pair()
    for i, found in enumerate(ssim(x, y).tolist()):
        assert found == pytest.approx(np.mean([plain(x[i, c].numpy(), y[i, c].numpy()) for c in range(3)]), abs=1e-12)


def test_it_is_symmetric_and_one_for_equal_images():
    x, y = pair()
    assert torch.allclose(ssim(x, y), ssim(y, x))
    assert ssim(x, x).tolist() == pytest.approx([1, 1])
    assert (ssim(x, 1 - x) < ssim(x, y)).all()


@pytest.mark.bad_input
def test_images_that_cannot_be_compared_are_refused():
    x, y = pair()
    with pytest.raises(ValueError, match="of one shape with at least 11 × 11"):
        ssim(x, y[:1])
    with pytest.raises(ValueError, match="at least 11 × 11"):
        ssim(x[..., :10], y[..., :10])
    with pytest.raises(ValueError, match="pixels must lie"):
        ssim(x, y + 1)
