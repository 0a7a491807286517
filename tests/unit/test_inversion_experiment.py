"""Chapter 4's arms in miniature: what each asks for, how images are judged and penalties tuned, what figures say."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from tests.worlds.miniatures import TINY_INVERSION as TINY
from tests.worlds.miniatures import experiments, plainly
from thesis_kit.chapters.inversion import arms as inversion
from thesis_kit.chapters.inversion import figures
from thesis_kit.chapters.inversion import world as inversion_world
from thesis_kit.chapters.inversion.arms import grids, usable
from thesis_kit.chapters.inversion.settings import INVERSION
from thesis_kit.chapters.inversion.world import World
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import load
from thesis_kit.evaluation.synthesized import class_regions, high_frequency_share, kid_of_images
from thesis_kit.files import digest
from thesis_kit.inversion import FACTORS, STAGES, combinations, plug_in_inversion
from thesis_kit.ledger.arm import pick, weights_hash
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_claim
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.ledger.registry import find
from thesis_kit.ledger.results import NotRecorded, Result
from thesis_kit.ledger.thumbnails import pack_picture, unpack_picture
from thesis_kit.models import build, zoo

NAME, RECORD = "inversion.scenes", INVERSION["record"]
ARMS = {arm.name: arm for arm in experiments()[NAME].arms}


@pytest.fixture
def result(miniature):
    return miniature(NAME)


@pytest.fixture
def records(result):
    return plainly(result)


@pytest.fixture
def experiment(around):
    """The experiment with tiny settings and a zoo of tiny networks, among what its arms have made already."""
    with around(NAME) as found:
        yield found


def world_of(arm, seed=0, **change):
    own = ARMS[arm].settings
    return World(seed, pick(own, *(name for name in own if name not in change), **change))


def without(result, *arms, seeds=(0, 1)):
    """The recording without some arms, and with some seeds alone."""
    cells = {
        arm: {seed: cell for seed, cell in found.items() if seed in seeds}
        for arm, found in result.cells.items()
        if arm not in arms
    }
    return Result(result.name, cells)


# Arms


def test_every_recorded_arm_is_part_of_a_claim_and_has_enough_images():
    recorded = find("inversion", "scenes")
    assert len(RECORD.classes) * RECORD.each * len(RECORD.seeds) >= 100
    assert {arm.name: len(arm.seeds) for arm in recorded.arms if len(arm.seeds) < 4} == {
        "copies=32@resnet": 2, "published@resnet": 1,
    }  # fmt: skip


def test_an_arm_rests_on_the_weights_of_its_networks(experiment):
    judges = set(TINY.verifiers.values())
    for arm, names in {
        "real": set(), "pii@random": set(), "pii@vit": {"tiny-vit"}, "sweep+color@resnet-plain": {"tiny-resnet-plain"},
        "tv+l2@vit": {"tiny-vit", "tiny-resnet"}, "deep@resnet": {"tiny-resnet"},
    }.items():  # fmt: skip
        found = experiment.arm(arm).identity(0)
        assert set(found["data"]) == {"scenes.v1"}
        assert found["networks"] == {name: zoo.entry(name).sha256 for name in judges | names}, arm


def test_no_verifier_is_inverted_and_each_arm_has_its_own_network(experiment):
    for s in INVERSION.values():
        assert not set(s.members.values()) & set(s.verifiers.values())
        assert len(set(s.members.values())) == len(s.members)
        assert list(s.verifiers) == ["natural", "robust"]
    for name in TINY.members:
        kept, subject = zoo.load(f"tiny-{name}"), world_of(f"pii@{name}").subject
        assert all(torch.equal(a, b) for a, b in zip(subject.parameters(), kept.parameters(), strict=True))
        assert not subject.training


def test_networks_of_timm_come_with_their_weights(monkeypatch):
    asked, small = [], build("small_cnn", width=2, seed=0)
    monkeypatch.setattr(inversion_world, "build", lambda name, **knobs: asked.append((name, knobs)) or small)
    World(0, TINY).network("resnet10t.c3_in1k")
    assert asked == [("resnet10t.c3_in1k", {"pretrained": True})]
    assert weights_hash("resnet10t.c3_in1k") == "resnet10t.c3_in1k"


@pytest.mark.bad_input
def test_a_member_that_is_not_made_yet_is_named(experiment):
    with pytest.raises(UnknownName, match="unknown zoo model 'tiny-resnetz': did you mean tiny-resnet"):
        World(0, TINY).network("tiny-resnetz")


class Asked(Exception):
    """Stops an arm where it would begin to compute."""


def knobs_of(arm, monkeypatch):
    """What an arm asks for: the function, the images' classes, and all knobs."""

    def asked(method):
        def ask(model, classes, **knobs):
            raise Asked(method, classes, knobs)

        return ask

    for method in ("plug_in_inversion", "invert_with_penalties"):
        monkeypatch.setattr(inversion_world, method, asked(method))
    monkeypatch.setattr(inversion, "_tried", lambda world: [{"tv": 3.0, "validation": 1.0, "diverged": False}])
    with pytest.raises(Asked) as stopped:
        ARMS[arm].run(1)
    return stopped.value.args


