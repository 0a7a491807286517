"""The ℓ₂ attack through noise: where it stays, what it climbs, and that a certificate stands against it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thesis_kit import data
from thesis_kit.attacks import smoothed_pgd
from thesis_kit.attacks.smoothed import NoiseDraws
from thesis_kit.certification import ABSTAIN, certify, predict
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.models import zoo

RADII = torch.tensor([0.0, 0.3, 1.0, 2.5])


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 4))


def images(n=4):
    return 0.2 + 0.6 * torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("target", [None, (LABELS + 1) % 4])
def test_every_image_stays_in_its_own_ball(target):
    x = images()
    found = smoothed_pgd(net(), x, LABELS, eps=RADII, sigma=0.2, steps=6, draws=8, target=target)
    length = (found.double() - x.double()).flatten(1).norm(dim=1)
    assert (length <= RADII.double() * (1 + 1e-6) + 1e-7).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found[0], x[0])
    assert length[1] == pytest.approx(0.3, rel=1e-3)  # and goes to its edge


def test_a_step_follows_the_smoothed_softmax():
    """A single short step has the direction of the gradient of −log of the mean probability."""
    model, x = net().eval(), images().double()
    model = model.double()
    noise = NoiseDraws(torch.arange(4), x, 0.2, 8, 5).at(0)
    for target, sign in ((None, -1), ((LABELS + 1) % 4, 1)):
        labels = LABELS if target is None else target
        moving = x.clone().requires_grad_()
        p = model((moving[:, None] + noise).flatten(0, 1)).softmax(dim=1).unflatten(0, (4, 8)).mean(dim=1)
        (gradient,) = torch.autograd.grad(sign * p[torch.arange(4), labels].log().sum(), moving)
        expected = 1e-3 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        knobs = {"eps": 1e-3, "sigma": 0.2, "steps": 1, "step_size": 1.0, "draws": 8, "seed": 5}
        found = smoothed_pgd(model, x, LABELS, target=target, **knobs)
        assert torch.allclose(found - x, expected, atol=1e-9)


def test_results_depend_on_neither_company_nor_chunk():
    model, x = net(), images()
    knobs = {"sigma": 0.2, "steps": 4, "draws": 6}
    whole = smoothed_pgd(model, x, LABELS, eps=RADII, **knobs)
    small = smoothed_pgd(model, x, LABELS, eps=RADII, chunk=4, **knobs)
    assert torch.allclose(small, whole, atol=1e-5)
    for i in range(4):
        one = slice(i, i + 1)
        alone = smoothed_pgd(model, x[one], LABELS[one], eps=RADII[one], ids=torch.tensor([i]), **knobs)
        assert torch.allclose(alone, whole[one], atol=1e-5)


def test_a_linear_classifiers_nearest_boundary_is_found():
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double()
    w = linear[1].weight[0] - linear[1].weight[1]
    x = images().double()
    y = linear(x).argmax(dim=1)
    found = smoothed_pgd(linear, x, y, eps=0.05, sigma=0.1, steps=10, draws=4)
    away = torch.where(y == 0, -1.0, 1.0)[:, None] * w / w.norm()
    assert torch.allclose((found - x).flatten(1), 0.05 * away, atol=1e-6)


def test_the_model_is_left_as_it_was_found():
    model = net().train()
    smoothed_pgd(model, images(), LABELS, eps=0.1, sigma=0.2, steps=1, draws=2)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_no_image_no_attack():
    assert smoothed_pgd(net(), images()[:0], LABELS[:0], eps=0.1, sigma=0.2).shape == (0, 3, 6, 6)


def test_certificates_stand_against_it():
    """Within the certified radius no smoothed label falls; far outside, the same attack turns most."""
    model, sigma = zoo.load("resnet-scenes-a-noise-0.25"), 0.25
    part = data.load("scenes.v1-a", size=32, n_train=1, n_validation=1, n_test=5).test
    certificates = certify(model, part.x, sigma=sigma, n=400, ids=part.ids)
    assert (certificates.radii > 0).all()
    knobs = {"sigma": sigma, "steps": 12, "draws": 24, "ids": part.ids}
    inside = smoothed_pgd(model, part.x, certificates.labels, eps=certificates.radii.float(), **knobs)
    answers = predict(model, inside, sigma=sigma, n=400, ids=part.ids)
    assert ((answers == certificates.labels) | (answers == ABSTAIN)).all()
    outside = smoothed_pgd(model, part.x, certificates.labels, eps=4.0, **knobs)
    assert (predict(model, outside, sigma=sigma, n=100, ids=part.ids) != certificates.labels).sum() >= 4


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"eps": -0.1}, "eps must be finite and at least 0"),
        ({"eps": torch.ones(3)}, r"eps must be one number or of shape \(4,\)"),
        ({"sigma": -1.0}, "sigma must be a number of at least 0"),
        ({"target": LABELS}, "4 targets equal the label to leave"),
        ({"y": torch.tensor([0, 1, 2, 7])}, "labels must lie in"),
        ({"target": torch.tensor([1, 0, 0, 9])}, "targets must lie in"),
        ({"draws": 0}, "draws must be"),
        ({"ids": torch.tensor([1])}, "ids must have shape"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_words(knobs, said):
    with pytest.raises(ValueError, match=said):
        smoothed_pgd(net(), **{"x": images(), "y": LABELS, "eps": 0.1, "sigma": 0.2, "steps": 1, "draws": 2, **knobs})


def test_a_model_that_answers_nan_is_named():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] * float("nan")

    with pytest.raises((NonFiniteOutput, ValueError)):
        smoothed_pgd(Broken(), images(), LABELS, eps=0.1, sigma=0.2, steps=1, draws=2)
