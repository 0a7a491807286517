"""Bounds are those of the function that a model computes, or there are none: one table of ways to change a layer."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from thesis_kit import models, training
from thesis_kit.attacks import ShadowConstants, spoof_bounds
from thesis_kit.certification import (
    Box,
    UnsupportedLayer,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    verified_error,
)
from thesis_kit.data import Part
from thesis_kit.models.residual import PreActivationBlock
from thesis_kit.passes import count_passes
from thesis_kit.training.certified import IBP, CrownIBP

BOUNDS = (ibp_margins, crown_ibp_margins, crown_margins)


def network():
    """A classifier with a layer of every common kind, BatchNorm statistics of its own, in training mode."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), PreActivationBlock(2, 3, 2, nn.ReLU), nn.Flatten(),
        nn.Linear(27, 3),
    )  # fmt: skip
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
    return models.Classifier(body, mean=[0.4], std=[0.3]).double()


def data(n=4):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def no_point_violates(model, bound, eps=0.03):
    x, y = data()
    box, generator = Box.around(x, eps), torch.Generator().manual_seed(1)
    share = torch.rand(300, *x.shape, generator=generator, dtype=x.dtype)
    share[150:] = share[150:].round()
    points = torch.lerp(box.lower, box.upper, share)
    with torch.no_grad():
        found = bound(model, x, y, eps)
        logits = copy.deepcopy(model).eval()(points.flatten(0, 1)).view(300, 4, 3)
    margins = logits.gather(2, y.view(1, 4, 1).expand(300, -1, -1)) - logits
    return bool((found <= margins.amin(dim=0) + 1e-9).all())


# Ways to change what a layer computes without its weights saying so. Each takes the network and may return another.


def negating(module, inputs, output):
    return -output


def doubling(module, inputs):
    return tuple(2 * one for one in inputs)


def hook_on(*path):
    def change(model):
        at(model, path).register_forward_hook(negating)

    return change


def pre_hook_on(*path):
    def change(model):
        at(model, path).register_forward_pre_hook(doubling)

    return change


def at(model, path):
    for name in path:
        model = getattr(model, name) if isinstance(name, str) else model.network[name]
    return model


def hook_with_keywords(model):
    model.network[5].register_forward_hook(lambda module, inputs, keywords, output: -output, with_kwargs=True)


def pre_hook_with_keywords(model):
    model.network[5].register_forward_pre_hook(lambda m, inputs, named: ((-inputs[0],), named), with_kwargs=True)


def forward_of_its_own(*path):
    def change(model):
        module = at(model, path)
        old = module.forward
        module.forward = lambda x: -old(x)

    return change


def inner_method_of_its_own(model):
    old = model.network[0]._conv_forward
    model.network[0]._conv_forward = lambda *given: -old(*given)


def compiled_to_something_else(model):
    layer = model.network[5]
    layer._compiled_call_impl = lambda x: -layer.forward(x)


class Calling(nn.Linear):
    def __call__(self, x):
        return -super().__call__(x)


