"""Structural similarity against the paper's formula, written out window by window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thesis_kit.similarity import ssim


def images(n=2, channels=3, height=13, width=15, seed=0, dtype=torch.float32):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_windows(x, y):
    """Equation 13 of Wang et al. 2004 in every whole window, and the mean over windows and channels."""
    weights = np.array([[np.exp(-((r - 5) ** 2 + (s - 5) ** 2) / (2 * 1.5**2)) for s in range(11)] for r in range(11)])
    weights /= weights.sum()
    found = []
    for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True):
        index = []
        for c in range(a.shape[0]):
            for r in range(a.shape[1] - 10):
                for s in range(a.shape[2] - 10):
                    p, q = a[c, r : r + 11, s : s + 11], b[c, r : r + 11, s : s + 11]
                    mp, mq = (weights * p).sum(), (weights * q).sum()
                    vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                    both = (weights * (p - mp) * (q - mq)).sum()
                    alike = (2 * mp * mq + 0.0001) * (2 * both + 0.0009)
                    index.append(alike / ((mp**2 + mq**2 + 0.0001) * (vp + vq + 0.0009)))
        found.append(np.mean(index))
    return torch.tensor(found)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("noise", [1.0, 0.1, 0.01])
def test_it_is_the_papers_formula(noise, dtype, within):
    x = images(dtype=dtype)
    y = torch.lerp(x, images(seed=1, dtype=dtype), noise)
    found = ssim(x, y)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), by_windows(x, y), rtol=0, atol=within)


def test_smooth_gray_and_smallest_images_too():
    slope = torch.linspace(0, 1, 11).expand(1, 1, 11, 11)
    flat = torch.full((1, 1, 11, 11), 0.25)
    for y in (slope.transpose(2, 3), 1 - slope, flat, torch.zeros(1, 1, 11, 11)):
        assert torch.allclose(ssim(slope, y).double(), by_windows(slope, y), rtol=0, atol=1e-5)
    assert ssim(slope, 1 - slope) < -0.5  # the opposite of an image is less like it than nothing is
    assert ssim(flat, flat + 0.5).item() == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.0625 + 0.5625 + 1e-4), abs=2e-4)


def test_it_is_symmetric_and_one_for_equal_images_only():
    x, y = images(), images(seed=1)
    assert torch.allclose(ssim(x, y), ssim(y, x), rtol=0, atol=1e-6)
    assert torch.allclose(ssim(x, x), torch.ones(2), rtol=0, atol=1e-6)
    touched = x.clone()
    touched[1, 2, 6, 7] = 1 - touched[1, 2, 6, 7]
    assert ssim(x, touched)[0].item() == pytest.approx(1, abs=1e-6)
    assert ssim(x, touched)[1] < 0.999


def test_more_noise_is_less_alike():
    x, other = images(), images(seed=1)
    found = torch.stack([ssim(x, torch.lerp(x, other, share)) for share in (0.0, 0.1, 0.3, 0.6, 1.0)])
    assert (found.diff(dim=0) < -0.01).all()


def test_no_images_are_no_trouble():
    assert ssim(images(0), images(0)).shape == (0,)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("x", "y", "error", "said"),
    [
        (images(), images(width=16), ValueError, r"one shape with at least 11 × 11 pixels, got \(2, 3, 13, 15\) and"),
        (images(), images(1), ValueError, "images of one shape"),
        (images(height=10), images(height=10), ValueError, "at least 11 × 11"),
        (images(width=10), images(width=10), ValueError, "at least 11 × 11"),
        (images() + 1, images(), ValueError, r"pixels must lie in \[0, 1\]"),
        (images(), -images(), ValueError, r"pixels must lie in \[0, 1\]"),
        (images(), images() * float("nan"), ValueError, "NaN"),
        (images()[0], images()[0], ValueError, r"shape \(n, c, h, w\)"),
        (images(), (images() * 255).byte(), TypeError, "floating-point"),
        (images(), images().double(), ValueError, "float64"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_words(x, y, error, said):
    with pytest.raises(error, match=said):
        ssim(x, y)
