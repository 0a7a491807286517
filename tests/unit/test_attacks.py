"""The attacks' contract, one table of cases for all of them: adding an attack is adding a row."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thesis_kit.attacks import apgd, apgd_targeted, cross_entropy, fab_targeted, fgsm, margin, pgd, square
from thesis_kit.attacks.square import _side
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.passes import count_passes
from thesis_kit.randomness import ImageRandom

ATTACKS = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=5),
    "pgd margin restarts": partial(pgd, steps=4, loss="margin", restarts=2),
    "apgd": partial(apgd, steps=10),
    "apgd dlr restarts": partial(apgd, steps=8, loss="dlr", restarts=2),
    "apgd targeted": partial(apgd_targeted, steps=8, n_targets=2),
    "fab targeted": partial(fab_targeted, steps=8, n_targets=2),
    "square": partial(square, queries=30),
}
CASES = [(name, norm) for name in ATTACKS for norm in ("linf", "l2")]
GRADIENT_FREE = {"square"}
DETERMINISTIC = {"fgsm", "fab targeted"}

every_attack = pytest.mark.parametrize(("name", "norm"), CASES, ids=[f"{name}-{norm}" for name, norm in CASES])


def takes(name: str, knob: str) -> bool:
    return knob in inspect.signature(ATTACKS[name]).parameters


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(shape=(1, 6, 6), k: int = 4, *, dtype=torch.float32, seed: int = 0) -> nn.Module:
    """A smooth two-layer network with random weights for images of any shape."""
    inputs = int(torch.tensor(shape).prod())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, k))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.7)
    return model.to(dtype)


def images(model: nn.Module, n: int = 12, shape=(1, 6, 6), *, dtype=torch.float32, seed: int = 1):
    """Random images, some pixels at the ends of the range, with the labels the model gives them."""
    x = (torch.rand(n, *shape, generator=seeded(seed), dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1).to(dtype)
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def size(perturbation: torch.Tensor, norm: str) -> torch.Tensor:
    flat = perturbation.double().flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


class Recorder(nn.Module):
    """Counts the images it sees, and keeps the highest loss it showed for each label row by row."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


@every_attack
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    eps=st.one_of(st.floats(0, 1), st.floats(0, 1e-3), st.just(8 / 255)),
    n=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    k=st.integers(2, 5),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 10),
)
def test_result_lies_in_ball_and_range(name, norm, eps, n, shape, k, dtype, seed):
    model = network(shape, k, dtype=dtype, seed=seed)
    x, y = images(model, n, shape, dtype=dtype, seed=seed)
    before = x.clone()
    x_adv = ATTACKS[name](model, x, y, eps=eps, norm=norm, generator=seeded(seed))
    assert x_adv.dtype == dtype
    assert x_adv.shape == x.shape
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (size(x_adv.double() - x.double(), norm) <= eps * (1 + 1e-6) + 1e-7).all()
    assert torch.equal(x, before)


@every_attack
def test_empty_batch(name, norm):
    x, y = torch.empty(0, 1, 6, 6), torch.empty(0, dtype=torch.int64)
    x_adv = ATTACKS[name](network(), x, y, eps=0.1, norm=norm, generator=seeded())
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype


@every_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radius_zero_changes_nothing(name, norm, dtype):
    model = network(dtype=dtype)
    x, y = images(model, dtype=dtype)
    x_adv = ATTACKS[name](model, x, y, eps=0, norm=norm, generator=seeded())
    torch.testing.assert_close(x_adv, x, rtol=0, atol=1e-7)


