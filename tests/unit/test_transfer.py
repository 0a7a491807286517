"""Robust transfer: what each route changes and what it must leave alone, what it costs, and what it refuses."""

from __future__ import annotations

import copy
import math
import re
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thesis_kit import training
from thesis_kit.data import Part, Stream, digits
from thesis_kit.evaluation import accuracy
from thesis_kit.models import anatomy, build
from thesis_kit.passes import Passes, count_passes
from thesis_kit.training import heads, transfer
from thesis_kit.training.distillation import LwF

CLASSES = 5
BLOCKS = 4  # the stem and a block a stage


@cache
def trained() -> nn.Module:
    model = build("small_resnet", seed=0, in_channels=1, width=4, blocks=1)
    training.train(model, digits(0).train, updates=60, batch_size=64)
    return model


def source() -> nn.Module:
    """A small residual network that has seen all ten digits."""
    return copy.deepcopy(trained())


def target(n: int = 60, classes: int = CLASSES) -> Part:
    part = digits(0).train
    return part[part.y < classes][:n]


def retrain(model, k=1, data=None, **knobs):
    knobs = {"n_classes": CLASSES, "updates": 3, "batch_size": 16, "lr": 0.05, **knobs}
    return training.retrain_last(model, target() if data is None else data, k, **knobs)


def distill(model, strength=1.0, data=None, **knobs):
    knobs = {"n_classes": CLASSES, "updates": 8, "batch_size": 16, "lr": 0.01, **knobs}
    return training.distill(model, target() if data is None else data, strength=strength, **knobs)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of tensors that differ; a head for other classes always does."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def head_names(model: nn.Module) -> set[str]:
    name = next(name for name, module in model.named_modules() if module is anatomy.head(model))
    return {f"{name}.weight", f"{name}.bias"}


def is_left_as_found(model: nn.Module, before: dict, mode: bool) -> bool:
    return (
        not changed(model, before)
        and all(module.training == mode for module in model.modules())
        and all(p.requires_grad and p.grad is None for p in model.parameters())
        and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    )


# Few images


