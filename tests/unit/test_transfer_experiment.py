"""The recorded transfer runs in miniature: what an arm records, what it may look at, how it chooses, what is kept."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from thesis_kit import training
from thesis_kit.chapters import find
from thesis_kit.chapters.defenses import transfer_arms as transfer
from thesis_kit.chapters.defenses import transfer_figures as figures
from thesis_kit.chapters.defenses.settings import TRANSFER
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits
from thesis_kit.files import DamagedFile
from thesis_kit.ledger import runner
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_claim
from thesis_kit.ledger.memory import FOLDER_VARIABLE, Memory
from thesis_kit.ledger.results import Result
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.models import anatomy
from thesis_kit.training.run import Run


def tiny(task, n_train=None):
    options = {"size": 16, "n_train": n_train, "n_validation": 96, "n_test": 24}
    return replace(getattr(TRANSFER["record"], task), data_options=MappingProxyType(options))


TINY = replace(
    TRANSFER["record"], source=tiny("source"), target=tiny("target", 320), moved_source=tiny("moved_source"),
    moved_target=tiny("moved_target", 320), batch_size=32, source_updates=16,
    model_options=MappingProxyType({"width": 4}), penalties=(1e-2, 1e-1), depth_updates=3, distill_updates=3,
    strengths=(0.1, 10.0), few_trials=((8, 0.02), (8, 0.05)), per_class=(5, 25), seeds=(0,),
)  # fmt: skip
FEW_LRS = tuple(lr for _, lr in TINY.few_trials)
NOT_TINY = ("free-8 twice", "@100", "@250")  # arms that a claim reports and this experiment has not
TARGET_ARMS = [*transfer.HEADS, "lwf", "fine-tuned", *(f"{how}@{n}" for n in TINY.per_class for how in transfer.FEW)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The experiment with tiny settings and a folder of its own for shared work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("runs")))
        patch.setattr(transfer, "TRANSFER", {"record": TINY})
        yield transfer._experiment()


@pytest.fixture(scope="module")
def records(experiment):
    return {arm: experiment.run(arm, 0, experiment.config) for arm in experiment.arms}


@pytest.fixture
def world(experiment, records):
    """Seed 0 with its source networks trained."""
    return transfer.World(0, TINY)


def untrainable(monkeypatch):
    def descend(*_, **__):
        raise AssertionError("a weight was updated")

    monkeypatch.setattr(Run, "descend", descend)


# --- what is recorded


def test_the_experiment_has_the_arms_of_the_recorded_one(experiment):
    recorded = find("defenses", "scenes").arms
    assert experiment.arms == [arm for arm in recorded if not arm.endswith(NOT_TINY)]
    assert len(experiment.arms) == 3 + len(transfer.HEADS) + len(transfer.DEPTHS) + 2 + 3 * len(TINY.per_class)


def test_an_arm_records_outcomes_costs_and_choices(records):
    for arm, record in records.items():
        clean, robust, weak = (np.array(record["outcomes"][name]) for name in ("N", "R", "weak"))
        assert record["n"] == len(clean) == TINY.target.data_options["n_test"], arm
        assert (robust <= clean).all(), arm
        assert (weak <= clean).all(), arm
        assert record["budget"]["PGD-20"]["attacked"] == clean.sum(), arm
        assert record["budget"]["train"]["backward"] == record["scalars"]["passes"], arm
        assert record["scalars"]["train_seconds"] > 0, arm
        assert (arm, 0) == (record["arm"], record["seed"])


def test_the_cost_of_an_arm_is_that_of_its_method(records):
    def cost(arm):
        return tuple(records[arm]["scalars"][name] for name in ("updates", "passes", "passes_per_update"))

    assert cost("natural") == cost("free-8") == (16, 16, 1)
    assert cost("pgd-7") == (16, 128, 8)
    assert all(cost(arm) == (0, 0, 0) for arm in (*transfer.HEADS, "transferred@5", "transferred@25"))
    assert all(cost(arm) == (3, 3, 1) for arm in (*transfer.DEPTHS, "lwf", "fine-tuned"))
    assert all(cost(f"{how}@{n}") == (8, 8, 1) for how in ("scratch", "tuned") for n in TINY.per_class)


def test_arms_that_are_compared_meet_the_same_images(records):
    groups = {arm: record["group"] for arm, record in records.items()}
    source, target, moved = (f"{task.data}/16px/24" for task in (TINY.source, TINY.target, TINY.moved_target))
    assert groups == {
        arm: moved if arm.endswith("@moved") else target if arm in TARGET_ARMS else source for arm in records
    }


@pytest.fixture(scope="module")
def result(experiment, records):
    """The records as a result file holds them, twice, as if by two seeds."""
    cells = [runner._run_cell(lambda arm, *_: records[arm], arm, 0, {}) for arm in experiment.arms]
    document = runner.empty_document(experiment)
    document["cells"] = [{**copy.deepcopy(cell), "seed": seed} for cell in cells for seed in (0, 1)]
    document["planned"] = {arm: [0, 1] for arm in experiment.arms}
    return Result(document)


def test_every_claim_in_scenes_can_be_judged_by_what_is_recorded(result):
    judged = [
        (claim, judge_claim(claim, result, "scenes"))
        for claim in catalog().of("defenses")
        if "scenes" in (claim.arena, *claim.also)
    ]
    assert [claim.id for claim, _ in judged][2:] == ["transfer-inherits", "transfer-depth", "lwf-tradeoff", "low-data"]
    for claim, one in judged:
        assert one.verdict is not Verdict.NOT_RUN, one.reason
        assert "condition" not in one.reason, one.reason
        for item in claim.report:
            absent = any(arm.endswith(NOT_TINY) for _, arm in item.expression.terms)
            assert (one.reported[item.title] == "not recorded") == absent, item.title


def test_the_figures_draw_what_is_recorded(result, records):
    words = {"label": "Figure 1.7", "caption": "A caption."}
    heads = {arm: arm.replace("-", " ") for arm in transfer.HEADS}

    def percent(arm, measure):
        return f"{100 * np.mean(records[arm]['outcomes'][measure]):.0f}%"

    def said(shown, name, arm):
        assert f"{name}: clean {percent(arm, 'N')}, robust {percent(arm, 'R')}" in shown.html

    inherited = figures.inherited_figure(result, heads, **words)
    depths = figures.depth_figure(result, transfer.DEPTHS, **words)
    few = figures.low_data_figure(result, TINY.per_class, **words)
    for arm, name in heads.items():
        said(inherited, name, arm)
    for arm, k in transfer.DEPTHS.items():
        said(depths, f"{k} blocks", arm)
    for route, (name, *_) in figures.ROUTES.items():
        for n in TINY.per_class:
            said(few, f"{name}, {n} a class", f"{route}@{n}")
    _, *lines = figures.accuracy_table(result, heads).text.splitlines()
    for line, (arm, name) in zip(lines, heads.items(), strict=True):
        shares = (f"{100 * np.mean(records[arm]['outcomes'][measure]):.1f}%" for measure in ("N", "R"))
        assert [word for word in line.split() if word.endswith("%")] == list(shares)
        assert line.startswith(name)


def test_a_strength_that_diverged_has_no_point(result):
    document = copy.deepcopy(result.document)
    first, second = (trial for cell in document["cells"] if cell["arm"] == "lwf" for trial in cell["trials"][:1])
    first.update(N=0.5, R=0.2), second.update(N=0.7, R=0.4)
    shown = figures.distillation_figure(Result(document), label="Figure 1.8", caption="A caption.")
    assert "λ = 0.1: clean 60%, robust 30%; λ = 10: clean" in shown.html
    assert "; λ = 0: clean" in shown.html
    second.update(N=-1.0, R=-1.0)
    shown = figures.distillation_figure(Result(document), label="Figure 1.8", caption="A caption.")
    assert "λ = 0.1" not in shown.html
    assert "λ = 10: clean" in shown.html


# --- what an arm is made of


@pytest.mark.parametrize(("arm", "source"), [("robust-head", "pgd-7"), ("natural-head", "natural")])
def test_under_a_new_head_the_features_are_the_sources(world, arm, source):
    made, (model, _) = transfer._make(arm, world).model, world.trained(source)
    x = world.target.validation.x
    assert torch.equal(anatomy.features(made.eval(), x), anatomy.features(model.eval(), x))


@pytest.mark.parametrize("arm", ["robust-head", "lwf", "transferred@5", "tuned@5"])
def test_nothing_is_made_or_chosen_by_test_images(world, arm):
    test = world.target.test
    blind = Part(torch.full_like(test.x, math.nan), test.y, test.ids)
    world.target = Splits(world.target.train, world.target.validation, blind)
    chosen = transfer._make(arm, world).chosen
    assert chosen == transfer._make(arm, transfer.World(0, TINY)).chosen
    with pytest.raises(ValueError, match="NaN"):
        world.attacked(world.trained("natural")[0], blind)  # looking would have been noticed


def test_all_blocks_of_the_recorded_network_are_counted():
    settings = TRANSFER["record"]
    assert len(anatomy.blocks(transfer.World(0, settings).network(settings.source))) == transfer.N_BLOCKS


# --- the trend


@pytest.mark.parametrize(
    ("robust", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.0], 1.0),
        ([0.0, 0.1, 0.2, 0.9], -1.0),
        ([0.3, 0.3, 0.3, 0.3], 0.0),
        ([0.5, 0.3, 0.4, 0.2], 0.8),  # 1 − 6 · (1² + 1²) / (4 · 15)
        ([0.5, 0.5, 0.1, 0.1], 4 / math.sqrt(20)),  # Pearson's correlation of the ranks 1 2 3 4 and 1.5 1.5 3.5 3.5
    ],
)
def test_the_trend_is_spearmans_correlation_of_depth_and_loss(robust, expected):
    assert transfer.trend([0, 1, 2, 7], robust) == pytest.approx(expected)


def test_the_recorded_trend_is_that_of_the_recorded_depths(records):
    robust = [np.mean(records[arm]["outcomes"]["R"]) for arm in transfer.DEPTHS]
    assert records["depth-all"]["scalars"]["trend"] == pytest.approx(transfer.trend(range(8), robust))
    assert [arm for arm, record in records.items() if "trend" in record["scalars"]] == ["depth-all"]


# --- choices


def trial(n, r):
    return {"N": n, "R": r}


@pytest.mark.parametrize(
    ("trials", "position"),
    [
        ([trial(0.9, 0.2), trial(0.8, 0.5), trial(0.7, 0.6)], 1),  # the cleanest of those above the floor
        ([trial(0.9, 0.2), trial(0.8, 0.4), trial(0.7, 0.3)], 1),  # all below: the most robust
        ([trial(0.9, 0.5), trial(0.9, 0.6)], 0),  # of equals the first, the weakest pull
        ([trial(-1, -1), trial(0.1, 0.0)], 1),
        ([trial(0.2, 0.1)], 0),
    ],
)
def test_the_strength_is_the_cleanest_that_is_robust_enough(trials, position):
    assert transfer.choose_strength(trials, floor=0.5) == position


def test_a_loss_of_exactly_a_point_is_no_more_than_a_point():
    for right in range(5, 501):
        trials = [trial(0.9, (right - 5) / 500), trial(0.8, right / 500)]
        assert transfer.choose_strength(trials, floor=right / 500 - 0.01) == 0
        trials[0]["R"] -= 1 / 500
        assert transfer.choose_strength(trials, floor=right / 500 - 0.01) == 1


def test_all_values_of_a_knob_are_tried_and_one_is_kept(records):
    for arm, record in records.items():
        knob, values = {
            "lwf": ("strength", TINY.strengths),
            "fine-tuned": ("strength", (0.0,)),
            **{f"{how}@{n}": ("lr", FEW_LRS) for how in ("scratch", "tuned") for n in TINY.per_class},
        }.get(arm, ("penalty", ()))
        assert tuple(one[knob] for one in record["trials"]) == values, arm
        if knob == "penalty":
            assert set(record["chosen"].values()) <= set(TINY.penalties), arm
        else:
            assert record["chosen"][knob] in values, arm
        if knob == "lr":
            best = max(record["trials"], key=lambda one: one["R"])
            assert record["chosen"] == {"updates": 8, "lr": best["lr"]}, arm


@pytest.mark.parametrize(
    ("arm", "function", "knob", "values"),
    [("lwf", "distill", "strength", TINY.strengths), ("scratch@5", "train", "lr", FEW_LRS)],
)
def test_a_trial_that_diverges_is_not_chosen_and_if_all_do_nothing_is_recorded(
    world, monkeypatch, arm, function, knob, values
):
    world.trained("pgd-7")
    does = getattr(training, function)

    def diverging(at):
        def run(*arguments, **knobs):
            if knobs[knob] in at:
                raise NonFiniteOutput("the loss is nan")
            return does(*arguments, **knobs)

        return run

    monkeypatch.setattr(training, function, diverging(values[:1]))
    made = transfer._make(arm, world)
    assert made.chosen[knob] == values[1]
    assert made.trials[0] == {**made.chosen, knob: values[0], "N": -1.0, "R": -1.0}
    monkeypatch.setattr(training, function, diverging(values))
    with pytest.raises(NonFiniteOutput, match=rf"diverged at .*{knob} {values[0]:g}; .*{knob} {values[1]:g}: put"):
        transfer._make(arm, world)


# --- what is kept


def test_a_second_call_recalls_every_arm_and_updates_no_weight(experiment, records, monkeypatch):
    untrainable(monkeypatch)
    again = {arm: experiment.run(arm, 0, experiment.config) for arm in experiment.arms}
    assert again == records


def test_a_source_is_read_from_its_checkpoint(world, monkeypatch):
    model, report = world.trained("free-8")
    untrainable(monkeypatch)
    again, same = transfer.World(0, TINY).trained("free-8")
    assert same == report
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(AssertionError, match="a weight was updated"):
        transfer.World(1, TINY).trained("free-8")
    with pytest.raises(AssertionError, match="a weight was updated"):
        transfer.World(0, replace(TINY, source_lr=0.2)).trained("free-8")


@pytest.fixture
def memory(tmp_path):
    return Memory("thesis_kit.files", tmp_path)


def test_work_is_done_once_and_comes_back_as_json_holds_it(memory):
    done = []

    def work():
        done.append(1)
        return {"pair": (1, 2), "order": {"b": 0.1, "a": None}}

    first, second = (memory.recall({"arm": "a", "seed": 0}, work) for _ in range(2))
    assert first == second == {"pair": [1, 2], "order": {"b": 0.1, "a": None}}
    assert list(second["order"]) == ["b", "a"]
    assert len(done) == 1
    memory.recall({"arm": "a", "seed": 1}, work)
    assert len(done) == 2


def test_settings_code_and_machine_each_have_files_of_their_own(memory, monkeypatch, tmp_path):
    def place(memory, settings, suffix=".json"):
        with memory.place(settings, suffix) as path:
            return path

    settings = {"arm": "a", "options": {"width": 4}}
    others = [
        place(memory, settings),
        place(memory, {**settings, "options": {"width": 5}}),
        place(memory, settings, ".ckpt"),
        place(Memory("thesis_kit.checks", tmp_path), settings),
        place(Memory("thesis_kit.files", tmp_path / "elsewhere"), settings),
        place(Memory("thesis_kit.files", tmp_path, device="mps"), settings),
    ]
    assert place(Memory("thesis_kit.files", tmp_path), copy.deepcopy(settings)) == others[0]
    for what, value in (("torch", "0.1"), ("processor", "another"), ("threads", 64)):
        here = runner.machine("cpu", 1) | {what: value}
        monkeypatch.setattr("thesis_kit.ledger.memory.machine", lambda device, threads, here=here: here)
        others.append(place(Memory("thesis_kit.files", tmp_path), settings))
    assert len(set(others)) == 9


def test_work_that_failed_is_not_kept(memory):
    def fails():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        memory.recall({"arm": "a"}, fails)
    with pytest.raises(ValueError, match="JSON compliant"):
        memory.recall({"arm": "a"}, lambda: math.nan)
    assert memory.recall({"arm": "a"}, lambda: 3) == 3


@pytest.mark.parametrize("damage", [lambda data: data.replace(b"0.25", b"0.35"), lambda data: data[:-1]])
def test_an_altered_file_is_refused(memory, damage):
    memory.recall({"arm": "a"}, lambda: [0.25])
    (file,) = memory.folder.glob("*.json")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DamagedFile, match=file.name):
        memory.recall({"arm": "a"}, lambda: [0.25])


def test_a_second_process_waits_and_takes_what_the_first_has_done(memory, tmp_path):
    code = (
        "import sys, torch; torch.set_num_threads(1); from thesis_kit.ledger.memory import Memory\n"
        "memory = Memory('thesis_kit.files', sys.argv[1]); print('ready', flush=True)\n"
        "print(memory.recall({'arm': 'a'}, lambda: 'second'), flush=True)"
    )
    others = []

    def work():
        others.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True))
        assert others[0].stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            others[0].wait(timeout=0.5)
        return "first"

    assert memory.recall({"arm": "a"}, work) == "first"
    said, _ = others[0].communicate(timeout=60)
    assert (others[0].returncode, said) == (0, "first\n")


def test_kept_tensors_are_sealed(memory):
    made = {"weights": torch.arange(3.0), "name": "a", "n": 2}
    for _ in range(2):
        kept = memory.recall_tensors({"arm": "a"}, lambda: made)
        assert torch.equal(kept["weights"], made["weights"])
        assert (kept["name"], kept["n"]) == ("a", 2)
    (path,) = memory.folder.glob("*.pt")
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 50)):
        altered = bytearray(whole)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(DamagedFile, match=path.name):
            memory.recall_tensors({"arm": "a"}, lambda: made)


def test_what_is_kept_can_be_read_while_another_process_is_at_its_turn(memory):
    memory.recall({"arm": "a"}, lambda: 3)
    with memory.place({"arm": "a"}, ".json"):
        assert memory.recall({"arm": "a"}, lambda: 4) == 3
    assert [path.suffix for path in memory.folder.iterdir()] == [".json"]  # and no lock stays
