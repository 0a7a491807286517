"""Terms of the loss against slow formulas, in every training method, and in checkpoints; the natural twin."""

from __future__ import annotations

import copy
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit import training
from thesis_kit.attacks import pgd
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import Part, Stream, digits
from thesis_kit.evaluation import accuracy
from thesis_kit.models import zoo
from thesis_kit.randomness import mix_seed
from thesis_kit.training import (
    AdversarialLogitPairing,
    CleanLogitPairing,
    GaussianAugmentation,
    GradientGap,
    LabelSmoothing,
    LogitSimilarity,
    LogitSqueezing,
    natural_twin,
)
from thesis_kit.training.run import term_name

EPS = 0.1
TERMS = {
    "label-smoothing": LabelSmoothing(0.7),
    "logit-squeezing": LogitSqueezing(0.5),
    "logit-squeezing mean": LogitSqueezing(0.5, "mean"),
    "logit-similarity": LogitSimilarity(0.3),
    "clean-logit-pairing": CleanLogitPairing(0.4),
    "adversarial-logit-pairing": AdversarialLogitPairing(2.0, EPS, steps=2),
    "gaussian-augmentation": GaussianAugmentation(0.2, 0.8),
    "gradient-gap": GradientGap(0.2),
}
METHODS = {
    "natural": {},
    "pgd": {"eps": EPS, "steps": 2},
    "fgsm": {"eps": EPS},
    "fgsm-rs": {"eps": EPS},
    "n-fgsm": {"eps": EPS},
    "free": {"eps": EPS, "replays": 2},
    "gaussian": {"sigma": 0.2},
    "ibp": {"eps": EPS},
    "crown-ibp": {"eps": EPS},
}
NO_CLASSIFIERS = {"attributes", "contrastive", "ctc"}  # which train several heads, image–text pairs and recognizers
TWO_HEADED = {"hard-distillation"}  # trains networks of another kind, see test_deit.py
OF_LOGITS = list(TERMS)[:5]
nothing = nn.Identity()  # the model, for terms that look at the logits alone


def some_digits(n: int = 24) -> Part:
    part = digits(0).train[:n]
    return Part(part.x.double(), part.y, part.ids)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).double()


def linear(seed: int = 0, classes: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).double()


