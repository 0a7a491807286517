"""The attack through noise against a plain re-implementation, and what it promises about ball, noise and model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from thesis_kit import data
from thesis_kit.attacks.smoothed import smoothed_pgd
from thesis_kit.certification import ABSTAIN, certify, predict
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.models import zoo
from thesis_kit.randomness import mix_seed

QUICK = {"sigma": 0.3, "steps": 4, "draws": 6}


def net(n_classes=4, channels=3, dtype=torch.float32):
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 4 * 4, n_classes)
    ).eval().to(dtype)  # fmt: skip


def images(n, channels=3, dtype=torch.float32):
    return 0.2 + 0.6 * torch.rand(n, channels, 6, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)


def linear(n_pixels=12, dtype=torch.float32):
    """Two classes that a plane divides, and a third one far away."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 3)).to(dtype)
    with torch.no_grad():
        model[1].bias[2] = -500.0
    return model


def noise_of(image_id, shape, dtype, *, sigma=0.3, draws=6, seed=0):
    generator = torch.Generator().manual_seed(mix_seed(seed, 1, image_id, 0))
    return sigma * torch.randn(draws, *shape, generator=generator, dtype=dtype) if sigma else torch.zeros(1, *shape)


def slope(model, x, label, noise):
    """Of J = −log of the mean over draws of the probability of a label, at one image."""
    x = x.clone().requires_grad_()
    probability = sum(torch.softmax(model((x + one)[None])[0], dim=0)[label] for one in noise) / len(noise)
    return torch.autograd.grad(-probability.log(), x)[0]


def mean_probability(model, x, labels, sigma=0.3, draws=400):
    noise = sigma * torch.randn(draws, *x.shape[1:], generator=torch.Generator().manual_seed(77))
    with torch.no_grad():
        p = torch.stack([torch.softmax(model(one + noise), dim=1).mean(dim=0) for one in x])
    return p.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("sigma", [0.3, 0.0])
def test_the_first_step_climbs_along_the_papers_objective(sigma, targeted):
    model, x, y = net(dtype=torch.float64), images(3, dtype=torch.float64), torch.tensor([1, 0, 3])
    target = torch.tensor([2, 3, 1]) if targeted else None
    knobs = {"eps": 0.1, "sigma": sigma, "steps": 1, "step_size": 0.5, "draws": 6, "seed": 4}
    found = smoothed_pgd(model, x, y, target=target, ids=torch.tensor([7, 8, 7]), **knobs)
    for i, image_id in enumerate((7, 8, 7)):
        noise = noise_of(image_id, (3, 6, 6), torch.float64, sigma=sigma, seed=4)
        up = slope(model, x[i], y[i], noise) if target is None else -slope(model, x[i], target[i], noise)
        assert torch.allclose(found[i] - x[i], 0.05 * up / up.norm(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("targeted", [False, True])
def test_it_is_the_papers_procedure(targeted):
    """Steps of 2ε / steps from the image, back into the ball, then into the pixel range, one image at a time."""
    model, y, target = net(dtype=torch.float64), torch.tensor([1, 0, 3]), torch.tensor([2, 3, 1])
    x, eps = images(3, dtype=torch.float64), torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    found = smoothed_pgd(model, x, y, eps=eps, sigma=0.3, steps=5, draws=6, target=target if targeted else None)
    clipped = 0
    for i in range(3):
        noise, x_adv = noise_of(i, (3, 6, 6), torch.float64), x[i]
        for _ in range(5):
            up = -slope(model, x_adv, target[i], noise) if targeted else slope(model, x_adv, y[i], noise)
            delta = x_adv + 2 / 5 * eps[i] * up / up.norm() - x[i]
            x_adv = (x[i] + delta * min(1.0, float(eps[i] / delta.norm()))).clamp(0, 1)
        clipped += int(((x_adv == 0) | (x_adv == 1)).sum())
        assert torch.allclose(found[i], x_adv, rtol=0, atol=1e-8)
    assert clipped > 0  # or the pixel range was not tested


def test_what_it_finds_lies_in_the_ball_and_in_the_pixel_range():
    model, x, y = net(), images(6), torch.tensor([0, 1, 2, 3, 0, 1])
    x[4] = (x[4] > 0.5).float()  # pixels at the ends of the range
    for dtype in (torch.float32, torch.float64):
        eps = torch.tensor([0.001, 0.1, 1 / 3, 1.0, 2.0, 50.0], dtype=dtype)
        for sigma in (0.3, 0.0):
            found = smoothed_pgd(model, x, y, eps=eps, sigma=sigma, steps=8, draws=4)
            assert found.dtype == x.dtype
            assert found.min() >= 0
            assert found.max() <= 1
            norms = (found.double() - x.double()).flatten(1).norm(dim=1)
            assert (norms <= eps.double() * (1 + 1e-6) + 1e-7).all()
            assert (norms[:4] > 0.99 * eps[:4].double()).all()  # all of the ball is used where the range leaves it
    one = smoothed_pgd(model, x, y, eps=0.25, sigma=0.3, steps=8, draws=4)
    each = smoothed_pgd(model, x, y, eps=torch.full((6,), 0.25), sigma=0.3, steps=8, draws=4)
    assert torch.equal(one, each)


def test_images_in_a_short_format_stay_in_the_ball_too():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)).half()
    x = (0.2 + 0.6 * torch.rand(8, 3, 16, 16)).half()
    for eps in (0.1, 0.3, 0.7):
        found = smoothed_pgd(model, x, torch.arange(8) % 4, eps=eps, sigma=0.3, steps=20, draws=4)
        norms = (found.double() - x.double()).flatten(1).norm(dim=1)
        assert (norms <= eps * (1 + 1e-6) + 1e-7).all()


