"""Robust accuracy: the same worst case whatever the route, costs counted, nothing left behind."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thesis_kit import attacks, progress
from thesis_kit.asking import evaluating
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import Part, digits
from thesis_kit.evaluation import (
    accuracy,
    correct,
    reference_attack,
    robust_accuracy,
    strong_attacks,
    weak_attack,
)
from thesis_kit.passes import Passes, count_passes

EPS = 0.04


def some_digits(n: int = 60) -> Part:
    part = digits(0).test[torch.arange(n) * 5]
    return Part(part.x.double(), part.y, part.ids)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A linear classifier in float64 fitted to the digits: right on most, breakable on some."""
    train = digits(0).train[:150]
    x = torch.cat([train.x.flatten(1), torch.ones(len(train), 1)], dim=1).double()
    solution = torch.linalg.lstsq(x, nn.functional.one_hot(train.y, 10).double(), driver="gelsd").solution
    linear = nn.Linear(64, 10).double()
    linear.weight.data, linear.bias.data = 8 * solution[:-1].T.contiguous(), 8 * solution[-1]
    return nn.Sequential(nn.Flatten(), linear)


def few_attacks(steps: int = 3) -> dict:
    return {
        "PGD": partial(attacks.pgd, eps=EPS, steps=steps, restarts=2),
        "margin": partial(attacks.pgd, eps=EPS, steps=steps, loss="margin"),
        "APGD": partial(attacks.apgd, eps=EPS, steps=steps),
        "targeted": partial(attacks.apgd_targeted, eps=EPS, steps=steps, n_targets=3),
        "Square": partial(attacks.square, eps=EPS, queries=15),
    }


def survivors(result) -> list[list[bool]]:
    return [outcome.survived.tolist() for outcome in result.attacks]


# The worst case


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(list(few_attacks())), batch_size=st.integers(1, 70))
def test_every_route_leads_to_the_same_worst_case(model, seed, order, batch_size):
    """Cumulative or independent, in any order, in batches of any size."""
    data, named = some_digits(30), few_attacks(2)
    expected = robust_accuracy(model, data, named, seed=seed, independent=True)
    shuffled = {name: named[name] for name in order}
    for independent in (False, True):
        result = robust_accuracy(model, data, shuffled, seed=seed, independent=independent, batch_size=batch_size)
        assert torch.equal(result.worst, expected.worst)
        assert torch.equal(result.correct, expected.correct)
        if independent:
            assert all(torch.equal(result[name].survived, expected[name].survived) for name in named)


def test_the_worst_case_is_what_attacking_image_by_image_gives(model):
    data, named = some_digits(25), few_attacks()
    result = robust_accuracy(model, data, named)
    alone = [robust_accuracy(model, data, {name: named[name]}).worst for name in named]
    assert torch.equal(result.worst, torch.stack(alone).all(dim=0))
    assert 0 < result.worst.sum() < result.correct.sum()


def test_data_may_be_a_part_a_pair_or_batches(model):
    data = some_digits()
    expected = robust_accuracy(model, data, few_attacks(), batch_size=13)
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=7)
    for form in ((data.x, data.y), loader, [(data.x[:9], data.y[:9]), (data.x[9:], data.y[9:])]):
        result = robust_accuracy(model, form, few_attacks())
        assert survivors(result) == survivors(expected)
        assert accuracy(model, form) == expected.clean_accuracy


@pytest.mark.bad_input
def test_a_pair_in_a_list_is_a_pair(model):
    data = some_digits()
    assert accuracy(model, [data.x, data.y]) == accuracy(model, data)


def test_seeds_and_names_give_other_random_numbers_and_nothing_else_does(model):
    starts = []

    def note(model, x, y, *, generator):
        starts.append(generator.uniform(3))
        return x

    data = some_digits(4)
    torch.manual_seed(1)
    robust_accuracy(model, data, {"a": note, "b": note})
    torch.manual_seed(2)
    robust_accuracy(model, data, {"b": note, "a": note}, batch_size=2)
    robust_accuracy(model, data, {"a": note}, seed=1)
    assert torch.equal(starts[0], torch.cat(starts[4:6]))
    assert torch.equal(starts[1], torch.cat(starts[2:4]))
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[6])


