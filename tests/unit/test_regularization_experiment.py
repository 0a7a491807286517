"""Chapter 3's arms in miniature: what is tried and how it is chosen, what is kept and recorded, what figures say."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
import torch

from tests.worlds.miniatures import TINY_ON_SCENES, experiments, plainly
from tests.worlds.miniatures import TINY_REGULARIZATION as TINY
from thesis_kit import training
from thesis_kit.chapters.regularization import arms as regularization
from thesis_kit.chapters.regularization import figures
from thesis_kit.chapters.regularization.arms import BEST, LADDER, WAYS, one_setting, settings_tried
from thesis_kit.chapters.regularization.settings import REGULARIZATION, REGULARIZATION_ON_SCENES
from thesis_kit.chapters.regularization.world import Made, World, method_of
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits, digits
from thesis_kit.evaluation import Surface, accuracy, loss_surface, masking_report, robust_accuracy, weak_attack
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.models import zoo
from thesis_kit.passes import Passes
from thesis_kit.randomness import mix_seed

NAME, RECORD, CHOSEN = "regularization.digits", REGULARIZATION["record"], tuple(WAYS)
ARMS = {arm.name: arm for arm in experiments()[NAME].arms}


@pytest.fixture
def result(miniature):
    return miniature(NAME)


@pytest.fixture
def records(result):
    return plainly(result)


@pytest.fixture
def records_on_scenes(miniature):
    return plainly(miniature("regularization.scenes"))


@pytest.fixture
def shared(around):
    """What the arms have made already."""
    with around(NAME):
        yield


def world_of(arm, seed=0):
    return World(seed, ARMS[arm].settings)


def made_by(arm, world=None):
    return (world or world_of(arm)).made(ARMS[arm].settings.grids, by=ARMS[arm].settings.by)


# What is tried


def test_every_arm_gets_sixteen_trials_and_pgd_as_many_as_the_two_whose_best_it_is_compared_with():
    tried = {arm: settings_tried(WAYS[arm], RECORD) for arm in CHOSEN}
    assert {arm: len(settings) for arm, settings in tried.items()} == {**dict.fromkeys(CHOSEN, 16), "pgd-7": 32}
    assert sum(len(tried[arm]) for arm in BEST) == len(tried["pgd-7"])
    for settings in tried.values():
        assert len({tuple(sorted(setting.items())) for setting in settings}) == len(settings)


@pytest.mark.parametrize(
    ("arm", "grid"),
    [
        ("natural", {"lr": "learning_rates", "weight_decay": "weight_decays"}),
        ("noise", {"sigma": "sigmas", "lr": "learning_rates"}),
        ("ls", {"alpha": "alphas", "lr": "learning_rates"}),
        ("lsq", {"beta": "betas", "lr": "learning_rates"}),
        ("ls+noise", {"alpha": "alphas", "sigma": "sigmas", "lr": None}),
        ("lsq+noise", {"beta": "betas", "sigma": "sigmas", "lr": None}),
        ("similarity+noise", {"similarity": "similarities", "sigma": "sigmas", "lr": None}),
        ("pairing+noise", {"pairing": "pairings", "sigma": "sigmas", "lr": None}),
        ("pgd-7", {"lr": "learning_rates", "step_size": "step_sizes", "weight_decay": "robust_weight_decays"}),
    ],
)
def test_a_grid_has_every_value_of_every_knob(arm, grid):
    settings = settings_tried(WAYS[arm], RECORD)
    for knob, name in grid.items():
        values = (RECORD.lr,) if name is None else getattr(RECORD, name)
        assert {setting[knob] for setting in settings} == set(values)
    assert all(set(setting) == set(grid) for setting in settings)
    assert len(settings) == np.prod([1 if name is None else len(getattr(RECORD, name)) for name in grid.values()])


@pytest.mark.parametrize(
    ("setting", "method", "terms"),
    [
        ({"lr": 0.1, "weight_decay": 0.0}, training.Natural(), []),
        ({"lr": 0.1, "sigma": 0.2}, training.Gaussian(0.2), []),
        ({"lr": 0.1, "alpha": 0.3}, training.Natural(), [training.LabelSmoothing(0.3)]),
        ({"lr": 0.1, "beta": 0.03, "sigma": 0.2}, training.Gaussian(0.2), [training.LogitSqueezing(0.03)]),
        ({"similarity": 0.1, "sigma": 0.2}, training.Gaussian(0.2), [training.LogitSimilarity(0.1)]),
        ({"pairing": 0.1, "sigma": 0.2}, training.Gaussian(0.2), [training.CleanLogitPairing(0.1)]),
        ({"step_size": 0.5, "lr": 0.1}, training.PGD(0.4, steps=7, step_size=0.2), []),
    ],
)
def test_a_setting_says_how_to_train(setting, method, terms):
    assert method_of(setting, 0.4) == (method, terms)
    assert type(method_of(setting, 0.4)[0]) is type(method)


def test_without_trials_an_arm_has_the_tables_one_setting():
    s = REGULARIZATION_ON_SCENES
    one = {arm.name: one_setting(WAYS[arm.name], s) for arm in experiments()["regularization.scenes"].arms}
    assert one == {
        "natural": {"lr": s.lr},
        "noise": {"lr": s.lr, "sigma": s.sigma},
        "ls+noise": {"lr": s.lr, "alpha": s.alpha, "sigma": s.sigma},
        "lsq+noise": {"lr": s.lr, "beta": s.beta, "sigma": s.sigma},
        "pgd-7": {"lr": s.lr, "step_size": 0.25},
    }
    assert one_setting(WAYS["ls"], s) == {"lr": s.lr, "alpha": s.alpha}


# How it is chosen


def test_the_trials_best_by_the_weak_attack_on_validation_images_is_taken(shared, records):
    world = World(0, TINY)
    for arm in CHOSEN:
        cell = records[arm, 0]
        settings = settings_tried(WAYS[arm], TINY)
        assert [
            {k: trial[k] for k in setting} for setting, trial in zip(settings, cell["trials"], strict=True)
        ] == settings
        best = max(cell["trials"], key=lambda trial: trial["validation"])
        assert {k: best[k] for k in cell["chosen"]} == cell["chosen"]
        model, validation = made_by(arm).model, world.splits.validation
        if arm == "natural":
            score = accuracy(model, validation)
        else:
            attack = weak_attack(TINY.eps)
            score = robust_accuracy(model, validation, attack, seed=mix_seed(0, 7), progress=False).robust_accuracy
        assert best["validation"] == score
        assert not any(trial["diverged"] for trial in cell["trials"])


def test_best_with_noise_is_the_better_of_two_on_validation_images_and_counts_both_ones_trials(records):
    for seed in TINY.seeds:
        scores = {arm: max(trial["validation"] for trial in records[arm, seed]["trials"]) for arm in BEST}
        better = records[max(BEST, key=scores.get), seed]
        cell = records["best+noise", seed]
        for key in ("outcomes", "values", "chosen", "group", "n"):
            assert cell[key] == better[key], key
        assert cell["trials"] == [trial for arm in BEST for trial in records[arm, seed]["trials"]]


def test_selection_never_looks_at_test_images(shared, records, tmp_path, monkeypatch):
    """With test images that would break whatever looks at them, every arm makes the same network."""
    expected = {arm: made_by(arm) for arm in ("natural", "pgd-7", "best+noise")}
    splits = digits(0)
    broken = Part(torch.full_like(splits.test.x, torch.nan), splits.test.y + 1000, splits.test.ids)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for arm, made in expected.items():
        blind = world_of(arm)
        blind.splits = Splits(splits.train, splits.validation, broken)
        again = made_by(arm, blind)
        assert (again.setting, again.trials) == (made.setting, made.trials)
        for one, other in zip(made.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_a_trial_that_diverges_is_noted_and_never_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    fit = World.fit

    def fitted(self, setting, **knobs):
        if setting["lr"] == TINY.learning_rates[0]:
            raise NonFiniteOutput("training diverged")
        return fit(self, setting, **knobs)

    monkeypatch.setattr(World, "fit", fitted)
    made = made_by("ls")
    diverged = [trial for trial in made.trials if trial["diverged"]]
    assert len(diverged) == len(TINY.alphas)
    assert {trial["validation"] for trial in diverged} == {-1.0}
    assert made.setting["lr"] == TINY.learning_rates[1]
    monkeypatch.setattr(World, "fit", lambda self, setting: fitted(self, {"lr": TINY.learning_rates[0]}))
    with pytest.raises(NonFiniteOutput, match="training diverged with all of 4 settings: add milder ones to the table"):
        made_by("lsq")


# What is kept


def test_networks_are_made_once_and_told_apart_by_setting_seed_and_training(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    fitted, fit = [], World.fit
    monkeypatch.setattr(World, "fit", lambda self, *a, **k: fitted.append(self.seed) or fit(self, *a, **k))
    few = replace(TINY, updates=2)
    ls, lsq = ([one_setting(WAYS[name], few)] for name in ("ls", "lsq"))

    def files():
        return len([*tmp_path.rglob("*.pt")])

    first, again = (World(0, few).made([ls], by="weak") for _ in range(2))
    assert fitted == [0]
    assert (again.setting, again.passes, again.updates, again.seconds, again.trials) == (
        first.setting, first.passes, first.updates, first.seconds, []
    )  # fmt: skip
    assert isinstance(again.passes, Passes)
    assert not again.model.training
    others = [(1, few, ls), (0, few, lsq), (0, replace(few, updates=3), ls), (0, few, [{**ls[0], "alpha": 0.4}])]
    for number, (seed, settings, grid) in enumerate(others, 2):
        World(seed, settings).made([grid], by="weak")
        assert (len(fitted), files()) == (number, number)
    World(0, replace(few, queries=7, radii=(0.3,), seeds=(4,))).made([ls], by="weak")  # decide nothing about training
    assert len(fitted) == len(others) + 1


def test_the_twin_is_the_natural_arms_kind_from_another_seed(shared, monkeypatch, tmp_path):
    world, seen = world_of("pgd-7"), []
    twin, natural = world.twin(ARMS["pgd-7"].settings.ordinary), made_by("natural").model
    assert ARMS["pgd-7"].settings.ordinary == ARMS["natural"].settings.grids[0]
    assert not any(torch.equal(a, b) for a, b in zip(twin.parameters(), natural.parameters(), strict=True))
    monkeypatch.setattr(World, "fit", lambda self, setting, **knobs: seen.append((setting, knobs)) or 1 / 0)
    monkeypatch.setattr(World, "made", lambda self, grids, by: Made(natural, {"lr": 0.5}, Passes(), 1, 0.0))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        world_of("pgd-7").twin([{"lr": 0.5}])
    assert seen == [({"lr": 0.5}, {"seed": mix_seed(0, 31)})]


# What is recorded


@pytest.mark.parametrize("arena", ["digits", "scenes"])
def test_a_cell_has_every_measure_and_counts_what_it_cost(arena, request):
    settings = {"digits": TINY, "scenes": TINY_ON_SCENES}[arena]
    cells = request.getfixturevalue("records" if arena == "digits" else "records_on_scenes")
    for (arm, _), cell in cells.items():
        assert cell["n"] == settings.images
        measures = {"N", *LADDER, "transfer", "ce_high", "ce_low", "dlr_high", "dlr_low"}
        assert set(cell["outcomes"]) == measures
        assert set(cell["values"]) == {"margin", "distance", "logit_gap", "log_gradient_gap"}
        assert cell["scalars"]["updates"] == settings.updates
        assert cell["scalars"]["passes_per_update"] == (8 if arm == "pgd-7" else 1)
        attacks = ["FGSM", "PGD-10 weak", "PGD-20", "PGD long", "PGD restarts", "PGD", "PGD margin", "APGD-CE"]
        assert set(cell["budget"]) == {"train", *attacks, "APGD-DLR targeted", "Square"}
        assert cell["budget"]["PGD-20"]["attacked"] <= cell["n"]
        for loss in ("ce", "dlr"):
            assert [t for t, _ in cell["curves"][loss]] == list(settings.temperatures)
        assert bool(cell["trials"]) == settings.trials


def test_outcomes_are_those_of_the_images_of_the_cell(shared, records):
    assert torch.equal(World(1, TINY).test.x, digits(1).test[24:48].x)
    world = World(0, TINY)
    cell, model, test = records["pgd-7", 0], made_by("pgd-7").model, world.test
    assert len(test) == TINY.images
    clean = model(test.x).argmax(dim=1) == test.y
    assert cell["outcomes"]["N"] == clean.tolist()
    for outcomes in cell["outcomes"].values():
        assert not (np.array(outcomes) & ~clean.numpy()).any()
    weak = world.attacked(model, test, weak_attack(TINY.eps)).worst
    assert cell["outcomes"]["weak"] == weak.tolist()
    distance, margin = (np.array(cell["values"][name]) for name in ("distance", "margin"))
    assert set(distance) <= {0.0, *TINY.radii, 1.0}
    assert ((distance == 0) == ~clean.numpy()).all()
    assert (margin[~clean.numpy()] == 0).all()
    assert cell["scalars"]["first_order"] == pytest.approx(float(torch.tensor(margin).median()), abs=1e-6)


def test_arms_share_their_images_and_seeds_have_their_own(records, records_on_scenes):
    for settings, cells in ((TINY, records), (TINY_ON_SCENES, records_on_scenes)):
        (group,) = {cell["group"] for cell in cells.values()}
        assert group == World(0, settings).group != World(1, settings).group
        assert not set(World(0, settings).test.ids.tolist()) & set(World(1, settings).test.ids.tolist())


def test_a_seed_without_images_is_refused():
    with pytest.raises(ValueError, match="seed 2 has no block of 10 test images: enlarge n_test"):
        _ = World(2, TINY_ON_SCENES).test


def test_the_scales_are_chosen_on_validation_images(monkeypatch):
    """The test part's own best and worst temperatures would be another choice."""
    world = World(0, TINY)
    seen = []

    def attacked(self, model, part, attacks):
        seen.append((model.scale, len(part)))
        right = model.scale == (0.01 if len(part) == len(world.splits.validation) else 1.0)
        return Outcome(torch.full((len(part),), right))

    monkeypatch.setattr(World, "attacked", attacked)
    outcomes, curves = regularization._scales(zoo.load("cnn-digits-natural"), world)
    for loss in ("ce", "dlr"):
        assert not outcomes[f"{loss}_high"].any()  # where validation is high, test is low
        assert outcomes[f"{loss}_low"].all()
        assert curves[loss] == [[0.01, 0.0], [1.0, 1.0]]
    assert {n for _, n in seen} == {TINY.images, len(world.splits.validation)}