def some_logits(n: int = 7, k: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images that nobody looks at, labels and logits."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    return torch.zeros(n, 1, 2, 2, dtype=z.dtype), torch.randint(k, (n,), generator=generator), z


def train(model, method=None, terms=(), data=None, **knobs):
    knobs = {"updates": 2, "batch_size": 24, "lr": 0.05, "schedule": "constant", **knobs}
    return training.train(model, some_digits() if data is None else data, method, terms=terms, **knobs)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# What a term is worth


@pytest.mark.parametrize("alpha", [0, 0.1, 0.35, 0.9, 1.0])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_label_smoothing_is_cross_entropy_with_softer_labels(alpha, k):
    x, y, z = some_logits(9, k)
    hot = F.one_hot(y, k).double()
    smoothed = F.cross_entropy(z, y) + LabelSmoothing(alpha)(nothing, x, y, z)
    assert torch.allclose(smoothed, F.cross_entropy(z, hot - alpha * (hot - 1 / k)), rtol=0, atol=1e-12)
    assert torch.allclose(smoothed, F.cross_entropy(z, y, label_smoothing=float(alpha)), rtol=0, atol=1e-12)


def slowly(name: str, y: list[int], z: np.ndarray) -> float:
    """The formulas in plain loops."""
    n, k = z.shape
    length = [math.sqrt(sum(v * v for v in row)) for row in z]
    if name == "label-smoothing":
        return 0.7 * sum(z[i, y[i]] - sum(z[i]) / k for i in range(n)) / n
    if name == "logit-squeezing":
        return 0.5 * math.sqrt(sum(v * v for row in z for v in row))
    if name == "logit-squeezing mean":
        return 0.5 * sum(length) / n
    if name == "logit-similarity":
        mean = [sum(z[:, c]) / n for c in range(k)]
        return 0.3 * sum(sum((z[i, c] - mean[c]) ** 2 for c in range(k)) for i in range(n)) / n
    half = n // 2  # clean logit pairing: the last of an odd number has no partner
    return 0.4 * sum(math.dist(z[i], z[half + i]) for i in range(half)) / max(half, 1)


@pytest.mark.parametrize("name", OF_LOGITS)
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_a_term_of_the_logits_is_its_formula_and_so_is_its_gradient(name, n):
    x, y, z = some_logits(n)
    value = TERMS[name](nothing, x, y, z)
    assert value.shape == ()
    assert value.item() == pytest.approx(slowly(name, y.tolist(), z.numpy()), abs=1e-12)
    assert torch.autograd.gradcheck(lambda z: TERMS[name](nothing, x, y, z), z.requires_grad_())


def test_frobenius_is_root_n_times_the_mean_length_where_lengths_are_equal_and_more_elsewhere():
    x, y, z = some_logits(8)
    frobenius, mean = LogitSqueezing(1), LogitSqueezing(1, "mean")
    assert frobenius(nothing, x, y, z) > math.sqrt(8) * mean(nothing, x, y, z) + 1e-3
    z = 2.5 * F.normalize(z, dim=1)
    assert torch.allclose(frobenius(nothing, x, y, z), math.sqrt(8) * mean(nothing, x, y, z), rtol=1e-12)
    assert mean(nothing, x, y, z).item() == pytest.approx(2.5)


def test_equal_logits_cost_nothing_where_the_docstrings_say_so_and_have_finite_gradients_everywhere():
    x, y, _ = some_logits()
    for start in (torch.zeros(5), torch.arange(5.0)):
        z = start.double().expand(7, 5).clone().requires_grad_()
        for name in OF_LOGITS:
            value = TERMS[name](nothing, x, y, z)
            if name in ("logit-similarity", "clean-logit-pairing"):
                assert value == 0
            (gradient,) = torch.autograd.grad(value, z)
            assert gradient.isfinite().all(), name


def test_images_without_a_partner_cost_nothing():
    x, y, z = some_logits(1)
    z.requires_grad_()
    for name in ("logit-similarity", "clean-logit-pairing"):
        value = TERMS[name](nothing, x, y, z)
        (gradient,) = torch.autograd.grad(value, z)
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("one", ["image", "class"])
def test_one_image_and_one_class_are_no_exception(name, one):
    data = some_digits(1 if one == "image" else 12)
    model, y = network(), torch.full_like(data.y, 3)
    value = TERMS[name](model, data.x, y, model(data.x))
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_of_zero_is_no_term(name):
    model, data = network(), some_digits()
    knobs = {{"label-smoothing": "alpha", "gaussian-augmentation": "weight"}.get(name, "beta"): 0}
    knobs |= {"adversarial-logit-pairing": {"eps": EPS}, "gaussian-augmentation": {"sigma": 1}}.get(name, {})
    term = training.TERMS[name.split(" ")[0]](**knobs)
    assert term(model, data.x, data.y, model(data.x)) == 0


# The gradient gap


def rivals(z: torch.Tensor, y: torch.Tensor) -> list[int]:
    """The wrong class of largest logit, image by image."""
    return [
        max((c for c in range(z.shape[1]) if c != label), key=row.__getitem__)
        for row, label in zip(z, y.tolist(), strict=True)
    ]


def test_the_gradient_gap_of_a_linear_model_is_the_distance_of_its_rows_and_so_is_its_gradient():
    model, data = linear(), some_digits()
    weight, n = model[1].weight, len(data)
    rival = rivals(model(data.x).detach(), data.y)
    assert (torch.tensor(rival) != data.y).all()
    value = GradientGap(0.2)(model, data.x, data.y, model(data.x))
    value.backward()
    gaps = (weight[data.y] - weight[rival]).detach()
    assert value.item() == pytest.approx(0.2 * gaps.abs().sum().item() / n, rel=1e-12)
    expected = torch.zeros_like(weight)
    for label, other, gap in zip(data.y, rival, gaps, strict=True):
        expected[label] += 0.2 / n * gap.sign()
        expected[other] -= 0.2 / n * gap.sign()
    assert torch.allclose(weight.grad, expected, rtol=0, atol=1e-14)
    assert model[1].bias.grad is None or not model[1].bias.grad.any()


def test_the_gradient_gap_of_a_network_agrees_with_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    x, y = torch.rand(3, 1, 3, 3, dtype=torch.float64), torch.tensor([0, 3, 3])
    rival = rivals(model(x).detach(), y)

    def margins(x):
        with torch.no_grad():
            z = model(x)
        return torch.stack([z[i, y[i]] - z[i, rival[i]] for i in range(3)])

    def slow(h=1e-6):
        total = torch.zeros(3, dtype=torch.float64)
        for pixel in range(9):
            step = torch.zeros(9, dtype=torch.float64)
            step[pixel] = h
            step = step.view(1, 1, 3, 3)
            total += ((margins(x + step) - margins(x - step)) / (2 * h)).abs()
        return total.mean().item()

    term = GradientGap(1.0)
    value = term(model, x, y, model(x))
    assert value.item() == pytest.approx(slow(), rel=1e-7)
    value.backward()
    for parameter in (model[1].weight, model[3].weight, model[1].bias):
        for place in range(0, parameter.numel(), 5):
            flat = parameter.data.view(-1)
            kept, ends = flat[place].item(), []
            for h in (1e-6, -1e-6):
                flat[place] = kept + h
                ends.append(term(model, x, y, model(x)).item())
            flat[place] = kept
            assert parameter.grad.view(-1)[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_the_gradient_gap_leaves_the_images_alone():
    model, data = network(), some_digits()
    x = data.x.clone().requires_grad_()
    GradientGap(1.0)(model, x, data.y, model(x)).backward()
    assert x.grad is None


# Adversarial logit pairing


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_pairing_is_the_distance_to_a_pgd_examples_logits(norm):
    model, data = linear(), some_digits()
    term = AdversarialLogitPairing(1.5, EPS, steps=3, step_size=0.03, norm=norm)
    logits = model(data.x)
    torch.manual_seed(5)
    value = term(model, data.x, data.y, logits)
    value.backward()
    torch.manual_seed(5)
    x_adv = pgd(copy.deepcopy(model), data.x, data.y, eps=EPS, steps=3, step_size=0.03, norm=norm)
    delta, weight = (data.x - x_adv).flatten(1), model[1].weight.detach()
    away = delta @ weight.T  # (n, k)
    length = away.norm(dim=1, keepdim=True)
    assert (length > 1e-3).all()
    assert value.item() == pytest.approx(1.5 * length.mean().item(), rel=1e-12)
    expected = 1.5 / len(data) * (away / length).T @ delta
    assert torch.allclose(model[1].weight.grad, expected, rtol=0, atol=1e-12)
    assert torch.allclose(model[1].bias.grad, torch.zeros(10).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TERMS)
def test_flags_and_modes_are_as_they_were_and_the_frozen_stay_without_gradient(name):
    model, data = network(), some_digits()
    model[1].bias.requires_grad_(False)
    model[2].eval()
    before = [(p.requires_grad, p.grad is None) for p in model.parameters()], [m.training for m in model.modules()]
    logits = model(data.x)
    value = TERMS[name](model, data.x, data.y, logits)
    after = [(p.requires_grad, p.grad is None) for p in model.parameters()], [m.training for m in model.modules()]
    assert before == after
    (F.cross_entropy(logits, data.y) + value).backward()
    assert model[1].bias.grad is None
    assert all(p.grad is not None for p in model.parameters() if p is not model[1].bias)


def test_logits_made_before_the_attack_froze_the_weights_still_have_their_gradient():
    model, data = network(), some_digits()
    term = AdversarialLogitPairing(1.0, EPS, steps=2)

    def gradient(first):
        model.zero_grad()
        torch.manual_seed(0)
        logits = model(data.x) if first else None
        x_adv = pgd(model, data.x, data.y, eps=EPS, steps=2)
        logits = model(data.x) if logits is None else logits
        (logits - model(x_adv)).norm(dim=1).mean().backward()
        return [p.grad.clone() for p in model.parameters()]

    late = gradient(first=False)
    for one, other in zip(gradient(first=True), late, strict=True):
        assert torch.equal(one, other)
    model.zero_grad()
    torch.manual_seed(0)
    term(model, data.x, data.y, model(data.x)).backward()
    for parameter, other in zip(model.parameters(), late, strict=True):
        assert torch.allclose(parameter.grad, other, rtol=0, atol=1e-14)


@pytest.mark.bad_input
def test_adversarial_pairing_wants_images_in_the_pixel_range():
    with pytest.raises(ValueError, match=re.escape("pixels must lie in [0, 1]")):
        train(network(), training.Gaussian(0.5), [AdversarialLogitPairing(1.0, EPS)])


# Noisy copies


def test_noisy_copies_are_drawn_anew_and_not_clipped_and_without_noise_are_the_images():
    model, data, seen = network(), some_digits(), []
    logits = model(data.x)
    plain = F.cross_entropy(logits, data.y)
    assert torch.allclose(GaussianAugmentation(0, 0.7)(model, data.x, data.y, logits), 0.7 * plain, rtol=1e-12)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    values = [GaussianAugmentation(0.5)(model, data.x, data.y, logits) for _ in range(2)]
    assert values[0] != values[1]
    assert values[0].item() == pytest.approx(F.cross_entropy(model(seen[0]), data.y).item(), rel=1e-12)
    noise = seen[0] - data.x
    assert noise.std().item() == pytest.approx(0.5, rel=0.1)
    assert seen[0].min() < 0
    assert seen[0].max() > 1


# In training


def method_of(name: str):
    return training.METHODS[name](**METHODS[name])


def test_every_method_has_a_setting_here():
    assert set(METHODS) | TWO_HEADED | NO_CLASSIFIERS == set(training.METHODS)
    assert {name.split(" ")[0] for name in TERMS} == set(training.TERMS)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("method", METHODS)
def test_terms_go_with_every_method(method, name):
    if (method, name) == ("gaussian", "adversarial-logit-pairing"):
        pytest.skip("noise leaves the pixel range")
    plain, termed, both = network(), network(), network()
    train(plain, method_of(method))
    report = train(termed, method_of(method), [TERMS[name]])
    assert report.updates == 2
    assert weights(termed).isfinite().all()
    assert not torch.equal(weights(plain), weights(termed))
    train(both, method_of(method), iter([TERMS[name], LogitSqueezing(0.1)]))
    assert not torch.equal(weights(both), weights(termed))
    assert all(p.requires_grad and p.grad is None for p in termed.parameters())


def by_hand(name: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    weight = model[1].weight
    if name == "label-smoothing":
        return F.cross_entropy(z, y, label_smoothing=0.7)
    plain = F.cross_entropy(z, y)
    if name == "logit-squeezing":
        return plain + 0.5 * z.square().sum().sqrt()
    if name == "logit-squeezing mean":
        return plain + 0.5 * z.square().sum(dim=1).sqrt().mean()
    if name == "logit-similarity":
        return plain + 0.3 * z.var(dim=0, correction=0).sum()
    if name == "clean-logit-pairing":
        return plain + 0.4 * (z[:12] - z[12:]).square().sum(dim=1).sqrt().mean()
    if name == "gaussian-augmentation":
        torch.manual_seed(mix_seed(0, 0))  # the first update's
        return plain + 0.8 * F.cross_entropy(model(x + 0.2 * torch.randn_like(x)), y)
    assert name == "gradient-gap"
    return plain + 0.2 * (weight[y] - weight[rivals(z.detach(), y)]).abs().sum() / len(y)


@pytest.mark.parametrize("name", [name for name in TERMS if name != "adversarial-logit-pairing"])
def test_an_update_is_the_one_of_the_same_loss_written_by_hand(name):
    ours, theirs, order = linear(), linear(), []
    data = some_digits()
    ids = {tuple(image.flatten().tolist()): label for image, label in zip(data.x, data.y, strict=True)}
    knobs = {"updates": 1, "momentum": 0.0, "weight_decay": 0.0, "lr": 0.1}
    train(ours, terms=[TERMS[name]], augment=lambda x, random: order.append(x) or x, **knobs)
    (x,) = order
    y = torch.stack([ids[tuple(image.flatten().tolist())] for image in x])
    with torch.random.fork_rng():
        by_hand(name, theirs, x, y, theirs(x)).backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.allclose(weights(ours), weights(theirs), rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", ["fgsm", "fgsm-rs", "n-fgsm", "pgd"])
def test_attacks_ascend_without_the_terms(method):
    """In the first update the weights are the same, so the images that are descended on are the same as well."""

    def inputs(terms):
        model, seen = network(), []
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
        train(model, method_of(method), terms, updates=2)
        return seen[: len(seen) // 2], seen[len(seen) // 2 :]

    (plain, after), (termed, after_terms) = inputs([]), inputs([LabelSmoothing(1.0), LogitSqueezing(50.0)])
    assert all(torch.equal(one, other) for one, other in zip(plain, termed, strict=True))
    assert not torch.equal(after[-1], after_terms[-1])


def test_frees_attack_sees_them_since_its_gradient_is_the_updates_own():
    seen = []
    for terms in ([], [LogitSqueezing(50.0)]):
        model = network()
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
        train(model, training.Free(EPS, replays=2), terms)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[1], seen[3])


@pytest.mark.parametrize(
    ("term", "forward", "backward"),
    [
        (LogitSqueezing(0.1), 0, 0),
        (AdversarialLogitPairing(0.5, EPS, steps=3), 4, 4),
        (GaussianAugmentation(0.1), 1, 1),
        (GradientGap(0.1), 1, 1),
    ],
)
def test_what_terms_cost_is_counted(term, forward, backward):
    report = train(network(), terms=[term], updates=5)
    assert (report.passes.forward, report.passes.backward) == (5 * (1 + forward), 5 * (1 + backward))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", TERMS)
def test_terms_pull_the_same_way_in_lower_precision(name, precision):
    data, start = digits(0).train[:24], network().float()
    exact, rough = (copy.deepcopy(start) for _ in range(2))
    train(exact, terms=[TERMS[name]], data=data, updates=6)
    train(rough, terms=[TERMS[name]], data=data, updates=6, precision=precision)  # float16 skips a few at first
    moved = [weights(model) - weights(start) for model in (exact, rough)]
    assert F.cosine_similarity(*moved, dim=0) > 0.95


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_example_that_is_paired_is_attacked_in_earnest_although_the_network_is_sure(precision):
    """A gradient of 1e-9 is nothing in float16 unless the loss is scaled: the example would stay where it started."""
    model, seen, data = zoo.load("cnn-digits-natural"), [], digits(0).train[:64]
    with torch.no_grad():
        model.network[-1].weight.mul_(1.5), model.network[-1].bias.mul_(1.5)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    term = AdversarialLogitPairing(0.01, EPS, steps=5)
    train(model, terms=[term], data=data, updates=1, batch_size=64, precision=precision)
    x, x_adv = seen[0], seen[-1]
    moved = (x_adv - x).abs()
    assert ((moved > 0.99 * EPS) | (x_adv == 0) | (x_adv == 1)).double().mean() > 0.6


def test_the_same_seed_gives_the_same_weights_with_random_terms_whatever_the_callers_random_state():
    runs = []
    for state in (1, 2):
        torch.manual_seed(state)
        before, model = torch.get_rng_state(), network()
        train(model, terms=[AdversarialLogitPairing(1.0, EPS, steps=2), GaussianAugmentation(0.3)], updates=3)
        assert torch.equal(torch.get_rng_state(), before)
        runs.append(weights(model))
    assert torch.equal(*runs)


# Settings that cannot be meant


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [-0.1, 1.01, math.nan, math.inf, "0.5", None])
def test_alpha_out_of_range_is_one_sentence(value):
    with pytest.raises(ValueError, match=re.escape(f"alpha must lie in [0, 1], got {value}: 0 is no smoothing")):
        LabelSmoothing(value)


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None])
def test_beta_out_of_range_is_one_sentence(value):
    for make in (LogitSqueezing, LogitSimilarity, CleanLogitPairing, GradientGap):
        with pytest.raises(ValueError, match=f"beta must be a finite number of at least 0, got {value}"):
            make(value)
    with pytest.raises(ValueError, match=f"beta must be a finite number of at least 0, got {value}"):
        AdversarialLogitPairing(value, EPS)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: GaussianAugmentation(-0.1), "sigma must be a finite number of at least 0, got -0.1"),
        (lambda: GaussianAugmentation(0.1, math.nan), "weight must be a finite number of at least 0, got nan"),
        (lambda: LogitSqueezing(1, "frobenious"), "unknown normalization 'frobenious': did you mean frobenius?"),
        (lambda: AdversarialLogitPairing(1, -0.1), "eps must be a finite number of at least 0, got -0.1"),
        (lambda: AdversarialLogitPairing(1, 0.1, steps=0), "steps must be a whole number of at least 1, got 0"),
        (lambda: AdversarialLogitPairing(1, 0.1, step_size=-1), "step_size must be a finite number of at least 0"),
        (lambda: AdversarialLogitPairing(1, 0.1, norm="l3"), "unknown norm 'l3': did you mean l2?"),
    ],
)
def test_other_settings_are_looked_at_when_a_term_is_made(make, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        make()


def explode(model, x, y, logits):
    return logits.sum() * math.nan


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_no_number_is_named(value):
    def explode(model, x, y, logits):
        return logits.sum() * 0 + value

    with pytest.raises(NonFiniteOutput, match=re.escape(f"diverged at update 0 (the term explode is {value})")):
        train(network(), terms=[LogitSqueezing(0.1), explode])
    model = network()
    with torch.no_grad():
        model[3].weight.mul_(1e200)  # the logits are finite, their squares are not
    with pytest.raises(NonFiniteOutput, match=re.escape("LogitSimilarity(beta=1.0) is ")):
        train(model, terms=[LogitSimilarity(1.0)])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("returned", "seen"),
    [
        (lambda z: z.sum(dim=1), "shape (24,)"),
        (lambda z: z.sum()[None], "shape (1,)"),
        (lambda z: 0.5, "float"),
        (lambda z: None, "NoneType"),
    ],
)
def test_a_term_that_is_not_one_number_is_named(returned, seen):
    def crooked(model, x, y, logits):
        return returned(logits)

    said = f"a term of the loss must return one number as a tensor, crooked returned {seen}"
    with pytest.raises(ValueError, match=re.escape(said)):
        train(network(), terms=[crooked])


