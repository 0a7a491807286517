"""Bounds of margins against textbook formulas on dense matrices, against points of the box, and in the exact cases."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thesis_kit import models
from thesis_kit.attacks import pgd
from thesis_kit.certification import (
    Box,
    UnsupportedLayer,
    Verification,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    verified_error,
)
from thesis_kit.certification.bounds import BOUNDS as named_bounds
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.models.residual import PreActivationBlock, small_resnet
from thesis_kit.models.small import small_cnn

SLOPES = ("adaptive", "zero", "one", "same")
BOUNDS = {"ibp": ibp_margins}
BOUNDS |= {f"crown-ibp {slope}": partial(crown_ibp_margins, lower_slope=slope) for slope in SLOPES}
BOUNDS |= {f"crown {slope}": partial(crown_margins, lower_slope=slope) for slope in SLOPES}
BOUNDS |= {f"pure {slope}": partial(crown_margins, lower_slope=slope, pure=True) for slope in ("adaptive", "same")}


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(50, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(),
        nn.Linear(7, 3),
    )  # fmt: skip


def convolutional():
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=(1, 2)),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(inplace=True),
        nn.Identity(),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2, bias=False),
        nn.ReLU(),
        nn.Sequential(nn.AvgPool2d(2, stride=1, padding=1), nn.Flatten()),
        nn.Linear(6 * 4 * 5, 3),
    )
    return models.Classifier(network, mean=[0.4, 0.6], std=[0.3, 0.2], size=5)


def all_convolutional():
    """Its last layers have no weights."""
    activation = nn.ReLU()
    return nn.Sequential(
        nn.Conv2d(2, 3, 2), activation, nn.Conv2d(3, 5, 2), activation, nn.Conv2d(5, 3, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def pooled():
    return models.Classifier(small_cnn(n_classes=3, in_channels=2, width=2))  # a grid of 3 × 3: its windows overlap


def residual():
    return models.Classifier(small_resnet(n_classes=3, in_channels=2, width=2, blocks=1), mean=[0.5, 0.4], std=[0.2, 1])


NETWORKS = (mlp, convolutional, all_convolutional, pooled, residual)


def network(make, seed=0):
    """In float64, with BatchNorm statistics and weights of both signs drawn too, in training mode."""
    torch.manual_seed(seed)
    model = make().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model


def data(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, 5, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=generator)


def margins(model, x, y):
    logits = copy.deepcopy(model).eval()(x)
    return logits.gather(1, y.unsqueeze(1)) - logits


# The slow way: every layer a dense matrix, one image and one neuron at a time.


def dense(layer, shape):
    """Matrix, offset and output shape of an affine layer, from what it makes of the basis vectors."""
    layer, size = copy.deepcopy(layer).eval(), math.prod(shape)
    with torch.no_grad():
        offset = layer(torch.zeros(1, *shape, dtype=torch.float64))
        columns = layer(torch.eye(size, dtype=torch.float64).view(size, *shape)) - offset
    return columns.flatten(1).T, offset.flatten(), offset.shape[1:]


class Normalization(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.mean, self.std = classifier.mean, classifier.std

    def forward(self, x):
        return (x - self.mean) / self.std


class Dense:
    """Nodes (kind, sources, what it needs); node 0 is the image."""

    def __init__(self, model, shape):
        self.nodes, self.shapes = [("image", (), None)], [shape]
        self.walk(model, 0)

    def add(self, kind, sources, detail, shape):
        self.nodes.append((kind, sources, detail))
        self.shapes.append(shape)
        return len(self.nodes) - 1

    def walk(self, layer, at):
        if isinstance(layer, models.Classifier):
            return self.walk(layer.network, self.walk(Normalization(layer), at) if layer.normalizes else at)
        if isinstance(layer, nn.Sequential):
            for child in layer:
                at = self.walk(child, at)
            return at
        if isinstance(layer, PreActivationBlock):
            active = self.walk(nn.Sequential(layer.norm1, layer.act1), at)
            branch = self.walk(nn.Sequential(layer.conv1, layer.norm2, layer.act2, layer.conv2), active)
            skip = at if layer.shortcut is None else self.walk(layer.shortcut, active)
            return self.add("sum", (skip, branch), None, self.shapes[branch])
        if isinstance(layer, nn.ReLU):
            return self.add("relu", (at,), None, self.shapes[at])
        if isinstance(layer, nn.AdaptiveMaxPool2d):
            channels, height, width = self.shapes[at]
            places, out = torch.arange(channels * height * width).view(channels, height, width), layer.output_size
            spans = [
                [slice(i * side // out, -(-(i + 1) * side // out)) for i in range(out)] for side in (height, width)
            ]
            windows = [places[c, a, b].flatten() for c in range(channels) for a in spans[0] for b in spans[1]]
            return self.add("max", (at,), windows, (channels, out, out))
        matrix, offset, shape = dense(layer, self.shapes[at])
        return self.add("affine", (at,), (matrix, offset), shape)

    def bounds(self, lower, upper, refine_with=None, pure=False):
        """Interval bounds of all nodes; before a ReLU the better of these and CROWN's if a slope is given.

        They are wanted of neurons that can be of both signs, and of all that are not off where a pool comes next; of
        CROWN alone if pure.
        """
        found = [(lower.flatten(), upper.flatten())]
        for kind, sources, detail in self.nodes[1:]:
            low, high = found[sources[0]]
            if kind == "relu":
                if refine_with is not None:
                    wanted = high > 0 if self.feeds_a_pool(len(found)) else (low < 0) & (high > 0)
                    eye = torch.eye(len(low), dtype=low.dtype)
                    above = torch.stack([self.crown(row, sources[0], found, refine_with) for row in eye])
                    below = torch.stack([-self.crown(-row, sources[0], found, refine_with) for row in eye])
                    low = torch.where(wanted, above if pure else torch.maximum(low, above), low)
                    high = torch.where(wanted, below if pure else torch.minimum(high, below), high)
                    found[sources[0]] = low, high
                found.append((low.clamp_min(0), high.clamp_min(0)))
            elif kind == "max":
                found.append(tuple(torch.stack([end[window].max() for window in detail]) for end in (low, high)))
            elif kind == "sum":
                found.append((low + found[sources[1]][0], high + found[sources[1]][1]))
            else:
                matrix, offset = detail
                up, down = matrix.clamp_min(0), matrix.clamp_max(0)
                found.append((up @ low + down @ high + offset, up @ high + down @ low + offset))
        return found

    def feeds_a_pool(self, node):
        return any(kind == "max" and sources == (node,) for kind, sources, _ in self.nodes)

    def crown(self, row, node, bounds, slope):
        """Lower bound of row · node over the box."""
        rows, constant = {node: row}, 0.0
        for at in range(node, 0, -1):
            if at not in rows:
                continue
            kind, sources, detail = self.nodes[at]
            row, (low, high) = rows.pop(at), bounds[sources[0]]
            if kind == "affine":
                constant, passed = constant + row @ detail[1], row @ detail[0]
            elif kind == "sum":
                passed = row
            elif kind == "relu":
                passed = torch.zeros_like(row)
                for j, (a, start, u) in enumerate(zip(row.tolist(), low.tolist(), high.tolist(), strict=True)):
                    if start >= 0:
                        passed[j] = a
                    elif u > 0 and a < 0:
                        passed[j], constant = a * u / (u - start), constant - a * start * u / (u - start)
                    elif u > 0:
                        below = {"adaptive": float(u > -start), "zero": 0.0, "one": 1.0, "same": u / (u - start)}
                        passed[j] = a * below[slope]
            else:
                passed = torch.zeros_like(low)
                for a, window in zip(row, detail, strict=True):
                    best = window[low[window].argmax()]
                    rest = window[window != best]
                    if a >= 0 or (high[rest] <= low[best]).all():
                        passed[best] += a
                    else:
                        constant = constant + a * high[window].max()
            for source in sources:
                rows[source] = rows.get(source, 0) + passed
        low, high = bounds[0]
        return constant + (row := rows[0]).clamp_min(0) @ low + row.clamp_max(0) @ high

    def margins(self, name, lower, upper, label):
        """The textbook's margins of one image by a name of ``BOUNDS``; of CROWN, the best of all three."""
        method, _, slope = name.partition(" ")
        if method == "crown":
            others = [self.margins(one, lower, upper, label) for one in ("ibp", f"crown-ibp {slope}")]
            pure = self.by_one_method(name, lower, upper, label)
            return torch.stack([pure, *others]).amax(dim=0)
        return self.by_one_method(name, lower, upper, label)

    def by_one_method(self, name, lower, upper, label):
        method, _, slope = name.partition(" ")
        bounds = self.bounds(lower, upper, slope if method in ("crown", "pure") else None, pure=method == "pure")
        k = math.prod(self.shapes[-1])
        eye = torch.eye(k, dtype=lower.dtype)
        rows = [eye[label] - eye[j] for j in range(k)]
        if slope:
            return torch.stack([self.crown(row, len(self.nodes) - 1, bounds, slope) for row in rows])
        _, sources, (matrix, offset) = self.nodes[-1]
        low, high = bounds[sources[0]]
        merged = [row @ matrix for row in rows]
        return torch.stack(
            [m.clamp_min(0) @ low + m.clamp_max(0) @ high + row @ offset for row, m in zip(rows, merged, strict=True)]
        )


