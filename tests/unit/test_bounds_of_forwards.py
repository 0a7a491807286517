"""Bounds of more layers and of forwards of one's own: never violated, equal to those of the same layers, or refused."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from thesis_kit import models
from thesis_kit.certification import (
    Box,
    UnsupportedLayer,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    verified_error,
)
from thesis_kit.certification.bounds import BOUNDS, layers
from thesis_kit.certification.bounds.boxes import CenteredBox


def sequence(*between):
    return lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), *(one() for one in between), nn.Flatten(), nn.LazyLinear(3)
    )


class Net(nn.Module):
    """Layers to be called by a forward of one's own."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.pool, self.relu = nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.ReLU(inplace=True)
        self.last, self.scale = nn.LazyLinear(3), nn.Parameter(torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1))
        self.register_buffer("offset", torch.tensor([0.1, -0.2, 0.3]).view(1, 3, 1, 1))


class ByHand(Net):
    """A residual network as people write it."""

    def forward(self, x):
        out = F.relu(self.norm(self.conv1(x)))
        identity = out
        out = self.conv2(out)
        out += identity
        out = self.relu(out)
        return self.last(torch.flatten(F.max_pool2d(out, 2), 1))


class Shaped(Net):
    def forward(self, x):
        n, channels, *sides = x.shape
        assert channels == x.size(1) == 1
        if x.ndim != 4 or len(sides) != 2:
            raise ValueError("images, please")
        x = self.conv1(x).relu()
        x = x.permute(0, 2, 3, 1).contiguous().transpose(1, 3)[:, :, 1:, ::2]
        return self.last(x.reshape(n, -1))


class Arithmetic(Net):
    def forward(self, x):
        x = (x - 0.45) / 0.22
        x = torch.tanh(self.conv1(x)) * self.scale + self.offset
        x = 1 - x.sigmoid() - torch.sub(x, 0.5, alpha=2) / 3
        x = -(2 * x) + torch.add(F.gelu(x), F.silu(x), alpha=0.5)
        return self.last(x.mean((2, 3)).view(-1, 3)) * 2


class Joined(Net):
    def forward(self, x):
        x = self.conv1(x)
        first, rest = x[:, :1], F.leaky_relu(x[:, 1:], 0.2)
        halves = torch.cat([first, rest, self.conv2(x).clamp(-0.2, 0.4)], dim=1).chunk(2, dim=1)
        return self.last((halves[0] - halves[1]).abs().flatten(1))


class Inner(nn.Module):
    def forward(self, x, negative=False):
        return operator.neg(F.elu(x)) if negative else F.hardtanh(x, -0.3, 0.3)


class Nested(Net):
    def __init__(self):
        super().__init__()
        self.inner, self.last = Inner(), nn.Linear(3, 3)

    def forward(self, x):
        x = self.inner(self.conv1(x), negative=True) + self.inner(self.conv2(self.conv1(x)))
        x = F.dropout(F.avg_pool2d(F.pad(x, (1, 1, 0, 0)), 2), training=self.training)
        return torch.matmul(x.sum(dim=(2, 3)), self.last.weight.mT) if x.ndim == 4 else x


