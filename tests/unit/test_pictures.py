"""Measures of synthesized images: verifiers' votes, kernel distance, frequencies, regions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from thesis_kit.checks import NonFiniteOutput
from thesis_kit.evaluation import class_regions, high_frequency_share, kid, kid_of_images, recognized


class Bright(nn.Module):
    """Names class 1 where an image's mean is above a half, class 0 elsewhere."""

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


class Dark(Bright):
    def forward(self, x):
        return -super().forward(x)


def test_verifiers_vote():
    x, y = torch.stack([torch.full((3, 4, 4), v) for v in (0.9, 0.1, 0.8)]), torch.tensor([1, 1, 0])
    assert recognized([Bright()], x, y).tolist() == [1, 0, 0]
    assert recognized([Bright(), Dark()], x, y).tolist() == [0.5, 0.5, 0.5]
    assert recognized([Bright(), Bright(), Dark()], x, y, batch_size=2).tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    with pytest.raises(ValueError, match="no verifier to ask"):
        recognized([], x, y)


def slow_kid(a, b):
    def k(u, v):
        return (float(u @ v) / len(u) + 1) ** 3

    n, m = len(a), len(b)
    one = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    two = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return one + two - 2 * sum(k(u, v) for u in a for v in b) / (n * m)


def test_the_kernel_distance_is_the_unbiased_one():
    a, b = torch.randn(5, 4, dtype=torch.float64), 0.3 + torch.randn(7, 4, dtype=torch.float64)
    assert kid(a, b) == pytest.approx(slow_kid(a, b), rel=1e-9)


def test_the_kernel_distance_is_zero_on_average_for_sets_of_one_kind_and_not_for_others():
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 30, 8, generator=generator) for _ in range(60)]
    same = torch.tensor([kid(a, b) for a, b in draws])
    assert same.mean().abs() < 3 * same.std() / math.sqrt(len(same))
    other = torch.tensor([kid(a, b + 0.5) for a, b in draws])
    assert other.mean() > 5 * same.std()
    with pytest.raises(ValueError, match="at least two images"):
        kid(torch.randn(1, 3), torch.randn(4, 3))


def test_the_kernel_distance_of_balanced_sets_is_zero_on_average_too():
    """Two images of each of four classes far apart: pairs of one class are rarer within a set than between sets."""
    generator, y = torch.Generator().manual_seed(0), torch.arange(4).repeat_interleave(2)
    centers = 3 * torch.randn(4, 8, generator=generator)
    draws = [centers[y] + torch.randn(2, 8, 8, generator=generator) for _ in range(200)]
    plain, weighed = (
        torch.tensor([kid(a, b, classes=classes) for a, b in draws]) for classes in (None, (y, y))
    )  # fmt: skip
    error = weighed.std() / math.sqrt(len(weighed))
    assert weighed.mean().abs() < 3 * error
    assert plain.mean() < -10 * error
    moved = torch.tensor([kid(a, b + 1, classes=(y, y)) for a, b in draws])
    assert moved.mean() > 10 * error


def test_the_kernel_distance_by_class_agrees_with_the_plain_one_where_classes_do_not_matter():
    a, b = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    one = torch.zeros(6, dtype=torch.int64)
    assert kid(a, b, classes=(one, one)) == pytest.approx(kid(a, b), rel=1e-9)
    with pytest.raises(ValueError, match="equally many images of every class, and at least two"):
        kid(a, b, classes=(torch.tensor([0, 0, 0, 0, 0, 1]), one))


def test_the_kernel_distance_of_images_uses_penultimate_features():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    a, b = torch.rand(8, 3, 2, 2), torch.rand(9, 3, 2, 2)
    expected = kid(network[:3](a).detach(), network[:3](b).detach())
    assert kid_of_images(network, a, b, batch_size=3) == pytest.approx(expected, rel=1e-5)


def test_waves_count_as_high_above_half_of_nyquist():
    places = torch.arange(32.0)

    def wave(cycles):
        return (0.5 + 0.4 * torch.sin(2 * math.pi * cycles * places / 32)).expand(1, 1, 32, 32)

    shares = [high_frequency_share(wave(c)).item() for c in (1, 7, 9, 15)]
    assert shares == pytest.approx([0, 0, 1, 1], abs=1e-6)
    assert high_frequency_share(torch.full((1, 3, 8, 8), 0.5)).item() == 0
    noise = high_frequency_share(torch.rand(20, 1, 64, 64)).mean()
    assert noise == pytest.approx(1 - math.pi / 4 * 0.25, abs=0.01)  # white noise: the area outside a circle


def test_separate_places_are_counted_apart():
    x = torch.full((4, 1, 32, 32), 0.5)
    x[0, :, 2:8, 2:8] = 1.0
    x[1, :, 2:8, 2:8] = x[1, :, 24:30, 24:30] = 1.0
    x[2, :, 2:30, 2:30] = 1.0
    found = class_regions(Bright(), x, torch.tensor([1, 1, 1, 1]), window=0.25)
    assert found.tolist() == [1, 2, 1, 0]
    for knobs in ({"window": 1.0}, {"steps": 1}):
        with pytest.raises(ValueError):
            class_regions(Bright(), x, torch.ones(4, dtype=torch.int64), **knobs)


@pytest.mark.bad_input
def test_what_cannot_be_judged_is_refused():
    x, y = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 1])

    class Broken(Bright):
        def forward(self, x):
            return super().forward(x) * math.nan

    for judge in (lambda v, x, y: recognized([v], x, y), class_regions):
        with pytest.raises(NonFiniteOutput, match="NaN or infinite logits"):
            judge(Broken(), x, y)
        with pytest.raises(ValueError, match=r"classes must lie in \[0, 1\], for the model has 2 outputs; got 1 to 7"):
            judge(Bright(), x, torch.tensor([7, 1]))
    with pytest.raises(NonFiniteOutput, match="features are NaN"):
        kid(torch.full((4, 3), math.nan), torch.rand(4, 3))
    balanced, not_balanced = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    for wrong, sentence in ((not_balanced, "equally many images of every class"), (balanced[:3], "must have shape")):
        with pytest.raises(ValueError, match=sentence):
            kid(torch.rand(4, 3), torch.rand(4, 3), classes=(wrong, balanced))
    with pytest.raises(ValueError, match="pixels must lie in"):
        kid_of_images(Bright(), 255 * x, x)


@pytest.mark.parametrize(("value", "side"), [(0.7, 30), (0.3, 224), (0.1, 7)])
def test_a_flat_image_has_no_frequencies(value, side):
    assert high_frequency_share(torch.full((1, 3, side, side), value)).tolist() == [0.0]
