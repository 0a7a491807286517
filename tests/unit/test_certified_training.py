"""Training on certified bounds: its schedule, its loss, and that it makes networks that can be verified."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from thesis_kit import data, training
from thesis_kit.certification import crown_ibp_margins, ibp_margins, verified_error
from thesis_kit.models import build
from thesis_kit.training.certified import IBP, RAMPS, CrownIBP, smoothed_ramp


def test_the_schedule_goes_from_clean_training_to_intervals():
    method = CrownIBP(0.2, warm_up=0.1, ramp=0.5, kappa_end=0.4, beta_end=0.0, shape="linear")
    assert method.at(0.0) == method.at(0.1) == (0.0, 1.0, 1.0)
    assert method.at(0.35) == pytest.approx((0.1, 0.7, 0.5))
    for progress in (0.6, 0.99):
        assert method.at(progress) == pytest.approx((0.2, 0.4, 0.0))
    assert IBP(0.2, warm_up=0.1, ramp=0.5).at(0.3)[2] == 0  # no CROWN at any time
    assert CrownIBP(0.2, beta_end=1.0).at(1.0)[2] == 1  # CROWN all the time
    assert CrownIBP(0.2, warm_up=0.3, ramp=0.0).at(0.29)[0] == 0
    assert CrownIBP(0.2, warm_up=0.3, ramp=0.0).at(0.3)[0] == 0.2


@pytest.mark.parametrize("name", sorted(RAMPS))
def test_ramps_rise_from_nothing_to_all(name):
    values = [RAMPS[name](k / 100) for k in range(101)]
    assert (values[0], values[-1]) == (0, pytest.approx(1))
    assert values == sorted(values)


def test_the_smoothed_ramp_is_a_quartic_and_a_line_that_meet_smoothly():
    """Zhang et al. 2020: value a·t⁴ up to a quarter, then a line of the same value and slope that ends at 1."""
    at, step = 0.25, 1e-6
    before, here, after = (smoothed_ramp(at + k * step) for k in (-1, 0, 1))
    assert here - before == pytest.approx(after - here, rel=1e-4)
    a = here / at**4
    assert smoothed_ramp(0.1) == pytest.approx(a * 0.1**4)
    assert after - here == pytest.approx(4 * a * at**3 * step, rel=1e-4)
    assert smoothed_ramp(0.7) - smoothed_ramp(0.6) == pytest.approx(smoothed_ramp(0.5) - smoothed_ramp(0.4))


def small(seed=0):
    return build("strided_cnn", n_classes=10, width=4, size=8, seed=seed)


@pytest.mark.parametrize("make", [IBP, CrownIBP])
def test_the_loss_weighs_clean_and_certified_cross_entropy(make):
    """The loss of one update, taken from the gradient that it makes, against the formula."""
    train, method = data.digits(0).train[:16], make(0.1, warm_up=0.0, ramp=0.0, kappa_end=0.3, beta_end=0.6)
    model = small()
    eps, kappa, beta = method.at(0.0)
    margins = torch.lerp(
        ibp_margins(model, train.x, train.y, eps), crown_ibp_margins(model, train.x, train.y, eps), beta
    )
    loss = kappa * F.cross_entropy(model(train.x), train.y) + (1 - kappa) * F.cross_entropy(-margins, train.y)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    training.train(
        model, train, method, updates=1, batch_size=16, lr=0.5, momentum=0.0, weight_decay=0.0, schedule="constant",
        progress=False,
    )  # fmt: skip
    assert beta == (0 if make is IBP else 0.6)
    for old, new, gradient in zip(before, model.parameters(), expected, strict=True):
        assert torch.allclose(old - new, 0.5 * gradient, atol=1e-5)


def test_it_makes_networks_that_can_be_verified():
    parts, eps = data.digits(0), 0.05
    share = {}
    for name, method in {"natural": training.Natural(), "ibp": IBP(eps)}.items():
        model = small()
        training.train(
            model, parts.train, method, updates=250, batch_size=64, lr=0.01, optimizer="adam", weight_decay=0.0,
            progress=False,
        )  # fmt: skip
        share[name] = 1 - verified_error(model, parts.validation.x, parts.validation.y, eps, bound="ibp").error
    assert share["ibp"] > share["natural"] + 0.3


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"eps": -1.0}, "eps must be"),
        ({"kappa_end": 1.2}, r"kappa_end must lie in \[0, 1\]"),
        ({"beta_end": -0.1}, r"beta_end must lie in \[0, 1\]"),
        ({"warm_up": 0.7, "ramp": 0.6}, "take 1.3 of the updates"),
        ({"shape": "smooth"}, "did you mean smoothed"),
    ],
)
def test_what_cannot_be_meant_is_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        CrownIBP(**{"eps": 0.1, **knobs})