def test_a_radius_of_zero_and_no_steps_return_the_image():
    model, x, y = net(), images(3), torch.tensor([0, 1, 2])
    assert torch.equal(smoothed_pgd(model, x, y, eps=0.0, **QUICK), x)
    assert torch.equal(smoothed_pgd(model, x, y, eps=1.0, sigma=0.3, steps=0), x)
    some = smoothed_pgd(model, x, y, eps=torch.tensor([0.5, 0.0, 0.5]), **QUICK)
    assert torch.equal(some[1], x[1])
    assert (some[[0, 2]] - x[[0, 2]]).flatten(1).norm(dim=1).min() > 0.4
    empty = torch.zeros(0, dtype=torch.int64)
    assert smoothed_pgd(model, images(0), empty, eps=torch.zeros(0), **QUICK).shape == (0, 3, 6, 6)


def test_results_do_not_depend_on_company_or_chunks():
    model, x, y, ids = net(), images(4), torch.tensor([1, 2, 0, 3]), torch.tensor([3, 3, 8, 1])
    eps = torch.tensor([0.5, 1.0, 0.2, 0.7])
    together = smoothed_pgd(model, x, y, eps=eps, ids=ids, **QUICK)
    for chunk in (1, 2, 4, 6, 12, 100):
        assert torch.allclose(smoothed_pgd(model, x, y, eps=eps, ids=ids, chunk=chunk, **QUICK), together, atol=1e-5)
    order = torch.tensor([2, 0])
    some = smoothed_pgd(model, x[order], y[order], eps=eps[order], ids=ids[order], **QUICK)
    assert torch.allclose(some, together[order], atol=1e-5)
    twins = smoothed_pgd(model, x[[0, 0, 0]], y[[0, 0, 0]], eps=0.5, ids=torch.tensor([3, 3, 4]), **QUICK)
    assert torch.allclose(twins[0], together[0], atol=1e-5)
    assert torch.allclose(twins[1], twins[0], atol=1e-5)
    assert not torch.allclose(twins[2], twins[0], atol=1e-3)  # noise of its own
    assert not torch.allclose(smoothed_pgd(model, x, y, eps=eps, ids=ids, seed=1, **QUICK), together, atol=1e-3)
    assert torch.equal(smoothed_pgd(model, x, y, eps=eps, ids=ids, **QUICK), together)


@pytest.mark.parametrize("sigma", [0.5, 0.0])
@pytest.mark.parametrize("targeted", [False, True])
def test_on_a_linear_classifier_it_takes_the_shortest_way(sigma, targeted):
    """Between two classes every draw has the same direction, and the plane is crossed at the distance of the image."""
    model = linear()
    x = 0.3 + 0.4 * torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    normal, offset = model[1].weight[1] - model[1].weight[0], model[1].bias[1] - model[1].bias[0]
    with torch.no_grad():
        model[1].bias[0] += (x.flatten(1) @ normal).mean() + offset  # the images lie on either side, close by
        y = model(x).argmax(dim=1)
        logits = model(x)
    assert sorted(set(y.tolist())) == [0, 1]
    across = normal.detach() * torch.where(y == 0, 1.0, -1.0)[:, None] / normal.detach().norm()
    distance = (logits[:, 0] - logits[:, 1]).abs() / normal.detach().norm()
    for share, crosses in ((0.98, False), (1.02, True)):
        eps = distance * share
        found = smoothed_pgd(
            model, x, y, eps=eps, sigma=sigma, steps=10, draws=8, target=1 - y if targeted else None
        )  # fmt: skip
        assert torch.allclose((found - x).flatten(1), eps[:, None] * across, rtol=0, atol=1e-5)
        with torch.no_grad():
            assert ((model(found).argmax(dim=1) != y) == crosses).all()