NETWORKS = {
    "max pool": sequence(lambda: nn.MaxPool2d(2), nn.ReLU),
    "max pool, overlapping": sequence(nn.ReLU, lambda: nn.MaxPool2d(3, stride=2, padding=1)),
    "max pool, dilated": sequence(nn.ReLU, lambda: nn.MaxPool2d((2, 3), stride=1, dilation=(2, 1), padding=(1, 0))),
    "max pool, rounded up": sequence(
        lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True), lambda: nn.BatchNorm2d(3)
    ),
    "leaky relu": sequence(nn.LeakyReLU),
    "prelu": sequence(lambda: nn.PReLU(3, init=-0.3)),
    "relu6": sequence(nn.ReLU6),
    "hardtanh": sequence(lambda: nn.Hardtanh(-0.3, 0.4)),
    "hardsigmoid": sequence(nn.Hardsigmoid),
    "sigmoid": sequence(nn.Sigmoid),
    "tanh": sequence(nn.Tanh),
    "silu": sequence(nn.SiLU, nn.Dropout2d),
    "gelu": sequence(nn.GELU, nn.AlphaDropout),
    "gelu by tanh": sequence(lambda: nn.GELU("tanh")),
    "elu": sequence(nn.ELU),
    "celu": sequence(lambda: nn.CELU(0.5)),
    "softplus": sequence(lambda: nn.Softplus(2)),
    "conv1d": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 3, 5, stride=2), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(16, 4), nn.SiLU(),
        nn.Flatten(), nn.LazyLinear(3)
    ),
    "deep": sequence(nn.Tanh, lambda: nn.Conv2d(3, 2, 3), nn.GELU, lambda: nn.Conv2d(2, 2, 3), nn.LeakyReLU),
    "by hand": ByHand, "shaped": Shaped, "arithmetic": Arithmetic, "joined": Joined, "nested": Nested,
}  # fmt: skip
NETWORKS["max pool, rounded up"] = sequence(
    lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True), lambda: nn.BatchNorm2d(3)
)