def test_an_attack_that_rights_a_wrong_label_gains_nothing(model):
    data = some_digits()
    clean = correct(model, data)
    assert not clean.all()

    def helpful(model, x, y, *, generator):
        """An image of the right class for everybody."""
        return torch.stack([data.x[clean & (data.y == label)][0] for label in y])

    result = robust_accuracy(model, data, {"help": helpful}, independent=True)
    assert torch.equal(result["help"].survived, clean)
    assert torch.equal(result.worst, clean)


def test_an_attack_of_radius_zero_changes_nothing_and_a_larger_radius_breaks_more(model):
    data = some_digits()
    shares = [robust_accuracy(model, data, reference_attack(eps)).robust_accuracy for eps in (0.0, 0.05, 0.2)]
    assert shares[0] == accuracy(model, data)
    assert shares[0] > shares[1] > shares[2]


def test_without_attacks_the_worst_case_is_the_clean_one(model):
    result = robust_accuracy(model, some_digits(), {})
    assert result.attacks == []
    assert result.robust_accuracy == result.clean_accuracy == accuracy(model, some_digits())


# Costs


def test_survivors_only_and_independent_budgets_are_counted(model):
    data, seen = some_digits(), {"first": [], "second": []}

    def attack(name, model, x, y, *, generator):
        seen[name].append(len(x))
        model(x), model(x)
        model(x.clone().requires_grad_()).sum().backward()
        return torch.zeros_like(x) if name == "first" else x  # a black image: always one and the same class

    named = {name: partial(attack, name) for name in seen}
    result = robust_accuracy(model, data, named, batch_size=16)
    left = int(result["first"].survived.sum())
    assert 0 < left < result.correct.sum()
    assert [outcome.attacked for outcome in result.attacks] == [int(result.correct.sum()), left]
    for name, outcome in zip(seen, result.attacks, strict=True):
        assert sum(seen[name]) == outcome.attacked
        calls = -(-outcome.attacked // 16)
        expected = Passes(3 * calls, calls, 3 * outcome.attacked, outcome.attacked)
        assert outcome.passes == expected
        assert outcome.seconds > 0
    everything = robust_accuracy(model, data, named, independent=True)
    assert [outcome.attacked for outcome in everything.attacks] == [60, 60]


def test_pgd_costs_what_it_says(model):
    result = robust_accuracy(model, some_digits(), reference_attack(EPS), independent=True)
    assert (result.attacks[0].passes.forward_images, result.attacks[0].passes.backward_images) == (1200, 1200)


def test_the_named_attacks_are_the_protocols():
    (name, attack), *rest = reference_attack(0.2).items()
    assert (name, rest) == ("PGD-20", [])
    assert attack.func is attacks.pgd
    assert attack.keywords == {"eps": 0.2, "norm": "linf", "steps": 20, "step_size": pytest.approx(0.05)}
    ((_, weak),) = weak_attack(0.2).items()
    assert weak.keywords == {"eps": 0.2, "norm": "linf", "steps": 10, "step_size": pytest.approx(0.025)}
    strong = strong_attacks(0.2)
    assert list(strong) == ["PGD", "PGD margin", "APGD-CE", "APGD-DLR targeted", "Square"]
    assert [strong[name].keywords["restarts"] for name in ("PGD", "PGD margin")] == [5, 5]
    assert [strong[name].keywords["steps"] for name in list(strong)[:4]] == [100] * 4
    assert strong["PGD margin"].keywords["loss"] == "margin"
    assert strong["Square"].keywords["queries"] == 5000
    euclidean = strong_attacks(0.2, norm="l2")
    assert list(euclidean) == ["PGD", "PGD margin", "APGD-CE", "APGD-DLR targeted", "FAB targeted", "Square"]
    assert euclidean["FAB targeted"].func is attacks.fab_targeted
    assert euclidean["FAB targeted"].keywords == {"eps": 0.2, "norm": "l2", "steps": 100}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_strong_ensemble_runs_as_named(model, norm):
    result = robust_accuracy(model, some_digits(8), strong_attacks(EPS, norm=norm, steps=3, restarts=2, queries=10))
    assert result.robust_accuracy <= result.clean_accuracy
    assert all(outcome.accuracy >= result.robust_accuracy for outcome in result.attacks)


# Numbers and their printing


@pytest.mark.parametrize("right", [0, 7, 60])
def test_intervals_are_wilsons(model, right):
    labels = model(some_digits().x).argmax(dim=1)
    labels[right:] = (labels[right:] + 1) % 10
    result = robust_accuracy(model, (some_digits().x, labels), {})
    expected = binomtest(right, 60).proportion_ci(method="wilson")
    assert result.interval == pytest.approx((expected.low, expected.high))
    assert result.clean_accuracy == pytest.approx(right / 60)


def test_a_result_prints_as_a_table(model):
    result = robust_accuracy(model, some_digits(), few_attacks())
    lines = str(result).splitlines()
    assert [line[:20].strip() for line in lines] == ["no attack", *few_attacks(), "worst case"]
    assert f"{100 * result.robust_accuracy:5.1f}%" in lines[-1]
    low, high = result.interval
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in lines[-1]
    assert re.search(r"passes +\d+\.\d s$", lines[1])
    assert len({line.index("%") for line in lines}) == 1


def test_an_attack_is_found_by_name_and_near_names_are_offered(model):
    result = robust_accuracy(model, some_digits(5), few_attacks())
    assert result["Square"] is result.attacks[-1]
    with pytest.raises(UnknownName, match="unknown attack 'square': did you mean Square"):
        result["square"]


# State and progress


class Mixed(nn.Module):
    """Batch normalization in evaluation mode inside a network in training mode; one frozen layer."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.head = nn.Linear(16, 10)
        self.body.requires_grad_(False)
        self.norm.eval()

    def forward(self, x):
        return self.head(self.drop(self.norm(self.body(x.flatten(1)))))


def state(model: nn.Module) -> tuple:
    modules = list(model.modules())
    return (
        [module.training for module in modules],
        [p.requires_grad for p in model.parameters()],
        [p.grad is None for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        [tensor.clone().tolist() for tensor in model.state_dict().values()],
    )


@pytest.mark.parametrize("broken", [False, True])
def test_everything_is_left_as_found(broken):
    model, before, part = Mixed(), None, digits(0).test[:20]
    before, generator = state(model), torch.get_rng_state()

    def fail(model, x, y, *, generator):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError

    if broken:
        with pytest.raises(ZeroDivisionError):
            robust_accuracy(model, part, {"fail": fail})
    else:
        robust_accuracy(model, part, few_attacks(2))
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), generator)


def test_evaluation_mode_is_used_whatever_the_mode_before():
    model, part = Mixed(), digits(0).test[:20]
    first = correct(model, part)
    assert torch.equal(first, correct(model, part))  # dropout would differ
    with evaluating(model) as same:
        assert same is model
        assert not any(module.training for module in model.modules())


def test_gradients_may_be_switched_off_around_it(model):
    with torch.no_grad():
        off = robust_accuracy(model, some_digits(20), few_attacks())
    assert torch.equal(off.worst, robust_accuracy(model, some_digits(20), few_attacks()).worst)


@pytest.mark.parametrize("shown", [False, True])
def test_the_bar_can_be_shown_and_silenced(model, shown, capsys):
    robust_accuracy(model, some_digits(10), few_attacks(), progress=shown)
    out, err = capsys.readouterr()
    assert out == ""
    assert bool(err) == shown


def test_the_session_can_silence_the_bar(model, capsys):
    progress.set_progress(True)
    try:
        robust_accuracy(model, some_digits(10), few_attacks())
        assert capsys.readouterr().err
        progress.set_progress(False)
        robust_accuracy(model, some_digits(10), few_attacks())
        assert not capsys.readouterr().err
    finally:
        progress.set_progress(None)


# The passes counter


def test_passes_are_counted_inside_the_block_only_and_add_up():
    model = nn.Linear(3, 2)
    with count_passes(model) as passes:
        model(torch.rand(5, 3)).sum().backward()
        with torch.no_grad():
            model(torch.rand(4, 3))
    model(torch.rand(7, 3)).sum().backward()
    assert passes == Passes(forward=2, backward=1, forward_images=9, backward_images=5)
    assert passes + Passes(1, 2, 3, 4) == Passes(3, 3, 12, 9)
    assert not model._forward_hooks


def test_a_copy_made_inside_the_block_is_not_counted():
    model = nn.Linear(3, 2)
    with count_passes(model) as passes:
        copied = copy.deepcopy(model)
        copied(torch.rand(5, 3))
    assert passes == Passes()
    assert not model._forward_hooks
    pickle.dumps(copied)


def test_a_backward_pass_counts_once_for_each_forward_pass_it_belongs_to():
    model = nn.Linear(3, 2)
    with count_passes(model) as passes:
        both = model(torch.rand(5, 3)).sum() + model(torch.rand(2, 3)).sum()
        assert passes.backward == 0
        both.backward()
        x = torch.rand(1, 3, requires_grad=True)
        torch.autograd.grad(model(x).sum(), x)
    assert (passes.forward, passes.backward, passes.backward_images) == (3, 3, 8)


def test_counters_nest_and_survive_exceptions():
    model = nn.Linear(3, 2)
    with count_passes(model) as outer:
        with contextlib.suppress(ZeroDivisionError), count_passes(model) as inner:
            model(torch.rand(5, 3))
            raise ZeroDivisionError
        model(torch.rand(5, 3))
    assert (outer.forward, inner.forward) == (2, 1)
    assert not model._forward_hooks


# Bad input


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: (x[:0], y[:0]), "there are no images to evaluate on: the data are empty"),
        (lambda x, y: [], "there are no images to evaluate on: the data are empty"),
        (lambda x, y: iter(()), "there are no images to evaluate on: the data are empty"),
        (lambda x, y: (x * 255, y), "pixels must lie in [0, 1], got [0, 255]: divide by 255"),
        (lambda x, y: (x - 1, y), "pixels must lie in [0, 1], got [-1, 0]"),
        (lambda x, y: (x * float("nan"), y), "images contain NaN: look at how they were loaded"),
        (lambda x, y: (x[0], y), "images must have shape (n, c, h, w), got (1, 8, 8)"),
        (lambda x, y: ((16 * x).long(), y), "images must be a floating-point tensor, got torch.int64"),
        (lambda x, y: (x, y.int()), "labels must be an int64 tensor, got torch.int32: convert with y.long()"),
        (lambda x, y: (x, y.tolist()), "labels must be an int64 tensor, got list"),
        (lambda x, y: (x, y[1:]), "labels must have shape (20,), one class index an image, got (19,)"),
        (lambda x, y: (x, y + 5), "labels must lie in [0, 9], for the model has 10 outputs; got 5 to 14"),
    ],
)
def test_bad_data_are_one_sentence(model, change, sentence):
    data = some_digits(20)
    for measure in (accuracy, correct, partial(robust_accuracy, attacks=few_attacks())):
        with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as caught:
            measure(model, change(data.x, data.y))
        assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("output", "error", "sentence"),
    [
        (lambda z: z * float("nan"), NonFiniteOutput, "the model returned NaN or infinite logits"),
        (lambda z: z[:, :1], ValueError, "the model has one output: a classifier needs at least two classes"),
        (lambda z: z[:, :, None], ValueError, "a classifier must return logits of shape (20, k) for 20 images"),
        (lambda z: {"logits": z}, ValueError, "for 20 images, got dict"),
    ],
)
def test_bad_models_are_one_sentence(model, output, error, sentence):
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return output(self.inner(x))

    with pytest.raises(error, match=re.escape(sentence)):
        robust_accuracy(Bad(), some_digits(20), few_attacks())


@pytest.mark.bad_input
def test_bad_settings_are_one_sentence(model):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        robust_accuracy(model, some_digits(5), {}, batch_size=0)
    for make in (reference_attack, weak_attack, strong_attacks):
        with pytest.raises(ValueError, match=r"eps must be a finite number of at least 0, got -0\.1"):
            make(-0.1)
    with pytest.raises(
        ValueError, match=r"the model is on meta and the images are on cpu: move one with .to\(device\)"
    ):
        accuracy(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to("meta"), some_digits(5))


@pytest.mark.bad_input
def test_an_attack_that_leaves_the_numbers_is_not_taken_for_robustness(model):
    def broken(model, x, y, *, generator):
        return x * float("nan")

    with pytest.raises(NonFiniteOutput):
        robust_accuracy(model, some_digits(5), {"broken": broken})
