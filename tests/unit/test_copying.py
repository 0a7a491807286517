"""Copies of networks as training leaves them, and new weights where a weight is computed from others."""

from __future__ import annotations

import copy
import threading
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from thesis_kit import training
from thesis_kit.data import Part
from thesis_kit.models import anatomy
from thesis_kit.models.copying import copied
from thesis_kit.models.fresh import draw_anew, fixed_parameters
from thesis_kit.passes import count_passes
from thesis_kit.training.twin import natural_twin


class Twice(nn.Module):
    """A parametrization without an inverse."""

    def forward(self, weight):
        return 2 * weight


class Doubled(Twice):
    def right_inverse(self, weight):
        return weight / 2


class Summed(nn.Module):
    """A parametrization of a tensor by two."""

    def forward(self, one, other):
        return one + other

    def right_inverse(self, weight):
        return weight / 2, weight / 2


class OneWay(Summed):
    """Can be put on, and not be assigned to later."""

    def right_inverse(self, weight):
        if hasattr(self, "begun"):
            raise NotImplementedError
        self.begun = True
        return weight / 2, weight / 2


class Keeping(nn.Linear):
    """Keeps what it computed, in several places, and counts its passes under a lock."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.kept, self.by_name, self.lock, self.passes = [], {}, threading.Lock(), 0
        self.ready = threading.Condition()

    def forward(self, x):
        out = super().forward(x)
        with self.lock, self.ready:
            self.passes += 1
        self.last, self.by_name["last"] = out, {"again": out}
        self.kept = [*self.kept[-1:], out]
        return out


def old(function, *arguments, **knobs):
    """What torch calls deprecated and people go on using."""

    def apply(layer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return function(layer, *arguments, **knobs)

    return apply


def parametrized(*parts):
    def apply(layer):
        for part in parts:
            parametrize.register_parametrization(layer, "weight", part())
        return layer

    return apply


def pruned_twice(layer):
    prune.random_unstructured(layer, "weight", amount=0.3)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return layer


KINDS = {
    "plain": lambda layer: layer,
    "weight norm, old": old(weight_norm),
    "weight norm, old, of all": old(weight_norm, dim=None),
    "weight norm": parametrizations.weight_norm,
    "spectral norm, old": old(spectral_norm),
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.4),
    "pruned twice": pruned_twice,
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", amount=0.4),
    "no inverse": parametrized(Twice),
    "of two": parametrized(Summed),
    "two at once": parametrized(Summed, Doubled),
}


def network(kind: str, *, seed: int = 0, layer=nn.Linear) -> nn.Sequential:
    torch.manual_seed(seed)
    inner = KINDS[kind](layer(32, 16))
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), inner, nn.ReLU(), nn.Linear(16, 3))


def images(n: int = 12) -> Part:
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return Part(x, torch.arange(n) % 3, torch.arange(n))


def trained(kind: str, **knobs) -> nn.Module:
    """After two plain steps, with whatever they leave in the modules."""
    model, data = network(kind, **knobs), images()
    descent = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        descent.zero_grad()
        F.cross_entropy(model(data.x), data.y).backward()
        descent.step()
    F.cross_entropy(model(data.x), data.y)
    return model.eval()


def tensors(model: nn.Module) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in model.state_dict(keep_vars=True).values()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_computes_the_same_shares_nothing_and_follows_its_own_parameters(kind):
    model, x = trained(kind), images().x
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new = copied(model)
    expected = model(x)
    assert torch.equal(new(x), expected)
    assert tensors(new).isdisjoint(tensors(model))
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(new(x), expected)
    new(x).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in new[2].parameters())
    assert torch.equal(model(x), expected)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_what_a_layer_keeps_is_copied_without_its_graph():
    model = trained("plain", layer=Keeping)
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    layer, new = model[2], copied(model)[2]
    assert torch.equal(new.last, layer.last)
    assert not new.last.requires_grad
    assert new.last is new.by_name["last"]["again"] is new.kept[-1]
    assert new.last is not layer.last
    with layer.lock, layer.ready, new.lock, new.ready:  # their own, or this would wait for ever
        new.ready.notify()
    assert new.passes == 3


def test_hooks_are_copied_where_they_can_be():
    class Scaled(nn.Linear):
        def scale(self, module, inputs, output):
            return self.factor * output

    model = network("plain", layer=Scaled)
    model[2].factor, x = nn.Parameter(torch.tensor(2.0)), images().x
    model[2].register_forward_hook(model[2].scale)
    model[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    new, expected = copied(model), model(x)
    assert torch.equal(new(x), expected)
    with torch.no_grad():
        new[2].factor.zero_()
    assert not torch.allclose(new(x), expected)
    assert torch.equal(model(x), expected)


def closing_over(model):
    head = model[4]
    model[2].register_forward_hook(lambda module, inputs, output: output + head.weight.sum())


def with_a_default(model):
    def forward(x, inner=model[2].forward):
        return inner(x)

    model[2].forward = forward


def one_inside_another(model):
    parts = {"layers": [model[0]]}

    def forward(x):
        return parts["layers"][0](x)

    model[0].register_forward_hook(lambda module, inputs, output: output + 0 * forward.__code__.co_argcount)
    model[4].register_forward_pre_hook(partial(lambda function, module, inputs: None, lambda: forward))


@pytest.mark.parametrize("spoil", [closing_over, with_a_default, one_inside_another])
def test_a_function_that_holds_a_layer_cannot_be_copied(spoil):
    model = network("plain")
    spoil(model)
    with pytest.raises(ValueError, match=r"cannot be copied, for the function .* holds its (Linear|Conv2d), wh"):
        copied(model)


def test_what_torch_cannot_copy_is_one_sentence():
    model = network("plain")
    model.source = (number for number in range(3))
    with pytest.raises(ValueError, match=r"Sequential cannot be copied \(.*generator.*\): take what it holds"):
        copied(model)


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_wrapped_networks_are_copied_and_get_a_new_head(wrap):
    model, x = wrap(network("plain")), images().x
    new = anatomy.replace_head(model, 5, seed=0)
    assert new(x).shape == (12, 5)
    assert model(x).shape == (12, 3)
    assert tensors(new).isdisjoint(tensors(model))


# New weights


def effective(model: nn.Module) -> torch.Tensor:
    return model[2].weight.detach()


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_those_of_a_network_made_with_that_seed(kind):
    """The same numbers as layers draw them, with nothing of the old weights left."""
    draws = []
    for source in (trained(kind), trained(kind, seed=5)):
        new = copied(source)
        draw_anew([new[2]], seed=3)
        new(images().x)
        draws.append(effective(new))
        assert not torch.allclose(draws[-1], effective(source), atol=1e-4)
    torch.manual_seed(3)
    drawn = nn.Linear(32, 16).weight.detach()
    if "pruned" in kind and "bias" not in kind:
        assert all(torch.equal(new, new.ne(0) * drawn) for new in draws)
        assert all(0.2 < new.eq(0).float().mean() < 0.7 for new in draws)
    elif "spectral" in kind:
        assert all(
            torch.allclose(new, drawn / torch.linalg.matrix_norm(drawn, 2), rtol=0.02, atol=1e-3) for new in draws
        )
    elif kind == "orthogonal":
        assert all(torch.allclose(new @ new.T, torch.eye(16), atol=1e-5) for new in draws)
        assert torch.allclose(*draws)
    else:
        factor = {"no inverse": 2.0}.get(kind, 1.0)
        assert all(torch.allclose(new, factor * drawn, atol=1e-6) for new in draws)


@pytest.mark.parametrize("kind", KINDS)
def test_a_natural_twin_has_new_weights_of_the_same_kind(kind):
    model = trained(kind)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = natural_twin(model, images(), updates=2, batch_size=6, progress=False)
    assert {name: t.shape for name, t in twin.state_dict().items()} == {name: t.shape for name, t in state.items()}
    assert not torch.allclose(effective(twin), effective(model), atol=1e-3)
    assert not torch.equal(twin(images().x), model(images().x))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_route_of_transfer_takes_it(kind):
    model, data = trained(kind, layer=Keeping), images()
    for new in (
        training.linear_head(model, data, n_classes=3),
        training.retrain_last(model, data, 1, n_classes=3, updates=1, batch_size=6, progress=False)[0],
        training.distill(model, data, strength=1.0, n_classes=3, updates=2, batch_size=6, progress=False)[0],
    ):
        assert torch.isfinite(new(data.x)).all()
        assert tensors(new).isdisjoint(tensors(model))


def test_a_network_without_weights_has_no_twin():
    with pytest.raises(ValueError, match="Flatten has no weights, so that a twin has nothing new to learn"):
        natural_twin(nn.Flatten(), images(), updates=1)


def test_passes_can_be_counted_meanwhile():
    model = network("plain")
    with count_passes(model) as passes:
        model(images().x)
        copied(model)(images().x)
    assert passes.forward == 1


def test_a_weight_that_stays_is_noticed():
    class Stubborn(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(ValueError, match="reset_parameters of Stubborn does not draw its scale anew: build"):
        draw_anew([Stubborn(3, 2)], seed=0)
    layer = nn.Linear(4, 3)
    parametrize.register_parametrization(layer, "weight", OneWay())
    with pytest.raises(
        ValueError, match="weight of ParametrizedLinear cannot be drawn anew, for what computes it has no right_inv"
    ):
        draw_anew([layer], seed=0)


def test_a_layer_that_a_first_pass_makes_is_left_to_it():
    layer = nn.LazyLinear(3)
    draw_anew([layer], seed=0)
    assert layer(torch.rand(2, 5)).shape == (2, 3)


def test_parameters_behind_a_parametrization_are_their_layers():
    layer = parametrizations.weight_norm(nn.Linear(4, 3))
    assert not any(fixed_parameters(module) for module in layer.modules())
    alone = nn.Module()
    alone.own = nn.Parameter(torch.zeros(2))
    assert fixed_parameters(alone) == ["own"]


def test_drawing_leaves_the_callers_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw_anew(network("plain", seed=torch.initial_seed()).modules(), seed=4)
    torch.manual_seed(0)
    draw_anew([nn.BatchNorm2d(3)], seed=4)
    assert torch.equal(torch.rand(3), expected)
