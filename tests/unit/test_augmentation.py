"""Augmentations keep what an image is, depend on the image alone, and do what they say."""

import pytest
import torch

from thesis_kit import training
from thesis_kit.data import digits
from thesis_kit.randomness import ImageRandom
from thesis_kit.training.augmentation import AUGMENTATIONS, blur, disturb, mirror, noise, recolor, shift


def images(n=32, c=3, h=16, w=24):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1


def streams(ids):
    return ImageRandom(5, ids)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_changes_alike_whatever_its_neighbors(name):
    x, ids = images(), torch.arange(32)
    together = AUGMENTATIONS[name](x, streams(ids))
    assert together.shape == x.shape
    assert together.dtype == x.dtype
    apart = torch.cat([AUGMENTATIONS[name](x[i : i + 1], streams(ids[i : i + 1])) for i in range(32)])
    assert torch.equal(together, apart)
    assert not torch.equal(together, x)
    assert AUGMENTATIONS[name](x[:0], streams(ids[:0])).shape == (0, 3, 16, 24)


def test_recoloring_maps_each_channel_by_a_line_of_its_own():
    x = images(8).clamp(0.4, 0.6)
    y = recolor(x, streams(torch.arange(8)))
    flat, changed = x.flatten(2), y.flatten(2)
    inside = ((changed > 0) & (changed < 1)).all(dim=2)
    assert inside.double().mean() > 0.5
    flat, changed = flat[inside], changed[inside]
    factor = (changed.amax(1) - changed.amin(1)) / (flat.amax(1) - flat.amin(1))
    assert factor.min() > 0.6
    assert factor.max() < 1.65
    assert len(factor.round(decimals=3).unique()) > len(factor) // 2
    line = changed.mean(1, keepdim=True) + factor[:, None] * (flat - flat.mean(1, keepdim=True))
    assert torch.allclose(line, changed, atol=1e-5)


def test_blur_keeps_flat_images_and_means_and_takes_detail_away():
    flat, random = torch.full((4, 3, 64, 64), 0.3), streams(torch.arange(4))
    assert torch.allclose(blur(flat, random), flat, atol=1e-6)
    point = torch.zeros(64, 1, 65, 65)
    point[..., 32, 32] = 1
    spread = blur(point, streams(torch.arange(64)))
    assert torch.allclose(spread.sum(dim=(1, 2, 3)), torch.ones(64), atol=1e-5)
    steps = torch.arange(65) - 32.0
    deviation = (spread.sum(dim=(1, 2)) * steps.square()).sum(dim=1).sqrt()
    assert deviation.min() < 0.5
    assert 1.2 < deviation.max() < 65 / 40 + 0.05
    assert torch.allclose(spread, spread.transpose(2, 3), atol=1e-6)


def test_noise_has_a_strength_of_its_own_for_each_image():
    gray = torch.full((64, 3, 32, 32), 0.5)
    strength = noise(gray, streams(torch.arange(64))).std(dim=(1, 2, 3))
    assert strength.min() < 0.02
    assert 0.2 < strength.max() < 0.26


def test_disturbed_images_stay_images():
    y = disturb(images(64), streams(torch.arange(64)))
    assert y.min() >= 0
    assert y.max() <= 1


def test_mirror_turns_about_half_of_the_images_and_changes_no_other():
    x = images(400, 1, 4, 4)
    y = mirror(x, streams(torch.arange(400)))
    turned = (y == x.flip(3)).flatten(1).all(dim=1)
    kept = (y == x).flatten(1).all(dim=1)
    assert (turned | kept).all()
    assert 150 < turned.sum() < 250


def test_shift_moves_by_up_to_an_eighth_and_fills_with_black():
    x = images(600)
    y = shift(x, streams(torch.arange(600)))
    found = set()
    for before, after in zip(x, y, strict=True):
        rows, columns = (after.sum(dim=(0, d)).nonzero()[:, 0] for d in (2, 1))
        down = int(rows[0]) or int(rows[-1]) - 15
        right = int(columns[0]) or int(columns[-1]) - 23
        found.add((down, right))
        inner = before[:, max(-down, 0) : 16 - max(down, 0), max(-right, 0) : 24 - max(right, 0)]
        assert torch.equal(after[:, max(down, 0) : 16 + min(down, 0), max(right, 0) : 24 + min(right, 0)], inner)
    assert found == {(down, right) for down in range(-2, 3) for right in range(-3, 4)}


def test_training_takes_them():
    part = digits(0).train[:32]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    report = training.train(model, part, updates=2, batch_size=16, lr=0.1, augment=AUGMENTATIONS["shift and mirror"])
    assert report.updates == 2