@every_attack
def test_reproducible_from_a_generator(name, norm):
    model = network()
    x, y = images(model)
    first, second, other = (
        ATTACKS[name](model, x, y, eps=0.05, norm=norm, generator=seeded(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert torch.equal(first, other) == (name in DETERMINISTIC)


@every_attack
def test_streams_are_left_where_they_stood(name, norm):
    model = network()
    x, y = images(model)
    random = ImageRandom(5, torch.arange(len(x)))
    first, second = (ATTACKS[name](model, x, y, eps=0.05, norm=norm, generator=random) for _ in range(2))
    assert torch.equal(first, second)


@every_attack
def test_same_result_in_any_company(name, norm):
    model = network(dtype=torch.float64)
    x, y = images(model, 10, dtype=torch.float64)
    y[3] = (y[3] + 1) % 4  # one image is misclassified from the start
    eps = 0.04 if norm == "linf" else 0.12
    random = ImageRandom(7, torch.arange(100, 100 + len(x)))
    attack = partial(ATTACKS[name], model, eps=eps, norm=norm)
    together = attack(x, y, generator=random)
    for index in (torch.tensor([4]), torch.tensor([3]), torch.tensor([9, 0, 3, 5]), torch.arange(10).flip(0)):
        alone = attack(x[index], y[index], generator=random[index])
        torch.testing.assert_close(alone, together[index], rtol=0, atol=1e-9)
    changed = model(together).argmax(dim=1) != y
    assert changed.any()
    assert not changed.all(), "some images should survive, so that the batch shrinks on the way"


@every_attack
@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
def test_model_and_random_state_are_left_as_found(name, norm, raises):
    model = network()
    x, y = images(model)
    model[0].train()
    model[2].eval()
    model[1].bias.requires_grad_(False)
    model[3].weight.grad = torch.full_like(model[3].weight, 7.0)
    calls = []

    def hook(module, inputs, output):
        calls.append(len(inputs[0]))
        if raises:
            raise RuntimeError("stop here")

    handle = model.register_forward_hook(hook)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    state, grad_mode = torch.get_rng_state(), torch.is_grad_enabled()
    attack = partial(ATTACKS[name], model, x, y, eps=0.1, norm=norm, generator=seeded())
    if raises:
        with pytest.raises(RuntimeError, match="stop here"):
            attack()
    else:
        attack()
    assert calls
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    grads = [parameter.grad is not None for parameter in model.parameters()]
    assert grads == [False, False, True, False]
    assert (model[3].weight.grad == 7).all()
    assert list(model._forward_hooks.values()) == [hook]
    assert not any(module._backward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() == grad_mode
    handle.remove()


@every_attack
def test_result_carries_no_graph(name, norm):
    model = network()
    x, y = images(model)
    with torch.no_grad():
        quiet = ATTACKS[name](model, x, y, eps=0.1, norm=norm, generator=seeded())
    leaf = x.clone().requires_grad_()
    x_adv = ATTACKS[name](model, leaf, y, eps=0.1, norm=norm, generator=seeded())
    assert not x_adv.requires_grad
    assert leaf.grad is None
    assert torch.equal(quiet, x_adv)


@every_attack
def test_loss_rises(name, norm):
    model = network()
    x, y = images(model, 40)
    eps = 0.1 if norm == "linf" else 0.4
    x_adv = ATTACKS[name](model, x, y, eps=eps, norm=norm, generator=seeded())
    with torch.no_grad():
        assert margin(model(x_adv), y).mean() > margin(model(x), y).mean() + 0.1
        assert (model(x_adv).argmax(dim=1) == y).double().mean() < 0.8


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if takes(case[0], "target")])
def test_targeted_attack_reaches_its_target(name, norm):
    model = network()
    x, y = images(model, 40)
    target = (y + 1) % 4
    x_adv = ATTACKS[name](model, x, y, eps=0.5 if norm == "linf" else 3, norm=norm, target=target, generator=seeded())
    with torch.no_grad():
        hits = model(x_adv).argmax(dim=1) == target
        assert cross_entropy(model(x_adv), target).mean() < cross_entropy(model(x), target).mean()
    assert hits.double().mean() > (0.3 if name == "fgsm" else 0.6)


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if takes(case[0], "loss")])
def test_any_callable_is_a_loss(name, norm):
    model = network()
    x, y = images(model)
    knobs = {"eps": 0.1, "norm": norm}
    by_name, by_hand = (
        ATTACKS[name](model, x, y, loss=loss, generator=seeded(), **knobs)
        for loss in ("ce", lambda logits, y: -logits.log_softmax(dim=1)[torch.arange(len(y)), y])
    )
    torch.testing.assert_close(by_name, by_hand, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attack", [partial(pgd, steps=3, loss="margin"), partial(apgd, steps=3)])
def test_a_restart_never_harms(attack):
    model = network(dtype=torch.float64)
    x, y = images(model, 30, dtype=torch.float64)
    random = ImageRandom(0, torch.arange(len(x)))
    wrong = []
    for restarts in (1, 4):
        x_adv = attack(model, x, y, eps=0.04, restarts=restarts, generator=random)
        wrong.append(model(x_adv).argmax(dim=1) != y)
    assert (wrong[1] | ~wrong[0]).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [partial(apgd, steps=20, loss="margin"), partial(square, queries=50)])