# Checkpoints


class Stop(Exception):
    """An interruption that no code expects."""


class Untouched:
    """An augmentation that changes nothing, and breaks off training after so many minibatches."""

    def __init__(self, minibatches=1000):
        self._left = minibatches

    def __call__(self, x, random):
        self._left -= 1
        if self._left < 0:
            raise Stop
        return x


def stopped(path, terms=(), **knobs):
    with pytest.raises(Stop):
        train(network(), None, terms, checkpoint=path, **{**LONG, "augment": Untouched(2), **knobs})


LONG = {"updates": 5, "batch_size": 16, "checkpoint_seconds": 0.0, "augment": Untouched()}


def test_a_run_with_terms_resumes_bit_for_bit(tmp_path):
    terms = [LogitSqueezing(0.2), AdversarialLogitPairing(0.5, EPS, steps=2)]
    unbroken, resumed = network(), network()
    train(unbroken, terms=terms, **LONG)
    stopped(tmp_path / "run.pt", terms)
    report = train(resumed, terms=copy.deepcopy(terms), checkpoint=tmp_path / "run.pt", **LONG)
    assert torch.equal(weights(unbroken), weights(resumed))
    assert report.updates == 5


@pytest.mark.parametrize(
    "terms", [[], [LogitSqueezing(0.3)], [LogitSqueezing(0.2, "mean")], [LogitSqueezing(0.2), LogitSqueezing(0.2)]]
)
def test_a_checkpoint_of_other_terms_is_refused(tmp_path, terms):
    stopped(tmp_path / "run.pt", [LogitSqueezing(0.2)])
    with pytest.raises(ValueError, match=r"another run \(terms was \[\"LogitSqueezing\(beta=0\.2, .*is "):
        train(network(), terms=terms, checkpoint=tmp_path / "run.pt", **LONG)