class Outcome:
    def __init__(self, worst):
        self.worst = worst


# Figures


def alt_texts(html: str) -> list[str]:
    return sorted(set(re.findall(r'alt="([^"]*)"', html)))  # once for both widths


WITH = {"label": "Figure 9.9", "caption": "A caption."}


def test_the_slider_lets_fewer_survive_as_attacks_grow_stronger(result):
    rungs = {"one step": "One step", "weak": "A weak attack", "worst": "The worst case"}
    slider = figures.strength_slider(result, rungs, CHOSEN, since="weak", **WITH)
    texts = [slider.render(value)[1] for value in slider.values]
    assert [text.split(".")[0] for text in texts] == list(rungs.values())
    for text in texts:
        assert text in slider.html
        assert len(re.findall(r"\d+%", text)) == 3

    def best(text):
        return int(re.search(r"(\d+)%", text)[1])

    assert best(texts[0]) >= best(texts[1]) >= best(texts[2])
    survivors = np.mean(np.logical_and(*(result.per_image(m, "noise")[0] for m in ("one step", "weak"))))
    _, text = figures.strength_slider(result, rungs, ["noise"], since="weak", **WITH).render(1)
    assert f"noise {100 * survivors:.0f}%" in text
    assert slider.render(0.6)[1] == texts[1]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda r: figures.tangent_figure(r, ["natural", "pgd-7"], eps=TINY.eps, **WITH),
         r"PGD-7 training: median \d\.\d\d ε by the tangent, \d\.\d\d found"),
        (lambda r: figures.sweep_figure(r, {"ls+noise": ("alpha", "α"), "lsq+noise": ("beta", "β")}, **WITH),
         r"squeezing \+ noise: best \d+% at β = 0\.0[15], σ = 0\.[24]"),
        (lambda r: figures.scales_figure(r, ["natural", "pgd-7"], **WITH),
         r"PGD-7 training, DLR: \d+% to \d+%"),
    ],
)  # fmt: skip
def test_figures_say_in_numbers_what_they_show(result, draw, said):
    html = draw(result).html
    assert "Figure 9.9" in html
    assert "A caption." in html
    (alt,) = alt_texts(html)
    assert re.search(said, alt)