class Reversed(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


class Twisted(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return -super()._conv_forward(input, weight, bias)


class Backwards(nn.Sequential):
    def forward(self, x):
        return -super().forward(x)


class Plain(nn.Sequential):
    """Nothing of its own."""


class Mirrored(models.Classifier):
    def forward(self, x):
        return -super().forward(x)


class MirroredBlock(PreActivationBlock):
    def forward(self, x):
        return -super().forward(x)


def of_class(number, cls):
    def change(model):
        model.network[number].__class__ = cls

    return change


def whole_of_class(cls):
    def change(model):
        model.network.__class__ = cls

    return change


def mirrored(model):
    model.__class__ = Mirrored


class Negative(nn.Module):
    def forward(self, x):
        return -x


def parametrized(model):
    parametrize.register_parametrization(model.network[5], "weight", Negative())


def running_mean_parametrized(model):
    parametrize.register_parametrization(model.network[1], "running_mean", Negative())


def weight_norm(model):
    parametrizations.weight_norm(model.network[0])
    with torch.no_grad():
        model.network[0].parametrizations.weight.original0.mul_(-3)


def spectral_norm(model):
    parametrizations.spectral_norm(model.network[5])
    with torch.no_grad():
        model.network[5].parametrizations.weight.original.normal_()


def old_weight_norm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model.network[5])
    model(data()[0])
    with torch.no_grad():
        model.network[5].weight_g.mul_(-3)


def old_spectral_norm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.spectral_norm(model.network[0])
    model(data()[0])
    with torch.no_grad():
        model.network[0].weight_orig.normal_()


def pruned(model):
    prune.l1_unstructured(model.network[5], "weight", amount=0.5)
    model(data()[0])
    with torch.no_grad():
        model.network[5].weight_orig.neg_()


def pruned_twice(model):
    prune.l1_unstructured(model.network[5], "weight", amount=0.3)
    prune.random_unstructured(model.network[5], "bias", amount=1)
    prune.l1_unstructured(model.network[5], "weight", amount=0.3)
    with torch.no_grad():
        model.network[5].weight_orig.neg_()
        model.network[5].bias_orig.add_(1)


def pruned_under_weight_norm(model):
    old_weight_norm(model)
    prune.l1_unstructured(model.network[5], "weight_v", amount=0.5)
    with torch.no_grad():
        model.network[5].weight_v_orig.neg_()


def backward_hook(model):
    model.network[5].register_full_backward_hook(lambda module, *gradients: None)


def state_dict_hook(model):
    model.network[5].register_state_dict_post_hook(lambda *given: None)
    model.register_load_state_dict_pre_hook(lambda *given: None)


def inplace_on_what_is_added(model):
    """The block's input is overwritten before it is added: its norm passes it through, its activation is in place."""
    block = model.network[3]
    block.norm1, block.act1, block.shortcut = nn.Identity(), nn.ReLU(inplace=True), None
    block.conv1, block.conv2 = nn.Conv2d(2, 3, 3, padding=1).double(), nn.Conv2d(3, 2, 3, padding=1).double()
    model.network[2], model.network[5] = nn.Identity(), nn.Linear(72, 3).double()


REFUSED, BOUNDED = "refused", "bounded"
WAYS = {
    "hook on a linear layer": (hook_on(5), REFUSED),
    "hook on a convolution": (hook_on(0), REFUSED),
    "hook on a normalization": (hook_on(1), REFUSED),
    "hook on an activation": (hook_on(2), REFUSED),
    "hook on a block": (hook_on(3), REFUSED),
    "hook inside a block": (hook_on(3, "conv2"), REFUSED),
    "hook on a flattening": (hook_on(4), REFUSED),
    "hook on a sequence": (hook_on("network"), REFUSED),
    "hook on the model": (hook_on(), REFUSED),
    "pre-hook on a linear layer": (pre_hook_on(5), REFUSED),
    "pre-hook inside a block": (pre_hook_on(3, "norm1"), REFUSED),
    "pre-hook on the model": (pre_hook_on(), REFUSED),
    "hook with keywords": (hook_with_keywords, REFUSED),
    "pre-hook with keywords": (pre_hook_with_keywords, REFUSED),
    "forward of a layer": (forward_of_its_own(5), REFUSED),
    "forward of a block": (forward_of_its_own(3), REFUSED),
    "forward of a sequence": (forward_of_its_own("network"), REFUSED),
    "forward of the model": (forward_of_its_own(), REFUSED),
    "inner method": (inner_method_of_its_own, REFUSED),
    "compiled to something else": (compiled_to_something_else, REFUSED),
    "subclass with __call__": (of_class(5, Calling), REFUSED),
    "subclass with forward": (of_class(5, Reversed), BOUNDED),
    "subclass with an inner method": (of_class(0, Twisted), BOUNDED),
    "sequence with forward": (whole_of_class(Backwards), BOUNDED),
    "sequence without anything": (whole_of_class(Plain), BOUNDED),
    "classifier with forward": (mirrored, None),  # tests check its types at run time, which no trace passes
    "block with forward": (of_class(3, MirroredBlock), None),
    "parametrization": (parametrized, BOUNDED),
    "parametrized statistics": (running_mean_parametrized, BOUNDED),
    "weight norm": (weight_norm, BOUNDED),
    "spectral norm": (spectral_norm, BOUNDED),
    "weight norm by hook": (old_weight_norm, BOUNDED),
    "spectral norm by hook": (old_spectral_norm, BOUNDED),
    "pruning": (pruned, BOUNDED),
    "pruning, again": (pruned_twice, BOUNDED),
    "pruning what weight norm reads": (pruned_under_weight_norm, REFUSED),
    "in place on what is added": (inplace_on_what_is_added, None),
    "backward hook": (backward_hook, BOUNDED),
    "state dict hook": (state_dict_hook, BOUNDED),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_changed_layer_has_sound_bounds_or_none(name):
    change, wanted = WAYS[name]
    model = network()
    before = ibp_margins(model, *data(), 0.03)
    change(model)
    outcomes = set()
    for bound in BOUNDS:
        try:
            assert no_point_violates(model, bound)
            outcomes.add(BOUNDED)
        except UnsupportedLayer:
            outcomes.add(REFUSED)
    assert outcomes == ({wanted} if wanted else outcomes)
    if outcomes == {BOUNDED} and name not in ("backward hook", "state dict hook", "sequence without anything"):
        assert (ibp_margins(model, *data(), 0.03) - before).abs().max() > 1e-3  # it did change


def test_the_model_stays_as_it_was():
    for change in (spectral_norm, old_spectral_norm, weight_norm, pruned):
        model = network()
        change(model)
        state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
        random = torch.get_rng_state()
        crown_ibp_margins(model, *data(), 0.03)
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == modes
        assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks


@pytest.mark.parametrize("register", ["forward_hook", "forward_pre_hook"])
def test_hooks_on_all_modules_are_refused(register):
    table = getattr(nn.modules.module, f"register_module_{register}")
    handle = table(lambda module, *given: -given[-1] if register == "forward_hook" else None)
    try:
        with pytest.raises(UnsupportedLayer, match="a forward hook that torch runs on every module"):
            ibp_margins(network(), *data(), 0.03)
    finally:
        handle.remove()


def test_what_no_rule_sees_is_met_at_the_door(monkeypatch):
    """A method replaced on torch's own class, and one that acts only where the images are bright."""
    x, y = data()
    model, forward = network(), nn.ReLU.forward
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, z: forward(self, z) + 0.01)
    for bound in BOUNDS:
        with pytest.raises(
            UnsupportedLayer, match=r"for the model: its layers compute logits that are .* from what it"
        ):
            bound(model, x, y, 0.03)
    with pytest.raises(UnsupportedLayer, match="for the model: its layers compute"):
        verified_error(model, x, y, 0.03)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_door_lets_rounding_pass_and_nothing_much_larger(dtype, monkeypatch):
    """Deep enough for rounding to grow, in a model of any precision and on images of another."""
    model = models.build("preact_resnet18", n_classes=3, in_channels=1, width=4, seed=0).to(dtype)
    x, y = data()
    for images in (x, x.float()):
        ibp_margins(model, images, y, 1e-4)
    forward, shift = nn.Linear.forward, {torch.float64: 1e-10, torch.float32: 1e-3, torch.bfloat16: 5.0}[dtype]
    monkeypatch.setattr(nn.Linear, "forward", lambda self, z: forward(self, z) * (1 + shift))
    with pytest.raises(UnsupportedLayer, match="for the model: its layers compute"):
        ibp_margins(model, x, y, 1e-4)


def test_a_random_model_is_refused_and_the_random_state_stays():
    class Random(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    model = nn.Sequential(nn.Flatten(), Random(), nn.Linear(36, 3)).double()
    state = torch.get_rng_state()
    with pytest.raises(UnsupportedLayer, match="no bounds are known for 1, Random"):
        ibp_margins(model, *data(), 0.03)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_runs_the_same_layers_has_the_same_bounds():
    model, (x, y) = nn.Sequential(*network().network[:3], nn.Flatten(), nn.Linear(72, 3)).double().eval(), data()
    wrapped = {
        "compiled": torch.compile(model, backend="eager"), "parallel": nn.DataParallel(model),
        "called by a function": lambda x: model(x),
    }  # fmt: skip
    compiled = copy.deepcopy(model)
    compiled.compile(backend="eager")
    for other in (*list(wrapped.values())[:2], compiled):
        for bound in BOUNDS:
            assert torch.equal(bound(other, x, y, 0.03), bound(model, x, y, 0.03))
    model[4].register_forward_hook(negating)
    for other in wrapped.values():
        with pytest.raises(UnsupportedLayer, match="a forward hook"):
            ibp_margins(other, x, y, 0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), x.float())
    with pytest.raises(UnsupportedLayer, match=r"which torch\.jit has compiled"):
        ibp_margins(scripted, x, y, 0.03)


def test_nothing_is_verified_that_a_hook_turns_around():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x = torch.rand(6, 1, 8, 8)
    y = model(x).argmax(dim=1)
    model[1].register_forward_hook(negating)
    assert (model(x).argmax(dim=1) != y).all()
    for bound in ("ibp", "crown-ibp", "crown", "crown-pure"):
        with pytest.raises(UnsupportedLayer, match=r"for 1, Linear\(.*, which has a forward hook: remove it"):
            verified_error(model, x, y, 1e-4, bound=bound)


@pytest.mark.parametrize("name", ["hook on a linear layer", "forward of a block", "subclass with __call__"])
def test_forged_boxes_are_refused_too(name):
    model, (x, y) = network(), data()
    WAYS[name][0](model)
    with pytest.raises(UnsupportedLayer):
        spoof_bounds(model, x, y, eps=0.01, constants=ShadowConstants(steps=2, start=0.1))


@pytest.mark.parametrize("method", [IBP, CrownIBP])
def test_training_on_bounds_refuses_them_at_once_and_on_the_way(method):
    (x, y), left = data(8), [3]
    part = Part(x, y, torch.arange(8))
    knobs = {"updates": 6, "batch_size": 4}
    for change in (hook_on(5), forward_of_its_own(3)):
        changed = network()
        change(changed)
        with pytest.raises(UnsupportedLayer):
            training.train(changed, part, method(0.01, warm_up=0.0, ramp=0.0), **knobs)
    model = network()

    def hooked_later(x, random):
        left[0] -= 1
        if left[0] == 0:
            model.network[5].register_forward_hook(negating)
        return x

    with pytest.raises(UnsupportedLayer, match="a forward hook"):
        training.train(model, part, method(0.01, warm_up=0.0, ramp=0.0), augment=hooked_later, **knobs)
    assert left == [0]


def test_training_meets_the_door_once_a_run(monkeypatch):
    x, y = data(8)
    method, forward = IBP(0.01, warm_up=0.0, ramp=0.0), nn.ReLU.forward
    knobs = {"updates": 2, "batch_size": 4}
    training.train(network(), Part(x, y, torch.arange(8)), method, **knobs)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, z: forward(self, z) + 0.01)
    with pytest.raises(UnsupportedLayer, match="for the model: its layers compute"):
        training.train(network(), Part(x, y, torch.arange(8)), method, **knobs)


def test_watching_is_allowed_and_the_door_counts_no_passes():
    model, (x, y) = network(), data()
    wanted = [bound(model, x, y, 0.03) for bound in BOUNDS]
    with count_passes(model) as passes:
        found = [bound(model, x, y, 0.03) for bound in BOUNDS]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert (passes.forward, passes.backward) == (0, 0)
