"""Claims are read strictly, their rules mean what they say, and verdicts come from results alone."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from thesis_kit.chapters.inversion.usable import usable_weights
from thesis_kit.ledger.cells import arm_file
from thesis_kit.ledger.claims import LATE, catalog, claim_files, read_catalog
from thesis_kit.ledger.judging import ContrastFinding, difference, judge_chapter, judge_claim, measure_contrast
from thesis_kit.ledger.multiplicity import contrasts, fragile
from thesis_kit.ledger.pinned import Pinned, pin
from thesis_kit.ledger.registry import titles
from thesis_kit.ledger.results import Result, load_result
from thesis_kit.ledger.rules import BadClaims, parse_contrast, parse_expression
from thesis_kit.ledger.statistics import (
    BY_BLOCKS,
    BY_IMAGES,
    BY_SEEDS,
    CLOPPER_PEARSON,
    NEWCOMBE,
    WILSON,
    Interval,
    Verdict,
    newcombe,
    student_interval,
)
from thesis_kit.show.claim_rows import rows

COMMON, FILES = claim_files()
DATA = {**yaml.safe_load(COMMON), "chapter": yaml.safe_load(FILES["defenses"])}
ARMS = {"defenses": titles("defenses")}
CHAPTER_1 = [
    "free-robust",
    "free-matches-pgd",
    "free-matches-pgd-eighth",
    "free-strong",
    "free-order",
    "free-m-tradeoff",
    "fast-collapse",
    "transfer-inherits",
    "transfer-depth",
    "lwf-tradeoff",
    "low-data",
]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "worlds"))
    import tiny_experiment

    return tiny_experiment


def every(cells):
    return [cell for found in cells.values() for cell in found.values()]


def of(cells, planned=None):
    """A recording of these cells; ``planned`` are the arms as they are."""
    return Result("defenses.digits", cells, planned or {})


# --- the file


def test_chapter_1_has_its_claims():
    assert [claim.id for claim in catalog().of("defenses")] == CHAPTER_1


def test_every_arm_of_a_claim_is_an_arm_of_its_experiment():
    """In its own arena all of them; in another one those that the verdict rests on."""
    from thesis_kit.ledger.registry import find

    for claim in catalog().of("defenses"):
        assert set(claim.arms) <= set(find("defenses", claim.arena).names), claim.id
        for arena in claim.also:
            assert {arm for _, arm in claim.terms} <= set(find("defenses", arena).names), (claim.id, arena)


def read(data):
    """The catalog of chapter 1 alone, from the data of both files."""
    common = {key: row for key, row in data.items() if key != "chapter"}
    return read_catalog(yaml.safe_dump(common), {"defenses": yaml.safe_dump(data["chapter"])}, ARMS)


def altered(change):
    """The claims of chapter 1 with one change made to the files."""
    data = copy.deepcopy(DATA)
    change(data, data["chapter"]["claims"][0])
    return data


def put(key, value):
    return lambda data, row: row.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("verdict", "holds"), "unknown key of claim free-robust 'verdict'"),
        (put("statment", "x"), "did you mean statement"),
        (put("origin", "theses"), "unknown origin of claim free-robust 'theses': did you mean thesis"),
        (put("arena", "digit"), "unknown arena of claim free-robust 'digit': did you mean digits"),
        (put("also", ["moon"]), "unknown arena of claim free-robust 'moon'"),
        (put("interval", "boots"), "unknown interval of claim free-robust 'boots'"),
        (put("rule", ["R(fre-8) - R(natural) >= 20 points"]), "unknown arm of claim free-robust 'fre-8': did you mean"),
        (put("rule", ["Q(free-8) >= 20 points"]), "unknown measure of claim free-robust 'Q'"),
        (put("rule", ["R(free-8) - R(natural) > 20"]), "should look like"),
        (put("rule", ["R(free-8) - R(natural) >= 20"]), "uses R, recorded per image: add points"),
        (put("rule", ["passes(free-8) >= 20 points"]), "uses passes, recorded per seed: leave out points"),
        (put("rule", ["R(free-8) * R(natural) >= 20 points"]), "must be linear"),
        (put("rule", ["R(free-8) + 1 >= 20 points"]), "must be linear"),
        (put("rule", ["R(free-8) - R(natural >= 20 points"]), "cannot be read"),
        (put("rule", ["exit(1).x - R(natural) >= 20 points"]), "cannot be read"),
        (put("rule", []), "needs a list of at least one contrast"),
        (put("rule", "R(free-8) >= 20 points"), "needs a list of at least one contrast"),
        (put("plan", ["something"]), "has a plan and rule: a plan stands in place of them"),
        (put("rule", ["R(free-8) within 5 points"]), "for a difference only"),
        (put("rule", ["R(free-8) - 0.8*R(natural) >= 0 points or within 5"]), "for a difference only"),
        (put("rule", ["R(free-8) - R(natural) within 0 points"]), "for a difference only"),
        (put("rule", ["R(free-8) - R(natural) within 5 points or within 3"]), "should look like"),
        (put("scope", "networks"), "unknown scope of claim free-robust 'networks': did you mean network"),
        (put("late", "rules"), "unknown value of late in claim free-robust 'rules': did you mean rule"),
        (put("conditions", ["passes(free-8)"]), "should compare two sides"),
        (put("report", {"x": "R(free-8"}), "a report of claim free-robust cannot be read"),
        (lambda data, row: row["paper"].__setitem__("status", "sure"), "unknown status of claim free-robust 'sure'"),
        (lambda data, row: row["paper"].__setitem__("source", "shafahi"), "unknown source of claim free-robust"),
        (lambda data, row: row.pop("statement"), "claim free-robust lacks statement"),
        (lambda data, row: data["chapter"]["claims"].append(row), "claim free-robust stands in the files twice"),
        (lambda data, row: data["chapter"]["claims"].append("a"), "claims of defenses/claims.yml must be a list"),
        (lambda data, row: data.__setitem__("claim", []), "unknown key of common.yml 'claim'"),
        (lambda data, row: data["chapter"].__setitem__("claim", []), "unknown key of defenses/claims.yml 'claim'"),
        (lambda data, row: data["chapter"]["measures"].update(N={}), "N stands in measures of defenses/claims.yml"),
        (lambda data, row: data["measures"]["N"].__setitem__("per", "batch"), "unknown value of per in measure N"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(change, sentence):
    with pytest.raises(BadClaims) as caught:
        read(altered(change))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("id", None, "id of claim None must be text, got None"),
        ("id", 3, "id of claim 3 must be text, got 3"),
        ("id", "", "id of claim  must be text"),
        ("statement", ["a"], "statement of claim free-robust must be text"),
        ("statement", None, "statement of claim free-robust must be text"),
        ("arena", None, "arena of claim free-robust must be text"),
        ("also", "scenes", "also of claim free-robust must be a list of texts, got 'scenes'"),
        ("also", [None], "also of claim free-robust must be a list of texts"),
        ("rule", [3], "rule of claim free-robust must be a list of texts"),
        ("rule", None, "needs a list of at least one contrast"),
        ("conditions", "passes(free-8) == 1", "conditions of claim free-robust must be a list of texts"),
        ("conditions", [None], "conditions of claim free-robust must be a list of texts"),
        ("report", ["R(free-8)"], "report of claim free-robust must be a table of names and texts"),
        ("report", {"x": None}, "report of claim free-robust must be a table of names and texts"),
        ("paper", None, "paper of claim free-robust must be a table of keys and values, got NoneType"),
        ("paper", "a paper", "paper of claim free-robust must be a table of keys and values, got str"),
        ("late", True, "late of claim free-robust must be text"),
        ("not_run", True, "not_run of claim free-robust must be text"),
        ("scopes", {"nowhere": "network"}, "arena under scopes of claim free-robust"),
        ("interval", None, "interval of claim free-robust must be text"),
        ("origin", {}, "origin of claim free-robust must be text"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(key, value, said):
    data = copy.deepcopy(DATA)
    data["chapter"]["claims"][0][key] = value
    text = yaml.safe_dump(data["chapter"], sort_keys=False)
    line = text.splitlines().index("claims:") + 2
    with pytest.raises(BadClaims) as caught:
        read(data)
    assert said in str(caught.value)
    assert re.match(r"defenses/claims\.yml, line \d+: ", str(caught.value))
    with pytest.raises(BadClaims, match=rf"defenses/claims\.yml, line {line}: "):
        read_catalog(COMMON, {"defenses": text}, ARMS)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("number", "one", "number of defenses/claims.yml must be a whole number, got 'one'"),
        ("title", None, "title of defenses/claims.yml must be text"),
        ("claims", None, "claims of defenses/claims.yml must be a list of tables"),
        ("claims", {"a": 1}, "claims of defenses/claims.yml must be a list of tables"),
        ("sources", ["a"], "sources of defenses/claims.yml must be a table of names and texts"),
        ("measures", {"x": None}, "measures of defenses/claims.yml must be a table of named tables"),
    ],
)
def test_a_malformed_file_is_named(key, value, said):
    data = copy.deepcopy(DATA)
    data["chapter"][key] = value
    with pytest.raises(BadClaims) as caught:
        read(data)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(b"claims:\n", b"claims:\n  - id: [a\n", 1), r"line \d+: this is no YAML \("),
        (lambda text: text.replace(b"title:", b"title: 'x", 1), r"line \d+: this is no YAML"),
        (lambda text: text.replace(b"title:", b"\ttitle:", 1), r"line 4: this is no YAML"),
        (lambda text: b"\n\xff\xfe" + text, r"line 2: this is no UTF-8: save the file as UTF-8"),
        (lambda text: b"", r" must be a table of keys and values, got NoneType"),
        (lambda text: b"- a\n- b\n", r" must be a table of keys and values, got list"),
        (lambda text: b"{[a]: 1}\n", r"this is no YAML|cannot be read"),
        (lambda text: b"[" * 5000, r": it is nested too deeply to be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(change, said):
    with pytest.raises(BadClaims, match=rf"defenses/claims\.yml,? ?{said}") as caught:
        read_catalog(COMMON, {"defenses": change(FILES["defenses"])}, ARMS)
    assert "\n" not in str(caught.value)


def test_a_key_stands_once():
    """Two numbers beside a claim under one title would show the second as the first."""
    text = FILES["defenses"].decode()
    with pytest.raises(
        BadClaims, match=rf"'number' stands in defenses/claims.yml twice, in lines \d+ and {len(text.splitlines()) + 1}"
    ):
        read_catalog(COMMON, {"defenses": f"{text}number: 2\n"}, ARMS)
    assert read_catalog(COMMON, {"defenses": text}, ARMS)


def test_a_rule_of_shares_is_one_share_or_a_difference():
    for rule in ("2*collapse(a) >= 0.5", "collapse(a) + collapse(b) >= 0.5"):
        with pytest.raises(BadClaims, match="one share or a difference of two"):
            parse_contrast(rule, "shares", "claim x")
    assert parse_contrast("collapse(a) >= 0.5", "shares", "claim x").kind == "shares"


def test_a_promised_probability_is_one_share():
    for rule in ("N(a) - N(b) >= 0.9", "2*N(a) >= 0.9", "N(a) >= 1.5"):
        with pytest.raises(BadClaims, match="one share and a probability"):
            parse_contrast(rule, "trials", "claim x")
    assert parse_contrast("N(a) >= 0.999", "trials", "claim x").kind == "trials"


def test_a_number_an_image_is_compared_image_by_image(world):
    """Images differ a hundred times more than the arms do; paired, the difference is plain."""
    data = copy.deepcopy(DATA)
    data["measures"]["radius"] = {"title": "certified radius", "per": "image number"}
    row = {**data["chapter"]["claims"][0], "conditions": [], "report": {}}
    row |= {"rule": ["radius(free-8) - radius(natural) >= 0.005"], "interval": "images"}
    data["chapter"]["claims"] = [row]
    claim = next(iter(read(data).claims.values()))
    cells = world.cells({"natural": {"R": 0.5}, "free-8": {"R": 0.5}})
    for cell in every(cells):
        images = np.random.default_rng(cell["seed"] % 2).uniform(0, 2, cell["n"])
        noise = np.random.default_rng(cell["seed"] + 9).uniform(0, 0.02, cell["n"])
        cell["values"] = {"radius": (images + (noise if cell["arm"] == "free-8" else 0)).tolist()}
    found = judge_claim(claim, of(cells))
    assert found.verdict is Verdict.HOLDS
    assert found.findings[0].interval.value == pytest.approx(0.01, abs=0.001)
    assert found.findings[0].interval.half_width < 0.002
    assert found.findings[0].levels["radius", "natural"] == pytest.approx(1.0, abs=0.1)
    assert of(cells).mean("radius", "natural").half_width > 0.02
    for cell in every(cells):
        if cell["seed"] == 0:
            cell["n"], cell["values"] = 0, {"radius": []}
    assert "a seed has no images to compare" in judge_claim(claim, of(cells)).reason
    data["chapter"]["claims"] = [{**row, "interval": "scalars"}]
    with pytest.raises(BadClaims, match="uses radius, recorded per image number: leave out points and set interval to"):
        read(data)


def test_arithmetic_over_measures():
    depth = parse_expression("R(depth-1) - 0.8*R(depth-0) - 0.2*(R(depth-all) + R(depth-0))", "a test")
    assert depth.terms == (("R", "depth-1"), ("R", "depth-0"), ("R", "depth-all"))
    assert depth(10.0, 5.0, 1.0) == pytest.approx(10 - 4 - 0.2 * 6)
    ratio = parse_expression("-train_seconds(a) / train_seconds(b)", "a test")
    assert ratio(np.array([1.0, 2.0]), np.array([2.0, 2.0])).tolist() == [-0.5, -1.0]


def test_thresholds_and_units():
    contrast = parse_contrast("R(a) - R(b) >= -3 points", "items", "claim x")
    assert (contrast.threshold, contrast.points, contrast.kind) == (-3.0, True, "items")
    plain = parse_contrast("trend(a) >= 0.35", "items", "claim x")
    assert (plain.threshold, plain.points, plain.kind) == (0.35, False, "scalars")


def test_sameness_is_asked_alone_or_beside_a_threshold():
    alone = parse_contrast("R(a) - R(b) within 5 points", "items", "claim x")
    assert (alone.threshold, alone.within, alone.points, alone.marks) == (None, 5.0, True, (-5.0, 5.0))
    for text in ("v(a) - v(b) >= 0 or within 0.05", "v(a) - v(b) >= 0, or within 0.05"):
        beside = parse_contrast(text, "images", "claim x")
        assert (beside.threshold, beside.within, beside.points, beside.marks) == (0.0, 0.05, False, (0.0,))
    points = parse_contrast("R(a) - R(b) >= -3 points or within 5 points", "items", "claim x")
    assert (points.threshold, points.within, points.points) == (-3.0, 5.0, True)
    assert parse_contrast("R(a) - R(b) >= 0 points", "items", "claim x").within is None


@pytest.mark.parametrize(
    ("text", "directed"),
    [
        ("R(a) - R(b) >= 20 points", True),
        ("R(a) - 0.75*R(b) - 0.25*R(c) >= 20 points", True),
        ("R(a) >= 20 points", False),
        ("R(a) - 0.8*R(b) >= 20 points", False),
    ],
)
def test_only_a_difference_has_a_direction(text, directed):
    assert parse_contrast(text, "items", "claim x").directed is directed


def test_a_claim_may_wait_with_a_plan(world):
    data = copy.deepcopy(DATA)
    first, chapter = data["chapter"]["claims"][0], data["chapter"]
    row = {key: value for key, value in first.items() if key not in ("rule", "conditions", "report")}
    chapter["claims"] = [{**row, "plan": ["R of two arms: above zero."], "not_run": "no arms yet"}]
    claim = next(iter(read(data).claims.values()))
    assert (claim.plan, claim.rule, claim.terms, claim.arms) == (("R of two arms: above zero.",), (), [], [])
    found = judge_claim(claim, of(world.cells({"free-8": {"R": 0.7}})))
    assert (found.verdict, found.reason) == (Verdict.NOT_RUN, "no arms yet")
    assert ("Planned", ["R of two arms: above zero."]) in rows(found)
    assert "Rule" not in dict(rows(found))
    for key, sentence in (("not_run", "say under not_run why"), ("plan", "needs a list of at least one contrast")):
        lacking = {name: value for name, value in chapter["claims"][0].items() if name != key}
        with pytest.raises(BadClaims, match=sentence):
            read({**data, "chapter": {**chapter, "claims": [lacking]}})
    with pytest.raises(BadClaims, match="at least one sentence under plan"):
        read({**data, "chapter": {**chapter, "claims": [{**chapter["claims"][0], "plan": []}]}})


def test_a_rule_that_came_late_says_so():
    late = [claim for claim in catalog().claims.values() if claim.late]
    assert late
    assert {claim.background.partition(", ")[2] for claim in late} == set(LATE.values())
    assert {claim.chapter for claim in late if claim.late == "interval"} == {"inversion"}
    assert catalog().claims["free-robust"].background == "from the thesis"


def test_every_chapter_of_the_thesis_has_its_claims():
    """A chapter that is to come is listed with its claims; every arena named there is one of the book."""
    counted = {chapter.number: len(catalog().of(name)) for name, chapter in catalog().chapters.items()}
    assert sorted(counted) == [1, 2, 3, 4, 5, 6, 7]
    assert (counted[5], counted[6], counted[7]) == (14, 10, 9)
    for name in ("features", "clip", "sonification"):
        assert all(claim.plan or claim.rule for claim in catalog().of(name))


# --- judging


def claim_with(**changes):
    data = copy.deepcopy(DATA)
    data["chapter"]["claims"] = [{**data["chapter"]["claims"][0], "conditions": [], "report": {}, **changes}]
    return next(iter(read(data).claims.values()))


def judged(world, rates, rule, *, n=400, **changes):
    scalars = changes.pop("scalars", None)
    cells = world.cells({arm: {"R": rate} for arm, rate in rates.items()}, n=n, scalars=scalars)
    return judge_claim(claim_with(rule=rule, **changes), of(cells))


@pytest.mark.parametrize(
    ("natural", "threshold", "verdict"),
    [
        (0.3, "20", Verdict.HOLDS),
        (0.6, "20", Verdict.IN_DIRECTION),
        (0.7, "20", Verdict.FAILS),
        (0.9, "0", Verdict.FAILS),
        (0.7, "0", Verdict.INCONCLUSIVE),  # the same network against itself
        (0.7, "-3", Verdict.HOLDS),
        (0.72, "-1", Verdict.FAILS),
        (0.72, "-6", Verdict.HOLDS),  # a loss, and a smaller one than is tolerated
    ],
)
def test_every_verdict_is_reached(world, natural, threshold, verdict):
    rule = [f"R(free-8) - R(natural) >= {threshold} points"]
    found = judged(world, {"free-8": 0.7, "natural": natural}, rule)
    assert found.verdict is verdict
    assert found.findings[0].interval.value == pytest.approx(100 * (0.7 - natural), abs=6)


def test_a_contrast_is_paired_image_by_image(world):
    result = of(world.cells({"free-8": {"R": 0.5}, "natural": {"R": 0.5}}))
    finding = measure_contrast(parse_contrast("R(free-8) - R(natural) >= 0 points", "items", "x"), result)
    assert (finding.interval.low, finding.interval.high) == (0.0, 0.0)  # equal outcomes leave nothing to doubt
    assert (finding.interval.n, finding.interval.seeds) == (400, 4)


def test_several_contrasts_must_all_hold(world):
    good, bad = "R(free-8) - R(natural) >= 20 points", "R(natural) - R(free-8) >= 0 points"
    rates = {"free-8": 0.7, "natural": 0.3}
    assert judged(world, rates, [good, good]).verdict is Verdict.HOLDS
    both = judged(world, rates, [good, bad])
    assert both.verdict is Verdict.FAILS
    assert both.reason == (
        "part 1 of the rule: holds, for the whole interval lies at or above the threshold; "
        "part 2 of the rule: does not hold here, for the whole interval lies below the threshold"
    )
    assert both.parts == "holds in 1 of 2 parts"
    many = judged(world, rates, [bad, good, bad, bad])
    assert many.reason.startswith("parts 1, 3 and 4 of the rule: does not hold here, for ")
    assert many.parts == "holds in 1 of 4 parts"
    assert [judged(world, rates, rule).parts for rule in ([good], [bad], [good, good])] == ["", "", ""]


def test_two_may_be_the_same(world):
    same = judged(world, {"free-8": 0.7, "natural": 0.7}, ["R(free-8) - R(natural) within 5 points"])
    assert (same.verdict, same.parts) == (Verdict.SAME, "")
    apart = judged(world, {"free-8": 0.7, "natural": 0.3}, ["R(free-8) - R(natural) within 5 points"])
    assert apart.verdict is Verdict.FAILS
    good, alike = "R(free-8) - R(natural) >= 20 points", "R(pgd-7) - R(natural) within 5 points"
    rates = {"free-8": 0.7, "natural": 0.3, "pgd-7": 0.3}
    both = judged(world, rates, [good, alike])
    assert both.verdict is Verdict.HOLDS  # each part came out as the claim has it
    assert [finding.agrees for finding in both.findings] == [True, True]
    beside = judged(world, rates, [good, "R(pgd-7) - R(natural) >= 0 points or within 5 points"])
    assert (beside.verdict, beside.parts) == (Verdict.INCONCLUSIVE, "holds in 1 of 2 parts")
    assert "part 2 of the rule: the same, for the whole interval lies within 5 of zero" in beside.reason


def test_a_level_between_nothing_and_its_threshold_is_open_or_refuted(world):
    assert judged(world, {"free-8": 0.7, "natural": 0.3}, ["R(free-8) >= 90 points"]).verdict is Verdict.FAILS
    assert judged(world, {"free-8": 0.7, "natural": 0.3}, ["R(free-8) >= 71 points"]).verdict is Verdict.INCONCLUSIVE


def of_drawings(world, cells):
    """The same cells as drawings of four classes by one network, from other noise each seed."""
    planned = {name: replace(world.arm(name), units=("class", "drawing")) for name in cells}
    for seeds in cells.values():
        for seed, cell in seeds.items():
            cell["group"] = f"tiny/4 classes × {cell['n'] // 4}/seed {seed}"
    return Result("defenses.digits", cells, planned)


def test_an_undecided_part_says_how_many_would_decide_it(world):
    cells = world.cells({"free-8": {"R": 0.55}, "natural": {"R": 0.5}}, n=40)
    rule = ["R(free-8) - R(natural) >= 0 points", "R(natural) - R(free-8) >= 60 points"]
    (said,) = dict(rows(judge_claim(claim_with(rule=rule), of(cells))))["To decide it"]
    assert re.fullmatch(r"part 1 of the rule: about [\d,]+ seeds in place of \d+, if the value stays as it is", said)
    assert "To decide it" not in dict(rows(judge_claim(claim_with(rule=rule[1:]), of(cells))))


def test_drawings_of_one_network_are_not_seeds_of_training(world):
    rule = ["R(free-8) - R(natural) >= 20 points"]
    cells = world.cells({"free-8": {"R": 0.7}, "natural": {"R": 0.3}}, n=40)
    found = judge_claim(claim_with(rule=rule, scope="network"), of_drawings(world, copy.deepcopy(cells)))
    (finding,) = found.findings
    assert finding.interval.kind == "bootstrap over drawings within classes"
    assert (finding.interval.n, finding.interval.seeds, finding.interval.item) == (160, 0, "drawing")
    trained = judge_claim(claim_with(rule=rule), of(cells))
    assert trained.findings[0].interval.value == finding.interval.value
    assert "(160 drawings; bootstrap over drawings within classes)" in dict(rows(found))["Measured"][0]
    unsaid = judge_claim(claim_with(rule=rule), of_drawings(world, copy.deepcopy(cells)))
    assert unsaid.verdict is Verdict.NOT_RUN
    assert unsaid.reason == "a claim about a way to train cannot rest on free-8, which is of one fixed network"
    other = judge_claim(claim_with(rule=rule, scope="network"), of(cells))
    assert other.reason == "a claim about one fixed network cannot rest on free-8, which is of networks trained anew"


def test_a_number_of_a_block_is_judged_by_its_drawings():
    """How many weights can be used exists for a block of drawings: it is made again from drawings drawn again."""
    for claim in ("pii-color", "pii-color-plain"):
        (judged_here,) = [one for one in judge_chapter("inversion") if one.claim.id == claim]
        (finding,) = judged_here.findings
        arms = [arm for _, arm in finding.contrast.expression.terms]
        recorded = [np.mean(list(judged_here.result.scalars("usable", arm).values())) for arm in arms]
        assert finding.interval.value == recorded[0] - recorded[1]
        assert (finding.interval.n, finding.interval.kind) == (128, "bootstrap over drawings within classes")
        assert finding.interval.low < finding.interval.value < finding.interval.high


def test_usable_weights_are_counted_as_they_were_recorded():
    result = load_result("inversion.scenes")
    for network in ("resnet", "resnet-plain"):
        arms = [f"sweep+color@{network}", f"sweep@{network}"]
        shares = np.array([[curve[:, 1] for curve in result.curves("V", arm).values()] for arm in arms])
        recorded = [list(result.scalars("usable", arm).values()) for arm in arms]
        assert usable_weights(shares[:, 0]).tolist() == [row[0] for row in recorded]
        each = np.stack([usable_weights(shares[:, seed]) for seed in range(shares.shape[1])], axis=1)
        assert each.tolist() == recorded
    assert usable_weights(np.zeros((2, 3, 6))).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_no_interval_of_one_network_is_of_trainings():
    """In the whole ledger Student's t stands beside trainings alone."""
    for chapter in catalog().chapters:
        for one in judge_chapter(chapter):
            for finding in one.findings:
                assert finding.interval.kind != BY_BLOCKS, one.claim.id
                assert (finding.interval.kind == BY_SEEDS) <= (one.claim.scope != "network"), one.claim.id


