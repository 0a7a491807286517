"""Scores of units, masks and frequencies: closed forms, plain re-implementations, and units that were planted."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from thesis_kit import features
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.features import frequency, masks, scores


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(n: int = 60, k: int = 4) -> torch.Tensor:
    return torch.arange(n) % k


# Scores


def plain_auroc(a, c):
    wins = [1.0 if p > q else 0.5 if p == q else 0.0 for p in a[c].tolist() for q in a[~c].tolist()]
    return sum(wins) / len(wins)


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    a, c = draw(40, 3).mul(3).round(), draw(40, 2, seed=1) > 0.3  # rounded: ties
    found = scores.auroc(a, c)
    for unit in range(3):
        for concept in range(2):
            assert found[unit, concept].item() == pytest.approx(plain_auroc(a[:, unit], c[:, concept]), abs=1e-12)


def test_a_planted_unit_has_an_auroc_of_one_and_a_rotation_mixes_it():
    y = classes()
    a = draw(60, 16)
    a[:, 5] = (y == 2).float()
    c = torch.nn.functional.one_hot(y).bool()
    assert scores.auroc(a, c)[5, 2] == 1
    concept, value = scores.best_concept(a, c)
    assert (concept[5], value[5]) == (2, 1)
    assert scores.auroc(features.rotated(a, 1), c)[:, 2].max() < 1
    assert scores.auroc(torch.zeros(60, 1), c)[0, 2] == 0.5


def test_within_strata_a_unit_that_sees_the_stratum_alone_is_worth_nothing():
    tint, y = torch.arange(60) % 3, torch.arange(60) // 30
    c = torch.stack([y == 1, tint == 0], dim=1)
    a = torch.stack([tint.float(), tint + 0.5 * y], dim=1)
    assert scores.auroc(a, c)[0, 1] == 0  # tint 0 is the least
    found = scores.auroc(a, c, strata=tint)
    assert found[0, 0] == 0.5
    assert found[1, 0] == 1
    assert found[:, 1].isnan().all()  # no pair within a tint differs in it
    assert scores.within(a, tint)[:, 0].abs().max() == 0


def test_the_best_of_many_concepts_has_no_head_start():
    _, value = scores.best_concept(draw(200, 50), draw(200, 100, seed=1) > 0)
    assert value.mean().item() == pytest.approx(0.5, abs=0.03)


def test_purity_of_a_planted_unit_is_one_and_of_noise_that_of_chance():
    y = classes(400, 16)
    a = torch.cat([(y == 3).float()[:, None], draw(400, 300)], dim=1)
    found = scores.purity(a, y, 20)
    assert found[0] == 1
    assert found[1:].mean().item() == pytest.approx(0.16, abs=0.01)  # the most frequent of 20 draws of 16 classes


def test_selectivity_is_one_for_one_class_and_none_for_all():
    y = classes()
    a = torch.stack([(y == 1).float(), (y == 1).float() + (y == 2), torch.ones(60)], dim=1)
    found = scores.selectivity(a, y)
    assert found[0] == 1
    assert found[1].item() == pytest.approx((1 - 1 / 3) / (1 + 1 / 3))
    assert found[2].isnan()


def test_kurtosis_has_its_closed_forms():
    rare = torch.zeros(100, 1)
    rare[0] = 1
    p = 1 / 100
    assert scores.kurtosis(rare).item() == pytest.approx((1 - 3 * p + 3 * p * p) / (p * (1 - p)))
    assert scores.kurtosis(torch.tensor([[-1.0], [1.0]] * 50)).item() == 1
    assert scores.kurtosis(draw(100_000, 1)).item() == pytest.approx(3, abs=0.1)


def plain_ms(a, e, weights=None):
    e = torch.nn.functional.normalize(e - e.mean(dim=0), dim=1)
    total, norm = 0.0, 0.0
    for i, j in combinations(a, 2):
        w = 1.0 if weights is None else (weights[i] * weights[j]).item()
        total, norm = total + w * float(e[i] @ e[j]), norm + w
    return total / norm


def test_monosemanticity_is_the_mean_cosine_of_pairs():
    a, e = draw(30, 4), draw(30, 6, seed=1)
    found = scores.monosemanticity(a, e, 5)
    published = scores.monosemanticity(a, e, None)
    for unit in range(4):
        top = a[:, unit].argsort(descending=True)[:5].tolist()
        assert found[unit].item() == pytest.approx(plain_ms(top, e), abs=1e-6)
        w = (a[:, unit] - a[:, unit].min()) / (a[:, unit].max() - a[:, unit].min())
        assert published[unit].item() == pytest.approx(plain_ms(range(30), e, w), abs=1e-6)


def one_hot(labels):
    return torch.nn.functional.one_hot(labels).float()


def test_monosemanticity_within_strata_forgets_the_stratum():
    tint, y = torch.arange(120) % 3, torch.arange(120) // 3 % 4
    e = 5.0 * one_hot(tint) @ draw(3, 8) + one_hot(y) @ draw(4, 8, seed=1)
    sees_tint, sees_class = tint + 0.01 * draw(120), (y == 1) + 0.01 * draw(120, seed=2)
    a = torch.stack([sees_tint, sees_class], dim=1)
    plain = scores.monosemanticity(a, e, 20)
    strata = scores.monosemanticity(a, e, 20, strata=tint)
    assert plain[0] > plain[1]
    assert strata[0] < 0.2
    assert strata[1].item() == pytest.approx(1, abs=1e-5)


def test_two_alternatives_are_right_wrong_or_a_tie():
    strong, weak = torch.tensor([[[1.0, 0]]]).expand(3, 2, 2), torch.tensor([[[0.0, 1]]]).expand(3, 4, 2)
    found = scores.two_alternative(torch.tensor([[2.0, 0], [0, 1], [1, 1]]), strong, weak)
    assert found.tolist() == [1, 0, 0.5]


def test_dead_units_are_told_and_have_no_score():
    a = torch.cat([draw(50, 2), torch.full((50, 1), -0.17)], dim=1)
    a[:, 2] += 1e-9 * draw(50)
    assert scores.dead(a).tolist() == [False, False, True]
    for found in (scores.purity(a, classes(50)), scores.kurtosis(a), scores.monosemanticity(a, draw(50, 3), 4)):
        assert found.isnan().tolist() == [False, False, True]


@pytest.mark.bad_input
def test_what_cannot_be_scored_is_one_sentence():
    a, y = draw(10, 3), classes(10)
    for call, message in (
        (lambda: scores.purity(a, y, 20), "there are 10 images and k is 20"),
        (lambda: scores.auroc(a, torch.ones(4, 2).bool()), r"one row an image, \(10, k\)"),
        (lambda: scores.monosemanticity(a, draw(4, 2)), r"one row an image, \(10, d\)"),
        (lambda: scores.kurtosis(a[:1]), "at least two images"),
        (lambda: scores.kurtosis(a / 0), "NaN or infinity"),
        (lambda: scores.selectivity(a, y * 0), "all images are of one"),
        (lambda: scores.kurtosis(a.long()), "activations must be a floating-point tensor"),
        (lambda: scores.purity(a[0], y), r"activations must have shape \(n, u\), got \(3,\)"),
        (lambda: scores.auroc(a, a), "concepts must be a tensor of bool"),
        (lambda: scores.auroc(a, y == 1), r"one row an image, \(10, k\), got \(10,\)"),
        (lambda: scores.auroc(a, a > 0, strata=y[:4]), r"strata must have shape \(10,\)"),
        (lambda: scores.best_concept(a, a > 0, strata=y[:4]), r"strata must have shape \(10,\)"),
        (lambda: scores.best_concept(a, y == 1), r"one row an image, \(10, k\), got \(10,\)"),
        (lambda: scores.best_concept(a[:3], a[:3] > 0), "at least two each: got 3 images"),
        (lambda: scores.monosemanticity(a, a.log(), 4), "embeddings contain NaN"),
        (lambda: scores.monosemanticity(a, a.long(), 4), "embeddings must be a floating-point tensor"),
        (lambda: scores.two_alternative(a, a[:2, None], a[:, None]), r"strong images .* \(10, m, 3\), got \(2, 1, 3\)"),
        (lambda: scores.two_alternative(a, a[:, None], a[:, None][:, :0]), r"weak images .* got \(10, 0, 3\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_purity_takes_labels_of_any_size_and_sign():
    a, y = draw(40, 3), classes(40)
    huge = torch.tensor([-7, 1 << 60, 3, -(1 << 50)])
    torch.testing.assert_close(scores.purity(a, huge[y], 10), scores.purity(a, y, 10))


# Masks


@pytest.fixture(scope="module")
def scenes():
    return DISTRIBUTIONS["scenes.v1"].draw(24, 32, seed=4)


def test_a_scene_without_its_object_is_its_background(scenes):
    empty = masks.without_object(scenes)
    outside = scenes.masks[:, 0] == 0
    shadow = (empty - scenes.images).amax(dim=1)[outside]
    assert (shadow > -1e-4).all()  # objects cast shadows and no light
    assert (shadow.abs() < 1e-4).float().mean() > 0.4
    inside = scenes.masks[:, 0] == 1
    assert (empty - scenes.images).abs().mean(dim=1)[inside].mean() > 0.2


def test_a_swapped_background_leaves_the_object(scenes):
    moved = masks.swapped(scenes, seed=1)
    inside, outside = scenes.masks[:, 0] == 1, scenes.masks[:, 0] == 0
    assert (moved - scenes.images).abs().amax(dim=1)[inside].max() < 1e-4
    changed = torch.stack([(m - x).abs().amax(dim=0)[o].max() for m, x, o in zip(moved, scenes.images, outside)])  # noqa: B905
    assert (changed > 0.01).float().mean() > 0.9
    assert torch.equal(moved, masks.swapped(scenes, seed=1))
    assert not torch.equal(moved, masks.swapped(scenes, seed=2))


def test_holes_and_cut_outs_are_what_they_say(scenes):
    x, mask = scenes.images, scenes.masks[:, 0]
    for fill in masks.FILLS:
        holed, cut = masks.hole(x, mask, fill=fill), masks.cut_out(x, mask, fill=fill)
        assert torch.equal(holed[:, 0][mask == 0], x[:, 0][mask == 0])
        torch.testing.assert_close(cut[:, 0][mask == 1], x[:, 0][mask == 1])
    assert masks.hole(x, mask)[:, 1][mask == 1].abs().max() == 0
    mean = masks.hole(x, mask, fill="mean")[0, 2][mask[0] == 1].unique()
    expected = (x[0, 2] * (1 - mask[0])).sum() / (1 - mask[0]).sum()
    torch.testing.assert_close(mean, expected.expand_as(mean))


def test_a_box_goes_from_the_first_to_the_last_pixel():
    x, mask = torch.ones(1, 1, 5, 5), torch.zeros(1, 5, 5)
    mask[0, 1, 1] = mask[0, 2, 3] = 1
    assert masks.hole(x, mask, form="box")[0, 0].tolist() == [
        [1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]
    ]  # fmt: skip
    assert masks.cut_out(x, mask * 0, form="box").sum() == 0


@pytest.mark.bad_input
def test_masks_of_another_size_are_refused(scenes):
    with pytest.raises(ValueError, match=r"masks must be of the images' size, \(24, 32, 32\), got \(24, 16, 16\)"):
        masks.hole(scenes.images, torch.zeros(24, 16, 16))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        masks.hole(scenes.images, 255 * torch.ones(24, 32, 32))
    with pytest.raises(TypeError, match=r"masks must be a tensor \(n, h, w\), got ndarray"):
        masks.hole(scenes.images, torch.zeros(24, 32, 32).numpy())
    with pytest.raises(ValueError, match=r"maps must have shape \(n, u, rows, columns\), got \(24, 2, 16\)"):
        masks.mask_correlation(torch.rand(24, 2, 16), torch.zeros(24, 32, 32))
    with pytest.raises(ValueError, match="masks contain NaN"):
        masks.mask_correlation(torch.rand(24, 2, 4, 4), torch.full((24, 32, 32), torch.nan))


def test_a_map_agrees_with_a_mask_and_not_with_a_place_or_an_image():
    mask = (draw(50, 8, 8) > 0).float()
    place, image = draw(1, 1, 8, 8).expand(50, 1, 8, 8), draw(50, 1, 1, 1).expand(50, 1, 8, 8)
    planted = -3 * mask[:, None] + place + 2 * image
    found = masks.mask_correlation(torch.cat([planted, place + image, draw(50, 1, 8, 8, seed=5)], dim=1), mask)
    assert found[0].item() == pytest.approx(1, abs=1e-6)
    assert found[1].isnan()
    assert found[2] < 0.1
    fine = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(masks.mask_correlation(planted, fine)[0], found[0])


# Frequency


def test_low_pass_keeps_what_is_below_and_takes_what_is_above():
    shown = frequency.gratings(32, [2, 9], orientations=2, phases=1)
    passed = frequency.low_pass(shown.images, 5)
    low, high = shown.frequency == 2, shown.frequency == 9
    torch.testing.assert_close(passed[low], shown.images[low], atol=1e-5, rtol=0)
    torch.testing.assert_close(passed[high], torch.full_like(passed[high], 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(frequency.low_pass(shown.images, 99), shown.images)
    flat = frequency.low_pass(draw(2, 3, 8, 8).sigmoid(), 0)
    assert flat.flatten(2).std(dim=2).max() < 1e-6


def test_gratings_have_the_frequency_orientation_and_phase_that_they_say():
    shown = frequency.gratings(32)
    assert len(shown.images) == 4 * 4 * 4
    assert shown.frequency.unique().tolist() == [1, 2, 4, 8]
    energy = torch.fft.fft2(shown.images[:, 0] - 0.5).abs()
    for i in range(0, 64, 4):
        row, column = divmod(int(energy[i].argmax()), 32)
        turn, length = shown.orientation[i].item(), shown.frequency[i].item()
        if turn == 0:
            assert (row, min(column, 32 - column)) == (0, length)
        elif turn == pytest.approx(math.pi / 2):
            assert (min(row, 32 - row), column) == (length, 0)


def test_a_planted_unit_prefers_its_frequency():
    shown = frequency.gratings(32)
    wave = (2 * math.pi * 4 * (torch.arange(32) + 0.5) / 32).sin()
    a = (shown.images[:, 0] @ wave).mean(dim=1, keepdim=True).relu()
    found = frequency.preferred_frequency(torch.cat([a, torch.ones_like(a)], dim=1), shown)
    assert found[0] == 4
    assert found[1].isnan()


@pytest.mark.bad_input
def test_frequencies_that_pixels_cannot_show_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \(0, 16\]"):
        frequency.gratings(32, [20])
    with pytest.raises(ValueError, match="at least 0, got -1"):
        frequency.low_pass(torch.rand(1, 3, 8, 8), -1)
    for cutoff in ("3", None, True):
        with pytest.raises(ValueError, match="cutoff must be a finite number of cycles"):
            frequency.low_pass(torch.rand(1, 3, 8, 8), cutoff)


def test_of_no_images_none_is_left():
    assert frequency.low_pass(torch.rand(0, 3, 8, 8), 3).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(("size", "highest"), [(32, 8), (48, 16), (64, 16), (224, 64)])
def test_gratings_reach_the_highest_octave_below_half_the_side(size, highest):
    assert frequency.gratings(size, orientations=1, phases=1).frequency.max() == highest


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_activations_and_embeddings_may_differ_in_precision(dtype):
    a, e = draw(20, 3).to(dtype), draw(20, 5, seed=1)
    found = scores.monosemanticity(a, e)
    torch.testing.assert_close(found, scores.monosemanticity(a.double(), e.double()))