def test_gains_are_differences_to_the_control(result):
    html = figures.gains_figure(result, {"pgd-7": "natural", "lsq+noise": "noise"}, **WITH).html
    (alt,) = alt_texts(html)
    said = re.findall(r"([^.;]+?) (by a weak attack|in the worst case of all): ([+-]\d+) points", alt)
    assert [(who.strip(), how) for who, how, _ in said] == [
        (who, how)
        for who in ("PGD-7 training over ordinary training", "squeezing + noise over noise")
        for how in ("by a weak attack", "in the worst case of all")
    ]
    pairs = [(m, *arms) for arms in (("pgd-7", "natural"), ("lsq+noise", "noise")) for m in ("weak", "worst")]
    for (measure, arm, control), (_, _, gain) in zip(pairs, said, strict=True):
        mean = [np.mean([np.mean(x) for x in result.per_image(measure, a).values()]) for a in (arm, control)]
        assert float(gain) == pytest.approx(100 * (mean[0] - mean[1]), abs=0.51)


def test_the_sweep_says_the_best_mean_over_seeds(result):
    html = figures.sweep_figure(result, {"ls+noise": ("alpha", "α")}, **WITH).html
    trials = [trial for cell in result.cells["ls+noise"].values() for trial in cell["trials"]]
    means = {}
    for trial in trials:
        means.setdefault((trial["alpha"], trial["sigma"]), []).append(100 * trial["validation"])
    assert f"best {max(np.mean(scores) for scores in means.values()):.0f}% at" in html