def agrees(finding):
    """Whether a part's interval and verdict are as the legend has them, said again in other words."""
    low, high, asked, within = (
        finding.interval.low,
        finding.interval.high,
        finding.contrast.threshold,
        (finding.contrast.within),
    )
    if finding.contrast.kind == "trials":
        return finding.verdict in (Verdict.HOLDS, Verdict.FAILS) and "exact binomial test" in finding.reason
    if asked is None:
        apart, inside = low > within or high < -within, -within <= low and high <= within
        either = inside or apart
        return {Verdict.SAME: inside, Verdict.FAILS: apart, Verdict.INCONCLUSIVE: not either}[finding.verdict]
    return {
        Verdict.HOLDS: lambda: low >= asked,
        Verdict.IN_DIRECTION: lambda: finding.contrast.directed and 0 < low < asked,
        Verdict.FAILS: lambda: high < asked and not (finding.contrast.directed and low > 0),
        Verdict.SAME: lambda: within is not None and -within <= low and high <= within,
        Verdict.INCONCLUSIVE: lambda: math.isinf(high) or low <= asked <= high,
    }[finding.verdict]()


def test_legend_and_rows_agree():
    for chapter in catalog().chapters:
        for one in judge_chapter(chapter):
            assert all(agrees(finding) for finding in one.findings), one.claim.id
            if one.findings and not one.reason.startswith("the condition"):
                verdicts = {finding.verdict for finding in one.findings}
                assert (one.verdict is Verdict.HOLDS) is (verdicts == {Verdict.HOLDS}), one.claim.id
                assert (one.verdict is Verdict.FAILS) is (Verdict.FAILS in verdicts), one.claim.id


