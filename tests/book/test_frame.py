"""Around the chapters: the cover's findings come from the results, the map leads somewhere, words are said once."""

from __future__ import annotations

import importlib
import re

import pytest
import yaml

from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.results import load_result
from thesis_kit.show import cover
from tools.build_notebooks import ROOT

pytestmark = pytest.mark.book
BOOK = ROOT / "book"


def page(name: str) -> str:
    return (BOOK / f"{name}.md").read_text(encoding="utf-8")


def test_the_cover_is_in_sync():
    assert page("index") == cover.with_cards(page("index")), "run `thesis-kit claims cover --write`"


def test_a_finding_has_the_recorded_numbers():
    first, _, third, *rest = cover.cards()
    digits, scenes = load_result("defenses.digits"), load_result("defenses.scenes")
    for result, arm in ((digits, "natural"), (digits, "free-8"), (scenes, "robust-head")):
        assert f"{100 * result.mean('R', arm).value:.0f}%" in first.finding
    squeezed = load_result("regularization.digits")
    gained = 100 * (squeezed.mean("worst", "lsq").value - squeezed.mean("worst", "natural").value)
    assert f"against a strong ensemble {gained:.0f} are left" in third.finding
    assert [card.number for card in (first, third, *rest)] == [1, 3, 4, 5, 6, 7]
    alike = load_result("features.scenes").mean("monosemanticity_hidden_last", "units@vit").value
    assert f"wide units in late blocks {alike:.2f}" in rest[1].finding
    selective = load_result("clip.scenes").mean("selective", "units@captions").value
    assert f"{100 * selective:.0f}% of its late units" in rest[2].finding
    words = 100 * load_result("sonification.real").mean("content_last", "probe@trained").value
    assert f"and {words:.0f}%" in rest[3].finding


def test_without_results_every_chapter_is_to_come(tmp_path):
    assert {(card.finding, card.page) for card in cover.cards(tmp_path)} == {(None, None)}
    assert cover.card_block(tmp_path).count("To come.") == len(cover.PAGES) == 7
    assert all((BOOK / f"{name}.ipynb").exists() for name in cover.PAGES.values())


def test_every_measured_claim_has_its_sign_on_the_cover_and_every_sign_a_row():
    strip = re.findall(r'<a href="ledger.html#([\w.-]+)" class="tk-sign', page("index"))
    rows = re.findall(r'<tr role="row" id="([\w.-]+)" [^>]*data-verdict="(\w+)"', page("ledger"))
    assert strip == [anchor for anchor, verdict in rows if verdict != "NOT_RUN"]
    waiting = re.findall(r"<span>(\d+) claims? not measured", page("index"))
    assert sum(map(int, waiting)) == len(rows) - len(strip)


def test_only_what_stands_between_the_marks_is_written(tmp_path):
    around = f"before\n{cover.BEGIN}\nold\n{cover.END}\nafter\n"
    written = cover.with_cards(around, tmp_path)
    assert written.startswith(f"before\n{cover.BEGIN}\n")
    assert written.endswith(f"{cover.END}\nafter\n")
    assert "old" not in written
    pictured = cover.with_cards("\n".join(cover.PICTURE) + around, tmp_path)
    assert pictured.count("<svg") == written.count("<svg") + 1
    assert cover.with_cards(pictured, tmp_path) == pictured
    assert cover.with_cards(written, tmp_path) == written
    for without in (around.replace(cover.END, ""), around + cover.BEGIN):
        with pytest.raises(ValueError, match="once each: put them where the cards belong"):
            cover.with_cards(without, tmp_path)


def test_the_map_names_what_exists():
    named = re.findall(r"\{py:obj\}`~([\w.]+)`", page("map"))
    assert len(named) > 10
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    claims = re.findall(r"\]\(claim-([\w.-]+)\)", page("map"))
    assert len(claims) > 10
    assert set(claims) <= set(catalog().claims)


def test_every_paper_of_the_thesis_is_on_the_map():
    bibliography = (BOOK / "references.bib").read_text(encoding="utf-8")
    part = bibliography.partition("% The thesis's own papers")[2].partition("\n% ")[0]
    assert set(re.findall(r"^@\w+\{(\w+),", part, re.M)) == set(re.findall(r"\{cite:p\}`(\w+)`", page("map")))


def test_words_stand_once_and_in_order():
    words = re.findall(r"^(\S.*)$", page("glossary").partition("```{glossary}\n")[2].partition("```")[0], re.M)
    assert words == sorted(set(words), key=str.lower)
    assert {"arena", "arm", "pass", "V", "robust accuracy", "verdict"} <= set(words)


def test_every_measure_that_the_glossary_names_is_one_of_the_rules():
    table = page("glossary").partition("Measures, as rules")[2]
    named = set(re.findall(r"^\| (.+?) \|", table, re.M)) - {"name", "---"}
    codes = {code for cell in named for code in re.findall(r"`(\w+)`", cell)} - {"V"}
    assert codes <= set(catalog().measures)


def test_the_version_to_cite_is_the_present_one():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert f"version = {{{cited['version']}}}" in page("cite")
    assert cited["title"].replace("_", r"\_") in " ".join(page("cite").split())
