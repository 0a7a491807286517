"""What training does, costs and leaves behind: every method, Free's carried perturbation, randomness and state."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from thesis_kit import training
from thesis_kit.casting import autocast
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import Part, Stream, digits
from thesis_kit.randomness import ImageRandom
from thesis_kit.training.precision import InPrecision
from thesis_kit.training.schedules import SCHEDULES

EPS = 0.1
METHODS = {
    "natural": training.Natural,
    "pgd-3": lambda: training.PGD(EPS, steps=3),
    "pgd-2 l2": lambda: training.PGD(0.5, steps=2, norm="l2"),
    "fgsm": lambda: training.fgsm(EPS),
    "fgsm-rs": lambda: training.fgsm_rs(EPS),
    "n-fgsm": lambda: training.n_fgsm(EPS),
    "free-4": lambda: training.Free(EPS, replays=4),
    "free-4 cold": lambda: training.Free(EPS, replays=4, warm_start=False),
}
PASSES_PER_UPDATE = {"natural": 1, "pgd-3": 4, "pgd-2 l2": 3, "fgsm": 2, "fgsm-rs": 2, "n-fgsm": 2, "free-4": 1,
                     "free-4 cold": 1}  # fmt: skip


def some_digits(n: int = 40) -> Part:
    return digits(0).train[:n]


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def train(model, method=None, data=None, **knobs):
    knobs = {"updates": 8, "batch_size": 16, "lr": 0.05, **knobs}
    return training.train(model, some_digits() if data is None else data, method, **knobs)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class CountedBackward(torch.autograd.Function):
    """Hands its input on and counts how often a gradient comes back: an independent witness."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        CountedBackward.calls += 1
        return gradient


