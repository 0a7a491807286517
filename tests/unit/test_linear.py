"""First-order margins against a linear classifier's closed form, where attacks first succeed, and loss surfaces."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from thesis_kit.attacks.losses import LOSSES
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import Part, digits
from thesis_kit.evaluation import correct, first_order, loss_surface, smallest_eps
from thesis_kit.models import zoo
from thesis_kit.randomness import ImageRandom

RADII = [0.01 * 1.1**k for k in range(40)]


def some_digits(n: int = 40) -> Part:
    """In the middle of the pixel range, so that small balls are not clipped."""
    part = digits(0).test[torch.arange(n) * 5]
    return Part(0.45 + 0.1 * part.x.double(), part.y, part.ids)


@pytest.fixture(scope="module")
def linear() -> nn.Module:
    """A linear classifier in float64 that is right on most of these digits."""
    part = digits(0).train[:300]
    x = torch.cat([0.45 + 0.1 * part.x.flatten(1), torch.ones(len(part), 1)], dim=1).double()
    solution = torch.linalg.lstsq(x, nn.functional.one_hot(part.y, 10).double(), driver="gelsd").solution
    layer = nn.Linear(64, 10).double()
    layer.weight.data, layer.bias.data = solution[:-1].T.contiguous(), solution[-1].clone()
    return nn.Sequential(nn.Flatten(), layer)


def closed_form(model: nn.Module, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    """Logit gaps and ℓ₁ norms of the differences of weight rows, one image and one class at a time."""
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    gaps, slopes = (torch.full((len(part), 10), value, dtype=torch.float64) for value in (math.inf, 0.0))
    for i, (x, y) in enumerate(zip(part.x, part.y.tolist(), strict=True)):
        for c in range(10):
            if c != y:
                gaps[i, c] = (weight[y] - weight[c]) @ x.flatten() + bias[y] - bias[c]
                slopes[i, c] = (weight[y] - weight[c]).abs().sum()
    return gaps, slopes


def state(model: nn.Module) -> tuple:
    return (
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        [t.tolist() for t in model.state_dict().values()],
    )


class Mixed(nn.Module):
    """Batch normalization in evaluation mode inside a network in training mode; one frozen layer."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.head = nn.Linear(16, classes)
        self.body.requires_grad_(False)
        self.norm.eval()

    def forward(self, x):
        return self.head(self.drop(self.norm(self.body(x.flatten(1)))))


class Through(nn.Module):
    """A model behind, or in front of, something else."""

    def __init__(self, model, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x):
        return self.after(self.model(self.before(x)))


# The tangent


def test_the_gaps_of_a_linear_classifier_are_its_weights(linear):
    part = some_digits()
    found = first_order(linear, part.x, part.y)
    gaps, slopes = closed_form(linear, part)
    assert torch.allclose(found.gradient_gaps, slopes, rtol=1e-12)
    assert torch.allclose(found.logit_gaps, gaps, rtol=0, atol=1e-12)
    rows = torch.arange(len(part))
    assert found.logit_gaps[rows, part.y].isinf().all()
    assert not found.gradient_gaps[rows, part.y].any()
    assert torch.equal(found.logit_gap, found.logit_gaps.amin(dim=1))
    assert torch.allclose(found.logit_gap, gaps.amin(dim=1), rtol=0, atol=1e-12)
    assert torch.allclose(found.gradient_gap, slopes.amax(dim=1), rtol=1e-12)


