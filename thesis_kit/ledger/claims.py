"""Claims as data, and what the recorded results say about them.

A claim is a row of its chapter's ``claims.yml``: a statement, its origin, what the paper found, and a rule of one or
more contrasts with thresholds. What chapters share stands in ``common.yml``. ``judge_claim`` puts a claim beside a
result and computes the verdict; nobody types one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from thesis_kit.ledger.registry import titles
from thesis_kit.ledger.rules import (
    BadClaims,
    Condition,
    Contrast,
    Reported,
    parse_condition,
    parse_contrast,
    parse_report,
)
from thesis_kit.ledger.strict_yaml import check_kinds, placed, read_yaml
from thesis_kit.names import choose

COMMON = Path(__file__).with_name("common.yml")
CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
ORIGINS = {
    "thesis": "from the thesis",
    "related": "from related work",
    "later": "from later work",
    "ours": "our own",
}
STATUSES = {"seen": "checked against a published source", "recalled": "recalled, not verified"}
SCOPES = {"training": "a way to train", "kind": "a kind of network", "network": "one fixed network"}
LATE = {
    "rule": "its rule written when the outcomes were known",
    "interval": "its kind of interval chosen when the outcomes were known, until fresh starts decide",
    "both": "its rule and its kind of interval chosen when the outcomes were known, until fresh starts decide",
}
INTERVALS = ("items", "images", "scalars", "shares", "trials")
_PER = {"items": "image", "images": "image number", "scalars": "seed", "shares": "seed", "trials": "image"}


@dataclass(frozen=True)
class Paper:
    """What the source of a claim says, where, and whether we read it there."""

    text: str
    sources: tuple[str, ...]
    status: str


@dataclass(frozen=True)
class Claim:
    """One row of the ledger, without its measurement.

    A claim that waits for its arms has a ``plan``, sentences that fix what will be asked, in place of a rule. What was
    chosen when the outcomes were known is ``late`` (a key of ``LATE``, or empty); ``scope`` is what its sentence is
    about, a key of ``SCOPES``, and ``scopes`` the same by arena where it is another one there.
    """

    id: str
    chapter: str
    arena: str
    also: tuple[str, ...]
    origin: str
    statement: str
    paper: Paper
    rule: tuple[Contrast, ...]
    conditions: tuple[Condition, ...]
    report: tuple[Reported, ...]
    not_run: str | None
    plan: tuple[str, ...] = ()
    late: str = ""
    scope: str = "training"
    scopes: Mapping[str, str] = field(default_factory=dict)

    def scope_in(self, arena: str) -> str:
        """What the sentence is about in an arena."""
        return self.scopes.get(arena, self.scope)

    @property
    def background(self) -> str:
        """Where the claim comes from, in words."""
        return f"{ORIGINS[self.origin]}{f', {LATE[self.late]}' if self.late else ''}"

    @property
    def terms(self) -> list[tuple[str, str]]:
        """The (measure, arm) pairs that the verdict rests on."""
        expressions = [contrast.expression for contrast in self.rule]
        expressions += [side for condition in self.conditions for side in (condition.left, condition.right)]
        return list(dict.fromkeys(term for expression in expressions for term in expression.terms))

    @property
    def arms(self) -> list[str]:
        """The arms to run for this claim, what it only reports included."""
        reported = [arm for item in self.report for _, arm in item.expression.terms]
        return list(dict.fromkeys([*(arm for _, arm in self.terms), *reported]))


@dataclass(frozen=True)
class Chapter:
    """A chapter's number, title, and the names of its arms."""

    number: int
    title: str
    arms: Mapping[str, str]


@dataclass(frozen=True)
class Measure:
    """What a measure is called, what it is recorded for, and whose attacks' cost it carries.

    ``per`` is "image" (0 or 1 an image), "image number" or "seed". A number a seed may be made from another measure
    (``of``) by a function ("module:name"), which takes that measure's means over the drawings of a block under every
    condition, (arms, …, conditions), and returns a number for each, (arms, …).
    """

    title: str
    per: str
    attacks: tuple[str, ...] = ()
    of: str = ""
    by: str = ""


@dataclass(frozen=True)
class Catalog:
    """Everything in the claims files."""

    arenas: Mapping[str, str]
    sources: Mapping[str, str]
    measures: Mapping[str, Measure]
    chapters: Mapping[str, Chapter]
    claims: Mapping[str, Claim]

    def of(self, chapter: str) -> list[Claim]:
        """A chapter's claims in the order of its file."""
        choose(chapter, self.chapters, "chapter")
        return [claim for claim in self.claims.values() if claim.chapter == chapter]