@pytest.mark.parametrize("make", NETWORKS)
def test_bounds_are_the_textbooks(make):
    model, (x, y), eps = network(make), data(2), 0.2
    slow = Dense(model, x.shape[1:])
    with torch.no_grad():
        for name, bound in BOUNDS.items():
            found = bound(model, x, y, eps)
            for i in range(1 if name.startswith(("crown ", "pure ")) else 2):  # a single image by the slowest
                wanted = slow.margins(name, (x[i] - eps).clamp_min(0), (x[i] + eps).clamp_max(1), y[i])
                assert torch.allclose(found[i], wanted, rtol=0, atol=1e-9), name
    intervals = slow.bounds((x[0] - eps).clamp_min(0), (x[0] + eps).clamp_max(1))
    unstable = sum(((low < -1e-3) & (high > 1e-3)).sum() for low, high in intervals)
    assert unstable > 5  # else no line above or below a ReLU was tried


@settings(max_examples=25, deadline=None)
@given(
    make=st.sampled_from(NETWORKS), seed=st.integers(0, 10**6), eps=st.floats(0.001, 0.4), slope=st.sampled_from(SLOPES)
)
def test_no_point_of_the_box_has_a_margin_below_a_bound(make, seed, eps, slope):
    model, (x, y) = network(make, seed), data(4, seed)
    points = 1200  # an image: 25 examples of 4 images are 120,000 points
    box, generator = Box.around(x, eps), torch.Generator().manual_seed(seed)
    share = torch.rand(points, *x.shape, generator=generator, dtype=x.dtype)
    share[points // 2 :] = share[points // 2 :].round()  # corners
    spread = torch.lerp(box.lower, box.upper, share)
    attacked = pgd(model.eval(), x, y, eps=eps, steps=5, loss="margin", generator=generator)
    spread[0] = attacked.clamp(box.lower, box.upper)
    with torch.no_grad():
        least = margins(model, spread.flatten(0, 1), y.repeat(points)).view(points, 4, 3).amin(dim=0)
        for name in ("ibp", f"crown-ibp {slope}", f"crown {slope}"):
            found = BOUNDS[name](model, x, y, eps)
            assert (found <= least + 1e-9).all(), name
            assert found.isfinite().all()


@pytest.mark.parametrize("make", NETWORKS)
def test_a_box_of_one_image_gives_its_margins(make):
    model, (x, y) = network(make), data(5)
    with torch.no_grad():
        for bound in BOUNDS.values():
            assert torch.allclose(bound(model, x, y, 0.0), margins(model, x, y), rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", NETWORKS)
def test_crown_is_exact_where_the_network_is_linear(make):
    """In a box so small that no ReLU switches the least margin is m(x) − ε‖∇m(x)‖₁."""
    model, (x, y), eps = network(make), data(3), 1e-6
    x = 0.1 + 0.8 * x  # the whole ball lies in the pixel range
    leaf = x.clone().requires_grad_()
    true = margins(model, leaf, y)
    gradients = [torch.autograd.grad(true[:, j].sum(), leaf, retain_graph=True)[0] for j in range(3)]
    least = true.detach() - eps * torch.stack([one.abs().flatten(1).sum(dim=1) for one in gradients], dim=1)
    for name, bound in BOUNDS.items():
        if name != "ibp":
            with torch.no_grad():
                assert torch.allclose(bound(model, x, y, eps), least, rtol=0, atol=1e-12), name
    assert (ibp_margins(model, x, y, eps) < crown_ibp_margins(model, x, y, eps) - 1e-8).any()


def test_all_bounds_of_a_linear_classifier_are_its_least_margin():
    model, (x, y), eps = network(lambda: nn.Sequential(nn.Flatten(), nn.Linear(50, 3))), data(4), 0.2
    lower, upper = (x - eps).clamp_min(0).flatten(1), (x + eps).clamp_max(1).flatten(1)
    weight = model[1].weight[y].unsqueeze(1) - model[1].weight
    worst = torch.where(weight > 0, lower.unsqueeze(1), upper.unsqueeze(1))
    least = (weight * worst).sum(dim=2) + model[1].bias[y].unsqueeze(1) - model[1].bias
    for bound in BOUNDS.values():
        assert torch.allclose(bound(model, x, y, eps), least, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", NETWORKS)
def test_merging_the_last_layer_never_loosens(make):
    model, (x, y) = network(make), data(6)
    slow, found = Dense(model, x.shape[1:]), ibp_margins(model, x, y, 0.05)
    gains = []
    for i in range(len(x)):
        low, high = slow.bounds((x[i] - 0.05).clamp_min(0), (x[i] + 0.05).clamp_max(1))[-1]
        others = torch.arange(3) != y[i]
        gains.append((found[i] - (low[y[i]] - high))[others])
    assert torch.cat(gains).min() >= -1e-9
    if make is not all_convolutional:  # its last layer only averages
        assert torch.cat(gains).max() > 1e-3


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("eps", [0.003, 0.03, 0.2])
def test_crown_ibp_with_slope_zero_is_never_below_interval_bounds(make, eps):
    """By induction from the image on: on [l, u] the line u(z − l)/(u − l) is at most u, and |AW| ≤ |A||W|."""
    model, (x, y) = network(make), data(8)
    gain = crown_ibp_margins(model, x, y, eps, lower_slope="zero") - ibp_margins(model, x, y, eps)
    assert gain.min() >= -1e-9
    assert gain.max() > 1e-4


def test_crown_is_crown_ibp_where_intervals_are_exact_before_the_only_relu_and_better_behind_more():
    x, y = data(8)
    shallow = network(lambda: nn.Sequential(nn.Flatten(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 3)))
    for slope in SLOPES:
        bounds = [
            bound(shallow, x, y, 0.05, lower_slope=slope)
            for bound in (partial(crown_margins, pure=True), crown_ibp_margins)
        ]
        assert torch.allclose(*bounds, rtol=0, atol=1e-9)
    deep = network(all_convolutional)
    assert crown_margins(deep, x, y, 0.2).mean() > crown_ibp_margins(deep, x, y, 0.2).mean() + 0.003


@pytest.mark.parametrize("make", NETWORKS)
def test_crown_is_never_below_the_others(make):
    model, (x, y) = network(make), data(3)
    for slope, eps in (("adaptive", 0.4), ("same", 0.05)):
        others = ibp_margins(model, x, y, eps), crown_ibp_margins(model, x, y, eps, lower_slope=slope)
        assert (crown_margins(model, x, y, eps, lower_slope=slope) >= torch.maximum(*others)).all()


def test_crown_alone_can_prove_less_than_intervals():
    """z = (max(0, x) + 0.1, 0) on [−1, 1.1]: the line below the ReLU is x, which falls to −1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        model[1].weight.fill_(2.1), model[1].bias.fill_(-1)
        model[3].weight.copy_(torch.tensor([[1.0], [0.0]])), model[3].bias.copy_(torch.tensor([0.1, 0.0]))
    x, y = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    for name, least in (("ibp", 0.1), ("crown-ibp", -0.9), ("crown-pure", -0.9), ("crown", 0.1)):
        assert verified_error(model, x, y, 0.5, bound=name).verified.item() == (least > 0)
        assert named_bounds[name](model, x, y, 0.5)[0, 1].item() == pytest.approx(least)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp adaptive", "crown-ibp same", "crown one"])
def test_gradients_are_those_of_the_bounds(name):
    torch.manual_seed(0)
    block = PreActivationBlock(2, 2, 1, nn.ReLU)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), block, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)).double()
    x = (0.2 + 0.6 * torch.rand(2, 1, 4, 4, dtype=torch.float64)).requires_grad_()
    y = torch.tensor([0, 1])
    inputs = (x, *model.parameters())  # perturbed in place
    assert torch.autograd.gradcheck(lambda *_: BOUNDS[name](model, x, y, 0.1), inputs, fast_mode=True)
    gradients = torch.autograd.grad(BOUNDS[name](model, x, y, 0.1).sum(), inputs)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:2])


@pytest.mark.parametrize("name", ["ibp", "crown-ibp adaptive", "crown adaptive"])
def test_the_models_mode_does_not_matter_and_nothing_of_it_changes(name):
    model, (x, y) = network(residual).train(), data(3)
    wanted = BOUNDS[name](copy.deepcopy(model).eval(), x, y, 0.05)
    model.network[1].conv1.weight.requires_grad_(False)
    model.network[1].eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    assert torch.equal(BOUNDS[name](model, x, y, 0.05), wanted)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["ibp", "crown-ibp adaptive", "crown adaptive"])
def test_precision_follows_the_images(name):
    model, (x, y) = network(residual).float(), data(3)
    with torch.no_grad():
        wanted = BOUNDS[name](copy.deepcopy(model).double(), x, y, 0.02)
        assert torch.allclose(BOUNDS[name](model, x, y, 0.02), wanted, rtol=0, atol=1e-12)
        single = BOUNDS[name](model, x.float(), y, 0.02)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp adaptive", "crown same"])
def test_images_do_not_see_their_neighbors(name):
    model, (x, y) = network(pooled), data(4)
    together = BOUNDS[name](model, x, y, 0.05)
    alone = torch.cat([BOUNDS[name](model, x[i : i + 1], y[i : i + 1], 0.05) for i in range(4)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-9)
    assert BOUNDS[name](model, x[:0], y[:0], 0.05).shape == (0, 3)


def test_a_box_may_be_given_by_its_corners():
    model, (x, y) = network(convolutional), data(3)
    around = Box.around(x, 0.3)
    assert around.lower.min() == 0
    assert around.upper.max() == 1
    brighter = Box(x, (x + 0.3).clamp_max(1))
    for bound in BOUNDS.values():
        assert torch.equal(bound(model, around, y), bound(model, x, y, 0.3))
        found = bound(model, brighter, y)
        assert (found <= margins(model, brighter.lower, y) + 1e-9).all()
        assert (found <= margins(model, brighter.upper, y) + 1e-9).all()
    assert (ibp_margins(model, brighter, y) >= ibp_margins(model, around, y) - 1e-9).all()  # a smaller box


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [("small_cnn", {"width": 2}, 12), ("small_resnet", {"width": 2}, 16), ("preact_resnet18", {"width": 2}, 8)],
)
def test_the_packages_networks_are_supported(name, options, side):
    model = models.build(name, n_classes=4, in_channels=3, seed=0, **options)
    x, y = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3])
    with torch.no_grad():
        true = margins(model, x, y)
        for bound in (ibp_margins, crown_ibp_margins):
            assert torch.allclose(bound(model, x, y, 0.0), true, atol=1e-4)
            assert (bound(model, x, y, 0.001) < true)[true != 0].all()
            assert (bound(model, x, y, 0.001)[[0, 1], y] == 0).all()


def test_verified_images_are_those_with_positive_margins():
    model, (x, _) = network(all_convolutional), data(60)
    y = (copy.deepcopy(model).eval()(x).argmax(dim=1) + (torch.arange(60) < 6)) % 3  # six labels are wrong
    bounds = [("ibp", ibp_margins, 0.03), ("crown-ibp", crown_ibp_margins, 0.2), ("crown", crown_margins, 0.2)]
    for name, bound, eps in bounds:
        found = verified_error(model, x, y, eps, bound=name, batch_size=25)
        others = torch.arange(3) != y.unsqueeze(1)
        wanted = (bound(model, x, y, eps)[others].view(60, 2) > 0).all(dim=1)
        assert torch.equal(found.verified, wanted)
        assert 0.1 < found.error < 0.9
        assert not found.verified[:6].any()
        assert (found.bound, found.eps) == (name, eps)
        assert found.error == pytest.approx(1 - wanted.double().mean().item())
        assert verified_error(model, x, y, 0.0, bound=name).error == pytest.approx(0.1)


def test_the_interval_is_wilsons():
    found = Verification(torch.arange(50) >= 10, 0.1, "ibp")
    p, n, z = 0.2, 50, 1.959964
    middle, half = (p + z**2 / (2 * n)), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found.error == pytest.approx(p)
    assert found.interval == pytest.approx([(middle + side * half) / (1 + z**2 / n) for side in (-1, 1)], abs=1e-6)


def test_a_tie_is_no_proof():
    model, (x, y) = network(mlp), data(4)
    nn.init.zeros_(model[-1].weight), nn.init.zeros_(model[-1].bias)
    assert verified_error(model, x, y, 0.1, bound="ibp").error == 1


class Softened(nn.Linear):
    def forward(self, x):
        return super().forward(x).softmax(dim=1)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.Softmax2d(), r"for network\.1\.0, Softmax2d\(.*supported are Linear, Conv1d"),
        (nn.GroupNorm(1, 2), r"network\.1\.0, GroupNorm\("),
        (nn.LayerNorm(5), r"network\.1\.0, LayerNorm\("),
        (nn.ELU(alpha=1.5), r"network\.1\.0, ELU\(alpha=1.5"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), r"network\.1\.0, Conv2d.*circular.*padded with zeros"),
        (nn.BatchNorm2d(2, track_running_stats=False), r"network\.1\.0, BatchNorm2d\(.*with running statistics"),
        (nn.Flatten(0), r"network\.1\.0, Flatten\(start_dim=0"),
        (nn.Linear(5, 5), None),
    ],
)
def test_an_unsupported_layer_is_named(layer, said):
    inner = nn.Sequential(layer, nn.ReLU())
    model = models.Classifier(nn.Sequential(nn.Identity(), inner, nn.Flatten(), nn.Linear(50, 3))).double()
    x, y = data(2)
    for bound in (ibp_margins, crown_ibp_margins, crown_margins):
        if said is None:  # the same model with a plain layer is fine
            assert bound(model, x, y, 0.1).shape == (2, 3)
        else:
            with pytest.raises(UnsupportedLayer, match=said):
                bound(model, x, y, 0.1)


@pytest.mark.bad_input
def test_a_model_that_is_no_known_layer_is_named_too():
    x, y = data(2)
    with pytest.raises(UnsupportedLayer, match=r"the model, Softened\(.* which calls \.softmax"):
        ibp_margins(Softened(5, 5).double(), x, y, 0.1)
    with pytest.raises(UnsupportedLayer, match=r"network\.0, PerImageStandardization"):
        ibp_margins(models.build("wrn_32_10", n_classes=3, in_channels=2, width=2), x, y, 0.1)
    with pytest.raises(UnsupportedLayer, match=r"resizes images from \(5, 5\) to \(8, 8\)"):
        ibp_margins(models.Classifier(mlp(), size=8), x, y, 0.1)
    broken = network(mlp)
    nn.init.constant_(broken[-1].bias, float("nan"))
    with pytest.raises(NonFiniteOutput):
        ibp_margins(broken, x, y, 0.1)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": data(2)[0] + 0.5}, r"pixels must lie in \[0, 1\]"),
        ({"eps": -0.1}, "eps must be a finite number of at least 0"),
        ({"eps": None}, "give images with eps, or a Box without"),
        ({"x": Box.around(data(2)[0], 0.1)}, "give images with eps, or a Box without"),
        ({"y": torch.tensor([0, 3])}, r"labels must lie in \[0, 2\]"),
        ({"y": torch.tensor([0])}, r"labels must have shape \(2,\)"),
        ({"x": torch.rand(2, 3, 5, 5), "model": convolutional()}, "takes 2 channels"),
    ],
)
@pytest.mark.parametrize("bound", [ibp_margins, crown_ibp_margins, crown_margins])
def test_what_cannot_be_bounded_is_refused_in_words(bound, given, said):
    x, y = data(2)
    with pytest.raises(ValueError, match=said):
        bound(**{"model": network(mlp), "x": x, "y": y, "eps": 0.1, **given})


@pytest.mark.bad_input
def test_corners_and_names_that_cannot_be_meant_are_refused():
    x, y = data(2)
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\]"):
        Box(x, x + 0.5)
    with pytest.raises(ValueError, match="lower must not exceed upper, but does in 50 of 100 pixels"):
        Box(torch.cat([x[:1] / 2 + 0.1, x[1:]]), torch.cat([x[:1] / 2, x[1:]]))
    with pytest.raises(ValueError, match="must have the same shape"):
        Box(x, x[:1])
    with pytest.raises(UnknownName, match="unknown lower slope 'none'"):
        crown_ibp_margins(network(mlp), x, y, 0.1, lower_slope="none")
    with pytest.raises(UnknownName, match="unknown bound 'lp'"):
        verified_error(network(mlp), x, y, 0.1, bound="lp")
    with pytest.raises(ValueError, match="there are no images to verify"):
        verified_error(network(mlp), x[:0], y[:0], 0.1)