@settings(max_examples=20, deadline=None)
@given(per_class=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_few_images_are_stratified_and_keep_order_and_ids(per_class, seed):
    part = digits(0).train
    chosen = training.few(part, per_class, seed=seed)
    assert torch.bincount(chosen.y).tolist() == [per_class] * 10
    places = {int(i): place for place, i in enumerate(part.ids)}
    at = [places[int(i)] for i in chosen.ids]
    assert at == sorted(set(at))
    assert torch.equal(chosen.x, part.x[at])
    assert torch.equal(chosen.y, part.y[at])


def test_fewer_images_are_a_subset_and_the_seed_decides():
    part = digits(0).train
    one, five, other = (set(training.few(part, n, seed=s).ids.tolist()) for n, s in ((1, 0), (5, 0), (5, 1)))
    assert one < five
    assert five != other
    assert five == set(training.few(part, 5, seed=0).ids.tolist())


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("part", "per_class", "sentence"),
    [
        (target(60)[target(60).y != 2], 3, "3 images a class were asked for, but class 2 has 0: ask for fewer"),
        (Part(target(4).x, torch.tensor([0, 1, 1, 2]), torch.arange(4)), 2, "but class 0 has 1, class 2 has 1: ask"),
        (target(60), 0, "per_class must be a whole number of at least 1, got 0"),
        (target(0), 1, "the number of images to draw from must be a whole number of at least 1, got 0"),
    ],
)
def test_too_few_images_of_a_class_are_named(part, per_class, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        training.few(part, per_class, seed=0)


# A linear head on frozen features


@pytest.mark.parametrize("mode", [True, False])
def test_a_linear_head_changes_the_head_alone_and_costs_one_pass_an_image(mode):
    model, data = source().train(mode), target(300)
    before = state(model)
    with count_passes(model) as passes:
        new = training.linear_head(model, data, n_classes=CLASSES)
    assert passes == Passes(forward=2, forward_images=len(data))
    assert is_left_as_found(model, before, mode)
    assert changed(new, before) == head_names(new)
    assert accuracy(new, data) > 0.9
    again = training.linear_head(model, data, n_classes=CLASSES)
    assert changed(again, state(new)) == set()


def test_a_linear_head_is_found_without_an_adversarial_example_or_a_gradient_below_it(monkeypatch):
    model, tracked = source(), []
    anatomy.blocks(model)[0][1].register_forward_hook(lambda module, inputs, out: tracked.append(out.requires_grad))
    training.linear_head(model, target(), n_classes=CLASSES)
    assert tracked == [False]


def test_a_larger_penalty_means_smaller_weights_and_a_constant_feature_means_none():
    model = source()
    last = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.weight[3], last.bias[3] = 0.0, 1.7
    norms = []
    for penalty in (1e-3, 1e-1, 10.0):
        weight = anatomy.head(training.linear_head(model, target(), n_classes=CLASSES, penalty=penalty)).weight
        assert torch.isfinite(weight).all()
        assert (weight[:, 3] == 0).all()
        norms.append(weight.norm().item())
    assert norms == sorted(norms, reverse=True)


def test_the_fitted_head_is_a_minimum():
    """The slope of the stated loss vanishes, on standardized features in float64."""
    model, data, penalty = source().double(), target(), 0.01
    data = Part(data.x.double(), data.y, data.ids)
    z = transfer.source_features(model, data)
    mean, std = z.mean(dim=0), z.std(dim=0, correction=0)
    layer = anatomy.head(training.linear_head(model, data, n_classes=CLASSES, penalty=penalty))
    weight = (layer.weight * std).detach().requires_grad_()
    bias = (layer.bias + layer.weight @ mean).detach().requires_grad_()
    logits = (z - mean) / std @ weight.T + bias
    (nn.functional.cross_entropy(logits, data.y) + penalty / 2 * weight.square().sum()).backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-6
    assert torch.allclose(nn.functional.linear(z, layer.weight, layer.bias), logits)


def test_a_network_without_bias_gets_one():
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3, False))
    assert anatomy.head(training.linear_head(model, target(), n_classes=CLASSES)).bias.shape == (CLASSES,)


def test_the_penalty_that_is_best_on_validation_is_chosen_and_the_largest_of_equals():
    model, data, validation = source(), training.few(target(200), 4, seed=0), target(400)[200:]
    penalties = [1e-3, 1e-2, 0.1, 1.0, 10.0]
    right = {
        penalty: accuracy(training.linear_head(model, data, n_classes=CLASSES, penalty=penalty), validation)
        for penalty in penalties
    }
    assert len(set(right.values())) > 1
    chosen = training.choose_penalty(model, data, validation, n_classes=CLASSES, penalties=penalties)
    assert chosen == max(penalty for penalty in penalties if right[penalty] == max(right.values()))
    alone = target(100)
    assert training.choose_penalty(model, alone, alone, n_classes=CLASSES, penalties=[1e-3, 2e-3, 1.5e-3]) == 2e-3


def test_a_head_that_does_not_converge_is_one_sentence(monkeypatch):
    monkeypatch.setattr(heads, "_ITERATIONS", 2)
    with pytest.raises(ValueError, match=r"the head did not converge \(a derivative of .* is left\): take a larger"):
        training.linear_head(source(), target(), n_classes=CLASSES)


# Retraining the last blocks


