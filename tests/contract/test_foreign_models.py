"""Models that somebody else made, each kind with every public function: the right answer, or one sentence.

A kind is a row of ``KINDS``: how it is made, and the ordinary network that computes the same. A function is a row of
``FUNCTIONS``. Every pair is tried: the answer must be the ordinary network's, and images, weights, buffers, modes and
flags must be as before. Pairs that cannot work are named in ``REFUSED`` with the sentence.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, TensorDataset

from thesis_kit import attacks, certification, evaluation, inversion, synthesis, training
from thesis_kit.asking import evaluating
from thesis_kit.data import Part
from thesis_kit.data.text import Vocabulary
from thesis_kit.language import zero_shot
from thesis_kit.models import Clip, anatomy
from thesis_kit.models.clip import TextTower

N, CLASSES, SIDE = 6, 3, 16


def plain_network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Convolution, batch statistics, a linear head: something to go wrong in every way."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.AdaptiveAvgPool2d(SIDE // 2), nn.Flatten(), nn.Linear(4 * (SIDE // 2) ** 2, CLASSES),
        )  # fmt: skip
        network[1].running_mean.uniform_(-0.1, 0.1)
        network[1].running_var.uniform_(0.5, 1.5)
    return network.to(dtype).eval()


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


def labels() -> Tensor:
    return torch.arange(N) % CLASSES


# Kinds


class InPlace(nn.Module):
    """Normalizes its input where it lies."""

    def __init__(self):
        super().__init__()
        self.network = plain_network()

    def forward(self, x):
        return self.network(x.mul_(-1).add_(1))


class OutOfPlace(InPlace):
    def forward(self, x):
        return self.network(x.mul(-1).add(1))


class Counting(nn.Module):
    """Keeps a statistic of its own in every mode."""

    def __init__(self):
        super().__init__()
        self.network = plain_network()
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, x):
        self.asked += 1
        return self.network(x)


def hooked() -> nn.Module:
    network = plain_network()
    network[5].register_forward_hook(lambda layer, inputs, output: -output)
    return network


class Negated(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = plain_network()

    def forward(self, x):
        return -self.network(x)


def normed() -> nn.Module:
    network = plain_network()
    weight_norm(network[5])
    return network


def pruned() -> nn.Module:
    network = plain_network()
    prune.l1_unstructured(network[5], "weight", amount=0.5)
    return network


def pruned_for_good() -> nn.Module:
    network = pruned()
    prune.remove(network[5], "weight")
    return network


def in_training_mode() -> nn.Module:
    return plain_network().train()


@dataclass(frozen=True)
class Kind:
    """How to make it, the ordinary network that computes the same, and how near the answers must be."""

    make: Callable[[], nn.Module | Callable]
    same_as: Callable[[], nn.Module] = plain_network
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-5


KINDS = {
    "in place": Kind(InPlace, OutOfPlace),
    "counting": Kind(Counting),
    "hooked": Kind(hooked, Negated),
    "parametrized": Kind(normed),
    "pruned": Kind(pruned, pruned_for_good),
    "compiled": Kind(lambda: torch.compile(plain_network(), backend="eager")),
    "data parallel": Kind(lambda: nn.DataParallel(plain_network())),
    "in training mode": Kind(in_training_mode),
    "function": Kind(lambda: lambda x: plain_network()(x)),
    "float64 images": Kind(plain_network, dtype=torch.float64, tolerance=1e-4),
    "float64 model": Kind(lambda: plain_network(torch.float64), tolerance=1e-4),
    "bfloat16 model": Kind(lambda: plain_network(torch.bfloat16), tolerance=0.1),
}

ANSWERS = {
    "dict": lambda logits: {"logits": logits},
    "tuple": lambda logits: (logits, logits),
    "list": lambda logits: [logits],
    "number": lambda logits: 3.0,
}


class Answering(nn.Module):
    """Gives its logits in a form that is no tensor."""

    def __init__(self, form: Callable):
        super().__init__()
        self.network, self.form = plain_network(), form

    def forward(self, x):
        return self.form(self.network(x))


# Functions: (model, x, y) -> a tensor or number to be compared


def steps(attack: Callable, **knobs: object) -> Callable:
    return lambda model, x, y: attack(model, x, y, generator=torch.Generator().manual_seed(5), **knobs)


def certified(model, x, y):
    return certification.certify(model, x[:2], sigma=0.1, n0=20, n=200, progress=False).radii


def report(model, x, y):
    found = evaluation.masking_report(
        model, (x, y), eps=0.05, steps=10, restarts=1, queries=5, images_shown=0, progress=False
    )
    return torch.tensor([found.robust.clean_accuracy, found.robust["PGD-10 × 1"].accuracy])


def trained(model, x, y, **knobs: object):
    training.train(model, Part(x, y, torch.arange(len(x))), updates=2, batch_size=4, lr=0.01, progress=False, **knobs)
    with torch.no_grad():
        return model.eval()(x.to(next(model.parameters()).dtype).clone())


def with_a_head(model, x, y):
    new = training.linear_head(model, Part(x, y, torch.arange(len(x))), n_classes=CLASSES)
    with torch.no_grad():
        return new.eval()(x.to(next(new.parameters()).dtype).clone())


def shadowed(model, x, y):
    constants = attacks.ShadowConstants(steps=2, draws=2)
    return attacks.shadow(model, x, (y + 1) % CLASSES, sigma=0.1, constants=constants)


def inverted(model, x, y):
    return inversion.plug_in_inversion(model, [0, 1], size=SIDE, channels=1, steps=1, copies=2, progress=False).images


def shown(model, x, y):
    objective = synthesis.cross_entropy([0, 1])
    stage = synthesis.Stage(SIDE, 2)
    return synthesis.synthesize(model, objective, stages=stage, channels=1, progress=False).images


WORDS = Vocabulary(("red", "green", "blue"), context=2)
with torch.random.fork_rng():
    torch.manual_seed(7)
    READS = TextTower(WORDS.size, WORDS.context, width=6, depth=1, embed_dim=CLASSES)


def told_apart_by_words(model, x, y):
    """A pair around it: its outputs are taken for features, and three colors for words that lie near them."""
    classifier = zero_shot(Clip(model, READS, WORDS), WORDS.words)
    with evaluating(classifier), torch.no_grad():
        return classifier(x)


FUNCTIONS: dict[str, Callable] = {
    "accuracy": lambda model, x, y: evaluation.correct(model, (x, y), batch_size=4).float(),
    "accuracy of a loader": lambda model, x, y: evaluation.correct(model, DataLoader(TensorDataset(x, y), 4)).float(),
    "robust accuracy": lambda model, x, y: evaluation.robust_accuracy(
        model, (x, y), {"PGD": partial(attacks.pgd, steps=2)}, eps=0.05, progress=False
    ).worst.float(),
    "pgd": steps(attacks.pgd, eps=0.05, steps=3),
    "pgd l2": steps(attacks.pgd, eps=0.3, norm="l2", steps=3, restarts=2),
    "fgsm": steps(attacks.fgsm, eps=0.05),
    "apgd": steps(attacks.apgd, eps=0.05, steps=3),
    "apgd targeted": steps(attacks.apgd_targeted, eps=0.05, steps=3, n_targets=2),
    "square": steps(attacks.square, eps=0.05, queries=5),
    "shadow": shadowed,
    "pgd through noise": lambda model, x, y: attacks.smoothed_pgd(model, x, y, eps=0.3, sigma=0.1, steps=2, draws=2),
    "certify": certified,
    "predict": lambda model, x, y: certification.predict(model, x[:2], sigma=0.1, n=100, progress=False).float(),
    "interval bounds": lambda model, x, y: certification.ibp_margins(model, x, y, 0.01),
    "verified error": lambda model, x, y: certification.verified_error(model, x, y, 0.01, progress=False).error,
    "crown": lambda model, x, y: certification.crown_margins(model, x, y, 0.01),
    "loss surface": lambda model, x, y: evaluation.loss_surface(
        model, x, y, eps=0.05, points=3, generator=torch.Generator().manual_seed(5)
    ).values,
    "first order": lambda model, x, y: evaluation.first_order(model, x, y, batch_size=4).gradient_gaps,
    "smallest eps": lambda model, x, y: evaluation.smallest_eps(
        model, x, y, [0.01, 0.3], steps=2, generator=torch.Generator().manual_seed(5)
    ).nan_to_num(posinf=9.0),
    "masking report": report,
    "recognized": lambda model, x, y: evaluation.recognized([model], x, y),
    "regions": lambda model, x, y: evaluation.class_regions(model, x, y, steps=2).float(),
    "zero shot": told_apart_by_words,
    "plug-in inversion": inverted,
    "synthesis": shown,
}
TRAINING: dict[str, Callable] = {
    "train": trained,
    "train by PGD": partial(trained, method=training.PGD(0.05, steps=2)),
    "train by Free": partial(trained, method=training.Free(0.05, replays=2)),
}

NOISY = ("shadow", "pgd through noise", "certify", "predict")  # whose noise is drawn in the images' precision

# What cannot work, and the sentence.
REFUSED: dict[tuple[str, str], str] = {
    ("hooked", "interval bounds"): "hook",
    ("hooked", "verified error"): "hook",
    ("hooked", "crown"): "hook",
    ("function", "train"): "no parameters: there is nothing to train",
    ("function", "train by PGD"): "no parameters: there is nothing to train",
    ("function", "train by Free"): "no parameters: there is nothing to train",
}


def state_of(model: object) -> dict:
    if not isinstance(model, nn.Module):
        return {}
    return {
        "weights": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "flags": [p.requires_grad for p in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "gradients": [p.grad is None for p in model.parameters()],
    }


def assert_same_state(before: dict, after: dict, *, weights: bool = True) -> None:
    for what, value in before.items():
        if what == "weights":
            changed = [name for name in value if not torch.equal(value[name], after[what][name])]
            assert not weights or changed == []
        else:
            assert value == after[what], what


def close(found: object, expected: object, tolerance: float) -> bool:
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.bad_input
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_with_every_kind_of_model(name, kind):
    made, function = KINDS[kind], FUNCTIONS[name]
    x, y, model = images(made.dtype), labels(), made.make()
    kept, before = x.clone(), state_of(model)
    if (kind, name) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[kind, name]) as caught:
            function(model, x, y)
        assert "\n" not in str(caught.value)
        return
    found = function(model, x, y)
    assert torch.equal(x, kept), "the caller's images were overwritten"
    assert_same_state(before, state_of(model))
    if kind == "bfloat16 model" or (kind == "float64 images" and name in NOISY):
        # in another precision signs, decisions and noise may differ: the answer must be there
        assert torch.isfinite(torch.as_tensor(found)).all()
        return
    assert close(found, function(made.same_as(), images(), y), made.tolerance)


@pytest.mark.bad_input
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRAINING)
def test_every_kind_of_model_trains(name, kind):
    made, function = KINDS[kind], TRAINING[name]
    x, y, model = images(made.dtype), labels(), made.make()
    kept, before = x.clone(), state_of(model)
    if (kind, name) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[kind, name]):
            function(model, x, y)
        return
    found = function(model, x, y)
    assert torch.equal(x, kept)
    assert [p.requires_grad for p in model.parameters()] == before["flags"]
    if kind in ("parametrized", "pruned", "bfloat16 model"):  # another parametrization descends otherwise
        assert torch.isfinite(found).all()
        return
    twin = made.same_as()
    assert close(found, function(twin, images(), y), 100 * made.tolerance)


ASKED = ("accuracy", "robust accuracy", "pgd", "square", "certify", "first order", "masking report", "recognized")


@pytest.mark.bad_input
@pytest.mark.parametrize("form", ANSWERS)
@pytest.mark.parametrize("name", ASKED)
def test_an_answer_that_is_no_tensor_is_one_sentence(name, form):
    with pytest.raises(ValueError, match=r"a classifier must return logits of shape \(\d+, k\)") as caught:
        FUNCTIONS[name](Answering(ANSWERS[form]), images(), labels())
    assert "\n" not in str(caught.value)


LOOKING = ("recognized", "first order")  # which take any network


@pytest.mark.parametrize("name", [*(name for name in ASKED if name not in LOOKING), "fgsm", "apgd"])
def test_features_are_not_taken_for_logits(name):
    network = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    with pytest.raises(ValueError, match="has no classifier, so that its outputs are features and not logits"):
        FUNCTIONS[name](network, images(), labels())
    with pytest.raises(ValueError, match="has no classifier"):
        TRAINING["train"](network, images(), labels())


# The caller's gradient state

NEEDS_GRADIENTS = sorted(
    set(FUNCTIONS)
    - {"accuracy", "accuracy of a loader", "square", "certify", "predict", "interval bounds", "crown",
       "verified error", "recognized", "regions", "zero shot"}
)  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_under_no_grad_every_answer_is_the_same(name):
    expected = FUNCTIONS[name](plain_network(), images(), labels())
    with torch.no_grad():
        assert close(FUNCTIONS[name](plain_network(), images(), labels()), expected, 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_default_precision_changes_nothing(name):
    expected = FUNCTIONS[name](plain_network(), images(), labels())
    x, y, model = images(), labels(), plain_network()
    torch.set_default_dtype(torch.float64)
    try:
        found = FUNCTIONS[name](model, x, y)
    finally:
        torch.set_default_dtype(torch.float32)
    assert close(found, expected, 1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_inference_mode_the_answer_is_right_or_a_sentence(name):
    x, y, model = images(), labels(), plain_network()
    expected = FUNCTIONS[name](plain_network(), x, y)
    with torch.inference_mode():
        if name in NEEDS_GRADIENTS:
            with pytest.raises(ValueError, match="inference_mode") as caught:
                FUNCTIONS[name](model, x, y)
            assert "\n" not in str(caught.value)
        else:
            assert close(FUNCTIONS[name](model, x, y), expected, 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_images_made_in_inference_mode_are_images(name):
    expected = FUNCTIONS[name](plain_network(), images(), labels())
    with torch.inference_mode():
        x, y = images(), labels()
    assert close(FUNCTIONS[name](plain_network(), x, y), expected, 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_images_that_require_grad_leave_no_graph(name):
    expected = FUNCTIONS[name](plain_network(), images(), labels())
    x = images().requires_grad_()
    found = torch.as_tensor(FUNCTIONS[name](plain_network(), x, labels()))
    assert not found.requires_grad or name in ("interval bounds", "crown")  # whose gradients are wanted
    assert x.grad is None
    assert close(found.detach(), expected, 1e-6)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("name", TRAINING)
def test_training_turns_gradients_on(name, guard):
    expected = TRAINING[name](plain_network(), images(), labels())
    with guard():
        assert close(TRAINING[name](plain_network(), images(), labels()), expected, 1e-6)


@pytest.mark.parametrize("name", TRAINING)
def test_training_in_inference_mode_is_a_sentence(name):
    model = plain_network()
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        TRAINING[name](model, images(), labels())


def test_a_head_is_fitted_under_no_grad_too():
    expected = with_a_head(plain_network(), images(), labels())
    with torch.no_grad():
        assert close(with_a_head(plain_network(), images(), labels()), expected, 1e-6)


# One image under batch normalization


class Batches(nn.Module):
    """BatchNorm that sees one value a channel."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.norm, self.last = nn.Linear(SIDE**2, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.last(self.norm(self.first(x.flatten(1))))


