"""Training on certified bounds: how the knobs move, what one update descends on, and that it makes certificates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit import training
from thesis_kit.certification import verified_error
from thesis_kit.checks import UnknownName
from thesis_kit.data import Part, digits
from thesis_kit.training.certified import IBP, RAMPS, CrownIBP, linear_ramp, smoothed_ramp

METHODS = {"ibp": IBP, "crown-ibp": CrownIBP}
AT_ONCE = {"warm_up": 0.0, "ramp": 0.0}  # the final values from the first update on


def mlp(hidden=12, dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)).to(dtype)


def some(n=16, dtype=torch.float64):
    part = digits(0).train[:n]
    return Part(part.x.to(dtype), part.y, part.ids)


def update(model, data, method, **knobs):
    """One step of plain gradient descent of length 1 on all of the data: minus the change of weights is the slope."""
    knobs = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "updates": 1, **knobs}
    return training.train(model, data, method, batch_size=len(data.x), lr=1.0, **knobs)


def bounds_by_hand(model, x, y, eps):
    """Lower bounds of the margins of a network with one hidden layer: by intervals, and by CROWN above them."""
    first, last = model[1], model[3]
    low, high = (x - eps).clamp_min(0).flatten(1), (x + eps).clamp_max(1).flatten(1)
    ibp, crown = [], []
    for i in range(len(x)):
        l = first.weight.clamp_min(0) @ low[i] + first.weight.clamp_max(0) @ high[i] + first.bias  # noqa: E741
        u = first.weight.clamp_min(0) @ high[i] + first.weight.clamp_max(0) @ low[i] + first.bias
        rows = last.weight[y[i]] - last.weight  # (10, hidden): of the margins
        offset = last.bias[y[i]] - last.bias
        ibp.append(rows.clamp_min(0) @ l.clamp_min(0) + rows.clamp_max(0) @ u.clamp_min(0) + offset)
        above, shift, below = [], [], []
        for a, b in zip(l, u, strict=True):
            if a >= 0 or b <= 0:
                above.append(torch.ones_like(a) if a >= 0 else torch.zeros_like(a))
                shift.append(torch.zeros_like(a))
                below.append(above[-1])
            else:
                above.append(b / (b - a))
                shift.append(-a * b / (b - a))
                below.append(torch.ones_like(a) if b > -a else torch.zeros_like(a))
        above, shift, below = torch.stack(above), torch.stack(shift), torch.stack(below)
        back = rows.clamp_min(0) * below + rows.clamp_max(0) * above
        constant = rows.clamp_max(0) @ shift + back @ first.bias + offset
        back = back @ first.weight
        crown.append(back.clamp_min(0) @ low[i] + back.clamp_max(0) @ high[i] + constant)
    return torch.stack(ibp), torch.stack(crown)


# Ramps


def test_the_smoothed_ramp_is_a_quartic_and_then_a_line_of_the_same_value_and_slope():
    for progress in (0.0, 0.01, 0.1, 0.2, 0.2499):
        assert smoothed_ramp(progress) == pytest.approx(256 / 13 * progress**4, abs=1e-15)
    for progress in (0.25, 0.3, 0.5, 0.9, 1.0):
        assert smoothed_ramp(progress) == pytest.approx((16 * progress - 3) / 13)
    step = 1e-6
    before, at, after = (smoothed_ramp(0.25 + d) for d in (-step, 0.0, step))
    assert before == pytest.approx(at, abs=2 * step)
    assert (at - before) / step == pytest.approx(16 / 13, rel=1e-4)
    assert (after - at) / step == pytest.approx(16 / 13, rel=1e-4)


@pytest.mark.parametrize("name", RAMPS)
def test_every_ramp_rises_from_nothing_to_one_without_jumps(name):
    values = [RAMPS[name](i / 1000) for i in range(1001)]
    assert values[0] == 0
    assert values[-1] == pytest.approx(1)
    rises = [b - a for a, b in pairwise(values)]
    assert min(rises) > 0
    assert max(rises) < 0.0013
    assert linear_ramp(0.3) == 0.3


def test_the_radius_grows_while_the_weights_fall():
    method = CrownIBP(0.3, beta_end=0.2, kappa_end=0.5, warm_up=0.1, ramp=0.6, shape="linear")
    for progress in (0.0, 0.05, 0.1):
        assert method.at(progress) == (0, 1, 1)
    assert method.at(0.4) == pytest.approx((0.15, 0.75, 0.6))
    assert method.at(0.55) == pytest.approx((0.225, 0.625, 0.4))
    for progress in (0.7 + 1e-12, 0.8, 1.0):
        assert method.at(progress) == pytest.approx((0.3, 0.5, 0.2))
    smoothed = CrownIBP(0.3, beta_end=0.2, kappa_end=0.5, warm_up=0.1, ramp=0.6)
    for progress, share in ((0.16, 0.0256 / 13), (0.4, 5 / 13)):
        assert smoothed.at(progress) == pytest.approx((0.3 * share, 1 - 0.5 * share, 1 - 0.8 * share))
    assert smoothed.at(1.0) == pytest.approx((0.3, 0.5, 0.2))


def test_the_defaults_are_those_of_the_released_runs_and_ibp_never_uses_crown():
    assert CrownIBP(0.1).at(0.0) == (0, 1, 1)
    assert CrownIBP(0.1).at(0.65 + 1e-9) == pytest.approx((0.1, 0.5, 0.0), abs=1e-9)
    for beta_end in (0.0, 0.5, 1.0):
        method = IBP(0.2, beta_end=beta_end, kappa_end=0.25, warm_up=0.0, ramp=1.0, shape="linear")
        assert [method.at(p)[2] for p in (0.0, 0.3, 1.0)] == [0, 0, 0]
        assert method.at(0.5) == pytest.approx((0.1, 0.625, 0.0))


def test_without_a_ramp_the_final_values_come_at_once():
    method = CrownIBP(0.3, beta_end=0.2, kappa_end=0.1, warm_up=0.5, ramp=0.0)
    assert method.at(0.49) == (0, 1, 1)
    assert method.at(0.5) == pytest.approx((0.3, 0.1, 0.2))
    assert CrownIBP(0.3, **AT_ONCE).at(0.0) == pytest.approx((0.3, 0.5, 0.0))


# One update


@pytest.mark.parametrize(
    ("method", "kappa", "beta"),
    [
        (IBP(0.05, kappa_end=0.3, **AT_ONCE), 0.3, 0.0),
        (IBP(0.05, kappa_end=0.0, **AT_ONCE), 0.0, 0.0),
        (CrownIBP(0.05, kappa_end=0.3, beta_end=1.0, **AT_ONCE), 0.3, 1.0),
        (CrownIBP(0.05, kappa_end=0.0, beta_end=0.4, **AT_ONCE), 0.0, 0.4),
    ],
)
def test_one_update_descends_on_the_papers_loss(method, kappa, beta):
    data, model, by_hand = some(), mlp(dtype=torch.float64), mlp(dtype=torch.float64)
    ibp, crown = bounds_by_hand(by_hand, data.x, data.y, 0.05)
    assert (ibp - crown).abs().max() > 0.05  # or the share of one in the other would not be seen
    loss = kappa * F.cross_entropy(by_hand(data.x), data.y)
    loss = loss + (1 - kappa) * F.cross_entropy(-(beta * crown + (1 - beta) * ibp), data.y)
    update(model, data, method)
    slopes = torch.autograd.grad(loss, list(by_hand.parameters()))
    for p, before, slope in zip(model.parameters(), by_hand.parameters(), slopes, strict=True):
        assert slope.abs().max() > 1e-3
        assert torch.allclose(before - p, slope, rtol=0, atol=1e-9)


def test_every_update_has_the_radius_and_the_weights_of_its_time():
    """Four updates: at the start, half-way up, and twice at the top."""
    data, model, by_hand = some(), mlp(dtype=torch.float64), mlp(dtype=torch.float64)
    method = CrownIBP(0.2, kappa_end=0.5, beta_end=0.0, warm_up=0.0, ramp=0.5, shape="linear")
    values = [(0.0, 1.0, 1.0), (0.1, 0.75, 0.5), (0.2, 0.5, 0.0), (0.2, 0.5, 0.0)]
    update(model, data, method, updates=4)
    for eps, kappa, beta in values:
        ibp, crown = bounds_by_hand(by_hand, data.x, data.y, eps)
        loss = kappa * F.cross_entropy(by_hand(data.x), data.y)
        loss = loss + (1 - kappa) * F.cross_entropy(-(beta * crown + (1 - beta) * ibp), data.y)
        slopes = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for p, slope in zip(by_hand.parameters(), slopes, strict=True):
                p -= slope
    for p, q in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-8)


def normalized():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 10)
    )


@pytest.mark.parametrize("name", METHODS)
def test_before_the_ramp_it_is_natural_training(name):
    natural, certified = normalized(), normalized()
    knobs = {"updates": 5, "batch_size": 16, "lr": 0.05}
    training.train(natural, some(40, torch.float32), None, **knobs)
    training.train(certified, some(40, torch.float32), METHODS[name](0.2, warm_up=1.0, ramp=0.0), **knobs)
    for p, q in zip(natural.state_dict().values(), certified.state_dict().values(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", METHODS)
def test_only_the_clean_pass_moves_running_statistics_and_counts(name):
    natural, certified, data = normalized(), normalized(), some(16, torch.float32)
    plain = update(natural, data, None)
    report = update(certified, data, METHODS[name](0.1, beta_end=0.5, **AT_ONCE))
    assert report.passes == plain.passes
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(natural[2], buffer), getattr(certified[2], buffer))
    assert natural[2].num_batches_tracked == 1
    assert not torch.allclose(natural[1].weight, certified[1].weight, atol=1e-4)


def test_a_short_format_changes_the_clean_part_by_rounding_only():
    data, model, short = some(16, torch.float32), mlp(), mlp()
    update(model, data, IBP(0.05, **AT_ONCE))
    update(short, data, IBP(0.05, **AT_ONCE), precision="bfloat16")
    moved = (model[3].weight - mlp()[3].weight).abs().max()
    assert moved > 0.05
    assert (model[3].weight - short[3].weight).abs().max() < 0.05 * moved
    assert not torch.equal(model[3].weight, short[3].weight)


# Training


def test_it_makes_certificates_that_natural_training_does_not():
    parts, eps, verified, clean = digits(0), 0.08, {}, {}
    for name, method in (("natural", None), ("ibp", IBP(eps, ramp=0.5)), ("crown-ibp", CrownIBP(eps, ramp=0.5))):
        model = mlp(hidden=32)
        training.train(model, parts.train, method, updates=60, batch_size=128, optimizer="adam", lr=0.02)
        verified[name] = 1 - verified_error(model, parts.test.x, parts.test.y, eps, bound="ibp").error
        with torch.no_grad():
            clean[name] = (model(parts.test.x).argmax(dim=1) == parts.test.y).double().mean().item()
    assert clean["natural"] > 0.9
    assert verified["natural"] < 0.1
    for name in METHODS:
        assert verified[name] > verified["natural"] + 0.3, verified
        assert clean[name] > 0.8, clean


class Stop(Exception):
    """An interruption that no code expects."""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", METHODS)
def test_interrupted_and_resumed_ends_bit_for_bit_alike(name, optimizer, tmp_path):
    """Broken off inside the ramp, where a forgotten counter would show."""
    data = some(40, torch.float32)

    class Untouched:
        def __init__(self, minibatches):
            self._left = minibatches

        def __call__(self, x, random):
            self._left -= 1
            if self._left == 0:
                raise Stop
            return x

    def train(model, checkpoint=None, stop=0):
        method = METHODS[name](0.1, beta_end=0.3, warm_up=0.1, ramp=0.7)
        knobs = {"updates": 14, "batch_size": 16, "lr": 0.05, "checkpoint_seconds": 0.0, "augment": Untouched(stop)}
        training.train(model, data, method, optimizer=optimizer, checkpoint=checkpoint, **knobs)

    unbroken, resumed = normalized(), normalized()
    train(unbroken)
    for _ in range(2):
        with pytest.raises(Stop):
            train(normalized(), tmp_path / "run.pt", stop=5)
    train(resumed, tmp_path / "run.pt")
    for p, q in zip(unbroken.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(p, q)


def test_the_checkpoint_of_another_radius_or_method_is_refused(tmp_path):
    data = some(16, torch.float32)

    def train(method):
        training.train(mlp(), data, method, updates=2, batch_size=16, checkpoint=tmp_path / "run.pt")

    train(CrownIBP(0.1))
    train(CrownIBP(0.1))
    for other in (CrownIBP(0.2), CrownIBP(0.1, ramp=0.5), IBP(0.1)):
        with pytest.raises(ValueError, match=r"checkpoint of another run \(method was \"CrownIBP \{'eps': 0.1, "):
            train(other)


@pytest.mark.bad_input
@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"eps": -0.1}, "eps must be a finite number of at least 0"),
        ({"eps": math.inf}, "eps must be a finite number"),
        ({"eps": math.nan}, "eps must be a finite number"),
        ({"beta_end": -0.1}, r"beta_end must lie in \[0, 1\], got -0.1"),
        ({"beta_end": 1.1}, r"beta_end must lie in \[0, 1\]"),
        ({"kappa_end": 1.5}, r"kappa_end must lie in \[0, 1\]"),
        ({"kappa_end": math.nan}, r"kappa_end must lie in \[0, 1\]"),
        ({"warm_up": -0.5}, r"warm_up must lie in \[0, 1\]"),
        ({"ramp": 2.0}, r"ramp must lie in \[0, 1\]"),
        ({"warm_up": 0.5, "ramp": 0.6}, "warm_up and ramp take 1.1 of the updates: at most 1 is there"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(method, knobs, said):
    with pytest.raises(ValueError, match=said):
        method(**{"eps": 0.1, **knobs})


@pytest.mark.bad_input
def test_an_unknown_ramp_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="unknown ramp 'smooth': did you mean smoothed"):
        CrownIBP(0.1, shape="smooth")
    for share in range(101):  # shares that make up the whole are fine, whatever their rounding
        CrownIBP(0.1, warm_up=share / 100, ramp=(100 - share) / 100)