Text = str | bytes
_CLAIM = {  # what each key of a claim holds
    "id": "text", "arena": "text", "also": "texts", "origin": "text", "statement": "text", "interval": "text",
    "conditions": "texts", "report": "named texts", "not_run": "text", "plan": "texts", "late": "text",
    "scope": "text", "scopes": "named texts",
}  # fmt: skip
_SHARED = {"sources": "named texts", "measures": "named tables"}
_CHAPTER = {"number": "number", "title": "text", "claims": "tables", **_SHARED}
_COMMON = {"arenas": "named texts", **_SHARED}
_MEASURE = {"title": "text", "per": "text", "attacks": "texts", "of": "text", "by": "text"}
_PAPER = {"text": "text", "source": "text or texts", "status": "text"}


def read_catalog(common: Text, chapters: Mapping[str, Text], arms: Mapping[str, Mapping[str, str]]) -> Catalog:
    """Read and validate claims: what chapters share, each chapter's own file, and its arms' titles, by chapter.

    Raises:
        BadClaims: a file cannot be read, or a key, origin, arena, arm, measure or source is unknown, of a wrong kind or
        stands twice, or a rule cannot be read; one sentence that names file and line.
    """
    shared = read_yaml(common, "common.yml")
    own = {name: read_yaml(text, _file(name)) for name, text in chapters.items()}
    _keys(shared, "common.yml", _COMMON, required=("arenas", "sources", "measures"))
    for name, row in own.items():
        _keys(row, _file(name), _CHAPTER, required=("number", "title", "claims"))
    own = dict(sorted(own.items(), key=lambda item: item[1]["number"]))
    tables = {"common.yml": shared, **{_file(name): row for name, row in own.items()}}
    catalog = Catalog(
        shared["arenas"],
        _joined(tables, "sources"),
        _measures(tables),
        {name: Chapter(row["number"], row["title"], arms.get(name, {})) for name, row in own.items()},
        {},
    )
    claims: dict[str, Claim] = {}
    for chapter, table in own.items():
        for row in table["claims"]:
            with placed(_file(chapter), row):
                claim = _claim(row, chapter, catalog)
                if claim.id in claims:
                    raise BadClaims(f"claim {claim.id} stands in the files twice: rename or remove one")
            claims[claim.id] = claim
    return replace(catalog, claims=claims)


def _file(chapter: str) -> str:
    return f"{chapter}/claims.yml"


def _joined(tables: Mapping[str, Any], key: str) -> dict[str, Any]:
    """One table of all files, in which no name stands twice."""
    found: dict[str, Any] = {}
    for file, table in tables.items():
        for name, row in (table.get(key) or {}).items():
            if name in found:
                raise BadClaims(f"{name} stands in {key} of {file} and before: rename or remove one")
            found[name] = row
    return found


@lru_cache(maxsize=1)
def catalog() -> Catalog:
    """The book's own claims, chapters in the order of their numbers."""
    common, files = claim_files()
    return read_catalog(common, files, {name: titles(name) for name in files})


def claim_files() -> tuple[bytes, dict[str, bytes]]:
    """The text that chapters share, and each chapter's own."""
    return COMMON.read_bytes(), {path.parent.name: path.read_bytes() for path in CHAPTERS.glob("*/claims.yml")}


def _keys(row: Any, what: str, kinds: Mapping[str, str | None], required: tuple[str, ...]) -> None:
    """Require a table with these keys and no others, each with what it holds."""
    if not isinstance(row, Mapping):
        raise BadClaims(f"{what} must be a table of keys and values, got {type(row).__name__}")
    for key in row:
        _known(key, kinds, f"key of {what}")
    if absent := [key for key in required if key not in row]:
        raise BadClaims(f"{what} lacks {', '.join(absent)}")
    check_kinds(row, kinds, what)


def _known(name: str, known: Any, kind: str) -> Any:
    try:
        return choose(name, known, kind)
    except ValueError as error:
        raise BadClaims(str(error)) from error


def _measures(tables: Mapping[str, Any]) -> dict[str, Measure]:
    _joined(tables, "measures")
    found = {}
    for file, table in tables.items():
        for name, row in table.get("measures", {}).items():
            with placed(file, row):
                found[name] = _measure(name, row)
    return found