def test_the_margin_of_a_linear_classifier_is_its_distance_and_zero_where_it_is_wrong(linear):
    part = some_digits()
    margin = first_order(linear, part.x, part.y).margin
    gaps, slopes = closed_form(linear, part)
    right = correct(linear, part)
    assert 0 < right.sum() < len(part)
    expected = torch.where(right, (gaps / slopes).amin(dim=1), torch.zeros(len(part)).double())
    assert torch.allclose(margin, expected, rtol=1e-9, atol=0)
    assert (margin[right] > 0).all()
    assert not margin[~right].any()
    # exact: a hair less changes no label, a hair more does
    nearest = (gaps / slopes).argmin(dim=1)
    for share, kept in ((1 - 1e-9, True), (1 + 1e-6, False)):
        direction = (linear[1].weight[part.y] - linear[1].weight[nearest]).detach().sign().view_as(part.x)
        moved = part.x - share * margin[:, None, None, None] * direction
        with torch.no_grad():
            assert ((linear(moved).argmax(dim=1) == part.y)[right] == kept).all()


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_the_batch_changes_nothing(linear, batch_size):
    part = some_digits(15)
    whole, parts = first_order(linear, part.x, part.y), first_order(linear, part.x, part.y, batch_size=batch_size)
    assert torch.allclose(whole.margin, parts.margin, rtol=1e-12)
    assert torch.allclose(whole.gradient_gaps, parts.gradient_gaps, rtol=1e-12)


def test_the_tangent_of_a_network_is_its_jacobians():
    model, part = zoo.load("cnn-digits-natural"), digits(0).test[:4]
    found = first_order(model, part.x, part.y)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], part.x[i]).flatten(1)
        slopes = (jacobian[part.y[i]] - jacobian).abs().sum(dim=1)
        assert torch.allclose(found.gradient_gaps[i], slopes, rtol=1e-4, atol=1e-4)


def test_two_classes_have_one_gap():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    part = some_digits(10)
    y = part.y % 2
    found, (one, other) = first_order(model, part.x, y), model[1].weight.detach()
    assert found.margin.shape == (10,)
    assert torch.allclose(found.gradient_gap, (one - other).abs().sum().expand(10))


def test_where_nothing_moves_the_logits_the_margin_is_infinite_zero_or_zero_for_a_tie(linear):
    part = some_digits(3)
    flat = torch.zeros(3, 10, dtype=torch.float64)
    flat[0, part.y[0]] = 1.0
    flat[1, (part.y[1] + 1) % 10] = 1.0
    found = first_order(Through(linear, after=lambda z: 0 * z + flat), part.x, part.y)
    assert found.margin.tolist() == [math.inf, 0, 0]
    assert not found.gradient_gap.any()


@pytest.mark.parametrize("measure", [first_order, lambda *a: smallest_eps(*a, [0.1, 0.2], steps=2)])
@pytest.mark.parametrize("broken", [False, True])
def test_model_and_images_are_left_as_found(measure, broken):
    torch.manual_seed(0)
    model, part = Mixed(), digits(0).test[:12]
    before, x = state(model), part.x.clone()
    if broken:
        with pytest.raises(NonFiniteOutput):
            measure(Through(model, after=lambda z: z * math.nan), part.x, part.y)
    else:
        measure(model, part.x, part.y)
        with torch.no_grad():
            again = measure(model, part.x, part.y)  # gradients may be switched off around it
        assert again is not None
    assert state(model) == before
    assert torch.equal(part.x, x)
    assert not part.x.requires_grad


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m, x, y: (Through(m, before=torch.Tensor.detach), x, y), "no gradient at its input, so there is no"),
        (lambda m, x, y: (Through(m, after=lambda z: z[:, :1]), x, y), "the model has one output"),
        (lambda m, x, y: (Through(m, after=lambda z: z * math.nan), x, y), "the model returned NaN or infinite"),
        (lambda m, x, y: (Through(m, before=lambda x: (x - x).abs().sqrt()), x, y), "the gradient at the images is"),
        (lambda m, x, y: (m, 255 * x, y), "pixels must lie in [0, 1]"),
        (lambda m, x, y: (m, x, y + 5), "labels must lie in [0, 9]"),
        (lambda m, x, y: (m, x, y[1:]), "labels must have shape (20,)"),
    ],
)
def test_what_has_no_tangent_is_refused(linear, change, sentence):
    part = some_digits(20)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        first_order(*change(linear, part.x, part.y))


@pytest.mark.bad_input
def test_a_batch_size_of_zero_is_refused(linear):
    part = some_digits(2)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        first_order(linear, part.x, part.y, batch_size=0)


# Where an attack succeeds