def network(make, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model = make().to(dtype)
    model.eval()(data(2, dtype)[0])  # lazy layers learn their sizes
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight is not None:
            nn.init.normal_(module.weight, std=1.5 / module.weight[0].numel() ** 0.5)
    return model.train()


def data(n, dtype=torch.float64, side=6):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 1, side, side, generator=generator, dtype=dtype), torch.arange(n) % 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_point_of_the_box_has_a_margin_below_a_bound(name, dtype, tolerance):
    """100,000 points a network and precision, corners among them."""
    model, (x, y) = network(NETWORKS[name], dtype), data(2, dtype)
    exact, points, generator = copy.deepcopy(model).double().eval(), 25_000, torch.Generator().manual_seed(1)
    for eps in (0.05, 0.4):
        box = Box.around(x, eps)
        share = torch.rand(points, *x.shape, generator=generator, dtype=dtype)
        share[points // 2 :] = share[points // 2 :].round()
        spread = torch.lerp(box.lower, box.upper, share).flatten(0, 1)
        with torch.no_grad():
            logits = exact(spread.double())
            least = (logits.gather(1, y.repeat(points).unsqueeze(1)) - logits).view(points, 2, 3).amin(dim=0)
            for bound in (ibp_margins, crown_ibp_margins, crown_margins):
                found = bound(model, x, y, eps)
                room = tolerance * (1 + logits.abs().max())
                assert (found <= least + room).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_box_has_the_margins_of_its_image(name):
    model, (x, y) = network(NETWORKS[name]), data(3)
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(x)
        margins = logits.gather(1, y.unsqueeze(1)) - logits
        for bound in BOUNDS.values():
            assert torch.allclose(bound(model, x, y, 0.0), margins, rtol=0, atol=1e-9)
            near = bound(model, x, y, 1e-7)
            assert torch.allclose(near, margins, rtol=0, atol=1e-4)
            assert (near < margins)[margins != 0].all()


class AsFunctions(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.layers = model

    def forward(self, x):
        x = F.conv2d(x, self.layers[0].weight, self.layers[0].bias, padding=1)
        norm = self.layers[1]
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, norm.eps)
        x = F.max_pool2d(F.relu(x, inplace=True), 3, 2, 1)
        x = F.softplus(torch.sigmoid(x))
        return F.linear(torch.flatten(x, 1), self.layers[6].weight, self.layers[6].bias)


def test_functions_have_the_bounds_of_the_same_layers():
    model = network(
        sequence(lambda: nn.BatchNorm2d(3), nn.ReLU, lambda: nn.MaxPool2d(3, 2, 1), nn.Sigmoid, nn.Softplus)
    )
    model = nn.Sequential(*model[:6], model[6], model[7])
    functions = nn.Sequential(*model)
    functions = AsFunctions(nn.ModuleList([*model[:6], model[7]]))
    x, y = data(3)
    for bound in BOUNDS.values():
        assert torch.equal(bound(functions, x, y, 0.05), bound(model, x, y, 0.05))


def test_max_pooling_knows_its_windows():
    x = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    settings = ({"kernel_size": 3}, {"kernel_size": (2, 3), "stride": (1, 2), "padding": 1},
                {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1},
                {"kernel_size": 2, "stride": 2, "ceil_mode": True})  # fmt: skip
    for knobs in settings:
        pool = layers.max_pool(**knobs)
        wanted = F.max_pool2d(x, **knobs)
        windows = pool.windows(7, 9)
        flat = torch.cat([x.flatten(2), torch.full((2, 3, 1), -torch.inf)], dim=2)  # -1 is the last
        assert torch.equal(flat[:, :, windows].amax(dim=3).view_as(wanted), wanted)
    pool = layers.adaptive_max_pool((3, None))
    flat = torch.cat([x.flatten(2), torch.full((2, 3, 1), -torch.inf)], dim=2)
    wanted = F.adaptive_max_pool2d(x, (3, None))
    assert torch.equal(flat[:, :, pool.windows(7, 9)].amax(dim=3).view_as(wanted), wanted)


def test_a_maximum_that_is_decided_is_exact():
    """Where one input of each window is above all others, pooling passes coefficients on to it alone."""
    pool = layers.max_pool(2)
    center = torch.tensor([[1.0, 5.0], [2.0, 4.0]]).view(1, 1, 2, 2)
    for radius, wanted in ((0.4, [0.0, -1.0, 0.0, 0.0]), (0.6, [0.0, 0.0, 0.0, 0.0])):
        box = CenteredBox(center, torch.full_like(center, radius))
        (passed,), constant = pool.pull([box], "adaptive")(-torch.ones(1, 1, 1, 1, 1))
        assert passed.flatten().tolist() == wanted
        assert constant.item() == pytest.approx(0.0 if radius == 0.4 else -5.6)


def test_gradients_are_those_of_the_bounds():
    model, (x, y) = network(NETWORKS["arithmetic"]).eval(), data(1)
    x = (0.2 + 0.6 * x).requires_grad_()
    parameters = [p for p in model.parameters() if not isinstance(p, nn.UninitializedParameter)][:4]
    for bound in (ibp_margins, crown_ibp_margins):
        inputs = (x, *parameters)
        assert torch.autograd.gradcheck(
            lambda *_, bound=bound: bound(model, x, y, 0.05), inputs, eps=1e-5, atol=1e-4, rtol=1e-3, fast_mode=True
        )


@pytest.mark.parametrize("normalizes", [True, False])
def test_a_classifier_inside_a_forward_may_write_into_what_is_read_again(normalizes):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            network = nn.Sequential(nn.Tanh() if normalizes else nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3))
            self.inner = models.Classifier(network, **({"mean": [0.5], "std": [0.2]} if normalizes else {}))
            self.last = nn.Linear(36, 3)

        def forward(self, x):
            x = x - 0.5
            return self.inner(x) + self.last(x.flatten(1))

    model, (x, y) = Around().double(), data(3)
    if normalizes:
        assert crown_ibp_margins(model, x, y, 0.1).shape == (3, 3)
    else:
        with pytest.raises(UnsupportedLayer, match="inner, Classifier, which writes in place into a value"):
            ibp_margins(model, x, y, 0.1)


def test_networks_of_torchvision_have_bounds():
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=3).double()
    x, y = torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 2])
    with torch.no_grad():
        margins = ibp_margins(model, x, y, 0.0)
        logits = copy.deepcopy(model).eval()(x)
    assert torch.allclose(margins, logits.gather(1, y.unsqueeze(1)) - logits, rtol=0, atol=1e-12)
    with pytest.raises(UnsupportedLayer, match=r"for features\.0\.2, Hardswish\(\): supported are Linear"):
        ibp_margins(torchvision.models.mobilenet_v3_small(num_classes=3).double(), x, y, 0.0)