def test_shares_of_seeds_use_newcombe(world):
    scalars = {"fgsm@strong": {"collapse": 1.0}, "n-fgsm@strong": {"collapse": [0.0, 1.0, 0.0, 0.0]}}
    rule = ["collapse(fgsm@strong) - collapse(n-fgsm@strong) >= 0.6"]
    found = judged(world, dict.fromkeys(scalars, 0.5), rule, interval="shares", scalars=scalars)
    interval = found.findings[0].interval
    assert (interval.low, interval.high, interval.kind) == (*newcombe(4, 4, 1, 4), NEWCOMBE)
    assert found.verdict is Verdict.IN_DIRECTION


def test_trials_are_pooled_and_tested_exactly(world):
    found = judged(world, {"free-8": 1.0, "natural": 0.3}, ["R(free-8) >= 0.999"], interval="trials")
    assert found.verdict is Verdict.HOLDS
    assert (found.findings[0].interval.value, found.findings[0].interval.kind) == (1, CLOPPER_PEARSON)
    found = judged(world, {"free-8": 0.99, "natural": 0.3}, ["R(free-8) >= 0.999"], interval="trials")
    assert found.verdict is Verdict.FAILS


def test_a_share_of_all_images_has_an_interval_nevertheless(world):
    found = judged(world, {"free-8": 1.0, "natural": 0.3}, ["R(free-8) >= 90 points"])
    interval = found.findings[0].interval
    assert (interval.value, interval.high, interval.kind) == (100, 100, WILSON)
    assert 90 < interval.low < 100


