"""The diagnosis of masked gradients: constructed models that mask, ones that do not, and what does not sway it."""

from __future__ import annotations

import json
import math
import re
import time
from functools import cache

import pytest
import torch
from torch import nn

from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import Part, digits
from thesis_kit.evaluation import Averaged, Rescaled, masking_report
from thesis_kit.evaluation.findings import SIGNS, UNGUIDED, WARNINGS
from thesis_kit.evaluation.masking import SCALES
from thesis_kit.models import zoo

EPS = 0.15
FEW = {"eps": EPS, "steps": 20, "restarts": 2, "queries": 100, "images_shown": 0}
LEAST = {"eps": EPS, "steps": 10, "restarts": 1, "queries": 5, "images_shown": 0}
NATURAL, PGD, SQUEEZED = NETWORKS = ("cnn-digits-natural", "cnn-digits-pgd7", "cnn-digits-squeezed")


def some_digits(n: int = 60) -> Part:
    return digits(0).test[torch.arange(n) * 6]


class Through(nn.Module):
    """A model behind, or in front of, something else."""

    def __init__(self, model, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x):
        return self.after(self.model(self.before(x)))


class Backwards(torch.autograd.Function):
    """Hands its input on, and the gradient's negative back."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Withheld(torch.autograd.Function):
    """Hands its input on, and the gradient at six of 64 pixels back."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        kept = torch.zeros_like(gradient)
        kept.flatten(1)[:, 3::11] = gradient.flatten(1)[:, 3::11]
        return kept


def rounded(x):
    """Nine gray levels: the gradient is zero everywhere."""
    return (8 * x).round() / 8


def sawtooth(x):
    """Nine gray levels and a ripple of a hundredth that decides the gradient, which is anything then."""
    return rounded(x) + 0.01 * torch.sin(50 * x)


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


MASKED = {
    "rounded": lambda model: Through(model, rounded),
    "detached": lambda model: Through(model, torch.Tensor.detach),
    "sawtooth": lambda model: Through(model, sawtooth),
    "backwards": lambda model: Through(model, Backwards.apply),
    "withheld": lambda model: Through(model, Withheld.apply),
    "squashed": lambda model: Through(model, after=torch.tanh),
}


def report_on(kind: str, name: str = NATURAL, twin: str | None = None):
    """The diagnosis of a masked model, or by a number of the network with its logits times that; made once."""
    return _report_on(kind, name, twin)


@cache
def _report_on(kind: str, name: str, twin: str | None):
    model = zoo.load(name)
    model = MASKED[kind](model) if kind in MASKED else Rescaled(model, 1 / float(kind))
    return masking_report(model, some_digits(), twin=twin and zoo.load(twin), **FEW)


def found(report) -> dict[str, bool | None]:
    return {finding.name: finding.found for finding in report.findings}


def state(model: nn.Module) -> tuple:
    modules = list(model.modules())
    return (
        [m.training for m in modules],
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        [t.tolist() for t in model.state_dict().values()],
    )


# Networks that do not mask


@pytest.mark.parametrize("name", NETWORKS)
def test_ordinary_robust_and_squeezed_networks_are_not_called_masked(name):
    report = report_on("1", name, None if name == NATURAL else NATURAL)
    assert not report.masked
    assert {name for name, found in found(report).items() if found} <= {"more effort helps"}
    strong = "; it takes a strong attack to see how far they lead" if report["more effort helps"].found else ""
    assert report.conclusion.endswith(f"No sign of masked gradients was found{strong}.")
    assert report["transfer wins"].found is (None if name == NATURAL else False)
    assert report["no gradients"].evidence == "0% of the images have no gradient"


def test_the_robust_network_is_robust_and_the_others_are_not_as_robust_as_a_weak_attack_says():
    natural, robust, squeezed = (report_on("1", name, None if name == NATURAL else NATURAL) for name in NETWORKS)
    assert natural.robust.robust_accuracy < 0.3
    assert natural.robust.robust_accuracy < squeezed.robust.robust_accuracy < robust.robust.robust_accuracy
    for report in (natural, squeezed):
        assert report.as_given - report.robust.robust_accuracy > 0.1
        assert f"A weak attack on the logits as they are would have said {report.as_given:.1%}." in report.conclusion


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("times", ["1e3", "1e-3"])
def test_the_scale_of_the_logits_changes_no_finding(name, times):
    twin = None if name == NATURAL else NATURAL
    plain, scaled = report_on("1", name, twin), report_on(times, name, twin)
    assert found(scaled) == found(plain)
    assert abs(scaled.robust.worst.sum() - plain.robust.worst.sum()) <= 2
    assert scaled.scale == pytest.approx(float(times) * plain.scale, rel=1e-4)
    assert set(scaled.by_scale) == set(plain.by_scale) == set(SCALES)
    for scale in SCALES:
        assert scaled.by_scale[scale] == pytest.approx(plain.by_scale[scale], abs=0.051)