def test_a_plain_function_has_bounds_too():
    weight = torch.randn(3, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = data(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    with torch.no_grad():
        model[1].weight.copy_(weight), model[1].bias.zero_()

    def function(x):
        return x.flatten(1) @ weight.T

    for bound in BOUNDS.values():
        assert torch.allclose(bound(function, x, y, 0.1), bound(model, x, y, 0.1), rtol=0, atol=1e-12)
    assert verified_error(function, x, y, 0.0).error == verified_error(model, x, y, 0.0).error


# What has no bounds is refused by name.


def calling(function):
    class Calling(Net):
        def forward(self, x):
            return self.last(function(self, self.conv1(x)).flatten(1))

    return Calling


def overwritten(net, x):
    y = x.flatten(1)
    net.relu(x)
    return y


def seen_through(net, x):
    y = nn.Flatten(2)(x)
    x.relu_()
    return y


def kept(net, x):
    net.offset.add_(x[:, :, :1, :1].mean(2, keepdim=True))
    return x + net.offset


def branching(net, x):
    return x if x.relu() else -x


def counted(net, x):
    return x * len(x)


REFUSED = {
    "product": (lambda net, x: x * x.sigmoid(), r"calls mul \(of two values"),
    "quotient": (lambda net, x: 1 / (x + 2), "calls truediv"),
    "power": (lambda net, x: x**2, "calls pow"),
    "softmax": (lambda net, x: F.softmax(x, dim=1), r"calls torch\.nn\.functional\.softmax"),
    "method": (lambda net, x: x.cumsum(1), r"calls \.cumsum"),
    "normalization": (lambda net, x: F.layer_norm(x, x.shape[1:]), "layer_norm"),
    "maximum": (lambda net, x: x.amax(dim=(2, 3)), r"calls \.amax"),
    "sum of all": (lambda net, x: x - x.sum(), r"sum \(which does not keep images apart"),
    "sum over images": (lambda net, x: x - x.mean(0, keepdim=True), r"mean \(which does not keep images apart"),
    "mixed images": (lambda net, x: x.reshape(-1, 3), r"reshape \(which does not keep images apart"),
    "one image": (lambda net, x: x[0], r"getitem \(which does not keep images apart"),
    "images side by side": (lambda net, x: torch.cat([x, x]), r"cat \(of images"),
    "random": (lambda net, x: F.dropout(x), r"dropout \(with training=True"),
    "statistics of the batch": (lambda net, x: F.batch_norm(x, None, None, training=True), "batch_norm"),
    "precision": (lambda net, x: x.half().double(), r"half \(to another precision"),
    "different shapes": (lambda net, x: x + x.mean(1, keepdim=True), "add .of different shapes"),
    "in place": (overwritten, r"relu, ReLU\(inplace=True\), which writes in place into a value that is used again"),
    "in place, seen through a layer": (seen_through, "writes in place into a value that is used again"),
    "in place, a constant": (kept, r"calls \.add_ \(into a constant"),
    "in place, method": (lambda net, x: x.mul_(2) + x.add_(1) + x, "writes in place into a value that is used"),
    "branch": (branching, "whose forward torch.fx cannot trace .*control flow"),
    "count": (counted, "the model: its layers compute logits that are"),
    "item": (lambda net, x: x * x.max().item(), r"max"),
    "constants by image": (lambda net, x: x + torch.ones(3, 1, 1, 1, dtype=x.dtype), "a constant of another number"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bounds_is_refused_by_name(name):
    function, said = REFUSED[name]
    torch.manual_seed(0)
    model = calling(function)()
    model.last = nn.Linear(108, 3)
    x, y = data(3)
    for bound in (ibp_margins, crown_ibp_margins, crown_margins):
        with pytest.raises(UnsupportedLayer, match=f"no bounds are known for .*{said}"):
            bound(model.double(), x, y, 0.1)


def test_an_answer_that_is_no_tensor_is_refused():
    class Two(Net):
        def forward(self, x):
            return {"logits": x.flatten(1)}

    with pytest.raises(UnsupportedLayer, match="the model, Two, which returns a dict, not one tensor"):
        ibp_margins(Two(), *data(2, torch.float32), 0.1)


def test_tracing_leaves_the_model_as_it_was():
    model, (x, y) = network(NETWORKS["arithmetic"]), data(2)
    before, modes = set(vars(model)), [module.training for module in model.modules()]
    crown_ibp_margins(model, x, y, 0.1)
    assert set(vars(model)) == before
    assert [module.training for module in model.modules()] == modes