def test_numbers_a_seed_use_student(world):
    scalars = {"free-8": {"passes": [1.0, 2.0, 3.0, 4.0]}, "natural": {"passes": 1.0}}
    found = judged(world, dict.fromkeys(scalars, 0.5), ["passes(free-8) - passes(natural) >= 5"], scalars=scalars)
    assert found.findings[0].interval.value == 1.5
    assert found.verdict is Verdict.FAILS


@pytest.mark.parametrize(("condition", "met"), [("== 1", True), ("<= 1", True), (">= 1.5", False), ("== 2", False)])
def test_a_condition_that_is_not_met_leaves_the_claim_open(world, condition, met):
    found = judged(
        world,
        {"free-8": 0.7, "natural": 0.3},
        ["R(free-8) - R(natural) >= 20 points"],
        conditions=[f"passes_per_update(free-8) {condition}"],
        scalars={"free-8": {"passes_per_update": 1.0}},
    )
    assert found.verdict is (Verdict.HOLDS if met else Verdict.INCONCLUSIVE)
    assert ("is not met (1 against" in found.reason) is not met
    assert found.findings[0].interval.value > 20  # the measurement is shown all the same


def test_what_is_reported_is_not_judged(world):
    report = {"ratio": "passes(free-8) / passes(natural)", "difference": "(R(free-8) - R(natural)) points"}
    found = judged(
        world,
        {"free-8": 0.7, "natural": 0.3},
        ["R(free-8) - R(natural) >= 20 points"],
        report={**report, "missing": "train_seconds(free-8)"},
        scalars={"free-8": {"passes": 1.0}, "natural": {"passes": 8.0}},
    )
    assert found.reported["ratio"] == "0.125"
    assert found.reported["difference"].startswith("+4")
    assert found.reported["missing"] == "not recorded"