def test_what_the_scale_does_to_a_weak_attack_is_said():
    report, plain = report_on("1e3"), report_on("1")
    assert report.as_given > 0.9  # saturated: cross-entropy has hardly a gradient left
    assert report.rescaled == pytest.approx(plain.rescaled, abs=0.034)
    assert "Part of that is their scale alone" in report.conclusion
    assert "times the usual: on rescaled logits the same attack says" in report.conclusion
    assert "their scale alone" not in plain.conclusion
    assert max(plain.by_scale.values()) - min(plain.by_scale.values()) > 0.3


def test_the_euclidean_ball_is_diagnosed_too():
    report = masking_report(zoo.load(PGD), some_digits(20), **{**LEAST, "eps": 0.5, "norm": "l2"})
    assert report.norm == "l2"
    assert "FAB targeted" in [outcome.name for outcome in report.robust.attacks]
    assert not report.masked
    assert report["unbounded attack fails"].found is False


# Networks that do


@pytest.mark.parametrize("kind", MASKED)
def test_constructed_masks_are_found(kind):
    report = report_on(kind)
    assert report.masked
    assert "Signs of masked gradients: " in report.conclusion
    for finding in report.findings:
        assert finding.meaning == {**SIGNS, **WARNINGS}[finding.name]
        if finding.found and finding.name in SIGNS:
            assert finding.meaning in report.conclusion


@pytest.mark.parametrize("kind", ["rounded", "detached"])
def test_without_gradients_only_attacks_that_need_none_are_run(kind):
    report = report_on(kind)
    assert report["no gradients"].found is True
    assert report["no gradients"].evidence == "100% of the images have no gradient"
    assert {outcome.name for outcome in report.robust.attacks} == {"Square", "random points"}
    for name in [*list(SIGNS)[1:], "more effort helps"]:
        assert report[name].found is None
        assert report[name].evidence == "there is no gradient to follow"
    assert (report.as_given, report.rescaled, report.surface, dict(report.by_scale)) == (None, None, None, {})
    assert report.robust.robust_accuracy < 0.6  # Square is not lost
    assert "give one that can be differentiated as `twin`" in report.conclusion
    helped = report_on(kind, NATURAL, NATURAL)
    assert {outcome.name for outcome in helped.robust.attacks} == set(UNGUIDED)
    assert helped.robust["transfer"].accuracy < helped.robust["Square"].accuracy
    assert "it is the twin that counts" in helped.conclusion


def test_gradients_that_mislead_are_found_though_they_are_there_and_the_accuracy_is_not_believed():
    """The sawtooth: an ordinary network looks as robust as a trained one to every attack that follows gradients."""
    report = report_on("sawtooth", NATURAL, NATURAL)
    following = [outcome.accuracy for outcome in report.robust.attacks if outcome.name not in UNGUIDED]
    assert min(following) > 0.5
    assert report.as_given > 0.9
    assert report.robust.robust_accuracy < min(following) - 0.2
    signs = {name for name, found in found(report).items() if found and name in SIGNS}
    assert signs >= {"transfer wins", "gradient-free search wins", "gradient leads nowhere"}
    assert report["no gradients"].found is False
    blind = report_on("sawtooth")
    assert blind["transfer wins"].found is None
    assert blind["transfer wins"].evidence == "no twin was given"
    assert blind["gradient-free search wins"].found


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        ("backwards", "unbounded attack fails"),
        ("backwards", "gradient leads nowhere"),
        ("withheld", "random points win"),
        ("withheld", "gradient-free search wins"),
        ("squashed", "loss matters"),
    ],
)
def test_each_sign_is_found_where_it_must_be(kind, sign):
    assert report_on(kind)[sign].found


def test_masks_are_found_whatever_the_scale():
    model = Rescaled(MASKED["sawtooth"](zoo.load(NATURAL)), 1e-3)
    report = masking_report(model, some_digits(), twin=zoo.load(NATURAL), **FEW)
    assert found(report) == found(report_on("sawtooth", NATURAL, NATURAL))


def test_gradients_lost_on_some_images_are_counted():
    part = some_digits()
    dark = part.x.mean(dim=(1, 2, 3)).median()

    def gone(x):
        return torch.where(x.mean(dim=(1, 2, 3), keepdim=True) > dark, x, x.detach())

    report = masking_report(Through(zoo.load(NATURAL), gone), part, **LEAST)
    assert report["no gradients"].found
    assert report["no gradients"].evidence == "50% of the images have no gradient"
    assert report["unbounded attack fails"].found is not None


# Random answers