def test_combinations_differ_in_what_they_are_named_after(experiment, monkeypatch):
    asked = {name: knobs_of(f"{name}@resnet", monkeypatch) for name in combinations()}
    whole = asked["pii"][2]
    for name, (method, classes, knobs) in asked.items():
        on = set(FACTORS if name == "pii" else name.split("+")) - {"none"}
        assert (method, classes) == ("plug_in_inversion", [0, 0, 1, 1, 2, 2])
        assert (knobs["color"], knobs["zoom"], knobs["center"]) == (float("color" in on), "zoom" in on, "center" in on)
        assert knobs["copies"] == (2 if "color" in on else 1)
        rest = {"color", "zoom", "center", "copies"}
        assert {k: v for k, v in knobs.items() if k not in rest} == {k: v for k, v in whole.items() if k not in rest}
    assert len(asked) == 8


@pytest.mark.parametrize(
    ("arm", "change"),
    [
        ("copies=1", {"copies": 1}),
        ("copies=32", {"copies": 32}),
        ("published", {"steps": 3, "lr": 0.01}),
        ("pii+tv", {"tv": TINY.added_tv}),
        ("pii+bn", {"batchnorm": TINY.added_batchnorm}),
        ("sweep+color", {"tv": TINY.tvs[0]}),
        ("sweep", {"tv": TINY.tvs[0], "color": 0.0, "copies": 1}),
    ],
)
def test_other_arms_of_the_method_change_one_thing(experiment, monkeypatch, tmp_path, arm, change):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    rest = {"zoom", "center"}  # where they are not named, both are in use
    whole = {**knobs_of("pii@resnet", monkeypatch)[2], **change}
    method, _, knobs = knobs_of(f"{arm}@resnet", monkeypatch)
    assert method == "plug_in_inversion"
    assert {**dict.fromkeys(rest, True), **knobs} == whole