def test_a_reported_number_has_its_interval_over_seeds(world):
    cells = world.cells({"free-8": {"R": 0.7}, "natural": {"R": 0.3}}, scalars={"free-8": {"passes": 2.0}})
    for seed, cell in enumerate(cells["free-8"].values()):
        cell["scalars"]["passes"] = [1.0, 2.0, 6.0][seed % 3]
    values = [cell["scalars"]["passes"] for cell in cells["free-8"].values()]
    low, high = student_interval(values)
    rule = ["R(free-8) - R(natural) >= 20 points"]
    found = judge_claim(claim_with(rule=rule, report={"passes": "passes(free-8)"}), of(cells))
    said = f"{np.mean(values):.3g}, 95% interval {low:.3g} to {high:.3g}"
    assert found.reported["passes"] == said.replace("-", "−")


def test_nothing_is_judged_before_every_seed_is_in(world):
    cells = world.cells({"free-8": {"R": 0.7}, "natural": {"R": 0.3}})
    planned = {arm.name: arm for arm in world.experiment().arms}
    del cells["natural"][2]
    found = judge_claim(claim_with(), of(cells, planned))
    assert (found.verdict, found.reason) == (Verdict.NOT_RUN, "natural has 3 of 4 seeds so far")
    assert judge_claim(claim_with(), None).reason == "nothing is recorded yet"
    assert judge_claim(claim_with(not_run="no time"), of(cells)).reason == "no time"
    del cells["natural"]
    assert judge_claim(claim_with(), of(cells)).reason == "natural is not in the recording"


