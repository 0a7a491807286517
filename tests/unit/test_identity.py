"""Which one is it: networks, data and functions that differ are told apart, and equal ones are not."""

from __future__ import annotations

import datetime
import functools
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit.identity import CannotTell, describe, fingerprint, tell


def network(seed: int = 0, act=F.relu) -> nn.Module:
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.act = nn.Linear(3, 2), act

        def forward(self, x):
            return self.act(self.layer(x))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(Own(), nn.BatchNorm1d(2), nn.ReLU())


def changed(change):
    model = network()
    change(model)
    return model


def test_the_same_network_has_the_same_fingerprint():
    assert fingerprint(network()) == fingerprint(network()) == fingerprint(network().eval())
    assert fingerprint(network()) == fingerprint(network().requires_grad_(False))


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(1),
        lambda: network(act=F.gelu),
        lambda: changed(lambda model: setattr(model[1], "eps", 1e-3)),
        lambda: changed(lambda model: model[1].running_mean.add_(1)),
        lambda: changed(lambda model: setattr(model[0], "forward", lambda x: -x)),
        lambda: changed(lambda model: setattr(model[0], "scale", torch.ones(1))),
        lambda: changed(lambda model: setattr(model[0], "_scale", 2.0)),
        lambda: changed(lambda model: model.register_forward_hook(lambda m, i, o: -o)),
        lambda: network().double(),
        lambda: nn.Sequential(*network()[:2], nn.GELU()),
    ],
    ids=["weights", "activation", "eps", "buffer", "forward", "attribute", "private", "hook", "precision", "layer"],
)
def test_another_network_has_another_fingerprint(other):
    assert fingerprint(other()) != fingerprint(network())


def scaled(by):
    return lambda x: by * x


def with_default(x, by=2):
    return by * x


class Model:
    def __init__(self, weights):
        self.weights = weights

    def __call__(self, x):
        return self.weights @ x

    def answer(self, x):
        return self(x)


class Slotted:
    __slots__ = ("by",)

    def __init__(self, by):
        self.by = by


PAIRS = {
    "closures": (scaled(1), scaled(2)),
    "closures over networks": (scaled(network(0)), scaled(network(1))),
    "closures over lists of networks": (scaled([network(0)]), scaled([network(1)])),
    "partials": (functools.partial(with_default, by=3), functools.partial(with_default, by=4)),
    "code": (lambda x: x + 1, lambda x: x + 2),
    "names": (lambda x: x.sin(), lambda x: x.cos()),
    "inner code": (lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
    "defaults": (lambda x, by=1: x, lambda x, by=2: x),
    "objects": (Model(torch.ones(2)), Model(torch.zeros(2))),
    "methods": (Model(torch.ones(2)).answer, Model(torch.zeros(2)).answer),
    "networks": (network(0), network(1)),
    "functions": (F.relu, F.gelu),
}


@pytest.mark.parametrize("one", PAIRS.values(), ids=PAIRS)
def test_functions_that_differ_are_told_apart(one):
    first, second = one
    assert describe(first) != describe(second)
    assert describe(first) == describe(first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2), (1, True), (1, 1.0), ("a", b"a"), ((1, 2), [1, 2]), ({"a": 1}, {"a": 2}), ({1, 2}, {1, 3}),
        (torch.ones(2), torch.ones(3)), (torch.ones(2), torch.ones(2).double()), (torch.ones(2), torch.ones(2, 1)),
        (np.ones(2), np.zeros(2)), (torch.float32, torch.float64), (range(3), range(4)),
        (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)), (random.Random(0), random.Random(1)),
        (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)), (Slotted(1), Slotted(2)),
        (torch.ones(2).bfloat16(), torch.zeros(2).bfloat16()), (nn.ReLU, nn.GELU), (list("ab" * 99), list("ab" * 98)),
    ],
)  # fmt: skip
def test_values_that_differ_are_told_apart(one, other):
    assert tell(one) != tell(other)
    assert tell(one) == tell(one)


def test_where_a_tensor_lies_in_memory_does_not_count():
    x = torch.arange(12.0).reshape(3, 4)
    assert tell(x.t()) == tell(x.t().contiguous())
    assert tell(x[:, 1:2]) == tell(x[:, 1:2].clone())


@pytest.mark.parametrize("thing", [threading.Lock(), (i for i in range(3)), sys.stdout])
def test_what_no_other_process_could_tell_apart_is_refused_by_name(thing):
    with pytest.raises(CannotTell, match=r"^by \("):
        describe(scaled(thing))


def test_a_thing_that_holds_itself_is_told():
    circle = []
    circle.append(circle)
    assert tell(circle) == tell(circle)


_IN_A_PROCESS = """
import functools, torch
from torch import nn
from thesis_kit.identity import describe, fingerprint, tell
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
SCALE = 2
def work(x):
    return SCALE * model(x), {"a", "b", "c"}
print(fingerprint(model), describe(work), tell({"names": {"a", "b", "c"}}), describe(lambda x: x in {"a", "b", "c"}))
"""


def test_another_process_tells_the_same():
    said = [subprocess.run([sys.executable, "-c", _IN_A_PROCESS], capture_output=True, text=True) for _ in range(2)]
    assert said[0].returncode == 0, said[0].stderr
    assert said[0].stdout == said[1].stdout
    assert "'model': '" in said[0].stdout
    assert "'SCALE': '2'" in said[0].stdout