def test_the_smallest_eps_of_a_linear_classifier_is_its_margin_up_to_one_radius(linear):
    part = some_digits()
    margin, found = first_order(linear, part.x, part.y).margin, smallest_eps(linear, part.x, part.y, RADII)
    assert (found >= margin).all()
    assert torch.equal(found == 0, ~correct(linear, part))
    reached = (found > 0) & found.isfinite()
    assert reached.sum() > 20
    radii = torch.tensor(RADII, dtype=torch.float64)
    below = torch.tensor([radii[radii < eps].max().item() if eps > RADII[0] else 0.0 for eps in found[reached]])
    assert (below <= margin[reached]).all()  # the next smaller radius was too small indeed


def test_radii_may_come_in_any_order_and_batches_do_not_matter(linear):
    part = some_digits(20)
    random = ImageRandom(3, part.ids)
    found = smallest_eps(linear, part.x, part.y, RADII[::4], steps=5, generator=random)
    assert torch.equal(found, smallest_eps(linear, part.x, part.y, reversed(RADII[::4]), steps=5, generator=random))
    assert torch.equal(found, smallest_eps(linear, part.x, part.y, RADII[::4], steps=5, generator=random, batch_size=3))
    assert set(found.tolist()) <= {0.0, math.inf, *RADII[::4]}


def test_what_no_radius_reaches_is_infinite_and_what_is_wrong_already_is_zero(linear):
    part = some_digits()
    right = correct(linear, part)
    for radii in ([], [0.0], [1e-6]):
        found = smallest_eps(linear, part.x, part.y, radii, steps=3)
        assert found[right].isinf().all()
        assert not found[~right].any()


def test_nothing_is_asked_when_no_image_is_left(linear):
    def counted(x):
        assert len(x) > 0, "a pass over no image"
        return x

    part = some_digits(10)
    found = smallest_eps(Through(linear, before=counted), part.x, part.y, [0.3, 0.4, 0.5], steps=3)
    assert found.max() == 0.3