def test_why_a_claim_is_not_measured_is_about_its_own_arena(world):
    cells = world.cells({"free-8": {"R": 0.7}, "natural": {"R": 0.3}})
    claim = claim_with(not_run="no time", also=["scenes"], rule=["R(free-8) - R(natural) >= 20 points"])
    assert judge_claim(claim, of(cells)).reason == "no time"
    assert judge_claim(claim, of(cells), "scenes").verdict is Verdict.HOLDS


def test_a_measure_that_was_not_recorded_is_the_reason(world):
    found = judged(world, {"free-8": 0.7, "natural": 0.3}, ["worst(free-8) - worst(natural) >= 20 points"])
    assert found.verdict is Verdict.NOT_RUN
    assert found.reason.startswith("worst of free-8 was not recorded")


def test_different_test_images_cannot_be_paired(world):
    cells = world.cells({"free-8": {"R": 0.7}, "natural": {"R": 0.3}})
    cells["free-8"][0]["group"] = "tiny.v2/fold0"
    found = judge_claim(claim_with(), of(cells))
    assert found.verdict is Verdict.NOT_RUN
    assert "tested different images" in found.reason


def test_a_difference_of_numbers_is_told_as_it_is(world):
    cells = world.cells({"a": {"R": 0.5}, "b": {"R": 0.5}})
    for cell in every(cells):
        cell["values"] = {"radius": [0.75 if cell["arm"] == "a" else 0.5 + 0.25 * (cell["seed"] % 2)] * cell["n"]}
    found = difference(of(cells), "radius(a) - radius(b)", points=False)
    assert re.fullmatch(r"\+0\.12, 95% interval −0\.\d\d to 0\.\d\d", found)  # 0.25 in two of four seeds