def test_best_point_counts(attack, norm):
    model = Recorder(network(dtype=torch.float64))
    x, y = images(model, 1, dtype=torch.float64)
    model.seen.clear()
    x_adv = attack(model, x, y, eps=0.02, norm=norm, generator=seeded())
    with torch.no_grad():
        found = margin(model.model(x_adv), y)
        seen = torch.stack([margin(model.model(point), y) for point in model.seen])
    assert (seen < 0).all(), "the image should survive"
    assert found == seen.max()


@pytest.mark.parametrize(("attack", "passes"), [(pgd, 20), (partial(pgd, restarts=3), 3), (apgd, 1), (square, 1)])
def test_fooled_images_are_left_alone(attack, passes):
    model = network()
    x, y = images(model)
    with count_passes(model) as spent:
        attack(model, x, (y + 1) % 4, eps=1e-4, generator=seeded())
    expected = {20: 20, 3: 20 + 1, 1: 1}[passes]  # plain PGD ends at its last iterate; the others look
    assert spent.forward_images == expected * len(x)


def test_passes_of_apgd():
    model = network()
    x, y = images(model)
    with count_passes(model) as spent:
        apgd(model, x, y, eps=1e-6, steps=7, restarts=2, generator=seeded())
    assert (spent.forward, spent.backward) == (16, 14)


def test_targeted_apgd_leaves_what_is_wrong_already():
    model = network()
    x, y = images(model)
    with count_passes(model) as spent:
        x_adv = apgd_targeted(model, x, (y + 1) % 4, eps=0.1, generator=seeded())
    assert torch.equal(x_adv, x)
    assert (spent.forward_images, spent.backward_images) == (len(x), 0)


@pytest.mark.parametrize(("k", "n_targets", "tried"), [(2, 9, 1), (3, 9, 2), (4, 9, 3), (6, 2, 2), (12, 9, 9)])
def test_targeted_apgd_tries_the_likeliest_wrong_classes(k, n_targets, tried):
    model = network(k=k)
    x, y = images(model)
    with count_passes(model) as spent:
        apgd_targeted(model, x, y, eps=1e-6, steps=4, n_targets=n_targets, generator=seeded())
    assert spent.forward == 1 + tried * 5


@pytest.mark.parametrize(("norm", "usual"), [("linf", 60), ("l2", 10_000)])
def test_squares_shrink_on_the_schedule_of_the_horizon(norm, usual):
    model = network((1, 12, 12))
    x, y = images(model, 6, (1, 12, 12))
    attack = partial(square, model, x, y, eps=1e-3, norm=norm, queries=60)
    found = {horizon: attack(horizon=horizon, generator=seeded()) for horizon in (None, 60, 10_000)}
    assert torch.equal(found[None], found[usual])
    assert not torch.equal(found[60], found[10_000])