def test_inversions_without_the_method_make_as_many_steps_at_full_size(experiment, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    method, classes, bare = knobs_of("ce@vit", monkeypatch)
    assert (method, classes) == ("invert_with_penalties", [0, 0, 1, 1, 2, 2])
    assert bare == {"size": 16, "steps": STAGES, "jitter": 0, "seed": bare["seed"], "progress": False}
    jittered = {key: value for key, value in bare.items() if key != "jitter"}  # as much as DeepInversion has
    assert knobs_of("ce+jitter@vit", monkeypatch) == (method, classes, jittered)
    assert bare["seed"] == knobs_of("pii@vit", monkeypatch)[2]["seed"]  # the same starts
    assert knobs_of("tv+l2@vit", monkeypatch) == (method, classes, {**jittered, "tv": 3.0})


def test_without_color_shift_one_copy_stands_for_all():
    model = build("small_resnet", n_classes=3, width=4, seed=0).eval()
    knobs = {"size": 16, "steps": 2, "color": 0.0, "batchnorm": 0.1, "progress": False}
    one, four = (plug_in_inversion(model, [0, 1, 2], copies=copies, **knobs) for copies in (1, 4))
    assert torch.allclose(one.losses, four.losses, rtol=1e-4)
    assert torch.allclose(one.images, four.images, atol=1e-3)
    colored = plug_in_inversion(model, [0, 1, 2], copies=4, **{**knobs, "color": 1.0})
    assert not torch.allclose(colored.images, one.images, atol=1e-3)


# Records


def test_the_miniature_is_not_all_alike(records):
    v = {np.mean(cell["values"]["recognized"]) for cell in records.values()}
    assert len(v) > 4
    assert {bit for cell in records.values() for bit in cell["outcomes"]["right_robust"]} == {0, 1}
    assert len({cell["scalars"]["kid"] for cell in records.values() if "kid" in cell["scalars"]}) > 70


def test_votes_and_costs_of_a_cell(records):
    n, steps = 6, STAGES * TINY.steps
    copies = {"copies=1": 1, "copies=32": 32, **dict.fromkeys(("pii", "pii+tv", "pii+bn", "color"), 2)}
    copies |= dict.fromkeys(("color+zoom", "color+center", "published", "sweep+color"), 2)
    for (arm, _), cell in records.items():
        what = arm.partition("@")[0]
        swept = what.startswith("sweep")
        assert cell["n"] == (n * len(TINY.tvs) if swept else n)
        votes = np.array([cell["outcomes"][f"right_{name}"] for name in ("natural", "robust")])
        assert cell["values"]["recognized"] == votes.mean(axis=0).tolist()
        if what == "real":
            assert cell["budget"] == {}
            continue
        spent, made = cell["budget"]["inversion"], 3 * STAGES if what == "published" else steps
        assert spent["attacked"] == cell["n"]
        assert spent["forward_images"] == spent["backward_images"] == cell["n"] * made * copies.get(what, 1)


def test_images_are_judged_by_both_verifiers_and_beside_as_many_real_ones(experiment, records):
    world, cell = world_of("pii@vit", 1), records["pii@vit", 1]
    images = inversion.plugged(world).images
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    for name in ("natural", "robust"):
        right = (zoo.load(TINY.verifiers[name])(images).argmax(dim=1) == y).long()
        assert cell["outcomes"][f"right_{name}"] == right.tolist()
    verifier = zoo.load("tiny-verifier")
    regions = class_regions(verifier, images, y)
    assert cell["values"]["regions"] == regions.tolist()
    assert cell["outcomes"]["one_place"] == (regions == 1).long().tolist()
    assert cell["values"]["high_frequency"] == pytest.approx(high_frequency_share(images).tolist(), abs=1e-6)
    kid = kid_of_images(verifier, images, world.real(1), classes=(y, y))
    assert cell["scalars"]["kid"] == pytest.approx(kid, rel=1e-4, abs=1e-9)
    assert len(world.real(1)) == len(images)


def test_arms_are_compared_on_the_same_targets_and_seeds_have_their_own(experiment, records):
    groups = {}
    for (arm, seed), cell in records.items():
        groups.setdefault((seed, arm.startswith("sweep")), set()).add((cell["group"], cell["n"]))
    assert all(len(found) == 1 for found in groups.values())
    assert len(set.union(*groups.values())) == 4
    assert records["pii@resnet", 0]["pictures"].keys() != records["pii@resnet", 1]["pictures"].keys()
    one, other = (inversion.plugged(world_of("pii@resnet", seed)).images for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_cell_measured_again_from_nothing_is_the_same_in_any_order(experiment, records, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for arm in ("sweep@resnet-plain", "deep@resnet-plain", "tv+l2@mixer", "tv+l2@resnet", "pii@random", "ce@deit"):
        again = experiment.arm(arm).run(1)
        for kind in ("outcomes", "values", "scalars"):
            assert again[kind] == records[arm, 1][kind], arm


# Controls


def test_real_images_are_of_the_inverted_classes_and_nobody_elses(experiment, records):
    test = load("scenes.v1", 0, **TINY.task.data_options).test
    seen = []
    for seed in TINY.seeds:
        for which in (0, 1):
            images = World(seed, TINY).real(which)
            place = [int((test.x == image).flatten(1).all(dim=1).nonzero()) for image in images]
            assert test.y[place].tolist() == [0, 0, 1, 1, 2, 2]
            seen += place
    assert len(set(seen)) == len(seen) == 24
    verifier = zoo.load("tiny-verifier")
    right = (verifier(World(0, TINY).real(0)).argmax(dim=1) == torch.tensor([0, 0, 1, 1, 2, 2])).long()
    assert records["real", 0]["outcomes"]["right_natural"] == right.tolist()


def test_too_few_real_images_are_refused():
    with pytest.raises(
        ValueError, match=r"seed 30 needs 12\d test images of class 0, and there are \d+: enlarge n_test"
    ):
        World(30, TINY).real(0)


def test_the_random_network_has_learned_nothing(experiment):
    trained, (one, other) = zoo.load("tiny-resnet"), (world_of("pii@random", seed).subject for seed in (0, 1))
    assert [p.shape for p in one.parameters()] == [p.shape for p in trained.parameters()]
    assert not one.training
    for a, b in ((one, other), (one, trained)):
        drawn = [(u, v) for u, v in zip(a.parameters(), b.parameters(), strict=True) if u.ndim > 1]
        assert not any(torch.equal(u, v) for u, v in drawn)
    again = world_of("pii@random").subject
    assert all(torch.equal(u, v) for u, v in zip(one.parameters(), again.parameters(), strict=True))
    norms = [m for m in one.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((norm.running_mean == 0).all() for norm in norms)


# Weights of total variation


def test_a_weight_is_usable_where_its_images_are_recognized_often_enough():
    assert usable([0.1, 0.8, 1.0, 0.79], 0.8) == 2
    assert usable([0.5, 0.4, 0.1], 0.8) == 0
    assert usable([0.3 * 0.8, 0.1], 0.8 * 0.3) == 1
    assert usable([0.0, 0.0], 0.0) == 0


def test_a_sweep_has_every_weight_and_counts_beside_its_other_half(experiment, records):
    for network in ("resnet", "resnet-plain"):
        for seed in TINY.seeds:
            cells = {kind: records[f"{kind}@{network}", seed] for kind in ("sweep", "sweep+color")}
            v = {kind: [value for _, value in cell["curves"]["V"]] for kind, cell in cells.items()}
            for kind, cell in cells.items():
                rows = np.array(cell["values"]["recognized"]).reshape(len(TINY.tvs), -1)
                assert v[kind] == pytest.approx(rows.mean(axis=1).tolist())
                assert [weight for weight, _ in cell["curves"]["kid"]] == list(TINY.tvs)
                floor = 0.8 * max(*v["sweep"], *v["sweep+color"])
                assert cell["scalars"]["floor"] == pytest.approx(floor)
                assert cell["scalars"]["usable"] == usable(v[kind], floor)
    world = world_of("pii@resnet")
    images = world.plugged(color=1.0, copies=TINY.copies, tv=TINY.tvs[1]).images
    assert records["sweep+color@resnet", 0]["curves"]["kid"][1] == [TINY.tvs[1], world.kid(images)]


def test_a_sweep_is_made_once(experiment, records, monkeypatch):
    monkeypatch.setattr(inversion_world, "plug_in_inversion", None)
    again = experiment.arm("sweep+color@resnet").run(0)
    assert {key: again[key] for key in ("curves", "seconds")} == {
        key: records["sweep+color@resnet", 0][key] for key in ("curves", "seconds")
    }


def test_shared_work_is_told_apart_by_all_that_decides_it(experiment, monkeypatch):
    def key(world=None, what="weighted", **more):
        return digest((world or world_of("pii@resnet")).about_images(what, "steps", "lr", **more))

    keys = [
        key(),
        key(world_of("pii@resnet", 1)),
        key(world_of("pii@resnet", steps=2)),
        key(world_of("pii@resnet", verifiers=MappingProxyType({"natural": "tiny-verifier"}))),
        key(what="trials"),
        key(tv=0.1),
        key(tv=0.2),
        key(world_of("pii@resnet-plain")),
    ]
    assert key(world_of("pii@resnet", shown=(), shown_seed=7)) == keys[0]  # decides nothing about it
    entry = zoo.entry
    monkeypatch.setattr(zoo, "entry", lambda name, **which: replace(entry(name, **which), sha256="0"))  # trained again
    keys.append(key())
    assert len(set(keys)) == len(keys)


# Penalties tuned on one network


def test_both_penalties_get_as_many_trials():
    tried = grids(RECORD)
    assert {kind: len(settings) for kind, settings in tried.items()} == {"tv+l2": 16, "deep": 16}
    for settings in tried.values():
        assert len({tuple(sorted(setting.items())) for setting in settings}) == 16
    assert all("batchnorm" not in setting for setting in tried["tv+l2"])
    assert {setting["batchnorm"] for setting in tried["deep"]} == set(RECORD.trial_batchnorms)
    assert {setting["norm"] for setting in tried["deep"]} == {RECORD.trial_norms[0]}


def test_the_best_trial_of_the_studied_network_is_applied_untouched(experiment, records):
    for kind, arms in (("tv+l2", ("resnet", "vit", "mixer")), ("deep", ("resnet", "resnet-plain"))):
        cells = [records[f"{kind}@{name}", seed] for name in arms for seed in (1, 0)]  # one choice for all
        trials, chosen = cells[0]["trials"], cells[0]["chosen"]
        assert all((cell["trials"], cell["chosen"]) == (trials, chosen) for cell in cells)
        tried = grids(TINY)[kind]
        assert [{k: trial[k] for k in tried[0]} for trial in trials] == tried
        best = max(trials, key=lambda trial: trial["validation"])
        assert {k: best[k] for k in chosen} == chosen
        world = world_of(f"{kind}@resnet")
        again = world.votes(world.tried(world.subject, **chosen).images, TINY.each_trial)
        assert best["validation"] == float(torch.stack(list(again.values())).mean())
        last = world_of(f"{kind}@{arms[-1]}")
        judged = last.penalized(last.subject, **chosen).images
        assert cells[-1]["values"]["recognized"] == torch.stack(list(world.votes(judged).values())).mean(0).tolist()


def test_trials_are_of_images_that_are_judged_nowhere(experiment):
    world = world_of("tv+l2@resnet")
    assert not torch.equal(world.tried(world.subject).images[:1], world.penalized(world.subject).images[:1])


def test_a_trial_that_diverges_is_noted_and_never_chosen(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    tried = World.tried

    def some(self, model, **knobs):
        if knobs.get("tv") == 0.01:
            raise NonFiniteOutput("the loss is NaN")
        return tried(self, model, **knobs)

    monkeypatch.setattr(World, "tried", some)
    found = inversion.tuned(world_of("tv+l2@vit")).record
    assert [trial["diverged"] for trial in found["trials"]] == [True, True, False, False]
    assert found["chosen"]["tv"] == 1.0
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "other"))
    monkeypatch.setattr(World, "tried", lambda self, model, **knobs: some(self, model, tv=0.01))
    with pytest.raises(NonFiniteOutput, match="training diverged with all of 4 settings: add milder ones to the table"):
        inversion.tuned(world_of("deep@resnet"))


# Claims


def test_everything_that_is_reported_is_recorded(result):
    claims = [claim for claim in catalog().of("inversion") if claim.arena == "scenes" and not claim.not_run]
    assert len(claims) == 11
    for claim in claims:
        assert "not recorded" not in judge_claim(claim, result).reported.values(), claim.id


def test_a_difference_on_one_seed_has_the_interval_of_its_drawings(result):
    """A seed is a start and no training: what one seed drew of every class is enough to draw from again."""
    assert list(result.cells["published@resnet"]) == [0]
    reported = judge_claim(catalog().claims["pii-one-setting"], result).reported
    (said,) = (text for title, text in reported.items() if title.startswith("what they add"))
    assert re.fullmatch(r"[+−]\d+\.\d points, 95% interval −?\d+\.\d to −?\d+\.\d", said)


def value_of(result, name, number=0):
    return judge_claim(catalog().claims[name], result).findings[number].interval.value


def test_rules_say_what_the_claims_do(result):
    v = {arm: np.mean([cell["values"]["recognized"] for cell in result.cells[arm].values()]) for arm in result.arms}
    closed = v["pii@vit"] - v["ce@vit"] - 0.25 * (v["real"] - v["ce@vit"])
    assert value_of(result, "pii-one-setting", 1) == pytest.approx(closed)
    for number, factor in enumerate(FACTORS):
        on = np.mean([v[f"{name}@resnet"] for name, has in combinations().items() if has[factor]])
        off = np.mean([v[f"{name}@resnet"] for name, has in combinations().items() if not has[factor]])
        assert value_of(result, "pii-factorial", number) == pytest.approx(on - off)
        assert figures.main_effect(result, factor).value == pytest.approx(on - off)
    assert value_of(result, "pii-ensemble") == pytest.approx(v["pii@resnet"] - v["copies=1@resnet"])


# Pictures and figures


def test_pictures_are_those_of_the_first_seed(experiment, records, result):
    kept = {cell for cell, record in records.items() if record.get("pictures")}
    methods = ("real", "ce", "ce+jitter", "tv+l2", "deep", *combinations())
    assert kept == {cell for cell in records if cell[1] == 0 and cell[0].split("@")[0] in methods}
    shown, found = figures.recorded_pictures(result, "pii@resnet"), inversion.plugged(world_of("pii@resnet"))
    assert list(shown) == ["class 0", "class 1", "class 2", *(f"stage {k}" for k in range(1, STAGES))]
    assert list(figures.recorded_pictures(result, "real")) == ["class 0", "class 1", "class 2"]
    assert list(figures.recorded_pictures(result, "color@resnet")) == ["class 0", "class 2"]
    assert torch.equal(shown["class 2"], unpack_picture(pack_picture(found.images[4])))
    assert [shown[f"stage {k}"].shape[-1] for k in range(1, STAGES)] == [4, 6, 8, 10, 12, 14]
    for arm in ("sweep@resnet", "nothing"):
        with pytest.raises(NotRecorded, match=f"no picture of {arm} was kept"):
            figures.recorded_pictures(result, arm)


def test_a_packed_picture_looks_like_the_image():
    across = torch.linspace(0, 1, 64)
    image = torch.stack([across.expand(64, 64), across.expand(64, 64).T, torch.full((64, 64), 0.3)])
    text = pack_picture(image)
    assert (unpack_picture(text) - image).abs().mean() < 0.02
    assert len(text) < 1500
    assert unpack_picture(pack_picture(image[:1])).shape == (3, 64, 64)


WITH = {"label": "Figure 9.9", "caption": "A caption."}
NETWORKS = {"resnet": "ResNet", "vit": "ViT"}
SWEPT = {"resnet": "augmented", "resnet-plain": "plain"}
FIGURES = {
    "recognition": (lambda r: figures.recognition_figure(r, NETWORKS, **WITH), "pii@vit",
                    r"ViT, cross-entropy alone: \d+%; ViT, Plug-In Inversion: \d+%; ViT, real images: \d+%"),
    "transfer": (lambda r: figures.recognition_figure(r, NETWORKS, methods=("tv+l2", "deep", "pii"), **WITH),
                 "pii@vit", r"ResNet, DeepInversion: \d+%; ResNet, Plug-In Inversion: \d+%; ViT, TV \+ ℓ₂: \d+%"),
    "effects": (lambda r: figures.effects_figure(r, **WITH), "pii@resnet",
                r"color \+ zoom: \d+%.*main effect of center: -?\d+ points"),
    "weights": (lambda r: figures.weights_figure(r, SWEPT, **WITH), "sweep@resnet-plain",
                r"plain, with ColorShift: \d\.\d of 2 weights usable, best \d+%; plain, without: "),
    "copies": (lambda r: figures.copies_figure(r, {1: "copies=1@resnet", 2: "pii@resnet"}, **WITH), "pii@resnet",
               r"copies\. 1: \d+%; 2: \d+%"),
    "twins": (lambda r: figures.twins_figure(r, {"pii@resnet": "twin", "pii@robust": "robust"}, **WITH), "pii@robust",
              r"robust, verifier adversarially trained: \d+%; robust: KID -?\d"),
}  # fmt: skip


def alt_of(shown) -> str:
    (alt,) = set(re.findall(r'alt="([^"]*)"', shown.html))  # of both widths
    return alt


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_what_they_show_also_while_arms_are_missing(name, result):
    draw, arm, said = FIGURES[name]
    assert re.search(said, alt_of(draw(result)))
    partly = without(result, arm)
    less = alt_of(draw(partly))
    assert 0 < len(less) < len(alt_of(draw(result)))
    empty = without(result, *(set(result.cells) - {"ce@deit"}))
    with pytest.raises(
        NotRecorded, match=r"is recorded in inversion\.scenes: measure them with `thesis-kit claims run"
    ):
        draw(empty)


def test_figures_draw_from_a_single_seed(result):
    one = without(result, seeds=(0,))
    for draw, _, said in FIGURES.values():
        assert re.search(said, alt_of(draw(one)))


def test_marks_are_where_the_numbers_are(result, monkeypatch):
    drawn, real = [], Axes.errorbar
    monkeypatch.setattr(
        Axes, "errorbar", lambda *args, **looks: drawn.append((*args[1:], looks)) or real(*args, **looks)
    )
    shown = FIGURES["recognition"][0](result)
    arms = [(row, arm) for row, network in enumerate(NETWORKS) for arm in (f"ce@{network}", f"pii@{network}", "real")]
    assert len(drawn) == len(arms)
    for (row, arm), (at, height, looks) in zip(arms, drawn, strict=True):
        v, (below, above) = result.mean("recognized", arm), np.ravel(looks["xerr"])
        assert at == pytest.approx(100 * v.value)
        assert [at - below, at + above] == pytest.approx([100 * max(v.low, 0), 100 * min(v.high, 1)])
        assert abs(height - row) < 0.5
    v = 100 * result.mean("recognized", "pii@vit").value
    assert f"ViT, Plug-In Inversion: {v:.0f}%" in alt_of(shown)
    usable_weights = np.mean(list(result.scalars("usable", "sweep@resnet").values()))
    assert f"augmented, without: {usable_weights:.1f} of 2" in alt_of(FIGURES["weights"][0](result))


def told_of(shown) -> str:
    """What a grid of pictures says to who cannot see it."""
    (told,) = re.findall(r'aria-label="([^"]*)"', shown.html)
    return told


def tiles_of(shown) -> dict[str, torch.Tensor]:
    """The pictures of a grid, each (3, h, w) in [0, 1], by their alternative texts."""
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', shown.html)
    return {alt: unpack_picture(data) for data, alt in found}


def test_a_grid_of_pictures_has_rows_and_columns():
    images = torch.linspace(-0.5, 1.5, 4).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    shown = figures.picture_grid({"one": images[:2], "other": list(images[2:])}, ["a", "b"], alt="Two rows.", **WITH)
    assert told_of(shown) == "Two rows."
    tiles = tiles_of(shown)
    assert list(tiles) == ["a: one", "b: one", "a: other", "b: other"]
    assert [tile.mean().item() for tile in tiles.values()] == pytest.approx([0, 1 / 6, 5 / 6, 1], abs=0.01)
    assert shown.html.count(">one</div>") == 1
    for rows in ({}, {"one": images[:2], "other": images[:1]}):
        with pytest.raises(ValueError, match=r"every row needs 2 images, one a column, got \{"):
            figures.picture_grid(rows, ["a", "b"], alt="Two rows.", **WITH)
    with pytest.raises(ValueError, match="a figure needs its alt"):
        figures.picture_grid({"one": images[:1]}, ["a"], alt=" ", **WITH)


def test_a_grid_of_one_row_without_a_name_has_no_column_of_names():
    images = torch.rand(2, 1, 8, 8)
    assert list(tiles_of(figures.picture_grid({"": images}, ["a", "b"], alt="One row.", **WITH))) == ["a", "b"]


def test_a_grid_of_recorded_pictures_says_whose_they_are_and_what_they_are_worth(result):
    arms = {"pii@vit": "ViT", "ce@vit": "alone"}
    shown = figures.recorded_grid(result, arms, {2: "two", 0: "zero"}, **WITH)
    v = {arm: f"{100 * result.mean('recognized', arm).value:.0f}%" for arm in arms}
    said = f"ViT, V = {v['pii@vit']}; alone, V = {v['ce@vit']}"
    assert told_of(shown) == f"Images of two, zero, a row each of: {said}."
    partly = without(result, "ce@vit")
    assert "alone" not in told_of(figures.recorded_grid(partly, arms, {1: "one"}, **WITH))
    with pytest.raises(NotRecorded, match="no picture of one by ce@vit was kept"):
        figures.recorded_grid(result, arms, {0: "zero", 1: "one"}, **WITH)


def test_stages_are_a_slider_that_starts_at_the_last():
    stages = [torch.rand(2, 3, side, side) for side in (4, 8, 12)]
    shown = figures.stages_slider(stages, ["a", "b"], **WITH)
    said = [shown.render(number)[1] for number in shown.values]
    assert [text.split(": ")[1] for text in said] == [f"{side} × {side} pixels." for side in (4, 8, 12)]
    assert shown.start == 2
    for wrong in (stages[:1], [stages[0], stages[1][:1]]):
        with pytest.raises(ValueError, match="every stage needs 2 images, one a name, got "):
            figures.stages_slider(wrong, ["a", "b"], **WITH)


def test_a_blind_grid_folds_its_answers_in_the_order_of_its_numbers():
    images = torch.stack([torch.full((3, 4, 4), value) for value in (0.1, 0.5, 0.9)])
    called = ["dark", "gray", "light"]
    shown = figures.blind_grid(images, called, **WITH)
    order = np.random.default_rng(0).permutation(3)
    answers = re.findall(r"<dt[^>]*>(\d)</dt><dd[^>]*>(\w+)</dd>", shown.html)
    assert answers == [(str(k), called[place]) for k, place in enumerate(order, start=1)]
    tiles = tiles_of(shown)
    assert list(tiles) == [f"drawing {k}" for k in (1, 2, 3)]
    for (_, answer), tile in zip(answers, tiles.values(), strict=True):
        assert tile.mean().item() == pytest.approx(images[called.index(answer)].mean().item(), abs=0.01)
    above = shown.html[: shown.html.index("<details")]
    assert not [name for name in called if name in above]
    assert figures.blind_grid(images, called, seed=3, **WITH).html != shown.html
    with pytest.raises(ValueError, match="every image needs its answer, got 3 images and 2 answers"):
        figures.blind_grid(images, called[:2], **WITH)
