"""The ledger page is what claims and results say now, it can be read by everyone, and nobody typed a verdict."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from thesis_kit import attacks, checks
from thesis_kit.data import data_sets
from thesis_kit.ledger import results
from thesis_kit.ledger.cells import arm_file, read_rows, write_rows
from thesis_kit.ledger.claims import catalog, claim_files
from thesis_kit.ledger.judging import judge_chapter
from thesis_kit.ledger.statistics import Interval, Verdict
from thesis_kit.models.build import BUILDERS
from thesis_kit.show.claim_rows import COLORS, MEANINGS, SIGNS
from thesis_kit.show.interval_bar import interval_bar, small_bar
from thesis_kit.show.ledger_page import ledger_page
from thesis_kit.show.status_page import status_page
from thesis_kit.show.verdicts import claims_table

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *sorted((ROOT / "book" / "src").glob("*.py")),
    *sorted(path for path in (ROOT / "book").glob("*.md") if path.name not in ("ledger.md", "status.md")),
    ROOT / "README.md",
]
WORDS = "|".join(  # "the same" is said of much else
    verdict.value for verdict in sorted(Verdict, key=lambda one: -len(one.value)) if verdict is not Verdict.SAME
)


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Recorded results in which one claim holds, one fails, and most wait for their arms."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "worlds"))
    import tiny_experiment

    rates = {
        "natural": {"N": 0.95, "R": 0.3, "worst": 0.2},
        "free-8": {"N": 0.9, "R": 0.7, "worst": 0.65},
        "pgd-7": {"N": 0.9, "R": 0.72, "worst": 0.4},
    }
    scalars = {arm: {"passes_per_update": 1.0, "passes": 100.0, "train_seconds": 2.0} for arm in rates}
    tiny_experiment.record(tmp_path, rates, scalars=scalars)
    experiment = tiny_experiment.experiment()
    monkeypatch.setattr("thesis_kit.ledger.results.experiments", lambda chapter: {"digits": experiment})
    return tmp_path


@pytest.fixture
def additions(monkeypatch):
    """A new builder, data set and attack, an arm more in every arena, and other words for an error."""
    monkeypatch.setitem(BUILDERS, "another_network", lambda **options: None)
    monkeypatch.setitem(data_sets.SETS, "another world", lambda seed, **options: None)
    monkeypatch.setattr(attacks, "another_attack", lambda model, x, y, **knobs: x, raising=False)
    monkeypatch.setattr(checks, "check_images", lambda x, **knobs: None)
    found = results.experiments

    def larger(chapter):
        return {
            arena: replace(one, arms=(*one.arms, replace(one.arms[0], name="another arm")))
            for arena, one in found(chapter).items()
        }

    monkeypatch.setattr(results, "experiments", larger)
    assert "another arm" in results.load_result("defenses.digits").planned


@pytest.mark.usefixtures("additions")
def test_the_page_is_in_sync():
    page = (ROOT / "book" / "ledger.md").read_text(encoding="utf-8")
    assert page == ledger_page(), "run `thesis-kit claims ledger --write`"


@pytest.mark.usefixtures("additions")
def test_the_status_page_is_in_sync():
    page = (ROOT / "book" / "status.md").read_text(encoding="utf-8")
    assert page == status_page(), "run `thesis-kit claims status --write`"


def test_the_status_page_counts_what_the_ledger_lists(folder):
    page = status_page(folder)
    table = page.partition("## Recordings")[0]
    counted = [int(number) for number in re.findall(r">(\d+)</td>", table)]
    assert sum(counted) == ledger_page(folder).count('<tr role="row" id="claim-')
    assert "Defenses, digits" in page
    assert "2026-01-01" in page


def test_no_verdict_is_typed_in_the_claims():
    common, chapters = claim_files()
    for text in (common, *chapters.values()):
        assert re.findall(rf"\b({WORDS})\b", text.decode()) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.exists()], ids=lambda path: path.name)
def test_no_verdict_is_typed_beside_a_claim(path):
    told = [re.escape(name) if "-" in name else f"`{re.escape(name)}`" for name in catalog().claims]  # some are words
    claims = "|".join(told)
    for paragraph in re.split(r"\n(?:#?\s*\n)+", path.read_text(encoding="utf-8")):
        if 'class="tk-strip"' in paragraph:  # `thesis-kit claims cover` writes it
            continue
        named = re.search(rf"(?<![\w-])({claims})(?![\w-])", paragraph)
        assert not (named and re.search(rf"\b({WORDS})\b", paragraph)), f"a typed verdict in {path.name}: {paragraph}"


def works() -> dict[str, tuple[str, str]]:
    """Of every work of the bibliography, by its key, authors and year as a citation names them: "A et al.", "2019"."""
    found = {}
    for entry in re.split(r"^(?=@)", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), flags=re.M)[1:]:
        key = re.match(r"@\w+\{([^,]+),", entry)[1]
        fields = dict(re.findall(r"^ *(author|year) *= *\{(.+)\},?$", entry, re.M))
        names = [name.split(",")[0].strip("{} ") for name in fields["author"].split(" and ")]
        found[key] = (f"{names[0]} et al." if len(names) > 2 else " and ".join(names), fields["year"])
    return found


def test_every_source_is_in_the_bibliography_and_named_as_it_is_cited():
    known = works()
    for key, said in catalog().sources.items():
        assert said == " ".join(known[key]), key


def test_no_two_works_are_cited_alike():
    """Where authors and year are the same, a letter behind the year tells them apart."""
    assert len(set(works().values())) == len(works()) > 50


def test_every_verdict_has_its_own_word_sign_and_meaning():
    for table in (SIGNS, COLORS, MEANINGS):
        assert set(table) == set(Verdict)
        assert len(set(table.values())) == len(Verdict)


def row_of(page: str, anchor: str) -> str:
    """One row of the ledger's table."""
    (row,) = re.findall(rf'<tr role="row" id="{anchor}" .*?</tr>', page, re.DOTALL)
    return row