def test_lines_give_medians_over_all_images(result):
    head, *lines = figures.gap_table(result, ["natural", "lsq+noise"]).text.split("\n")
    assert head.split() == ["training", "gap", "slope", "tangent", "found"]
    assert [line[:19].strip() for line in lines] == ["ordinary training", "squeezing + noise"]
    for arm, line in zip(("natural", "lsq+noise"), lines, strict=True):
        columns = [np.concatenate(list(result.per_image(name, arm).values())) for name in
                   ("logit_gap", "log_gradient_gap", "margin", "distance")]  # fmt: skip
        logit, slope, tangent, found = (np.median(column) for column in columns)
        eps = result.cells[arm][0]["settings"]["eps"]
        *numbers, last, unit = line[19:].replace("beyond", "beyond ε").split()
        assert unit == "ε"
        said = [logit, np.exp(slope), tangent / eps]
        assert [float(number) for number in numbers if number != "ε"] == pytest.approx(said, abs=0.06)
        assert last == ("beyond" if found >= 1 else f"{found / eps:.2f}")


@pytest.fixture(scope="module")
def surfaces() -> dict[str, Surface]:
    part = digits(0).test[:2]
    return {
        name: loss_surface(zoo.load(f"cnn-digits-{name}"), part.x, part.y, eps=eps, points=5)
        for name, eps in (("natural", 0.6), ("pgd7", 0.01))
    }


