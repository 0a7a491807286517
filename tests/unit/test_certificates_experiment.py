"""Chapter 2's arms in miniature: which images they share, how forgeries are made and kept, what figures say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.worlds.miniatures import TINY_CERTIFICATES as TINY
from tests.worlds.miniatures import plainly
from thesis_kit import training
from thesis_kit.certification import ABSTAIN, Budget, certify
from thesis_kit.chapters.certificates import figures
from thesis_kit.chapters.certificates.networks import bounded_network, smoothed_network
from thesis_kit.chapters.certificates.settings import CERTIFICATES
from thesis_kit.chapters.certificates.world import FORGERY, SELECTION, World
from thesis_kit.chapters.tasks import Task, class_names
from thesis_kit.checks import UnknownName
from thesis_kit.ledger.arm import pick
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_claim
from thesis_kit.ledger.registry import find
from thesis_kit.models import zoo
from thesis_kit.session import setup
from thesis_kit.training.augmentation import shade

NAME = "certificates.scenes"
PAIRED = ("natural@0.25", "shadow@0.25", "plain", "l2", "draws", "one", "one-long", "one-renewed")
FEW_ARMS = ("published", "economical", "n=60", "n=100")


@pytest.fixture
def result(miniature):
    return miniature(NAME)


@pytest.fixture
def records(result):
    return plainly(result)


@pytest.fixture
def experiment(around):
    """The experiment with tiny settings, among what its arms have made already."""
    with around(NAME) as found:
        yield found


def world(seed=0, **own):
    return World(seed, pick(TINY, *dict.fromkeys((*FORGERY, "noise_steps")), **own))


def of(records, arm, seed=0):
    return records[arm, seed]


def test_curves_need_arms_that_no_claim_names():
    named = {arm for claim in catalog().of("certificates") for arm in claim.arms}
    assert {"all@0.12", "all@0.25", "all@0.5", "all@1"} <= set(find("certificates", "scenes").names) - named


def test_arms_that_are_compared_share_their_images(records):
    for arms in (PAIRED, FEW_ARMS, ("ibp@2", "crown-ibp@2")):
        assert len({(of(records, arm)["group"], of(records, arm)["n"]) for arm in arms}) == 1
    groups = {of(records, "natural@0.25", seed)["group"] for seed in TINY.seeds}
    assert len(groups) == 2  # seeds have images of their own


def test_what_an_attack_cost_is_counted(records):
    costs = of(records, "draws")["budget"]["Shadow"]
    assert costs["attacked"] == of(records, "draws")["n"]
    assert costs["backward_images"] == costs["attacked"] * TINY.noise_steps * TINY.noise_draws
    long, short = (of(records, arm)["budget"]["Shadow"]["backward_images"] for arm in ("one-long", "one"))
    assert long == costs["backward_images"] == TINY.noise_draws * short


def test_a_failed_forgery_has_no_radius(records):
    for arm in PAIRED[1:]:
        cell = of(records, arm)
        assert [int(radius > 0) for radius in cell["values"]["radius"]] == cell["outcomes"]["forged"]


@pytest.mark.parametrize("sigma", TINY.sigmas)
def test_images_are_attacked_only_if_their_smoothed_label_is_right(experiment, records, sigma):
    here = world()
    part, model = here.chosen(sigma), here.smoothed(sigma)
    assert 0 < len(part) <= TINY.images
    again = certify(
        model, part.x, sigma=sigma, n=TINY.n_choose, seed=here.stream(SELECTION), ids=part.ids, progress=False
    )  # fmt: skip
    assert torch.equal(again.labels, part.y)
    if sigma == TINY.sigma:
        inside = of(records, "inside natural")
        assert inside["n"] == sum(radius > 0 for radius in of(records, "natural@0.25")["values"]["radius"])
        assert all(inside["outcomes"]["kept"])


def test_each_noise_has_forgeries_of_its_own(experiment):
    first, second = (world().forged(sigma).images for sigma in TINY.sigmas)
    assert first.shape != second.shape or not torch.equal(first, second)


def test_certificates_of_a_larger_budget_begin_with_those_of_a_smaller_one(records):
    small, large = (of(records, f"n={n}")["values"]["radius"] for n in TINY.sizes)
    assert max(small) <= Budget(0.25, n=60).largest_radius + 1e-6
    assert len(small) == len(large)


def test_the_forgery_is_made_once_and_remembered(experiment, records, monkeypatch):
    monkeypatch.setattr("thesis_kit.chapters.certificates.world.spoof", None)
    made, again = world().forged(0.25), experiment.arm("shadow@0.25").run(0)
    assert again["values"] == of(records, "shadow@0.25")["values"]
    assert again["values"]["norm"] == [round(v, 6) for v in made.norms.tolist()]
    few = experiment.arm("economical").run(0)
    assert few["values"]["radius"] == again["values"]["radius"][: TINY.images_few]


def test_the_verifiers_never_saw_noise(experiment, monkeypatch, tmp_path):
    methods = []

    def train(model, data, method, **knobs):
        methods.append((type(method), knobs.get("augment"), knobs["seed"]))
        return training.TrainingReport()

    monkeypatch.setattr(training, "train", train)
    here = world()
    here.verifier(), here.verifier(shaded=True), here.smoothed(0.25)
    assert [(method, augment) for method, augment, _ in methods] == [
        (training.Natural, None), (training.Natural, shade), (training.Gaussian, None),
    ]  # fmt: skip
    assert methods[0][2] == methods[1][2] != methods[2][2]


def test_a_seed_without_images_is_refused():
    with pytest.raises(ValueError, match="seed 2 has no block of 20 test images"):
        _ = world(2).block


def test_smoothness_of_forgeries_is_reported(result):
    assert "not recorded" not in judge_claim(catalog().claims["shadow-smooth"], result).reported.values()


# --- what a chapter takes from here


def test_small_profiles_networks_come_from_the_zoo():
    session = setup("small", device="cpu", progress=False)
    smoothed, bounded = smoothed_network(session, 0.25), bounded_network(session, "crown-ibp", 2 / 255)
    for model, name in ((smoothed, "resnet-scenes-a-noise-0.25"), (bounded, "cnn-scenes-a-crown-ibp-2")):
        assert not model.training
        for key, value in zoo.load(name).state_dict().items():
            assert torch.equal(model.state_dict()[key], value)
    with pytest.raises(UnknownName):
        bounded_network(session, "crown", 2 / 255)


def test_other_profiles_train_theirs(experiment, records, monkeypatch):
    session = replace(setup("small", device="cpu", progress=False), profile="record")
    monkeypatch.setattr("thesis_kit.session.tables", lambda: {"certificates": {"record": TINY}})
    model, kept = smoothed_network(session, 0.25), world().smoothed(0.25)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), kept.parameters(), strict=True))


def test_classes_without_names_are_numbered():
    assert class_names(CERTIFICATES["small"].task)[:2] == ("disk", "crescent")
    assert class_names(Task("cifar10", 3)) == ("0", "1", "2")


# --- figures


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda r, **w: figures.accuracy_curves(r, TINY.sigmas, **w), "σ = 0.25 starts at"),
        (lambda r, **w: figures.radii_figure(r, TINY.sigmas, **w), "Shadow image, wrong label: "),
        (lambda r, **w: figures.budget_figure(r, **w), "100 samples: mean "),
        (lambda r, **w: figures.bars_figure(r, "radius", {"draws": "four"}, axis_label="radius", **w), "four: "),
        (lambda r, **w: figures.bounds_figure(r, {"ibp@2": "IBP"}, **w), "IBP, natural image, right label: "),
        (lambda r, **w: figures.caps_figure(0.001, **w), "100,000 samples 3.81 σ"),
    ],
)  # fmt: skip
def test_figures_say_in_words_what_they_show(result, draw, said):
    html = draw(result, label="Figure 9.9", caption="A caption.").html
    assert "Figure 9.9" in html
    assert said in html


def test_lines_give_share_and_radius_with_intervals(result):
    head, line = figures.radii_table(result, {"shadow@0.25": "Shadow"}).text.split("\n")
    share, radius = (result.mean(measure, "shadow@0.25").value for measure in ("forged", "radius"))
    assert "mean radius" in head
    assert f"{100 * share:.1f}%" in line
    assert f"{radius:.3f} [" in line


def test_the_slider_shows_votes_and_radius_of_each_network():
    model, n_classes = zoo.load("resnet-scenes-a-noise-0.25"), 8
    names, image = [f"class {k}" for k in range(n_classes)], torch.full((1, 3, 32, 32), 0.5)
    shown = figures.noise_slider({0.12: model, 0.25: model}, image, names, n=60, label="Figure 9", caption="A caption.")
    found = certify(model, image, sigma=0.12, n=60, progress=False)[0]
    said = "no certificate" if found.abstained else f"{names[found.label]}, certified radius {found.radius:.2f}"
    assert f"σ = 0.12: {said}" in shown.html
    assert shown.render(0.13)[1] == shown.render(0.12)[1]  # a value between two networks is answered by the nearer


def test_a_triptych_names_labels_and_abstentions():
    model = zoo.load("resnet-scenes-a-noise-0.25")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = certify(model, x, sigma=0.25, n=60, progress=False)
    html = figures.triptych({"random": (x, found)}, list("abcdefgh"), label="Figure 9", caption="A caption.").html
    for one in found:
        assert ("abstains" if one.label == ABSTAIN else f"{'abcdefgh'[one.label]}, radius {one.radius:.2f}") in html