METHODS = {
    "natural": training.Natural(), "pgd": training.PGD(0.05, steps=2), "fgsm": training.fgsm(0.05),
    "fgsm-rs": training.fgsm_rs(0.05), "n-fgsm": training.n_fgsm(0.05), "free": training.Free(0.05, replays=2),
    "gaussian": training.Gaussian(0.1),
}  # fmt: skip


@pytest.mark.parametrize("n", [5, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_minibatch_of_one_image_trains(method, n):
    """The last of five images, cut into minibatches of four; and a data set of a single one."""
    model, part = Batches(), Part(images()[:n], labels()[:n], torch.arange(n))
    before = copy.deepcopy(model.state_dict())
    report = training.train(model, part, METHODS[method], updates=4, batch_size=4, lr=0.01, progress=False)
    assert report.updates == 4
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert not torch.equal(before["first.weight"], model.first.weight)
    assert model.norm.training


def test_a_layer_without_statistics_for_a_single_image_is_a_sentence():
    model = Batches()
    model.norm = nn.BatchNorm1d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="choose a batch_size that leaves no image alone"):
        training.train(model, Part(images()[:1], labels()[:1], torch.arange(1)), updates=1, progress=False)


def test_transfer_trains_on_a_last_single_image_too():
    model, part = plain_network(), Part(images()[:5], labels()[:5], torch.arange(5))
    new, _ = training.retrain_last(model, part, 1, n_classes=CLASSES, updates=3, batch_size=4, progress=False)
    assert anatomy.head(new).weight.shape[0] == CLASSES


# Forms of data

FORMS = {
    "part": lambda x, y: Part(x, y, torch.arange(len(x))),
    "pair": lambda x, y: (x, y),
    "arrays": lambda x, y: (x.numpy(), y.numpy().astype("int32")),
    "data set": lambda x, y: TensorDataset(x, y),
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=4),
}


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_takes_every_form_of_data(form):
    x, y, model = images(), labels(), plain_network()
    data = FORMS[form](x, y)
    attack = {"PGD": partial(attacks.pgd, steps=2, eps=0.05)}
    expected = evaluation.robust_accuracy(model, (x, y), attack, progress=False)
    found = evaluation.robust_accuracy(model, data, attack, progress=False)
    assert torch.equal(found.worst, expected.worst)
    assert evaluation.accuracy(model, data) == expected.clean_accuracy
    assert report(model, *_pair(x, y)).equal(report_of(model, data))


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x, y


