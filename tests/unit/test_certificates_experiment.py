"""Chapter 2's recorded runs in miniature: what an arm records, which images it shares with others, what is kept."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from thesis_kit import training
from thesis_kit.attacks import ShadowConstants
from thesis_kit.certification import ABSTAIN, Budget
from thesis_kit.chapters import find
from thesis_kit.chapters.certificates import arms as certificates
from thesis_kit.chapters.certificates import figures
from thesis_kit.chapters.certificates.networks import bounded_network, smoothed_network
from thesis_kit.chapters.certificates.settings import CERTIFICATES
from thesis_kit.chapters.tasks import Task, class_names
from thesis_kit.checks import UnknownName
from thesis_kit.ledger import runner
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_claim
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.models import zoo
from thesis_kit.session import setup

FEW = ShadowConstants(steps=3, draws=4)
TINY = replace(
    CERTIFICATES["record"],
    task=replace(
        CERTIFICATES["record"].task,
        data_options=MappingProxyType({"size": 16, "n_train": None, "n_validation": 8, "n_test": 40}),
    ),
    model_options=MappingProxyType({"width": 4}), updates=60, batch_size=32, n=100, n_choose=60, n_select=60,
    constants=FEW, final=FEW, noise_steps=2, noise_draws=4, inside_steps=3, inside_restarts=1, sizes=(60, 100),
    sigmas=(0.12, 0.25), block=20, images=4, images_all=6, images_few=2,
    interval_options=MappingProxyType({"width": 4, "size": 16}), interval_updates=8, interval_images=5,
    interval_constants=FEW, interval_eps=(2 / 255,), seeds=(0, 1),
)  # fmt: skip
PAIRED = ("natural@0.25", "shadow@0.25", "plain", "l2", "draws", "one", "one-long", "one-renewed")
FEW_ARMS = ("published", "economical", "n=60", "n=100")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The experiment with tiny settings and a folder of its own for shared work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("runs")))
        patch.setattr(certificates, "CERTIFICATES", {"record": TINY})
        patch.setattr(certificates, "PUBLISHED", {"scripts": ShadowConstants(steps=5, draws=6)})
        yield certificates._experiment()


@pytest.fixture(scope="module")
def records(experiment):
    return {(arm, seed): experiment.run(arm, seed, experiment.config) for arm, seed in experiment.cells}


def of(records, arm, seed=0):
    return records[arm, seed]


def test_the_recorded_experiment_has_the_arms_of_the_chapters_claims():
    recorded, chapter = set(find("certificates", "scenes").arms), catalog().chapters["certificates"]
    assert set(chapter.arms) <= recorded
    assert recorded - set(chapter.arms) == {"all@0.12", "all@0.25", "all@0.5", "all@1"}  # curves, not claims


def test_arms_that_are_compared_share_their_images(records):
    for arms in (PAIRED, FEW_ARMS, ("ibp@2", "crown-ibp@2")):
        assert len({(of(records, arm)["group"], of(records, arm)["n"]) for arm in arms}) == 1
    groups = {of(records, "natural@0.25", seed)["group"] for seed in TINY.seeds}
    assert len(groups) == 2  # seeds have images of their own


def test_a_cell_is_what_the_runner_asks_for(records, experiment):
    for (arm, seed), cell in records.items():
        assert (cell["arm"], cell["seed"]) == (arm, seed)
        for values in (*cell["outcomes"].values(), *cell["values"].values()):
            assert len(values) == cell["n"]
        assert set(cell["budget"]["train"]) == {"forward", "backward", "forward_images", "backward_images"}
    costs = of(records, "draws")["budget"]["Shadow"]
    assert costs["attacked"] == of(records, "draws")["n"]
    assert costs["backward_images"] == costs["attacked"] * TINY.noise_steps * TINY.noise_draws
    long, short = (of(records, arm)["budget"]["Shadow"]["backward_images"] for arm in ("one-long", "one"))
    assert long == costs["backward_images"] == TINY.noise_draws * short


def test_a_failed_forgery_has_no_radius(records):
    for arm in PAIRED[1:]:
        cell = of(records, arm)
        assert [int(radius > 0) for radius in cell["values"]["radius"]] == cell["outcomes"]["forged"]


def test_images_are_attacked_only_if_their_smoothed_label_is_right(experiment, records):
    world = certificates.World(0, TINY)
    part, model = world.chosen(0.25), world.smoothed(0.25)
    assert 0 < len(part) <= TINY.images
    again = certificates.certify(
        model, part.x, sigma=0.25, n=TINY.n_choose, seed=world.stream(certificates._SELECTION), ids=part.ids,
        progress=False,
    )  # fmt: skip
    assert torch.equal(again.labels, part.y)
    inside = of(records, "inside natural")
    assert inside["n"] == sum(radius > 0 for radius in of(records, "natural@0.25")["values"]["radius"])
    assert all(inside["outcomes"]["kept"])


def test_each_noise_has_images_and_forgeries_of_its_own(experiment, records):
    world = certificates.World(0, TINY)
    for sigma in TINY.sigmas:
        part = world.chosen(sigma)
        again = certificates.certify(
            world.smoothed(sigma), part.x, sigma=sigma, n=TINY.n_choose, seed=world.stream(certificates._SELECTION),
            ids=part.ids, progress=False,
        )  # fmt: skip
        assert torch.equal(again.labels, part.y)
    first, second = (world.forged(sigma).images for sigma in TINY.sigmas)
    assert first.shape != second.shape or not torch.equal(first, second)


def test_certificates_of_a_larger_budget_begin_with_those_of_a_smaller_one(records):
    small, large = (of(records, f"n={n}")["values"]["radius"] for n in TINY.sizes)
    assert max(small) <= Budget(0.25, n=60).largest_radius + 1e-6
    assert len(small) == len(large)


def test_the_forgery_is_made_once_and_remembered(experiment, records, monkeypatch):
    monkeypatch.setattr(certificates, "spoof", None)
    made = certificates.World(0, TINY).forged(0.25)
    again = experiment.run("shadow@0.25", 0, experiment.config)
    assert {**again, "seconds": 0} == {**of(records, "shadow@0.25"), "seconds": 0}
    assert again["values"]["norm"] == [round(v, 6) for v in made.norms.tolist()]
    few = experiment.run("economical", 0, experiment.config)
    assert few["values"]["radius"] == again["values"]["radius"][: TINY.images_few]


def test_the_verifiers_never_saw_noise(experiment, monkeypatch):
    methods = []

    def train(model, data, method, **knobs):
        methods.append((type(method), knobs.get("augment"), knobs["seed"]))
        return training.TrainingReport()

    monkeypatch.setattr(certificates.training, "train", train)
    world = certificates.World(0, TINY)
    world.verifier(), world.verifier(shaded=True), world.smoothed(0.25)
    assert [(method, augment) for method, augment, _ in methods] == [
        (training.Natural, None), (training.Natural, certificates.shade), (training.Gaussian, None),
    ]  # fmt: skip
    assert methods[0][2] == methods[1][2] != methods[2][2]


def test_a_seed_without_images_is_refused():
    with pytest.raises(ValueError, match="seed 2 has no block of 20 test images"):
        certificates.World(2, TINY)


@pytest.fixture(scope="module")
def result(experiment, records):
    """The records as a result file holds them."""
    document = runner.empty_document(experiment)
    document["cells"] = [runner._run_cell(lambda arm, seed, _: records[arm, seed], *cell, {}) for cell in records]
    return Result(document)


def test_every_claim_can_be_judged_from_the_record(experiment, result):
    for claim in catalog().of("certificates"):
        if all(arm in experiment.arms for arm in claim.arms):
            judged = judge_claim(claim, result)
            assert judged.verdict is not Verdict.NOT_RUN, judged.reason
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


def test_other_profiles_train_theirs(experiment, records):
    session = replace(setup("small", device="cpu", progress=False), profile="record")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thesis_kit.session.CHAPTERS", {"certificates": {"record": TINY}})
        model = smoothed_network(session, 0.25)
    kept = certificates.World(0, TINY).smoothed(0.25)
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
    found = certificates.certify(model, image, sigma=0.12, n=60, progress=False)[0]
    said = "no certificate" if found.abstained else f"{names[found.label]}, certified radius {found.radius:.2f}"
    assert f"σ = 0.12: {said}" in shown.html
    assert shown.render(0.13)[1] == shown.render(0.12)[1]  # a value between two networks is answered by the nearer


def test_a_triptych_names_labels_and_abstentions():
    model = zoo.load("resnet-scenes-a-noise-0.25")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = certificates.certify(model, x, sigma=0.25, n=60, progress=False)
    html = figures.triptych({"random": (x, found)}, list("abcdefgh"), label="Figure 9", caption="A caption.").html
    for one in found:
        assert ("abstains" if one.label == ABSTAIN else f"{'abcdefgh'[one.label]}, radius {one.radius:.2f}") in html