def test_one_seed_is_never_enough(world):
    cells = world.cells({"free-8": {"R": 0.9}, "natural": {"R": 0.1}}, seeds=1)
    found = judge_claim(claim_with(), of(cells))
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "one seed gives no interval")
    said = f"{found.findings[0].interval.value:+.1f} points, no interval from one seed"
    assert difference(of(cells), "R(free-8) - R(natural)") == said
    assert math.isinf(found.findings[0].interval.high)


def test_cells_of_an_arm_that_has_changed_since_are_not_judged(world):
    cells = world.cells({"free-8": {"R": 0.7}, "natural": {"R": 0.3}})
    planned = {arm.name: arm for arm in world.experiment(lr=0.1).arms}
    found = judge_claim(claim_with(), of(cells, planned))
    assert found.verdict is Verdict.NOT_RUN
    assert found.reason == "free-8 was recorded with something else than it has now (lr was None, is 0.1)"


def test_a_damaged_file_is_the_reason_of_the_claims_that_need_it_alone(world, planned, tmp_path):
    world.record(tmp_path, {arm: {"N": 0.9, "R": 0.5, "worst": 0.4} for arm in world.RATES})
    path = arm_file("defenses.digits", "natural", tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"n": 200', b'"n": 201', 1))
    found = {one.claim.id: one for one in judge_chapter("defenses", tmp_path)}
    assert found["free-robust"].reason.startswith("digits/natural.jsonl, line 1: this was altered")
    assert found["free-strong"].verdict is not Verdict.NOT_RUN


def test_a_threshold_edited_after_it_was_fixed_is_noticed(world, planned, tmp_path):
    rates = {"free-8": {"R": 0.7}, "natural": {"R": 0.3}}
    world.record(tmp_path, rates)
    pin(claim_with(), tmp_path, "2026-01-01")
    kept = Pinned.of(claim_with(), "2026-01-01")
    assert judge_claim(claim_with(), load_result("defenses.digits", tmp_path), pinned=kept).rule_changed == ""
    edited = claim_with(rule=["R(free-8) - R(natural) >= 5 points"])
    found = judge_claim(edited, load_result("defenses.digits", tmp_path), pinned=kept)
    said = "changed since it was fixed on 2026-01-01; then it was `R(free-8) - R(natural) >= 20 points`"
    assert found.rule_changed == said
    assert dict(rows(found))["Rule"][-1] == said


@pytest.fixture
def planned(world, monkeypatch):
    """The miniature experiment in place of chapter 1's."""
    monkeypatch.setattr("thesis_kit.ledger.results.experiments", lambda chapter: {"digits": world.experiment()})


def test_a_chapter_is_judged_from_its_folder(world, planned, tmp_path):
    assert {one.verdict for one in judge_chapter("defenses", tmp_path)} == {Verdict.NOT_RUN}
    rates = {"natural": {"N": 0.95, "R": 0.3}, "free-8": {"N": 0.9, "R": 0.7}}
    scalars = {arm: {"passes_per_update": 1.0, "train_seconds": 2.0} for arm in rates}
    world.record(tmp_path, rates, scalars=scalars)
    verdicts = {one.claim.id: one.verdict for one in judge_chapter("defenses", tmp_path)}
    assert verdicts.pop("free-robust") is Verdict.HOLDS
    assert set(verdicts.values()) == {Verdict.NOT_RUN}


# --- many claims


@pytest.mark.parametrize(
    ("low", "high", "kind", "seeds", "expected"),
    [
        (0.5, 3.5, BY_IMAGES, 10, False),  # 2 ± 1.5 · 1.314 begins at 0.03
        (0.4, 3.6, BY_IMAGES, 10, True),  # 2 ± 1.6 · 1.314 begins at -0.10
        (0.5, 3.5, BY_SEEDS, 10, True),  # Student's t with 9 degrees widens by 3.250 / 2.262: it begins at -0.16
        (0.5, 3.5, BY_SEEDS, 100, False),  # by 2.626 / 1.984: it begins at 0.01
        (1.0, 3.0, BY_SEEDS, 3, True),  # by 9.925 / 4.303
        (-3.6, -0.4, BY_IMAGES, 10, True),
        (-3.5, -0.5, BY_IMAGES, 10, False),
        (-1.0, 5.0, BY_IMAGES, 10, False),  # undecided already
    ],
)
def test_a_decision_near_its_threshold_is_fragile(low, high, kind, seeds, expected):
    interval = Interval((low + high) / 2, low, high, 100, seeds, kind)
    contrast = parse_contrast("R(a) - R(b) >= 0 points", "items", "claim x")
    assert fragile(ContrastFinding(contrast, interval, {}, Verdict.HOLDS, "")) is expected


@pytest.mark.parametrize(("low", "high", "expected"), [(-2.0, 2.0, False), (-4.0, 4.0, True), (0.0, 4.8, True)])
def test_sameness_near_its_distance_is_fragile(low, high, expected):
    interval = Interval((low + high) / 2, low, high, 100, 0, "bootstrap over drawings within classes")
    contrast = parse_contrast("R(a) - R(b) >= 0 points or within 5", "items", "claim x")
    assert fragile(ContrastFinding(contrast, interval, {}, Verdict.SAME, "")) is expected


@pytest.mark.parametrize(("low", "expected"), [(0.2, True), (1.5, False)])
def test_a_direction_that_lies_near_zero_is_fragile(low, expected):
    interval = Interval(3.0, low, 5.8, 100, 0, BY_IMAGES)
    contrast = parse_contrast("R(a) - R(b) >= 20 points", "items", "claim x")
    assert fragile(ContrastFinding(contrast, interval, {}, Verdict.IN_DIRECTION, "")) is expected


def test_contrasts_are_counted(world):
    rule = ["R(free-8) - R(natural) >= 20 points", "R(free-8) - R(natural) >= 0 points"]
    two = judged(world, {"free-8": 0.7, "natural": 0.3}, rule)
    promised = judged(world, {"free-8": 1.0, "natural": 0.3}, ["R(free-8) >= 0.999"], interval="trials")
    assert len(contrasts([two, promised, judge_claim(claim_with(), None)])) == 2