def report_of(model: nn.Module, data: object) -> Tensor:
    found = evaluation.masking_report(
        model, data, eps=0.05, steps=10, restarts=1, queries=5, images_shown=0, progress=False
    )
    return torch.tensor([found.robust.clean_accuracy, found.robust["PGD-10 × 1"].accuracy])


@pytest.mark.parametrize("form", FORMS)
def test_training_takes_every_form_of_data(form):
    model, x, y = plain_network(), images(), labels()
    before = model[0].weight.clone()
    training.train(model, FORMS[form](x, y), updates=3, batch_size=4, lr=0.01, progress=False)
    assert not torch.equal(before, model[0].weight)


TRANSFER = {
    "linear_head": lambda model, data: training.linear_head(model, data, n_classes=CLASSES),
    "choose_penalty": lambda model, data: training.choose_penalty(
        model, data, data, n_classes=CLASSES, penalties=[1.0]
    ),
    "retrain_last": lambda model, data: training.retrain_last(
        model, data, 0, n_classes=CLASSES, updates=1, progress=False
    )[0],
    "distill": lambda model, data: training.distill(
        model, data, strength=1.0, n_classes=CLASSES, updates=2, progress=False
    )[0],
    "natural_twin": lambda model, data: training.natural_twin(model, data, updates=1, progress=False),
    "few": lambda model, data: training.few(data, 1, seed=0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_takes_every_form_of_data(name, form):
    found = TRANSFER[name](plain_network(), FORMS[form](images(), labels()))
    expected = TRANSFER[name](plain_network(), FORMS["part"](images(), labels()))
    if isinstance(found, nn.Module) and form not in ("loader", "data set"):  # which bring an order of their own
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    assert type(found) is type(expected)


def test_a_loader_is_attacked_some_images_at_a_time():
    """Never more than the images of a window, however many there are."""
    largest = 0

    class Watching(TensorDataset):
        alive = 0

    x, y = images().repeat(500, 1, 1, 1), labels().repeat(500)  # 3,000 images

    def looking(model, x, y, *, generator):
        nonlocal largest
        largest = max(largest, len(x))
        return x

    found = evaluation.robust_accuracy(
        plain_network(), DataLoader(Watching(x, y), batch_size=100), looking, batch_size=4000, progress=False
    )
    assert len(found.worst) == 3000
    clean = evaluation.correct(plain_network(), (images(), labels()))
    assert torch.equal(found.worst, clean.repeat(500))


@pytest.mark.parametrize("shuffled", [False, True])
def test_training_on_a_loader_repeats(shuffled):
    weights = []
    for global_seed in (1, 2):
        model, loader = plain_network(), DataLoader(TensorDataset(images(), labels()), 4, shuffle=shuffled)
        torch.manual_seed(global_seed)
        training.train(model, loader, updates=5, lr=0.01, seed=7, progress=False)
        weights.append(model[0].weight)
    assert torch.equal(*weights)


@pytest.mark.bad_input
@pytest.mark.parametrize("data", ["digits", {"x": 1}, 3, torch.rand(2, 1, 8, 8)])
def test_another_form_of_data_is_a_sentence(data):
    for call in (partial(evaluation.accuracy, plain_network()), partial(training.train, plain_network(), updates=1)):
        with pytest.raises(TypeError, match="a pair \\(x, y\\) of tensors or arrays") as caught:
            call(data)
        assert "\n" not in str(caught.value)


# What cannot be right


def outside(model, x, y, *, generator):
    return x + 0.5


def beyond(model, x, y, *, generator):
    return (x + 0.2).clamp(0, 1)


@pytest.mark.parametrize(
    ("attack", "sentence"), [(outside, r"returned pixels in .* outside \[0, 1\]"), (beyond, "moved an image by 0.2")]
)
def test_examples_from_outside_do_not_count(attack, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluation.robust_accuracy(plain_network(), (images(), labels()), attack, eps=0.1, progress=False)


@pytest.mark.parametrize("attacks_given", [[attacks.fgsm], attacks.fgsm, {"fgsm": attacks.fgsm}])
def test_attacks_come_as_a_list_a_dict_or_one_function(attacks_given):
    found = evaluation.robust_accuracy(plain_network(), (images(), labels()), attacks_given, eps=0.02, progress=False)
    assert [outcome.name for outcome in found.attacks] == ["fgsm"]
    expected = attacks.fgsm(plain_network(), images(), labels(), eps=0.02)
    assert torch.equal(found.worst, evaluation.correct(plain_network(), (expected, labels())) & found.correct)


def test_eps_alone_means_the_strong_attacks():
    names = list(evaluation.strong_attacks(0.02))
    model, x = plain_network(), images()[:2]
    with torch.no_grad():
        wrong = (model(x).argmax(dim=1) + 1) % CLASSES  # so that nothing is left to attack
    found = evaluation.robust_accuracy(model, (x, wrong), eps=0.02, progress=False)
    assert [outcome.name for outcome in found.attacks] == names


@pytest.mark.parametrize("eps", [8, 255.0])
def test_a_radius_in_gray_levels_is_a_sentence(eps):
    for call in (
        lambda: attacks.pgd(plain_network(), images(), labels(), eps=eps),
        lambda: attacks.square(plain_network(), images(), labels(), eps=eps),
        lambda: evaluation.strong_attacks(eps),
        lambda: evaluation.masking_report(plain_network(), (images(), labels()), eps=eps),
        lambda: training.PGD(eps),
        lambda: training.Free(eps),
        lambda: training.IBP(eps),
        lambda: certification.ibp_margins(plain_network(), images(), labels(), eps),
    ):
        with pytest.raises(ValueError, match=f"for {eps:g} gray levels of 255 give {eps:g} / 255"):
            call()


@pytest.mark.parametrize("eps", [1e-8, 1e-12])
def test_nothing_to_look_at_is_no_sign_of_masking(eps):
    found = evaluation.masking_report(
        plain_network(), (images(), labels()), eps=eps, steps=10, restarts=1, queries=5, images_shown=0, progress=False
    )
    assert found["gradient leads nowhere"].found is None
    assert not found.masked
    with pytest.raises(ValueError, match="within radius 0 there is nothing to look at"):
        evaluation.masking_report(plain_network(), (images(), labels()), eps=0.0, progress=False)


def test_a_model_at_chance_is_said_to_be():
    torch.manual_seed(0)
    y = torch.randint(CLASSES, (N,))
    found = evaluation.masking_report(
        lambda x: x.flatten(1)[:, :CLASSES] * 0.1, (images(), y), eps=0.01, steps=10, restarts=1, queries=5,
        images_shown=0, progress=False,
    )  # fmt: skip
    assert found["no better than chance"].found
    assert "no better than chance" in found.conclusion


def test_a_report_does_not_depend_on_the_batch_size():
    x = images().repeat(3, 1, 1, 1)
    x[:6] = x[:1]  # the first images are all alike
    y = labels().repeat(3)
    found = [
        evaluation.masking_report(
            plain_network(), (x, y), eps=0.05, steps=10, restarts=1, queries=5, images_shown=0, progress=False,
            batch_size=batch_size,
        )
        for batch_size in (4, 18)
    ]  # fmt: skip
    assert found[0].scale == pytest.approx(found[1].scale, rel=1e-6)
    assert [f.found for f in found[0].findings] == [f.found for f in found[1].findings]
    assert not found[0]["constant answers"].found


def test_an_attack_in_training_mode_keeps_the_statistics():
    model = in_training_mode()
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacks.pgd(model, images(), labels(), eps=0.05, steps=5)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert model.training