@pytest.mark.parametrize("k", range(BLOCKS + 1))
def test_what_lies_before_the_cut_stays_to_the_bit_and_the_rest_is_trained(k):
    model = source()
    before = state(model)
    new, report = retrain(model, k)
    assert is_left_as_found(model, before, True)
    kept = {id(p) for part in anatomy.split(new, k)[0] for p in part.parameters()}
    trained = {name for name, p in new.named_parameters() if id(p) not in kept}
    assert {name for name in changed(new, before) if name in dict(new.named_parameters())} == trained
    for name, module in new.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            moved = {f"{name}.{b}" for b in ("running_mean", "running_var")} & changed(new, before)
            assert bool(moved) == (f"{name}.weight" in trained)
    assert len(trained) == {0: 2, BLOCKS: len(list(new.parameters()))}.get(k, len(trained))
    assert (report.updates, report.passes.backward) == (3, 3)
    assert all(p.requires_grad for p in new.parameters())


def test_retrained_layers_begin_as_new_ones_do():
    new, _ = retrain(source(), BLOCKS, lr=0.0, seed=5)
    fresh = build("small_resnet", seed=5, n_classes=CLASSES, in_channels=1, width=4, blocks=1)
    assert all(torch.equal(p, q) for p, q in zip(new.parameters(), fresh.parameters(), strict=True))
    part, _ = retrain(source(), 1, lr=0.0, seed=5)
    conv = anatomy.blocks(part)[-1][1].conv1.weight
    assert not torch.equal(conv, anatomy.blocks(source())[-1][1].conv1.weight)
    assert conv.abs().max() <= 1 / math.sqrt(conv[0].numel())  # the uniform distribution that nn.Conv2d starts from