class Witnessed(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.forwards = network, 0

    def forward(self, x):
        self.forwards += 1
        return CountedBackward.apply(self.network(x))


@pytest.fixture
def sgd_rates(monkeypatch) -> list[float]:
    """The learning rate of every step that SGD makes."""
    rates, step = [], torch.optim.SGD.step

    def noted(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    return rates


# What a method does and costs


@pytest.mark.parametrize("name", METHODS)
def test_every_method_lowers_the_loss(name):
    data, model = some_digits(60), network()

    def loss():
        with torch.no_grad():
            return nn.functional.cross_entropy(model(data.x), data.y).item()

    before = loss()
    train(model, METHODS[name](), data, updates=50, lr=0.03, optimizer="adam")
    assert loss() < 0.8 * before


@pytest.mark.parametrize("name", METHODS)
def test_passes_per_update_are_what_the_paper_says_by_two_witnesses(name, sgd_rates):
    model, updates = Witnessed(network()), 10
    CountedBackward.calls = 0
    report = train(model, METHODS[name](), updates=updates)
    expected = PASSES_PER_UPDATE[name] * updates
    assert (report.passes.forward, report.passes.backward) == (expected, expected)
    assert (model.forwards, CountedBackward.calls) == (expected, expected)
    assert len(sgd_rates) == report.updates == updates


def test_images_are_counted_too():
    report = train(network(), training.PGD(EPS, steps=3), updates=3)  # minibatches of 16, 16 and 8
    assert report.passes.forward_images == report.passes.backward_images == 40 * 4


def test_free_makes_one_backward_pass_per_weight_update_also_in_half_precision():
    report = train(network(), training.Free(EPS, replays=4), updates=11, precision="float16")
    assert report.passes.backward == report.updates == 11


@settings(max_examples=12, deadline=None)
@given(replays=st.integers(1, 9), updates=st.integers(1, 20))
def test_updates_and_passes_of_free_do_not_depend_on_m(replays, updates):
    minibatches = []

    def note(x, random):
        minibatches.append(len(x))
        return x

    report = train(network(), training.Free(EPS, replays), some_digits(20), updates=updates, batch_size=8, augment=note)
    assert report.updates == report.passes.forward == report.passes.backward == updates
    assert len(minibatches) == -(-updates // replays)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("replays", [1, 3])
def test_the_rate_follows_the_schedule_by_update_whatever_m(schedule, replays, sgd_rates):
    train(network(), training.Free(EPS, replays), updates=10, lr=0.2, schedule=schedule)
    assert sgd_rates == [0.2 * SCHEDULES[schedule](update / 10) for update in range(10)]


def test_schedules_have_their_corners():
    one_cycle, cosine, steps, constant = (SCHEDULES[name] for name in ("one-cycle", "cosine", "steps", "constant"))
    assert [one_cycle(p) for p in (0, 0.15, 0.3, 0.65, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [cosine(p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [steps(p) for p in (0, 0.49, 0.5, 0.74, 0.75, 1)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert {constant(p) for p in (0, 0.5, 1)} == {1}


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_is_adam(name, kind):
    ours, theirs, data = network().double(), network().double(), some_digits(16)
    data = Part(data.x.double(), data.y, data.ids)
    train(ours, data=data, updates=3, lr=0.01, schedule="constant", optimizer=name, weight_decay=0.1)
    adam = kind(theirs.parameters(), lr=0.01, betas=(0.9, 0.999), weight_decay=0.1)
    for _ in range(3):  # one minibatch holds all images, so their order matters to rounding only
        adam.zero_grad()
        nn.functional.cross_entropy(theirs(data.x), data.y).backward()
        adam.step()
    assert torch.allclose(weights(ours), weights(theirs), atol=1e-7)


def test_single_steps_start_and_end_where_the_papers_say():
    seen, data = [], some_digits(16)
    model = network()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))

    def offsets(method):
        seen.clear()
        order = []
        train(model, method, data, updates=1, augment=lambda x, random: order.append(x) or x)
        return [point - order[0] for point in seen], order[0]

    (start, end), x = offsets(training.fgsm(EPS))
    assert not start.any()
    assert end.abs().max() <= EPS + 1e-6
    (start, end), x = offsets(training.fgsm_rs(EPS))
    assert 0.9 * EPS < start.abs().max() <= EPS + 1e-6
    assert end.abs().max() <= EPS + 1e-6
    (start, end), x = offsets(training.n_fgsm(EPS))
    assert 1.9 * EPS < start.abs().max() <= 2 * EPS + 1e-6
    assert 2 * EPS < end.abs().max() <= 3 * EPS + 1e-6  # not clipped to the ball
    assert (x + end).min() >= 0
    assert (x + end).max() <= 1


# Free's perturbation


def carried(method: training.Free, n: int, updates: int):
    """Per minibatch: its images, the perturbation before it, and what the network was given."""
    model, before, inputs = network(), [], []
    model.register_forward_pre_hook(lambda module, shown: inputs.append(shown[0].detach().clone()))

    def note(x, random):
        before.append((x, {k: v.clone() for k, v in method.state().items()}.get("perturbation")))
        return x

    train(model, method, some_digits(n), updates=updates, augment=note)
    return before, inputs, method.state()["perturbation"]


def test_the_perturbation_is_carried_to_the_next_images():
    before, inputs, _ = carried(training.Free(EPS, replays=2), n=32, updates=6)
    assert before[0][1] is None
    assert torch.equal(inputs[0], before[0][0])  # the very first pass sees the images as they are
    for (x, perturbation), shown in zip(before[1:], inputs[2::2], strict=True):
        assert perturbation.abs().max() == pytest.approx(EPS)
        assert torch.equal(shown, (x + perturbation).clamp(0, 1))
    assert not torch.equal(before[1][1], before[2][1])


def test_a_smaller_last_minibatch_uses_and_moves_the_first_rows():
    before, inputs, _ = carried(training.Free(EPS, replays=1), n=38, updates=4)  # 16, 16, 6, 16
    x, perturbation = before[2]
    assert len(x) == 6
    assert len(perturbation) == 16
    assert torch.equal(inputs[2], (x + perturbation[:6]).clamp(0, 1))
    afterwards = before[3][1]
    assert torch.equal(afterwards[6:], perturbation[6:])
    assert not torch.equal(afterwards[:6], perturbation[:6])


def test_without_warm_start_every_minibatch_begins_with_zeros():
    before, inputs, _ = carried(training.Free(EPS, replays=2, warm_start=False), n=32, updates=6)
    for (x, _), shown in zip(before, inputs[::2], strict=True):
        assert torch.equal(shown, x)
    assert not torch.equal(inputs[1], before[0][0])


@settings(max_examples=10, deadline=None)
@given(eps=st.floats(0, 0.7), replays=st.integers(1, 5), n=st.integers(2, 40))
def test_the_perturbation_stays_in_the_box_and_the_input_in_the_pixel_range(eps, replays, n):
    _, inputs, last = carried(training.Free(eps, replays), n=n, updates=7)
    assert last.abs().max() <= torch.tensor(eps)
    assert all(shown.min() >= 0 and shown.max() <= 1 for shown in inputs)


def test_m_1_is_not_fgsm_training():
    free, fgsm = network(), network()
    train(free, training.Free(EPS, replays=1))
    train(fgsm, training.fgsm(EPS))
    assert not torch.equal(weights(free), weights(fgsm))


def test_a_method_object_that_served_another_run_starts_anew():
    method, outcomes = training.Free(EPS, replays=4), []
    for _ in range(2):
        model = network()
        train(model, method)
        outcomes.append(weights(model))
    assert torch.equal(*outcomes)


# Randomness


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides_everything(name):
    def run(seed, dropout=False):
        model = nn.Sequential(network(), nn.Dropout(0.3)) if dropout else network()
        train(model, METHODS[name](), seed=seed)
        return weights(model)

    torch.manual_seed(1)
    first, with_dropout = run(0), run(0, dropout=True)
    torch.manual_seed(2)
    assert torch.equal(first, run(0))
    assert torch.equal(with_dropout, run(0, dropout=True))
    assert not torch.equal(first, with_dropout)
    assert not torch.equal(first, run(1))


def test_dropout_is_drawn_anew_at_every_update():
    masks = []

    class Watched(nn.Dropout):
        def forward(self, x):
            out = super().forward(x)
            masks.append(out == 0)
            return out

    train(nn.Sequential(network(), Watched(0.5)), updates=2)
    assert not torch.equal(*masks)


@pytest.mark.parametrize("broken", [False, True])
def test_global_generators_are_left_as_found(broken):
    def stop(x, random):
        raise ZeroDivisionError

    torch.manual_seed(5), np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    model = nn.Sequential(network(), nn.Dropout(0.3))
    torch.manual_seed(5), np.random.seed(5)
    if broken:
        with pytest.raises(ZeroDivisionError):
            train(model, training.fgsm_rs(EPS), augment=stop)
    else:
        train(model, training.fgsm_rs(EPS))
    assert torch.equal(torch.rand(3), expected[0])
    assert (np.random.rand(3) == expected[1]).all()


def test_every_image_of_an_epoch_is_seen_once_and_epochs_differ_in_order():
    seen, data = [], some_digits(40)
    index = {tuple(x.flatten().tolist()): i for i, x in enumerate(data.x)}

    def note(x, random):
        seen.extend(index[tuple(image.flatten().tolist())] for image in x)
        return x

    train(network(), data=data, updates=6, augment=note)  # 16 + 16 + 8, twice
    assert Counter(seen[:40]) == Counter(seen[40:]) == Counter(range(40))
    assert seen[:40] != seen[40:]


def test_augmentations_have_their_own_reproducible_numbers():
    def shift(x, random):
        return (x + random.uniform(1, low=-0.1, high=0.1).view(-1, 1, 1, 1)).clamp(0, 1)

    outcomes = []
    for augment in (shift, shift, None):
        model = network()
        train(model, training.fgsm_rs(EPS), augment=augment)
        outcomes.append(weights(model))
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])


# Data


class Pairs(Dataset):
    """A map-style data set of (image, int), optionally with a random transform."""

    def __init__(self, part: Part, noisy: bool = False):
        self.part, self.noisy = part, noisy

    def __len__(self):
        return len(self.part)

    def __getitem__(self, index):
        x = self.part.x[index]
        return x * torch.rand(()) if self.noisy else x, int(self.part.y[index])


@pytest.mark.parametrize("method", ["natural", "free-4"])
def test_a_part_and_a_data_set_give_the_same_weights(method):
    outcomes = []
    for data in (some_digits(), Pairs(some_digits())):
        model = network()
        train(model, METHODS[method](), data)
        outcomes.append(weights(model))
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("workers", [0, 1])
def test_random_transforms_of_a_data_set_follow_the_seed(workers):
    outcomes = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        model = network()
        torch.manual_seed(global_seed)
        train(model, data=Pairs(some_digits(20), noisy=True), updates=3, seed=seed, workers=workers)
        outcomes.append(weights(model))
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[1], outcomes[2])


class Rendered(Stream):
    """Noise with labels, drawn anew from the two numbers of every minibatch."""

    name = "noise.v1"

    def __init__(self, size: int | None = None):
        self.size, self.asked = size, []

    def minibatch(self, position, size):
        self.asked.append((position, size))
        random = ImageRandom(position, torch.arange(size if self.size is None else self.size))
        return Part(random.uniform(1, 8, 8), random.integers(high=10), torch.arange(len(random)))


def test_a_stream_is_asked_for_its_minibatches_in_order_without_epochs():
    stream, natural, free = Rendered(), network(), network()
    report = train(natural, data=stream, updates=5, batch_size=7)
    assert stream.asked == [(position, 7) for position in range(5)]
    assert report.passes.forward_images == 35
    stream.asked.clear()
    train(free, METHODS["free-4"](), stream, updates=10, batch_size=7)
    assert stream.asked == [(0, 7), (1, 7), (2, 7)]  # the last one is replayed twice


class Repeated(Rendered):
    """The same images again and again."""

    def minibatch(self, position, size):
        return super().minibatch(0, size)


def test_a_stream_and_the_same_images_in_memory_give_the_same_weights():
    streamed, stored = network(), network()
    train(streamed, data=Repeated(), updates=6)
    train(stored, data=Repeated().minibatch(0, 16), updates=6)
    assert torch.allclose(weights(streamed), weights(stored), atol=1e-5)  # sixteen images in another order


def test_a_stream_that_gives_too_few_images_is_one_sentence():
    sentence = "the stream noise.v1 gave 3 images for minibatch 0, 16 were asked for: mend its minibatch"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        train(network(), data=Rendered(size=3))


# State


class Mixed(nn.Module):
    """Parts in different modes, one layer frozen, one layer that breaks on request."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)
        self.body.requires_grad_(False)
        self.norm.eval()
        self.calls_left = 10**6

    def forward(self, x):
        self.calls_left -= 1
        if self.calls_left < 0:
            raise ZeroDivisionError
        return self.head(self.norm(self.body(x.flatten(1))).relu())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("calls", [10**6, 3])
def test_modes_flags_hooks_and_gradients_are_left_as_found(name, calls):
    model = Mixed()
    model.calls_left = calls
    modes = [module.training for module in model.modules()]
    frozen = model.body.weight.clone()
    if calls == 3:
        with pytest.raises(ZeroDivisionError):
            train(model, METHODS[name]())
    else:
        train(model, METHODS[name]())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model.body.weight, frozen)


def test_training_is_done_in_training_mode_whatever_the_mode_before():
    model = Mixed().eval()
    train(model)
    assert model.norm.num_batches_tracked == 8
    assert not model.training


@dataclass
class Positions(training.Natural):
    """Natural training that notes where its images stand."""

    def __post_init__(self):
        self._seen = []

    def minibatch(self, x, y, run):
        self._seen.append((x, run.index))
        super().minibatch(x, y, run)


@pytest.mark.parametrize("stored", [lambda part: part, Pairs])
def test_a_method_is_told_where_its_images_stand(stored):
    method, data = Positions(), some_digits(40)
    train(network(), method, stored(data))
    assert len(method._seen) == 8
    for x, index in method._seen:
        assert torch.equal(x, data.x[index])


def test_images_of_a_stream_have_no_place():
    method = Positions()
    train(network(), method, Rendered(), updates=2)
    assert [index for _, index in method._seen] == [None, None]


# Frozen parts


class Witness(nn.Module):
    """Lets everything pass and counts the gradients that come back."""

    def forward(self, x):
        return CountedBackward.apply(x)


def deep(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), Witness(),
                             nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parts_stay_to_the_bit_and_everything_is_given_back(name):
    model, start = deep(), deep()
    flags, modes = [p.requires_grad for p in model.parameters()], [module.training for module in model.modules()]
    train(model, METHODS[name](), frozen=[*model[:5], model[6].bias], lr=0.1)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, start.state_dict()[key])}
    assert changed == {"6.weight", *(f"7.{k}" for k in start[7].state_dict()), "9.weight", "9.bias"}
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parts_are_in_evaluation_mode_while_the_rest_is_in_training_mode_also_after_a_probe():
    model, modes = deep(), []
    model.register_forward_pre_hook(lambda *_: modes.append((model[2].training, model[4].training, model[7].training)))
    train(model, frozen=model[:5], updates=4, probe=lambda model: {"one": 1}, probe_every=2)
    assert modes == [(False, False, True)] * 4


@pytest.mark.parametrize(("name", "gradients_below"), [("natural", 0), ("pgd-3", 3 * 8), ("free-4", 8)])
def test_no_gradient_is_computed_below_the_cut_unless_the_images_need_one(name, gradients_below):
    CountedBackward.calls = 0
    report = train(deep(), METHODS[name](), frozen=deep()[:5])  # another model's parts: nothing is frozen here
    assert CountedBackward.calls == report.passes.backward
    CountedBackward.calls, model = 0, deep()
    report = train(model, METHODS[name](), frozen=model[:5])
    assert CountedBackward.calls == gradients_below
    assert report.passes.backward == 8 * PASSES_PER_UPDATE[name]


def test_what_was_frozen_before_stays_frozen():
    model, start = deep(), deep()
    model[9].requires_grad_(False)
    train(model, frozen=[model[1]])
    assert torch.equal(model[9].weight, start[9].weight)
    assert [p.requires_grad for p in model.parameters()] == [True] * 8 + [False] * 2


def test_a_method_may_ask_for_evaluation_mode():
    class Still(training.Natural):
        training_mode = False

    model, start = deep(), deep()
    train(model, Still())
    assert model.training
    for key in ("2.running_mean", "2.running_var", "2.num_batches_tracked", "7.running_mean"):
        assert torch.equal(model.state_dict()[key], start.state_dict()[key])
    assert not torch.equal(model[2].weight, start[2].weight)


def test_a_model_that_is_frozen_whole_is_one_sentence():
    model = deep()
    with pytest.raises(ValueError, match="every parameter of the model is frozen: there is nothing to train"):
        train(model, frozen=[model])
    assert all(p.requires_grad for p in model.parameters())


# Probes


def test_probes_come_in_time_in_evaluation_mode_and_at_the_end():
    modes = []

    def probe(model):
        modes.append(model.training)
        model(some_digits(5).x)
        return {"answer": 4, "share": np.float64(0.5)}

    probed, plain = network(), network()
    report = train(probed, training.Free(EPS, replays=4), updates=10, probe=probe, probe_every=3)
    assert [point["update"] for point in report.history] == [4, 8, 10]
    assert report.history[0] == {"update": 4, "answer": 4.0, "share": 0.5}
    assert modes == [False, False, False]
    assert report.passes.forward == 10  # the probe's own are not counted
    train(plain, training.Free(EPS, replays=4), updates=10)
    assert torch.equal(weights(probed), weights(plain))


def test_without_a_rhythm_the_probe_comes_once():
    report = train(network(), probe=lambda model: {"one": 1})
    assert report.history == [{"update": 8, "one": 1.0}]
    assert train(network(), probe_every=2).history == []


# Precision


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_short_formats_train_finite_float32_weights(precision):
    for name in ("natural", "pgd-3", "fgsm-rs", "free-4"):
        model, start = network(), weights(network())
        report = train(model, METHODS[name](), updates=12, precision=precision)
        assert report.passes.backward == 12 * PASSES_PER_UPDATE[name]
        assert weights(model).dtype == torch.float32
        assert torch.isfinite(weights(model)).all()
        assert not torch.equal(weights(model), start)


class Formats(nn.Module):
    """A network that notes the format of its hidden layer and of its logits at every pass."""

    def __init__(self):
        super().__init__()
        self.network, self.seen = network(), []

    def forward(self, x):
        hidden = self.network[:3](x)
        logits = self.network[3](hidden)
        self.seen.append((x.dtype, hidden.dtype, logits.dtype))
        return logits


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("precision", [None, "float32", "float16", "bfloat16"])
def test_attack_and_update_run_in_the_same_precision(name, precision):
    model = Formats()
    report = train(model, METHODS[name](), updates=4, precision=precision)
    expected = torch.float32 if precision is None else getattr(torch, precision)
    assert len(model.seen) == report.passes.forward
    assert set(model.seen) == {(torch.float32, expected, expected)}


def test_float32_is_the_default_on_a_cpu_to_the_bit():
    models = network(), network()
    train(models[0], training.PGD(EPS, steps=2))
    train(models[1], training.PGD(EPS, steps=2), precision="float32")
    assert torch.equal(*map(weights, models))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["natural", "pgd-3", "free-4"])
def test_short_formats_learn_what_float32_learns(name, precision):
    short, full, data = network(), network(), some_digits(60)
    for model, knobs in ((short, {"precision": precision}), (full, {})):
        train(model, METHODS[name](), data, updates=60, lr=0.02, optimizer="adam", **knobs)
    loss = [nn.functional.cross_entropy(model(data.x), data.y).item() for model in (short, full, network())]
    assert abs(loss[0] - loss[1]) < 0.1 * (loss[2] - loss[1])


class Confident(nn.Module):
    """Right by a margin of 20: the gradient at its logits, 2e-9, is below float16's smallest number."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.linear.bias.data = torch.tensor([20.0] + [0.0] * 9)
        self.shown = []

    def forward(self, x):
        self.shown.append(x.detach().clone())
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_an_attack_finds_its_way_where_gradients_are_tiny(precision):
    model, part = Confident(), some_digits(16)
    data = Part(part.x, torch.zeros_like(part.y), part.ids)
    train(model, training.PGD(EPS, steps=1), data, updates=1, lr=0.0, precision=precision)
    start, end = model.shown
    free = (start > 0.05) & (start < 0.95)  # a step of eps/4 = 0.025 shows unless the pixel range holds it
    assert ((end - start).abs() > 0.02)[free].float().mean() > 0.7


def test_the_model_for_attacks_gives_float32_logits_and_unscaled_gradients():
    model, x = network(), some_digits(8).x
    for scale in (None, lambda: 4096.0):
        cast = InPrecision(model, "bfloat16", scale)
        exact, short = (torch.autograd.grad(m(x.requires_grad_()).square().sum(), x)[0] for m in (model, cast))
        assert cast(x).dtype == torch.float32
        assert (short - exact).norm() < 0.02 * exact.norm()
        assert x._backward_hooks is None


def test_attention_in_bfloat16_is_made_of_its_parts_on_a_cpu():
    """Fused attention goes backward slowly there; what it is switched to is left as it was."""
    seen, fused = [], torch.backends.cuda.flash_sdp_enabled()

    class Attends(nn.Module):
        def forward(self, x):
            seen.append(torch.backends.cuda.flash_sdp_enabled())
            q = x.flatten(2)
            return nn.functional.scaled_dot_product_attention(q, q, q).mean(dim=(1, 2))[:, None]

    for precision in ("bfloat16", "float32"):
        with autocast(precision, "cpu"):
            Attends()(torch.rand(2, 1, 4, 4)).sum()
    assert seen == [False, fused]
    assert torch.backends.cuda.flash_sdp_enabled() == fused


def test_a_gradient_that_overflows_float16_comes_out_finite():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), some_digits(4).x.requires_grad_()
    nn.init.constant_(model[1].weight, -3.0)
    cast = InPrecision(model, "float16", lambda: 4 * 2.0**15)
    (gradient,) = torch.autograd.grad(cast(x).sum(), x)  # 10 · 3 · 2¹⁵ in float16: minus infinity
    assert (gradient == -torch.finfo(torch.float16).max / 2**15).all()


def test_double_precision_stays_double():
    model, part = network().double(), some_digits()
    train(model, training.PGD(EPS, steps=2), Part(part.x.double(), part.y, part.ids))
    assert weights(model).dtype == torch.float64


# Bad input


class Broken(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.linear, self.output = nn.Linear(64, 10), output

    def forward(self, x):
        return self.output(self.linear(x.flatten(1)))


def with_labels(change) -> Part:
    part = some_digits()
    return Part(part.x, change(part.y.clone()), part.ids)


def late_label(y):
    y[:] = 0
    y[13] = 11
    return y


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"updates": 0}, "updates must be a whole number of at least 1, got 0"),
        ({"updates": 2.5}, "updates must be a whole number of at least 1, got 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean cosine?"),
        ({"precision": "bfloat"}, "unknown precision 'bfloat': did you mean bfloat16"),
        ({"optimizer": "adan"}, "unknown optimizer 'adan': did you mean adam"),
        ({"data": some_digits(0)}, "the number of training images must be a whole number of at least 1, got 0"),
        ({"data": Part(3 * some_digits().x, some_digits().y, some_digits().ids)},
         "pixels must lie in [0, 1], got [0, 3]: put the normalization inside the model (models.Classifier does it)"),
        ({"data": with_labels(lambda y: y.float())}, "labels must be an int64 tensor, got torch.float32: convert"),
        ({"data": with_labels(lambda y: nn.functional.one_hot(y))}, "labels must have shape (16,), one class index"),
        ({"data": with_labels(lambda y: y - 1)}, "labels must lie in [0, 9], for the model has 10 outputs; got -1 to"),
        ({"data": with_labels(late_label), "batch_size": 4, "updates": 30}, "labels must lie in [0, 9]"),
    ],
)  # fmt: skip
def test_bad_data_and_settings_are_one_sentence(knobs, sentence):
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as caught:
        train(network(), **knobs)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: training.PGD(-0.1), "eps must be a finite number of at least 0, got -0.1"),
        (lambda: training.fgsm_rs(float("nan")), "eps must be a finite number of at least 0, got nan"),
        (lambda: training.Free(0.1, replays=0), "replays must be a whole number of at least 1, got 0"),
        (lambda: training.Free(-1.0), "eps must be a finite number of at least 0, got -1.0"),
        (lambda: training.PGD(0.1, steps=0), "steps must be a whole number of at least 1, got 0"),
        (lambda: training.PGD(0.1, norm="linff"), "unknown norm 'linff': did you mean linf?"),
    ],
)
def test_bad_methods_are_refused_when_they_are_made(make, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()


@pytest.mark.bad_input
@pytest.mark.parametrize("method", ["natural", "pgd-3", "free-4"])
@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (lambda z: z * float("nan"), "the model returned NaN or infinite logits"),
        (lambda z: z[:, :1], "the model has one output: a classifier needs at least two classes"),
        (lambda z: (z,), "a classifier must return logits of shape (16, k) for 16 images, got tuple"),
        (lambda z: z[:3], "a classifier must return logits of shape (16, k) for 16 images, got (3, 10)"),
    ],
)
def test_bad_models_are_one_sentence(method, output, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        train(Broken(output), METHODS[method]())


@pytest.mark.bad_input
def test_a_model_without_parameters_is_one_sentence():
    with pytest.raises(ValueError, match="the model has no parameters: there is nothing to train"):
        train(nn.Flatten())


@pytest.mark.parametrize("name", METHODS)
def test_divergence_names_the_update(name):
    with pytest.raises(NonFiniteOutput, match=r"training diverged at update \d+ \(.*\): lower the learning rate"):
        train(network(), METHODS[name](), updates=40, lr=1e12, schedule="constant")


def test_unknown_names_are_value_errors_of_their_own_kind():
    with pytest.raises(UnknownName):
        train(network(), schedule="linear")