def test_a_classifier_that_is_very_sure_does_not_bend_the_way():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(40 * torch.randn(2, 12))
        x = 0.3 + 0.4 * torch.rand(4, 3, 2, 2)
        y = model(x).argmax(dim=1)
        across = (model[1].weight[1] - model[1].weight[0]) * torch.where(y == 0, 1.0, -1.0)[:, None]
    found = smoothed_pgd(model, x, y, eps=0.2, sigma=0.1, steps=10, draws=8)
    expected = 0.2 * across / across.norm(dim=1, keepdim=True)
    assert torch.allclose((found - x).flatten(1), expected, rtol=0, atol=1e-3)


def test_labels_lose_and_targets_win_under_noise_it_has_not_seen():
    model, x = net(), images(4)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    target = (y + 1) % 4
    left = smoothed_pgd(model, x, y, eps=0.8, sigma=0.3, steps=10, draws=32)
    reached = smoothed_pgd(model, x, y, eps=0.8, sigma=0.3, steps=10, draws=32, target=target)
    assert (mean_probability(model, left, y) < mean_probability(model, x, y) - 0.02).all()
    assert (mean_probability(model, reached, target) > mean_probability(model, x, target) + 0.02).all()
    assert (mean_probability(model, left, y) <= mean_probability(model, reached, y) + 1e-3).all()


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_found(fails):
    model = net().train()
    model[2].eval()
    model[0].bias.requires_grad_(False)
    model[4].bias.grad = torch.ones(4)
    weights = [p.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    y = torch.tensor([9 if fails else 1])
    if fails:
        with pytest.raises(ValueError, match="labels must lie in"):
            smoothed_pgd(model, images(1), y, eps=0.5, **QUICK)
    else:
        one = smoothed_pgd(model, images(1), y, eps=0.5, **QUICK)
        assert torch.equal(one, smoothed_pgd(model.eval(), images(1), y, eps=0.5, **QUICK))  # dropout was off
        model.train(), model[2].eval()
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert [p.grad is None for p in model.parameters()] == [True, True, True, False]
    assert model[4].bias.grad.tolist() == [1, 1, 1, 1]
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), weights, strict=True))


class Rooted(nn.Module):
    """Finite logits with a gradient that is not."""

    def forward(self, x):
        root = (x - x.detach()).abs().sqrt().flatten(1).sum(dim=1)
        return torch.stack([root, x.flatten(1).sum(dim=1)], dim=1)


def test_a_gradient_that_is_not_finite_stops_the_attack():
    with pytest.raises(NonFiniteOutput, match="the gradient at step 0"):
        smoothed_pgd(Rooted(), images(1), torch.tensor([1]), eps=0.5, **QUICK)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"target": torch.tensor([0, 2])}, "1 targets equal the label to leave: aim at other classes"),
        ({"target": torch.tensor([2, 9])}, r"targets must lie in \[0, 3\]"),
        ({"target": torch.tensor([2])}, "targets must have shape"),
        ({"y": torch.tensor([0, 4])}, r"labels must lie in \[0, 3\]"),
        ({"y": torch.tensor([0])}, "labels must have shape"),
        ({"eps": -0.1}, "eps must be finite and at least 0 for every image"),
        ({"eps": math.nan}, "eps must be finite"),
        ({"eps": torch.tensor([0.1, math.inf])}, "eps must be finite"),
        ({"eps": torch.tensor([0.1, -0.1])}, "eps must be finite and at least 0"),
        ({"eps": torch.ones(3)}, r"eps must be one number or of shape \(2,\), got shape \(3,\)"),
        ({"eps": torch.ones(2, 1)}, "eps must be one number"),
        ({"eps": torch.ones(1)}, "eps must be one number"),
        ({"sigma": -0.1}, "sigma must be a number of at least 0, got -0.1"),
        ({"sigma": math.nan}, "sigma must be a number"),
        ({"steps": -1}, "steps must be"),
        ({"draws": 0}, "draws must be"),
        ({"chunk": 0}, "chunk must be"),
        ({"ids": torch.tensor([0])}, "ids must have shape"),
        ({"x": images(2) + 1}, r"pixels must lie in \[0, 1\]"),
        ({"x": images(2) * math.nan}, "NaN"),
        pytest.param({"step_size": -1.0}, "step_size must be"),
        pytest.param({"step_size": math.nan}, "step_size must be"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_words(knobs, said):
    with pytest.raises(ValueError, match=said):
        smoothed_pgd(net(), **{"x": images(2), "y": torch.tensor([0, 1]), "eps": 0.5, **QUICK, **knobs})


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