def test_a_term_is_known_by_what_it_refers_to_too(tmp_path):
    def weighing(weight):
        return lambda model, x, y, logits: weight * logits.square().mean()

    stopped(tmp_path / "run.pt", [weighing(0.1)])
    with pytest.raises(ValueError, match=r"another run \(parts was"):
        train(network(), terms=[weighing(0.2)], checkpoint=tmp_path / "run.pt", **LONG)
    train(network(), terms=[weighing(0.1)], checkpoint=tmp_path / "run.pt", **LONG)


def test_a_term_is_known_by_name_and_settings():
    assert term_name(explode) == "explode"
    assert term_name(LogitSqueezing(0.2)) == "LogitSqueezing(beta=0.2, norm='frobenius')"
    assert term_name(partial(explode, strength=2)) == "explode(strength=2)"


def test_a_plain_object_is_known_by_its_settings_and_not_by_its_address():
    class Shrink:
        def __init__(self, strength):
            self.strength, self._calls = strength, 0

        def __call__(self, model, x, y, logits):
            return self.strength * logits.square().mean()

    assert term_name(Shrink(0.5)) == term_name(Shrink(0.5)) != term_name(Shrink(0.25))
    assert term_name(Shrink(0.5)).endswith("Shrink {'strength': 0.5}")