def _measure(name: str, row: Mapping[str, Any]) -> Measure:
    _keys(row, f"measure {name}", _MEASURE, required=("title", "per"))
    _known(row["per"], tuple(dict.fromkeys(_PER.values())), f"value of per in measure {name}")
    if ("of" in row) is not ("by" in row):
        raise BadClaims(f"measure {name} needs both of and by, or neither: what it is made from, and what makes it")
    return Measure(row["title"], row["per"], tuple(row.get("attacks", ())), row.get("of", ""), row.get("by", ""))


def _claim(row: Mapping[str, Any], chapter: str, catalog: Catalog) -> Claim:
    name = f"claim {row.get('id', '?')}"
    kinds = {**_CLAIM, "rule": None, "paper": None}
    _keys(row, name, kinds, required=("id", "arena", "origin", "statement", "paper"))
    for arena in (row["arena"], *row.get("also", ())):
        _known(arena, catalog.arenas, f"arena of {name}")
    _known(row["origin"], ORIGINS, f"origin of {name}")
    interval = row.get("interval", "items")
    _known(interval, INTERVALS, f"interval of {name}")
    scope, late = row.get("scope", "training"), row.get("late", "")
    _known(scope, SCOPES, f"scope of {name}")
    for elsewhere, other in row.get("scopes", {}).items():
        _known(elsewhere, row.get("also", ()), f"arena under scopes of {name}")
        _known(other, SCOPES, f"scope of {name} in {elsewhere}")
    if late:
        _known(late, LATE, f"value of late in {name}")
    rule, plan = _rule_or_plan(row, name)
    claim = Claim(
        id=row["id"],
        chapter=chapter,
        arena=row["arena"],
        also=tuple(row.get("also", ())),
        origin=row["origin"],
        statement=row["statement"].strip(),
        paper=_paper(row["paper"], name, catalog),
        rule=tuple(parse_contrast(text, interval, name) for text in rule),
        conditions=tuple(parse_condition(text, name) for text in row.get("conditions", ())),
        report=tuple(parse_report(title, text, name) for title, text in row.get("report", {}).items()),
        not_run=row.get("not_run"),
        plan=plan,
        late=late,
        scope=scope,
        scopes=row.get("scopes", {}),
    )
    _check_terms(claim, catalog.chapters[chapter], catalog, name)
    return claim


def _rule_or_plan(row: Mapping[str, Any], name: str) -> tuple[list[str], tuple[str, ...]]:
    """The contrasts of a claim, or, where no arm exists to write them with, what is planned and why it has not run."""
    if "plan" not in row:
        if not isinstance(row.get("rule"), list) or not row["rule"]:
            raise BadClaims(f"{name} needs a list of at least one contrast under rule")
        check_kinds(row, {"rule": "texts"}, name)
        return row["rule"], ()
    if not isinstance(row["plan"], list) or not row["plan"]:
        raise BadClaims(f"{name} needs a list of at least one sentence under plan")
    if said := [key for key in ("rule", "conditions", "report") if key in row]:
        raise BadClaims(f"{name} has a plan and {said[0]}: a plan stands in place of them until its arms exist")
    if not row.get("not_run"):
        raise BadClaims(f"{name} has a plan: say under not_run why there is no measurement yet")
    return [], tuple(row["plan"])


def _paper(row: Any, name: str, catalog: Catalog) -> Paper:
    _keys(row, f"paper of {name}", _PAPER, required=("text", "source", "status"))
    sources = tuple([row["source"]] if isinstance(row["source"], str) else row["source"])
    for source in sources:
        _known(source, catalog.sources, f"source of {name}")
    _known(row["status"], STATUSES, f"status of {name}")
    return Paper(row["text"].strip(), sources, row["status"])


def _check_terms(claim: Claim, chapter: Chapter, catalog: Catalog, name: str) -> None:
    """Every measure and arm must be known, and its interval be of the kind for what is recorded."""
    terms = [*claim.terms, *(term for item in claim.report for term in item.expression.terms)]
    for measure, arm in terms:
        _known(measure, catalog.measures, f"measure of {name}")
        _known(arm, chapter.arms, f"arm of {name}")
    for contrast in claim.rule:
        for measure, _ in contrast.expression.terms:
            per = catalog.measures[measure].per
            if per != _PER[contrast.kind]:
                kinds = " or ".join(kind for kind, of in _PER.items() if of == per)
                hint = {"image": "add points"}.get(per, f"leave out points and set interval to {kinds}")
                raise BadClaims(f"the rule {contrast.text!r} of {name} uses {measure}, recorded per {per}: {hint}")