def test_the_page_says_what_a_reader_needs(folder):
    page = ledger_page(folder)
    row = row_of(page, "claim-free-robust")
    for needed in (
        "✓\N{NO-BREAK SPACE}holds</span>",
        " points</strong>, 95% interval",
        "asked: at least 20",
        "400 images, 4 seeds",
        "Shafahi et al. 2019a (checked against a published source)",
        "R(free-8) - R(natural) &gt;= 20 points</code>",
        "<code>free-robust</code>, from the thesis",
        'data-chapter="1" data-verdict="HOLDS" data-origin="thesis" data-arena="digits"',
    ):
        assert needed in row, needed
    assert "✗\N{NO-BREAK SPACE}does not hold here" in row_of(page, "claim-free-strong")
    assert "nothing is recorded yet" in row_of(page, "claim-low-data")
    assert page.count('<tr role="row" id="claim-') == len(catalog().claims)
    assert "{cite:p}`shafahi2019free," in page
    assert page.count("Recorded on 2026-01-01 on test (1 cores, one thread a run) with torch 2") == 1
    assert "has changed since" not in page


def test_claims_stand_in_the_order_of_the_book_and_arenas_without_a_measurement_are_not_named(folder):
    page = ledger_page(folder)
    chapters = [int(number) for number in re.findall(r' data-chapter="(\d)"', page)]
    assert chapters == sorted(chapters)
    assert set(chapters) == {chapter.number for chapter in catalog().chapters.values()}
    places = [int(number) for number in re.findall(r' data-place="(\d+)"', page)]
    assert places == list(range(len(places)))
    assert "\ndigits\n: " in page
    assert "\nspeech\n: " not in page


def test_every_filter_offers_what_the_rows_have(folder):
    page = ledger_page(folder)
    for kind in ("chapter", "verdict", "origin", "arena"):
        (offered,) = re.findall(rf'<select name="{kind}">(.*?)</select>', page)
        values = set(re.findall(r'value="([^"]*)"', offered))
        assert {"", *re.findall(rf' data-{kind}="([^"]*)"', page)} <= values


@pytest.mark.parametrize(
    ("chosen", "what"),
    [({"lr": 0.1}, "learning rates"), ({"strength": 3.0}, "strengths of distillation"), ({"width": 4}, "settings")],
)
def test_the_budget_stands_beside_the_number(folder, chosen, what):
    cost = {"attacked": 10, "forward": 40, "backward": 40, "forward_images": 200, "backward_images": 190}
    budget = {"train": {"forward": 1000, "backward": 1000}, "PGD-20": cost, "Square": cost}
    for arm in ("natural", "free-8"):
        path = arm_file("defenses.digits", arm, folder)
        more = {"budget": budget, "trials": [{}, {}, {}], "chosen": chosen}
        write_rows(path, [{**row, **more} for row in read_rows(path)])
    row = row_of(ledger_page(folder), "claim-free-robust")
    training = f"1,000 backward passes in training, the best of 3 {what} on validation images"
    assert f">Free, m = 8: {training}</dd>" in row
    assert f">ordinary training: {training}</dd>" in row
    assert ">PGD-20: 20 forward and 19 backward passes an image attacked</dd>" in row
    assert "Square" not in row  # the claim does not rest on it