def test_euclidean_radii_are_euclidean(linear):
    part = some_digits()
    weight = linear[1].weight.detach()
    gaps, _ = closed_form(linear, part)
    lengths = (weight[part.y][:, None] - weight).norm(dim=2)
    margin = (gaps / lengths).amin(dim=1).clamp_min(0)
    radii = [0.02 * 1.1**k for k in range(45)]
    found = smallest_eps(linear, part.x, part.y, radii, norm="l2")
    reached = (found > 0) & found.isfinite()
    assert reached.sum() > 20
    assert (found >= margin * (1 - 1e-9)).all()
    assert (found[reached] <= 1.1**2 * margin[reached].clamp_min(radii[0])).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"radii": [0.1, -0.1]}, "a radius must be a finite number of at least 0, got -0.1"),
        ({"radii": [math.inf]}, "a radius must be a finite number of at least 0, got inf"),
        ({"radii": [0.1], "steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"radii": [0.1], "norm": "l3"}, "unknown norm 'l3'"),
        ({"radii": [0.1], "batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_radii_are_one_sentence(linear, knobs, sentence):
    part = some_digits(5)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        smallest_eps(linear, part.x, part.y, **knobs)


# The surface


@pytest.mark.parametrize("loss", ["margin", "ce", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_middle_of_a_surface_is_the_loss_at_the_image(linear, loss, norm):
    part = some_digits(6)
    for points in (3, 5, 21, 41):
        surface = loss_surface(linear, part.x, part.y, eps=0.1, points=points, loss=loss, norm=norm)
        middle = points // 2
        assert surface.values.shape == surface.fooled.shape == (6, points, points)
        assert surface.fooled.dtype == torch.bool
        assert surface.offsets.shape == (points,)
        assert surface.offsets[middle] == 0
        assert (surface.offsets[0], surface.offsets[-1]) == (-0.1, 0.1)
        with torch.no_grad():
            expected = LOSSES[loss](linear(part.x), part.y)
        assert torch.allclose(surface.values[:, middle, middle], expected, rtol=0, atol=1e-12)
        assert torch.equal(surface.fooled[:, middle, middle], ~correct(linear, part))


def test_the_middle_is_the_image_itself_in_float32_too():
    model, part = zoo.load("cnn-digits-natural"), digits(0).test[:4]
    for eps in (0.15, 8 / 255, 0.1, 1 / 3):
        surface = loss_surface(model, part.x, part.y, eps=eps, points=7)
        with torch.no_grad():
            assert surface.offsets[3] == 0
            assert torch.allclose(surface.values[:, 3, 3], LOSSES["margin"](model(part.x), part.y), atol=1e-5)


def test_the_surface_of_a_linear_classifier_is_a_plane_up_the_weights(linear):
    """As long as the rival stays the same: with two classes it must."""
    torch.manual_seed(0)
    model, part = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double(), some_digits(5)
    y, eps = part.y % 2, 0.2
    surface = loss_surface(model, part.x, y, eps=eps, points=5, generator=ImageRandom(0, part.ids))
    weight = model[1].weight.detach()
    up = weight[1 - y] - weight[y]
    astray = ImageRandom(0, part.ids).normal(1, 8, 8, dtype=torch.float64).sign().flatten(1)
    slope, drift = up.abs().sum(dim=1), (up * astray).sum(dim=1)
    with torch.no_grad():
        middle = LOSSES["margin"](model(part.x), y)
    a = surface.offsets
    plane = middle[:, None, None] + slope[:, None, None] * a[:, None] + drift[:, None, None] * a[None, :]
    assert torch.allclose(surface.values, plane, rtol=0, atol=1e-12)
    assert torch.equal(surface.fooled, plane > 0)
    assert (drift.abs() < slope).all()


def test_points_are_clipped_to_the_pixel_range():
    seen, part = [], digits(0).test[:3]

    class Watched(nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.flatten(1)[:, 20:30]

    loss_surface(Watched(), part.x, part.y, eps=0.7, points=3)
    spread = torch.stack(seen[1:])  # the first pass is the gradient's
    assert len(spread) == 9
    assert spread.min() == 0
    assert spread.max() == 1
    assert (spread - part.x).abs().amax() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_both_directions_have_length_one(norm):
    part, seen = some_digits(4), []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    loss_surface(model, part.x, part.y, eps=0.05, points=3, norm=norm)
    up, astray = seen[1:][7] - part.x, seen[1:][5] - part.x  # rows by the gradient's, columns by the random one
    for direction in (up, astray):
        flat = direction.flatten(1)
        size = flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)
        assert torch.allclose(size, torch.full_like(size, 0.05), rtol=1e-9)


def test_surfaces_repeat_by_their_generator_and_leave_the_model_as_found():
    torch.manual_seed(0)
    model, part = Mixed(), digits(0).test[:6]
    before = state(model)

    def surface(part, seed):
        random = ImageRandom(seed, part.ids)
        return loss_surface(model, part.x, part.y, eps=0.1, points=3, generator=random).values

    one = surface(part, 0)
    assert torch.equal(one, surface(part, 0))
    assert torch.allclose(one[2:4], surface(part[2:4], 0), atol=1e-6)
    assert not torch.equal(one, surface(part, 1))
    with pytest.raises(NonFiniteOutput):
        loss_surface(Through(model, after=lambda z: z * math.nan), part.x, part.y, eps=0.1)
    assert state(model) == before


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"points": 20}, "points must be odd, so that the image itself is one of them, got 20"),
        ({"points": 1}, "points must be a whole number of at least 3, got 1"),
        ({"eps": -1}, "eps must be a finite number of at least 0, got -1"),
        ({"norm": "l3"}, "unknown norm 'l3': did you mean l2?"),
    ],
)
def test_bad_surfaces_are_one_sentence(linear, knobs, sentence):
    part = some_digits(3)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        loss_surface(linear, part.x, part.y, **{"eps": 0.1, **knobs})
    with pytest.raises(UnknownName, match="unknown loss 'cross': choose one of ce, dlr, margin"):
        loss_surface(linear, part.x, part.y, eps=0.1, loss="cross")


@pytest.mark.bad_input
def test_a_surface_needs_a_gradient(linear):
    part = some_digits(3)
    with pytest.raises(ValueError, match="does not depend on its input in a differentiable way"):
        loss_surface(Through(linear, before=torch.Tensor.detach), part.x, part.y, eps=0.1)