@pytest.fixture(scope="module")
def stochastic():
    """Twice, from two random states of the caller."""
    reports = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        reports.append(masking_report(Through(zoo.load(NATURAL), noisy), some_digits(8), **LEAST))
        assert torch.equal(torch.get_rng_state(), before)
    return reports


def test_random_answers_are_found_and_averaged(stochastic):
    report = stochastic[0]
    assert report["random answers"].found is True
    assert report["constant answers"].found is False
    assert report.robust.clean_accuracy > 0.8
    assert "Its answers are random: attacks and accuracy are those of the mean over 16 passes." in report.conclusion
    assert report["no gradients"].found is False


def test_a_random_models_report_depends_on_the_seed_alone(stochastic):
    one, other = (report.record() for report in stochastic)
    assert one == other


def test_an_average_is_the_mean_of_its_draws():
    torch.manual_seed(0)
    model, x = Through(nn.Flatten(), noisy), some_digits(3).x
    mean = Averaged(model, 4000)(x)
    assert mean.shape == (3, 64)
    assert (mean - x.flatten(1)).std().item() == pytest.approx(0.1 / math.sqrt(4000), rel=0.2)
    assert torch.allclose(Averaged(nn.Flatten(), 5)(x), x.flatten(1))


# Odd data and odd models


def test_images_of_one_class_are_diagnosed():
    part = digits(0).test
    report = masking_report(zoo.load(NATURAL), part[(part.y == 3).nonzero()[:20, 0]], **LEAST)
    assert not report.masked
    assert report["constant answers"].found is False


def test_a_single_image_is_diagnosed():
    report = masking_report(zoo.load(NATURAL), some_digits(1), **{**LEAST, "images_shown": 4})
    assert len(report.robust.correct) == 1
    assert report["constant answers"].found is False
    assert report.surface.values.shape == (1, 21, 21)


def test_two_classes_are_enough():
    part = some_digits()
    part = Part(part.x, (part.y >= 5).long(), part.ids)

    def halves(z):
        return torch.stack([z[:, :5].logsumexp(dim=1), z[:, 5:].logsumexp(dim=1)], dim=1)

    report = masking_report(Through(zoo.load(NATURAL), after=halves), part, **FEW)
    assert report.robust.clean_accuracy > 0.9
    assert not report.masked


@pytest.mark.parametrize("logits", [torch.zeros(10), torch.arange(10.0)])
def test_a_model_with_constant_logits_is_nothing_to_attack(logits):
    part = some_digits()
    report = masking_report(Through(nn.Flatten(), after=lambda z: 0 * z[:, :10] + logits), part, **FEW)
    assert report["constant answers"].found
    assert report["no gradients"].found
    label = int(logits.argmax())
    assert report.robust.robust_accuracy == pytest.approx((part.y == label).double().mean().item())
    assert "nothing was learned that could be attacked" in report.conclusion
    assert math.isfinite(report.scale)


def test_a_model_that_is_wrong_everywhere_has_no_direction_to_look_at():
    part = some_digits(20)
    wrong = Part(part.x, (zoo.load(NATURAL)(part.x).argmax(dim=1) + 1) % 10, part.ids)
    report = masking_report(zoo.load(NATURAL), wrong, **LEAST)
    assert report.robust.robust_accuracy == 0
    assert report["gradient leads nowhere"].found is None
    assert report["gradient leads nowhere"].evidence == "no image is classified rightly"


# What a report leaves behind, says and keeps


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


def test_model_twin_and_random_state_are_left_as_found_and_dropout_is_no_random_answer():
    torch.manual_seed(0)
    model, twin = Mixed(), Mixed()
    before, random = (state(model), state(twin)), torch.get_rng_state()
    report = masking_report(model, some_digits(20), twin=twin, **{**LEAST, "images_shown": 2})
    assert (state(model), state(twin)) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert report["random answers"].found is False

    with pytest.raises(ZeroDivisionError):
        masking_report(Through(model, after=lambda z: 1 / 0), some_digits(20), twin=twin, **LEAST)
    assert (state(model), state(twin)) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_a_report_repeats_and_another_seed_is_another_report():
    model, part = zoo.load(NATURAL), some_digits(30)
    torch.manual_seed(1)
    one = masking_report(model, part, **LEAST)
    torch.manual_seed(2)
    with torch.no_grad():  # gradients may be switched off around it
        again = masking_report(model, part, **LEAST)
    other = masking_report(model, part, **{**LEAST, "seed": 1})
    assert one.record() == again.record()
    survivors = [torch.stack([a.survived for a in report.robust.attacks]) for report in (one, again, other)]
    assert torch.equal(*survivors[:2])
    assert not torch.equal(*survivors[1:])


def test_data_may_be_a_part_a_pair_or_batches():
    model, part = zoo.load(NATURAL), some_digits(12)
    expected = masking_report(model, part, **LEAST).record()
    assert masking_report(model, (part.x, part.y), **LEAST).record() == expected
    batches = [(part.x[:5], part.y[:5]), (part.x[5:], part.y[5:])]
    assert masking_report(model, batches, **LEAST).record() == expected