def test_links_lead_to_claims(folder):
    page = ledger_page(folder)
    links = set(re.findall(r'<a href="#([\w.-]+)">', page))
    assert links <= set(re.findall(r'id="([\w.-]+)"', page))


class Balanced(HTMLParser):
    """Counts what stays open, and collects the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("circle", "path", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_table_in_a_notebook(folder):
    table = claims_table("defenses", folder)
    reader = Balanced()
    reader.feed(table._repr_html_())
    assert reader.open == []
    for needed in ("✓\N{NO-BREAK SPACE}holds", "✗\N{NO-BREAK SPACE}does not hold here", "Shafahi et al. 2019a", "Rule"):
        assert needed in reader.text, needed
    assert "[@" not in reader.text
    assert "**" not in reader.text
    assert table._repr_html_().count("<tbody") == len({one.claim.id for one in table.judged})


def test_the_page_is_whole(folder):
    reader = Balanced()
    reader.feed(re.search(r"```{raw} html\n(.*?)\n```", ledger_page(folder), re.DOTALL)[1])
    assert reader.open == []


@pytest.mark.parametrize("value", [-30.0, -1.0, 0.0, 12.0, 40.0])
@pytest.mark.parametrize("threshold", [-3.0, 0.0, 20.0])
def test_a_small_bar_stays_inside_its_cell(value, threshold):
    drawn = small_bar(Interval(value, value - 4, value + 4, 100, 5, "x"), (threshold,), points=True)
    said = f"Value {value:g} points, interval {value - 4:g} to".replace("-", "−")
    assert f'aria-label="{said}' in drawn
    assert all(0 <= float(x) <= 132 for x in re.findall(r'd="M([\d.-]+)', drawn))
    assert drawn.count("stroke-dasharray") == (threshold != 0)


def test_a_small_bar_shows_both_ends_of_sameness():
    drawn = small_bar(Interval(1.0, -2.0, 4.0, 100, 5, "x"), (-5.0, 5.0), points=True)
    assert 'interval −2 to 4, thresholds −5 and 5"' in drawn
    assert drawn.count("stroke-dasharray") == 2


def test_every_part_shows_its_verdict_and_the_row_says_how_many_hold():
    """Of the recorded results: every row of several parts that do not all hold."""
    page, split = ledger_page(), 0
    for chapter in catalog().chapters:
        for one in judge_chapter(chapter):
            if not one.parts or one.arena != one.claim.arena:
                continue
            row, split = row_of(page, f"claim-{one.claim.id}"), split + 1
            assert f"<small>{one.parts}</small>" in row, one.claim.id
            shown = re.findall(r'<div class="tk-part"><span style="[^"]*" title="([^"]*)">', row)
            assert shown == [finding.verdict.value for finding in one.findings]
    assert split >= 5


def test_a_promised_probability_says_its_rule():
    row = row_of(ledger_page(), "claim-sound-smoothing")
    assert "asked: 0.999, unless a test refutes it" in row
    assert "0 of 120 trials failed where 0.1% may; exact binomial test" in row
    assert "asked: at least" not in row


def test_lines_and_table_where_there_is_no_html(folder):
    table = claims_table("defenses", folder)
    lines = table.verdict_lines()
    assert lines[0] == "free-robust (digits): holds"
    assert lines[-1] == "low-data (scenes): not run: nothing is recorded yet"
    assert repr(table) == "\n".join(lines)
    assert table._repr_markdown_().count("\n") == len(lines) + 1


def test_an_interval_is_drawn_and_told():
    drawn = interval_bar(Interval(12.0, 8.0, 16.0, 100, 5, "x"), 20.0, points=True)
    assert 'aria-label="Value 12 points, interval 8 to 16, threshold 20"' in drawn
    places = [float(x) for x in re.findall(r'd="M([\d.]+)', drawn)]
    assert all(0 <= place <= 420 for place in places)
    assert interval_bar(Interval(1.0, float("-inf"), float("inf"), 0, 1, "x"), 0.0, points=False) == ""
    assert "threshold −3" in interval_bar(Interval(-1.0, -2.0, 0.0, 100, 5, "x"), -3.0, points=True)