@pytest.mark.parametrize("horizon", [10_000, 1000, 300])
def test_a_squares_share_is_halved_as_the_paper_has_it(horizon):
    """10, 50, 200 … of 10,000 queries: the first query after each finds a square of half the share."""
    x = torch.zeros(1, 1, 200, 200)
    sides = [_side(query, horizon, 0.8, x) for query in range(1, horizon + 1)]
    changes = [query for query in range(2, horizon + 1) if sides[query - 1] != sides[query - 2]]
    paper = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    halved = sorted({halving * horizon // 10_000 + 1 for halving in paper} - {1})
    assert changes == halved
    assert sides[-1] == round((0.8 / 2**9 * 200 * 200) ** 0.5)


def test_square_needs_no_gradient():
    model = network()
    x, y = images(model)

    class Opaque(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            return torch.from_numpy(model(x).numpy())

    x_adv = square(Opaque(), x, y, eps=0.3, queries=100, generator=seeded())
    assert (model(x_adv).argmax(dim=1) != y).any()


@every_attack
def test_model_without_gradient_is_refused(name, norm):
    if name in GRADIENT_FREE:
        pytest.skip("needs no gradient")
    model = network()
    x, y = images(model)

    class Opaque(nn.Module):
        def forward(self, x):
            return model(x).detach()

    with pytest.raises(ValueError, match=r"does not depend on its input .* use an attack without gradients"):
        ATTACKS[name](Opaque(), x, y, eps=0.1, norm=norm)


@every_attack
def test_model_with_a_broken_gradient_is_refused(name, norm):
    if name in GRADIENT_FREE:
        pytest.skip("needs no gradient")
    model = network()
    x, y = images(model)

    class Root(nn.Module):
        def forward(self, x):
            return model(x) + (x - x.detach()).sum().sqrt()  # 0 in value, infinite in slope

    with pytest.raises(NonFiniteOutput, match="gradient at the images is NaN or infinite"):
        ATTACKS[name](Root(), x, y, eps=0.1, norm=norm)


def _pixels_outside(x, y):
    return {"x": x * 4 - 2}, ValueError, r"pixels must lie in \[0, 1\], got \[-2, 2\]: put the normalization inside"


def _pixels_nan(x, y):
    return {"x": torch.full_like(x, torch.nan)}, ValueError, "images contain NaN"


def _pixels_integer(x, y):
    return {"x": (x * 255).byte()}, TypeError, "floating-point tensor, got torch.uint8"


def _one_image_without_batch(x, y):
    return {"x": x[0]}, ValueError, r"shape \(n, c, h, w\), got \(1, 6, 6\)"


def _labels_float(x, y):
    return {"y": y.float()}, TypeError, "labels must be an int64 tensor, got torch.float32"


def _labels_one_hot(x, y):
    return {"y": nn.functional.one_hot(y, 4)}, ValueError, r"labels must have shape \(12,\).* got \(12, 4\)"


def _labels_too_few(x, y):
    return {"y": y[:-1]}, ValueError, r"labels must have shape \(12,\).* got \(11,\)"


def _labels_too_large(x, y):
    return {"y": y + 4}, ValueError, r"labels must lie in \[0, 3\].* got 4 to 7"


def _labels_negative(x, y):
    return {"y": y - 4}, ValueError, r"labels must lie in \[0, 3\].* got -4 to -1"


def _labels_elsewhere(x, y):
    return {"y": y.to("meta")}, ValueError, "the images are on cpu and the labels are on meta"


def _logits_nan(x, y):
    model = network()
    nn.init.constant_(model[3].bias, torch.nan)
    return {"model": model}, NonFiniteOutput, "NaN or infinite logits: check its weights"


def _logits_infinite(x, y):
    model = network()
    nn.init.constant_(model[3].bias, torch.inf)
    return {"model": model}, NonFiniteOutput, "NaN or infinite logits: check its weights"


def _one_class(x, y):
    return {"model": network(k=1), "y": y * 0}, ValueError, "one output: a classifier needs at least two classes"


def _not_a_classifier(x, y):
    return {"model": nn.Identity()}, ValueError, r"logits of shape \(12, k\) for 12 images, got \(12, 1, 6, 6\)"


def _model_elsewhere(x, y):
    return {"model": network().to("meta")}, ValueError, "the model is on meta and the images are on cpu: move one"


def _eps_negative(x, y):
    return {"eps": -0.1}, ValueError, "eps must be a finite number of at least 0, got -0.1"


def _eps_nan(x, y):
    return {"eps": float("nan")}, ValueError, "eps must be a finite number of at least 0, got nan"


def _norm_misspelled(x, y):
    return {"norm": "l_inf"}, UnknownName, "unknown norm 'l_inf': did you mean linf"


def _norm_unknown(x, y):
    return {"norm": "manhattan"}, UnknownName, "unknown norm 'manhattan': choose one of l2, linf"


def _streams_of_others(x, y):
    return {"generator": ImageRandom(0, torch.arange(5))}, ValueError, "streams for 5 images, but 12 were given"


def _loss_misspelled(x, y):
    return {"loss": "margins"}, UnknownName, "unknown loss 'margins': did you mean margin"


def _loss_nan(x, y):
    return {"loss": lambda logits, y: logits[:, 0] * torch.nan}, NonFiniteOutput, "the loss is NaN or infinite"


def _loss_averaged(x, y):
    return {"loss": nn.functional.cross_entropy}, ValueError, r"one number an image, shape \(12,\), got \(\)"


def _target_true(x, y):
    return {"target": y}, ValueError, "a target equals the true label"


def _target_float(x, y):
    return {"target": (y + 1.0) % 4}, TypeError, "targets must be an int64 tensor, got torch.float32"


def _target_unknown(x, y):
    return {"target": y + 4}, ValueError, r"targets must lie in \[0, 3\]"


def _steps_negative(x, y):
    return {"steps": -1}, ValueError, "steps must be a whole number of at least [01], got -1"


def _restarts_zero(x, y):
    return {"restarts": 0}, ValueError, "restarts must be a whole number of at least 1, got 0"


def _step_size_negative(x, y):
    return {"step_size": -0.1}, ValueError, "step_size must be a finite number of at least 0, got -0.1"


def _no_targets(x, y):
    return {"n_targets": 0}, ValueError, "n_targets must be a whole number of at least 1, got 0"


def _no_queries(x, y):
    return {"queries": 0}, ValueError, "queries must be a whole number of at least 1, got 0"


def _no_horizon(x, y):
    return {"horizon": 0}, ValueError, "horizon must be a whole number of at least 1, got 0"


def _square_of_nothing(x, y):
    return {"p_init": 0.0}, ValueError, r"p_init must lie in \(0, 1\].* got 0.0"


FOR_ALL = [
    _pixels_outside, _pixels_nan, _pixels_integer, _one_image_without_batch, _labels_float, _labels_one_hot,
    _labels_too_few, _labels_too_large, _labels_negative, _labels_elsewhere, _logits_nan, _logits_infinite, _one_class,
    _not_a_classifier, _model_elsewhere, _eps_negative, _eps_nan, _norm_misspelled, _norm_unknown, _streams_of_others,
]  # fmt: skip
FOR_KNOB = {
    "loss": [_loss_misspelled, _loss_nan, _loss_averaged],
    "target": [_target_true, _target_float, _target_unknown],
    "steps": [_steps_negative], "restarts": [_restarts_zero], "step_size": [_step_size_negative],
    "n_targets": [_no_targets], "queries": [_no_queries], "horizon": [_no_horizon], "p_init": [_square_of_nothing],
}  # fmt: skip
BAD = [(name, bad) for name in ATTACKS for bad in FOR_ALL]
BAD += [(name, bad) for name in ATTACKS for knob, some in FOR_KNOB.items() for bad in some if takes(name, knob)]


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "bad"), BAD, ids=[f"{name}-{bad.__name__[1:]}" for name, bad in BAD])
def test_bad_input_is_answered_with_a_sentence(name, bad):
    model = network()
    x, y = images(model)
    given = {"model": model, "x": x, "y": y, "eps": 0.1, "generator": seeded()}
    changed, error, sentence = bad(x, y)
    given |= changed
    with pytest.raises(error, match=sentence):
        ATTACKS[name](given.pop("model"), given.pop("x"), given.pop("y"), **given)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_nan_that_comes_later_is_no_success(name, norm):
    model = network()
    x, y = images(model)

    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return model(x) * (torch.nan if self.calls > 3 else 1)

    if name == "fgsm":
        pytest.skip("one pass only")
    with pytest.raises(NonFiniteOutput):
        ATTACKS[name](Fails(), x, y, eps=1e-4, norm=norm, generator=seeded())