def test_the_seed_decides_and_the_callers_generator_is_left():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    one, same, other = (retrain(source(), 2, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert changed(same, state(one)) == set()
    assert changed(other, state(one)) > head_names(other)


def test_retraining_the_head_computes_no_gradient_below_it():
    model, tracked = source(), []
    anatomy.blocks(model)[-1][1].register_forward_hook(lambda module, inputs, out: tracked.append(out.requires_grad))
    retrain(model, 0)  # the hook is copied with the model
    assert tracked == [False] * 3
    tracked.clear()
    retrain(model, 1)
    assert tracked == [True] * 3


class Digits(Stream):
    name = "digits again"

    def minibatch(self, position, size):
        return target(400)[position * size : (position + 1) * size]


def test_blocks_may_be_retrained_on_a_stream():
    model = source()
    new, report = retrain(model, 1, Digits())
    assert report.passes.forward_images == 3 * 16
    assert changed(new, state(model)) > head_names(new)


def test_retraining_the_head_learns():
    new, _ = retrain(source(), 0, target(300), updates=150, lr=0.5)
    assert accuracy(new, target(300)) > 0.8


# Distillation


def distance(new: nn.Module, old: nn.Module, data: Part) -> float:
    """E‖z − z₀‖₁ / E‖z₀‖₁."""
    z, z0 = (transfer.source_features(model, data) for model in (new, old))
    return ((z - z0).abs().sum() / z0.abs().sum()).item()


@pytest.mark.parametrize("mode", [True, False])
def test_distillation_trains_every_weight_and_no_statistics(mode):
    model = source().train(mode)
    before = state(model)
    new, _ = distill(model)
    assert is_left_as_found(model, before, mode)
    assert changed(new, before) == set(dict(new.named_parameters()))
    assert all(module.training == mode for module in new.modules())


def test_the_stronger_the_closer_to_the_sources_features():
    model, data = source(), target()
    knobs = {"updates": 120, "lr": 0.003, "schedule": "cosine"}
    moved = [distance(distill(model, strength, **knobs)[0], model, data) for strength in (0.0, 0.1, 1.0)]
    assert moved == sorted(moved, reverse=True)
    assert moved[2] < 0.2 * moved[0]


def test_strength_zero_is_plain_fine_tuning_in_evaluation_mode():
    model, data = source(), target()

    class Still(training.Natural):
        training_mode = False

    head = anatomy.head(training.linear_head(model, data, n_classes=CLASSES))
    distilled, _ = distill(model, 0.0, data, head=head)
    plain = training.linear_head(model, data, n_classes=CLASSES)
    knobs = {"schedule": "constant", "weight_decay": 2e-4, "batch_size": 16, "lr": 0.01}
    training.train(plain, data, Still(), updates=8, **knobs)
    assert changed(distilled, state(plain)) == set()


def test_the_first_half_trains_the_head_alone_and_makes_no_pass_through_the_network():
    model, seen = source(), []
    before = state(model)
    _, report = distill(model, updates=9, probe=lambda new: seen.append(changed(new, before)) or {}, probe_every=1)
    names = set(before)
    head = head_names(model)
    assert seen[:4] == [head] * 4
    assert all(head < names_changed <= names for names_changed in seen[4:])
    assert len(seen) == report.updates == 9
    assert (report.passes.forward, report.passes.backward) == (1 + 5, 5)  # one for the source's sixty features
    assert report.seconds > 0


def test_the_head_phase_is_training_of_the_head_on_frozen_features():
    model, data = source(), target()
    distilled, _ = distill(model, 1.0, data, updates=2)  # one update of the head, one of everything
    plain = anatomy.replace_head(model, CLASSES, seed=0)
    knobs = {"schedule": "constant", "weight_decay": 2e-4, "batch_size": 16, "lr": 0.01}
    first = LwF(1.0, transfer.source_features(model, data), head_updates=1)
    training.train(plain, data, first, updates=1, **knobs)
    still = anatomy.replace_head(model, CLASSES, seed=0)
    training.train(still, data, frozen=anatomy.split(still, 0)[0], updates=1, **knobs)
    assert torch.allclose(anatomy.head(plain).weight, anatomy.head(still).weight, atol=1e-6)
    assert not torch.equal(anatomy.head(distilled).weight, anatomy.head(plain).weight)


def test_a_head_given_spares_the_first_half():
    model, data, seen = source(), target(), []
    fitted = training.linear_head(model, data, n_classes=CLASSES)
    before = anatomy.head(fitted).weight.clone()
    new, report = distill(
        model, data=data, head=anatomy.head(fitted), updates=4, lr=0.0, probe=lambda new: seen.append(new) or {}
    )
    assert torch.equal(anatomy.head(new).weight, before)
    assert anatomy.head(new).weight is not anatomy.head(fitted).weight
    assert anatomy.head(new).bias is not anatomy.head(fitted).bias
    assert report.passes.backward == 4


def test_the_strength_is_in_units_of_the_mean_norm():
    z = torch.tensor([[1.0, -2.0], [0.0, 5.0]])
    assert LwF(1.0, z).mean_norm == 4.0


class Stop(Exception):
    pass


def test_a_distillation_that_is_broken_off_resumes_bit_for_bit(tmp_path):
    model, file, measured = source(), tmp_path / "run.pt", []

    def stop(new):
        measured.append(1)
        if len(measured) == 3:
            raise Stop
        return {"one": 1.0}

    knobs = {"checkpoint_seconds": 0.0, "probe_every": 2}
    unbroken, report = distill(model, probe=lambda new: {"one": 1.0}, **knobs)
    with pytest.raises(Stop):
        distill(model, probe=stop, checkpoint=file, **knobs)
    resumed, again = distill(model, probe=lambda new: {"one": 1.0}, checkpoint=file, **knobs)
    assert changed(resumed, state(unbroken)) == set()
    assert again.passes == report.passes
    with pytest.raises(ValueError, match="another run"):
        distill(model, 2.0, checkpoint=file, **knobs)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_short_formats_hold_on_to_features_of_their_own_precision(precision, monkeypatch):
    distances, minibatch = [], LwF.minibatch

    def note(self, x, y, run):
        with anatomy.head_inputs(run.model) as seen:
            run.loss(x, y)
        distances.append((seen[0].float() - self._features[run.index]).abs().max().item())
        minibatch(self, x, y, run)

    monkeypatch.setattr(LwF, "minibatch", note)
    new, _ = distill(source(), precision=precision, lr=0.0)
    assert max(distances) == 0
    assert {p.dtype for p in new.parameters()} == {torch.float32}


# Bad input


def with_labels(change) -> Part:
    part = target()
    return Part(part.x, change(part.y.clone()), part.ids)


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 10, 8)

    def forward(self, x):
        return self.convolution(x).flatten(1)


ROUTES = {
    "linear_head": lambda model, data, n: training.linear_head(model, data, n_classes=n),
    "choose_penalty": lambda model, data, n: training.choose_penalty(model, data, data, n_classes=n),
    "retrain_last": lambda model, data, n: retrain(model, 1, data, n_classes=n),
    "distill": lambda model, data, n: distill(model, 1.0, data, n_classes=n),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("model", "data", "n_classes", "sentence"),
    [
        (source, target(), 1, "n_classes must be a whole number of at least 2, got 1"),
        (source, target(), 4, "labels must lie in [0, 3], for the model has 4 outputs; got 0 to 4"),
        (source, target(), 7, "no image has the label 5, 6, for n_classes=7: take images of every class"),
        (source, with_labels(lambda y: y + (y == 2).long()), 5, "no image has the label 2, for n_classes=5"),
        (source, with_labels(lambda y: y.float()), 5, "labels must be an int64 tensor, got torch.float32"),
        (source, target().to("meta"), 5, "the model is on cpu and the images are on meta: move one with .to(device)"),
        (source, Part(3 * target().x, target().y, target().ids), 5, "pixels must lie in [0, 1], got [0, 3]"),
        (Headless, target(), 5, "found no linear head in Headless: take a model of models.build"),
    ],
)
def test_targets_that_cannot_be_meant_are_one_sentence(route, model, data, n_classes, sentence):
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as caught:
        ROUTES[route](model(), data, n_classes)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: retrain(source(), -1), "k must be a whole number from 0 to 4, the model's number of blocks, got -1"),
        (lambda: retrain(source(), 5), "k must be a whole number from 0 to 4, the model's number of blocks, got 5"),
        (lambda: retrain(source(), 0.5), "the model's number of blocks, got 0.5"),
        (lambda: distill(source(), -0.1), "strength must be a finite number of at least 0, got -0.1"),
        (lambda: distill(source(), math.inf), "strength must be a finite number of at least 0, got inf"),
        (lambda: distill(source(), math.nan), "strength must be a finite number of at least 0, got nan"),
        (lambda: distill(source(), updates=0), "updates must be a whole number of at least 1, got 0"),
        (lambda: distill(source(), augment=lambda x, random: x), "an augmented image has no stored features"),
        (lambda: distill(source(), head=nn.Linear(7, CLASSES)), "head has weights of shape (5, 7), this model and"),
        (lambda: training.train(source(), Digits(), LwF(1.0, torch.ones(60, 16)), updates=1, batch_size=4),
         "a stream has no stored features to hold on to: distill on a Part"),
        (lambda: LwF(1.0, torch.zeros(3, 2)), "the source features have a mean norm of 0.0: look at the source model"),
        (lambda: training.linear_head(source(), target(), n_classes=5, penalty=0.0), "penalty must be a positive"),
        (lambda: training.linear_head(source(), target(), n_classes=5, penalty=math.nan), "penalty must be a positive"),
        (lambda: training.choose_penalty(source(), target(), target(), n_classes=5, penalties=[]), "there are no pen"),
        (lambda: training.choose_penalty(source(), target(), target(5, 2), n_classes=5), "no image has the label 2, 3"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_one_sentence(ask, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_a_layer_that_cannot_be_drawn_anew_is_named():
    model = build("test_vit", seed=0, in_channels=1, img_size=16, patch_size=8)
    depth = len(anatomy.blocks(model))
    sentence = r"VisionTransformer cannot be drawn anew, for cls_token, pos_embed have no .*: choose a smaller k"
    with pytest.raises(ValueError, match=sentence):
        retrain(model, depth)