# The twin


def reader(seed: int = 0) -> nn.Module:
    """With normalization and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)
        )


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """Trained, in mixed modes, with a frozen layer and odd statistics."""
    model = reader()
    training.train(model, digits(0).train, updates=100)
    model.train()
    model[2].eval()
    model[1].requires_grad_(False)
    model[2].running_mean += 100
    return model


def state(model: nn.Module) -> tuple:
    return (
        [m.training for m in model.modules()],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        [t.tolist() for t in model.state_dict().values()],
    )


def test_a_twin_is_another_network_of_the_same_kind_that_learned_the_same_task(original):
    before, random = state(original), torch.get_rng_state()
    twin = natural_twin(original, digits(0).train, updates=200, progress=False)
    assert state(original) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert str(twin) == str(original)
    assert not any(module.training for module in twin.modules())
    assert all(p.requires_grad for p in twin.parameters())
    for name, tensor in original.state_dict().items():
        assert twin.state_dict()[name].shape == tensor.shape
        if tensor.is_floating_point():
            assert not torch.isclose(twin.state_dict()[name], tensor).any(), name
    assert twin[2].running_mean.abs().max() < 50
    assert accuracy(twin, digits(0).test) > 0.9


def test_a_twin_is_decided_by_its_seed_alone(original):
    train_set = digits(0).train[:64]

    def twin(state, **knobs):
        torch.manual_seed(state)
        return weights(natural_twin(original, train_set, updates=3, progress=False, **knobs))

    assert torch.equal(twin(1), twin(2))
    assert not torch.equal(twin(1), twin(1, seed=2))
    other = reader(7)
    torch.manual_seed(3)
    assert torch.equal(twin(1), weights(natural_twin(other, train_set, updates=3, progress=False)))


def test_a_twin_learns_from_a_stream_too(original):
    class Digits(Stream):
        name = "digits again"

        def minibatch(self, position, size):
            return digits(0).train[:size]

    twin = natural_twin(original, Digits(), updates=2, batch_size=8, progress=False)
    assert weights(twin).isfinite().all()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(nn.Sequential(nn.Flatten(), Scaled()), nn.Linear(64, 10)), "0.1"),
        (Scaled(), "the model itself"),
        (nn.Sequential(Scaled(), Scaled(), Scaled(), Scaled(), nn.Flatten()), "0, 1, 2"),
    ],
)
def test_a_module_that_cannot_be_reset_is_named(model, named):
    said = f"these modules cannot be given new weights: {named}; build a second network yourself and train it with"
    with pytest.raises(ValueError, match=re.escape(said)):
        natural_twin(model, digits(0).train[:8], updates=1)


def test_modules_without_weights_need_not_be_reset():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    twin = natural_twin(nn.Sequential(Doubled(), network().float()), digits(0).train[:8], updates=1, progress=False)
    assert len(twin) == 2


def test_unknown_terms_of_the_table_are_offered_near_names():
    from thesis_kit.checks import choose

    with pytest.raises(UnknownName, match="did you mean logit-squeezing"):
        choose("logit-squeezin", training.TERMS, "term")
