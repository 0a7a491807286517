"""Augmentations keep what an image is, depend on the image alone, and do what they say."""

import pytest
import torch

from thesis_kit import training
from thesis_kit.data import digits
from thesis_kit.randomness import ImageRandom
from thesis_kit.training.augmentation import AUGMENTATIONS, mirror, shift


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