def test_surfaces_say_how_much_of_the_plane_is_misread_also_where_no_border_crosses_it(surfaces):
    assert surfaces["natural"].fooled.any()
    assert not surfaces["pgd7"].fooled.any()
    html = figures.surfaces_figure(surfaces, images=2, eps=0.6, **WITH).html
    share = surfaces["natural"].fooled.double().mean()
    (alt,) = alt_texts(html)
    assert f"natural: {share:.0%} of the plane is misread; pgd7: 0% of the plane is misread." in alt


def test_attacks_say_what_a_weak_one_leaves_and_what_remains_and_when_there_was_none():
    part, knobs = digits(0).test[:10], {"eps": 0.15, "steps": 10, "restarts": 1, "queries": 5, "images_shown": 0}
    network = zoo.load("cnn-digits-natural")

    class Rounded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network((8 * x).round() / 8)

    reports = {"plain": masking_report(network, part, **knobs), "rounded": masking_report(Rounded(), part, **knobs)}
    html = figures.attacks_figure(reports, **WITH).html
    weak, worst, last = reports["plain"].as_given, *(r.robust.robust_accuracy for r in reports.values())
    (alt,) = alt_texts(html)
    assert f"plain: {weak:.0%} under the weak attack, {worst:.0%} in the worst case" in alt
    assert f"rounded: no gradient for the weak attack, {last:.0%} in the worst case" in alt
    alone = figures.attacks_figure({"rounded": reports["rounded"]}, **WITH)
    assert "no gradient for the weak attack" in alone.html


def test_every_arm_has_a_name_and_a_look_of_its_own():
    assert set(figures.NAMES) == set(figures._LOOK) >= set(CHOSEN)
    assert len(set(figures._LOOK.values())) == len(figures._LOOK)
    assert len(set(figures.NAMES.values())) == len(figures.NAMES)


def test_figures_leave_matplotlibs_settings_alone(result):
    before = mpl.rcParams.copy()
    figures.scales_figure(result, ["natural"], **WITH)
    assert mpl.rcParams == before