@pytest.mark.parametrize("kind", ["1", "rounded", "sawtooth"])
def test_the_record_is_json_and_the_text_holds_the_conclusion(kind):
    report = report_on(kind)
    record = json.loads(json.dumps(report.record(), allow_nan=False))
    assert record["masked"] is report.masked
    assert record["images"] == 60
    assert record["conclusion"] == report.conclusion
    assert {name: one["found"] for name, one in record["findings"].items()} == found(report)
    assert set(record["findings"]) == {*SIGNS, *WARNINGS}
    worst = record["robust_accuracy"]
    assert worst["low"] <= worst["value"] <= worst["high"]
    assert worst["value"] <= min(one["accuracy"] for one in record["attacks"].values())
    assert record["attacks"]["Square"]["attacked"] == 60
    assert max(map(len, str(report).splitlines())) <= 78
    text = " ".join(str(report).split())
    assert text.endswith(report.conclusion)
    for finding in report.findings:
        word = {True: "yes", False: "no", None: "?"}[finding.found]
        assert f" {finding.name} {word} {finding.evidence} " in text
    assert f"{100 * report.robust.robust_accuracy:.1f}%" in text


def test_findings_are_found_by_name():
    assert report_on("1")["loss matters"].name == "loss matters"
    with pytest.raises(UnknownName, match="unknown finding 'loss mater': did you mean loss matters"):
        report_on("1")["loss mater"]


def test_as_many_surfaces_are_kept_as_asked_for():
    report = masking_report(zoo.load(NATURAL), some_digits(12), **{**LEAST, "images_shown": 3})
    assert report.surface.values.shape == (3, 21, 21)
    assert report.surface.offsets[-1] == pytest.approx(EPS)


# Settings and models that cannot be meant


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"eps": -0.1}, "eps must be a finite number of at least 0, got -0.1"),
        ({"norm": "l3"}, "unknown norm 'l3': did you mean l2?"),
        ({"steps": 9}, "steps must be a whole number of at least 10, got 9"),
        ({"restarts": 0}, "restarts must be a whole number of at least 1, got 0"),
        ({"queries": 0}, "queries must be a whole number of at least 1, got 0"),
        ({"images_shown": -1}, "images_shown must be a whole number of at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_settings_are_one_sentence_before_anything_is_attacked(knobs, sentence):
    def count(x):
        assert not x.requires_grad
        return x

    with pytest.raises(ValueError, match=re.escape(sentence)):
        masking_report(Through(zoo.load(NATURAL), count), some_digits(5), **{**LEAST, **knobs})


@pytest.mark.bad_input
@pytest.mark.parametrize("role", ["model", "twin"])
@pytest.mark.parametrize(
    ("after", "error", "sentence"),
    [
        (lambda z: z * math.nan, NonFiniteOutput, "the model returned NaN or infinite logits"),
        (lambda z: z[:, :1], ValueError, "the model has one output"),
        (lambda z: z[:, :3], ValueError, "labels must lie in [0, 2], for the model has 3 outputs"),
        (lambda z: {"logits": z}, ValueError, "a classifier must return logits of shape"),
    ],
)
def test_bad_models_are_one_sentence(role, after, error, sentence):
    good, bad = zoo.load(NATURAL), Through(zoo.load(NATURAL), after=after)
    model, twin = (bad, None) if role == "model" else (good, bad)
    with pytest.raises(error, match=re.escape(sentence)):
        masking_report(model, some_digits(20), twin=twin, **LEAST)


@pytest.mark.bad_input
def test_bad_images_are_one_sentence():
    part = some_digits(5)
    with pytest.raises(ValueError, match=re.escape("pixels must lie in [0, 1]")):
        masking_report(zoo.load(NATURAL), (255 * part.x, part.y), **LEAST)
    with pytest.raises(ValueError, match="there are no images to evaluate on"):
        masking_report(zoo.load(NATURAL), part[:0], **LEAST)
    with pytest.raises(ValueError, match="scale must be a positive number, got 0"):
        Rescaled(zoo.load(NATURAL), 0)
    with pytest.raises(ValueError, match="draws must be a whole number of at least 1, got 0"):
        Averaged(zoo.load(NATURAL), 0)


# In full


def test_the_full_report_of_100_images_takes_a_minute_at_most_and_does_not_call_a_robust_network_masked():
    started = time.process_time()
    report = masking_report(zoo.load(PGD), digits(0).test[:100], twin=zoo.load(NATURAL), eps=EPS, queries=300)
    assert time.process_time() - started < 60
    assert not report.masked
    assert 0.7 < report.robust.robust_accuracy < 0.9
