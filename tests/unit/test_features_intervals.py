"""Intervals of numbers about units: against closed forms, for coverage, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from thesis_kit import features
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.ledger.statistics import student_interval


def mean_of(a: torch.Tensor):
    return lambda chosen: a[chosen].mean().item()


def test_of_a_mean_with_an_image_a_group_it_is_students():
    a = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = features.over_images(mean_of(a), 12, parts=12)
    low, high = student_interval(a.tolist())
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.value == pytest.approx(a.mean().item())


def test_it_covers_the_strongest_images_mean_likeness():
    """Of unrelated activations and embeddings the truth is 0, and nearly all of many intervals hold it."""
    held, generator = 0, torch.Generator().manual_seed(1)
    for seed in range(40):
        a, e = (torch.randn(80, width, generator=generator) for width in (12, 6))

        def alike(chosen, a=a, e=e):
            return features.scores.monosemanticity(a[chosen], e[chosen], 8).mean().item()

        found = features.over_images(alike, 80, seed=seed)
        held += found.low <= 0 <= found.high
    assert held >= 34


def test_the_same_seed_gives_the_same_groups_and_all_images_are_seen_in_order():
    asked = []
    for _ in range(2):
        asked.append(seen := [])
        features.over_images(lambda chosen, seen=seen: seen.append(chosen.tolist()) or 0.0, 7, parts=3, seed=5)
    assert asked[0] == asked[1]
    whole, *without = asked[0]
    assert whole == list(range(7))
    assert sorted(k for some in without for k in set(range(7)) - set(some)) == whole
    assert all(some == sorted(some) for some in without)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="3 images cannot be cut into 4 groups"):
        features.over_images(lambda chosen: 0.0, 3, parts=4)
    with pytest.raises(NonFiniteOutput, match="dead units"):
        features.over_images(lambda chosen: math.nan, 4, parts=2)
    assert str(features.Estimate(0.434, -0.001, 0.46)) == "0.43 (0.00 to 0.46)"
