"""Randomized smoothing against the paper's pseudo-code, the closed form of linear classifiers, and its own promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from torch import nn

from thesis_kit.certification import ABSTAIN, Budget, NotDeterministic, certify, certify_nested, predict
from thesis_kit.certification.smoothing import lower_bound
from thesis_kit.certification.votes import BLOCK
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.randomness import mix_seed


class Halves(nn.Module):
    """Two classes on two sides of a plane through pixel space; ``margin(x)`` is the distance to it."""

    def __init__(self, shape=(1, 4, 4), offset=0.0):
        super().__init__()
        normal = torch.randn(math.prod(shape), generator=torch.Generator().manual_seed(0))
        self.normal, self.offset = nn.Parameter(normal / normal.norm()), offset

    def margin(self, x):
        return (x - 0.5).flatten(1) @ self.normal - self.offset

    def forward(self, x):
        margin = self.margin(x)
        return torch.stack([-margin, margin], dim=1)


class Counting(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x):
        self.images += len(x)
        return self.model(x)


def net(n_classes=3):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 4 * 4, n_classes)
    ).eval()


def images(n, size=6, seed=0):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))


def slow_certify(model, x, sigma, n0, n, alpha, seed, image_id):
    """CERTIFY as the paper writes it, one sample at a time, on the same noise."""

    def sample(stream, count):
        counts = [0] * model(x[None]).shape[1]
        for block in range(math.ceil(count / BLOCK)):
            generator = torch.Generator().manual_seed(mix_seed(seed, stream, image_id, block))
            noise = torch.randn(BLOCK, *x.shape, generator=generator)
            for one in noise[: count - block * BLOCK]:
                counts[int(model((x + sigma * one)[None]).argmax())] += 1
        return counts

    with torch.no_grad():
        guess = sample(0, n0)
        label = guess.index(max(guess))
        agree = sample(1, n)[label]
    low, high = 0.0, 1.0  # the p at which so many successes or more have probability alpha
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if binom.sf(agree - 1, n, p) < alpha else (low, p)
    return (label, sigma * norm.ppf(low)) if low > 0.5 else (ABSTAIN, 0.0)


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_certificates_are_those_of_the_papers_pseudo_code(sigma):
    model, x = net(), images(6)
    knobs = {"sigma": sigma, "n0": 30, "n": 250, "alpha": 0.01}
    found = certify(model, x, seed=3, ids=torch.arange(10, 16), **knobs)
    for i, one in enumerate(found):
        label, radius = slow_certify(model, x[i], seed=3, image_id=10 + i, **knobs)
        assert one.label == label
        assert one.radius == pytest.approx(radius, abs=1e-9)
    assert found.labels.tolist() == [one.label for one in found]


def test_a_linear_classifiers_certificates_stay_below_its_distance_and_come_near():
    model, x = Halves(), images(40, size=4)
    distance = model.margin(x).abs().double()
    found = certify(model, x, sigma=0.25, n=4000, alpha=0.001)
    assert (found.radii <= distance).all()  # 40 chances of one in a thousand
    near = (distance > 0.05) & (distance < 0.4)
    assert near.sum() > 10
    assert (distance - found.radii)[near].max() < 0.08
    right = (model.margin(x) > 0).long()
    assert found.accuracy(right) == ((found.labels == right).double().mean())


def test_certificates_do_not_depend_on_company_or_batches():
    model, x, ids = net(), images(5), torch.tensor([4, 9, 2, 7, 30])
    knobs = {"sigma": 0.3, "n0": 100, "n": 1050}
    together = list(certify(model, x, ids=ids, batch_size=1000, **knobs))
    for batch_size in (1, 100, 250):
        assert list(certify(model, x, ids=ids, batch_size=batch_size, **knobs)) == together
    order = torch.tensor([3, 0, 2])
    assert list(certify(model, x[order], ids=ids[order], **knobs)) == [together[i] for i in order]
    assert list(certify(model, x, ids=ids, seed=1, **knobs)) != together


@pytest.mark.parametrize("batch_size", [None, 50, 100, 300])
def test_the_noise_is_frozen(batch_size):
    """Recorded results rest on it. Processors may differ in the last bits of what torch draws, hence the tolerance."""
    seen = []

    class Keeps(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.stack([x.sum(dim=(1, 2, 3)), x[:, 0, 0, 0]], dim=1)

    x = torch.full((2, 3, 4, 4), 0.5)
    certify(Keeps(), x, sigma=0.25, n0=100, n=800, seed=3, ids=torch.tensor([10, 11]), batch_size=batch_size)
    noisy = torch.cat(seen[3:]).flatten(1)  # three passes try the model out
    assert len(noisy) == 2 * (100 + 800)
    places = torch.tensor([0, 1, 17, 1000, 4799])  # of a block
    selection, first, last = (noisy[start : start + 100].flatten()[places].tolist() for start in (0, 1000, 1700))
    assert selection == pytest.approx([0.46674725, 0.22799918, 0.62025291, 0.54553270, 0.94632792], abs=1e-6)
    assert first == pytest.approx([0.43225831, 0.43297634, 0.34743548, 0.64252913, 0.38902402], abs=1e-6)
    assert last == pytest.approx([0.40458968, 0.19508070, 0.21449649, 0.52462220, 0.79838579], abs=1e-6)


@pytest.mark.parametrize(("size", "most"), [(1, 400), (8, 400), (32, 100), (64, 25), (128, 16)])
def test_a_pass_on_a_cpu_takes_as_many_images_as_fit_its_caches(size, most):
    seen = []

    class Counts(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x[:, :2, 0, 0]

    certify(Counts(), torch.full((1, 3, size, size), 0.5), sigma=0.1, n0=1, n=400, early_stop=False)
    assert max(seen[4:]) == most


def test_nested_certificates_are_those_of_each_budget_alone():
    model, x = net(), images(5)
    found = certify_nested(model, x, (50, 1000, 130), sigma=0.3)
    assert list(found) == [50, 130, 1000]
    for n, nested in found.items():
        assert list(nested) == list(certify(model, x, sigma=0.3, n=n))


def test_an_early_stop_changes_no_certificate_and_spends_less():
    model, x = net(), images(12)
    found = {}
    for early in (True, False):
        counting = Counting(model)
        certificates = certify(counting, x, sigma=3.0, n=3000, early_stop=early, batch_size=100)
        found[early] = (certificates.labels.tolist(), certificates.radii.tolist()), counting.images, certificates
    assert found[True][0] == found[False][0]
    assert ABSTAIN in found[True][0][0]
    assert found[True][1] < found[False][1]
    assert found[True][2].samples < found[False][2].samples == 12 * 3100


@settings(max_examples=200, deadline=None)
@given(n=st.integers(10, 5000), alpha=st.floats(1e-4, 0.4), sigma=st.floats(0.01, 3), data=st.data())
def test_a_radius_grows_with_the_count_up_to_the_budgets_cap(n, alpha, sigma, data):
    if alpha ** (1 / n) <= 0.5:
        return
    budget = Budget(sigma, n=n, alpha=alpha)
    count = data.draw(st.integers(0, n - 1))
    assert 0 <= budget.radius(count) <= budget.radius(count + 1) <= budget.largest_radius * (1 + 1e-9)
    assert budget.radius(n) == pytest.approx(budget.largest_radius, rel=1e-6, abs=1e-9)
    assert lower_bound(budget.least_count, n, alpha) >= 0.5 > lower_bound(budget.least_count - 1, n, alpha)
    assert lower_bound(count, n, alpha) <= count / n


@pytest.mark.parametrize(("n", "sigmas"), [(100_000, 3.8115), (1000, 2.463), (100, 1.5005)])
def test_the_cap_is_the_published_one(n, sigmas):
    assert Budget(0.5, n=n, alpha=0.001).largest_radius == pytest.approx(0.5 * sigmas, abs=3e-4)


def test_confidence_is_kept_where_the_true_probability_is_known():
    """Over many draws at most a share alpha of the lower bounds lies above the truth."""
    generator, p, n, alpha = torch.Generator().manual_seed(0), 0.8, 200, 0.05
    counts = torch.binomial(torch.full((4000,), float(n)), torch.full((4000,), p), generator=generator)
    wrong = sum(lower_bound(int(count), n, alpha) > p for count in counts)
    assert binom.sf(wrong - 1, 4000, alpha) > 1e-3
    assert wrong > 4000 * alpha / 4  # and the bound is no looser than it must be


def test_predictions_are_the_smoothed_classifiers_or_none():
    model, x = Halves(), images(30, size=4)
    answers, margin = predict(model, x, sigma=0.25, n=500, alpha=0.01), model.margin(x)
    said = answers != ABSTAIN
    assert (answers[said] == (margin[said] > 0).long()).all()
    assert said[margin.abs() > 0.1].all()
    on_the_plane = 0.5 + 0 * x[:1]
    assert predict(model, on_the_plane, sigma=0.25, n=500, alpha=0.001).tolist() == [ABSTAIN]


def test_the_model_is_left_as_it_was_found():
    model = net().train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    certify(model, images(2), sigma=0.2, n=100)
    predict(model, images(2), sigma=0.2, n=100)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_images_have_no_certificates():
    found = certify(net(), images(0), sigma=0.2, n=100)
    assert len(found) == 0
    assert found.radii.shape == (0,)
    assert predict(net(), images(0), sigma=0.2).shape == (0,)


def test_a_certificate_tells_its_budget():
    found = certify(net(), images(2), sigma=0.02, n=200)
    for told in (str(found), str(found[0])):
        assert "σ = 0.02, n₀ = 100, n = 200, α = 0.001" in told
    assert "mean radius" in str(found)
    assert f"label {found[0].label} within {found[0].radius:.3f}" in str(found[0])
    assert found[0].confidence == 0.999
    assert found[:1].labels.tolist() == [found[0].label]


class Fickle(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x.flatten(1)[:, :3], 0.5)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"n": 9}, r"n = 9 samples can certify nothing .* largest certifiable radius is 0 .* at least 10"),
        ({"sigma": 0.0}, "sigma must be a positive number"),
        ({"sigma": float("nan")}, "sigma must be a positive number"),
        ({"alpha": 0.0}, "alpha must lie in"),
        ({"alpha": 0.5}, "alpha must lie in"),
        ({"n0": 0}, "n0 must be a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"ids": torch.arange(3)}, "ids must be int64"),
        ({"x": images(2) + 0.5}, r"pixels must lie in \[0, 1\]"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(36, 1))}, "at least two classes"),
    ],
)
def test_what_cannot_be_certified_is_refused_in_words(knobs, said):
    with pytest.raises(ValueError, match=said):
        certify(**{"model": net(), "x": images(2), "sigma": 0.2, "n": 100, **knobs})


@pytest.mark.bad_input
def test_a_model_that_cannot_be_trusted_is_refused():
    with pytest.raises(NotDeterministic, match="different answers to the same images"):
        certify(Fickle(), images(1), sigma=0.2, n=100)
    broken = net()
    nn.init.constant_(broken[-1].bias, float("nan"))
    with pytest.raises(NonFiniteOutput):
        certify(broken, images(1), sigma=0.2, n=100)
    with pytest.raises(ValueError, match="give at least one"):
        certify_nested(net(), images(1), (), sigma=0.2)


@pytest.mark.parametrize("batch_size", [100, 400, 1000])
def test_what_an_abstention_looked_at_depends_on_nothing_else(batch_size):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval(), torch.rand(6, 3, 4, 4)
    alone = certify(model, x, sigma=3.0, n=3000, batch_size=100)
    nested = certify_nested(model, x, (1000, 3000, 20_000), sigma=3.0, batch_size=batch_size)[3000]
    assert any(one.abstained for one in alone)
    assert list(nested) == list(alone)


def test_a_model_that_mixes_its_images_is_refused():
    """Batch statistics make an answer depend on the company: the same batch twice gives the same, and means nothing."""
    torch.manual_seed(0)
    mixing = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(48, 4)).eval()
    with pytest.raises(NotDeterministic, match="depends on the images beside it"):
        certify(mixing, torch.rand(2, 3, 4, 4), sigma=0.5, n=100)


def test_one_huge_logit_does_not_hide_that_a_model_is_random():
    class Masked(nn.Module):
        def forward(self, x):
            logits = x.flatten(1)[:, :4] + 0.3 * torch.randn(len(x), 4)
            return logits.index_fill(1, torch.tensor([3]), -1e9)

    with pytest.raises(NotDeterministic, match="different answers to the same images"):
        certify(Masked().eval(), torch.rand(2, 3, 4, 4), sigma=0.5, n=100)


def test_labels_of_another_number_have_no_accuracy():
    certificates = certify(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval(), torch.rand(3, 3, 4, 4), sigma=1, n=100)
    with pytest.raises((ValueError, TypeError)):
        certificates.accuracy(torch.tensor([1]))


def test_enough_samples_are_enough():
    for alpha in (0.25, 0.125, 0.001, 0.3):
        with pytest.raises(ValueError, match="certify nothing") as refused:
            Budget(0.1, n=1, alpha=alpha)
        enough = int(str(refused.value).rsplit(" ", 1)[1])
        assert Budget(0.1, n=enough, alpha=alpha).largest_radius > 0
        with pytest.raises(ValueError, match="certify nothing"):
            Budget(0.1, n=enough - 1, alpha=alpha)
