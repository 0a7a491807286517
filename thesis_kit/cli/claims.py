"""``claims …``: what the book claims, what was measured, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from thesis_kit.cli.pages import BOOK, Check, Write, out, publish
from thesis_kit.cli.stopping import kept

if TYPE_CHECKING:
    from thesis_kit.ledger.arm import Arm, Experiment
    from thesis_kit.ledger.claims import Claim
    from thesis_kit.ledger.judging import Judged
    from thesis_kit.ledger.results import Result

claims = typer.Typer(no_args_is_help=True, help="What the book claims, what was measured, and the verdicts.")

BOOK_LEDGER, BOOK_COVER, BOOK_STATUS = BOOK / "ledger.md", BOOK / "index.md", BOOK / "status.md"
Package = Annotated[bool, typer.Option("--package", help="Write the package's own results, as the book's makers do.")]
Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="One claim; all of them if left out.")]
Folder = Annotated[
    Path | None, typer.Option("--results", "--folder", help="Folder of results; the package's own if left out.")
]


@claims.command("list")
def list_claims(folder: Folder = None) -> None:
    """Every claim with its verdict."""
    from thesis_kit.show.claim_rows import SIGNS

    table = Table("claim", "arena", "origin", "verdict", box=None, pad_edge=False)
    for judged in _all_judged(folder):
        verdict = f"{SIGNS[judged.verdict]} {judged.said}"
        table.add_row(judged.claim.id, judged.arena, judged.claim.origin, verdict)
    out.print(table)


@claims.command()
def show(claim_id: Id = None, folder: Folder = None) -> None:
    """One claim in full, or all of them: rule, source, measurement, verdict, budget."""
    chosen = None if claim_id is None else _claim(claim_id)
    for judged in _all_judged(folder):
        if chosen in (None, judged.claim):
            _print_claim(judged)
            if chosen is not None:
                _print_makers(judged)


@claims.command()
def ledger(
    write: Write = False,
    check: Check = False,
    page: Annotated[Path, typer.Option(help="The page; book/ledger.md of the checkout if left out.")] = BOOK_LEDGER,
    folder: Folder = None,
) -> None:
    """Print the ledger page, write it into the book, or check that the book's is up to date."""
    from thesis_kit.show.ledger_page import ledger_page

    publish(ledger_page(folder), page, write, check, "claims and results say", "thesis-kit claims ledger --write")


@claims.command()
def cover(
    write: Write = False,
    check: Check = False,
    page: Annotated[Path, typer.Option(help="The page; book/index.md of the checkout if left out.")] = BOOK_COVER,
    folder: Folder = None,
) -> None:
    """Print the book's cover with the findings of its chapters, write it, or check that the book's is up to date."""
    from thesis_kit.show.cover import with_cards

    if not page.exists():
        raise ValueError(f"there is no page {page} to put the cards into: run this in a checkout, or give --page")
    text = with_cards(page.read_text(encoding="utf-8"), folder)
    publish(text, page, write, check, "results say", "thesis-kit claims cover --write")


@claims.command()
def status(
    write: Write = False,
    check: Check = False,
    page: Annotated[Path, typer.Option(help="The page; book/status.md of the checkout if left out.")] = BOOK_STATUS,
    folder: Folder = None,
) -> None:
    """Print the status page, write it into the book, or check that the book's is up to date."""
    from thesis_kit.show.status_page import status_page

    publish(status_page(folder), page, write, check, "claims and results say", "thesis-kit claims status --write")


@claims.command()
def run(
    claim_id: Id = None,
    arena: Annotated[str | None, typer.Option(help="Measure in this arena; each claim's own if left out.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one processor core each.")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what is recorded and measure it again.")] = False,
    folder: Annotated[Path, typer.Option("--results", "--folder", help="Folder to record in.")] = Path("results"),
    package: Package = False,
) -> None:
    """Measure what is missing behind one claim or all of them, and say what the claims come to.

    Finished runs are kept at once: stopped or killed, the same command goes on.
    """
    where = None if package else folder
    place = "the package's own results" if package else f"{folder}"
    kept_runs = f"finished runs are kept in {place}, and the same command goes on from there"
    with kept(lambda: kept_runs if package or any(folder.glob("*/*/*.jsonl")) else "nothing was measured yet"):
        from thesis_kit.checks import choose
        from thesis_kit.ledger.claims import catalog

        chosen = list(catalog().claims.values()) if claim_id is None else [_claim(claim_id)]
        if arena is not None:
            choose(arena, catalog().arenas, "arena")
        campaign = _Campaign(arena, jobs, restart, where)
        for claim in chosen:
            campaign.judge(claim)
        if claim_id is None:
            campaign.finish()
        if not package and campaign.places:
            shown = " ".join(["thesis-kit claims show", *([claim_id] if claim_id else []), f"--results {folder}"])
            out.print(f"recorded in {folder}: `{shown}` shows it; the book's own results are as they were")


@dataclass
class _Campaign:
    """One call of ``claims run``: its options, the arms already started over, and the experiments it came across."""

    arena: str | None
    jobs: int
    restart: bool
    folder: Path | None
    fresh: set[tuple[str, str]] = field(default_factory=set)
    places: dict[tuple[str, str], None] = field(default_factory=dict)

    def judge(self, claim: Claim) -> None:
        """Measure a claim's missing runs and print its verdict."""
        from thesis_kit.ledger.judging import judge_claim
        from thesis_kit.ledger.pinned import pin
        from thesis_kit.show.claim_rows import SIGNS

        arenas = (claim.arena, *claim.also)
        where = self.arena or claim.arena
        if claim.not_run or where not in arenas:
            why = claim.not_run or f"it is measured in {', '.join(arenas)}"
            _headed(claim.id, f" ({where}): not run: {why}")
            return
        pin(claim, self.folder)  # before it is measured
        judged = judge_claim(claim, self.measure(claim.id, claim.chapter, where, claim.arms), where)
        self.places[claim.chapter, where] = None
        out.print(f"  {SIGNS[judged.verdict]} {judged.said}: {judged.reason}")

    def finish(self) -> None:
        """Measure the arms that no claim rests on but a figure shows."""
        for chapter, where in self.places:
            self.measure(f"figures of {chapter}", chapter, where, None)

    def measure(self, what: str, chapter: str, arena: str, arms: list[str] | None) -> Result:
        """Run an experiment's arms (None: all); on --restart each starts over once, however many claims share it.

        An arm that this arena does not have is left out: a claim may report it in another arena, and where its rule
        rests on it, its verdict says that it is not in the recording.
        """
        from thesis_kit.ledger.registry import find
        from thesis_kit.ledger.runner import cells_left, duration, run_experiment, start_over

        experiment = find(chapter, arena)
        arms = experiment.names if arms is None else [arm for arm in arms if arm in experiment.names]
        stale = [arm for arm in arms if (experiment.id, arm) not in self.fresh] if self.restart else []
        if stale:
            start_over(experiment, stale, folder=self.folder)
            self.fresh.update((experiment.id, arm) for arm in stale)
        todo, seconds = cells_left(experiment, arms, folder=self.folder)
        planned = sum(len(experiment.arm(arm).seeds) for arm in arms)
        known = "" if not todo or seconds is None else f", about {duration(seconds / min(self.jobs, len(todo)))}"
        time = f"{len(todo)} to go{known}" if todo else "nothing to do"
        _headed(what, f" ({arena}): {planned - len(todo)} of {planned} runs recorded, {time}")
        return run_experiment(experiment, jobs=self.jobs, only_arms=arms, progress=_indented, folder=self.folder)


@claims.command()
def verify(
    claim_id: Id = None,
    arena: Annotated[str | None, typer.Option(help="Verify this arena; the claim's own, or all, if left out.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All recorded runs, not one of every arm.")] = False,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; may be given several times.")] = None,
    seed: Annotated[int | None, typer.Option(help="This seed, where it is recorded.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one processor core each.")] = 1,
    folder: Folder = None,
    package: Package = False,
) -> None:
    """Measure recorded runs again with the present code: do they come out bit by bit, or where their seeds lie?

    What agrees is noted beside the recordings of --results (or, with --package, the package's own), which stay as they
    are. If a run does not agree, the exit code is 1.
    """
    if everything and seed is not None:
        raise ValueError("--all and --seed exclude each other: give one of them")
    note, found = package or folder is not None, []
    noted = _notes(folder)
    with kept(lambda: f"{'what agreed so far is noted, and ' * noted()}no recording was changed"):
        from thesis_kit.ledger.reproducing import reproduce

        places = _recorded_experiments(claim_id, arena, folder)
        for experiment, cells in _cells_to_verify(places, folder, arm, seed=seed, everything=everything):
            _headed(experiment.id)
            found += reproduce(experiment, cells, jobs=jobs, progress=_indented, folder=folder, note=note)
    same, agree = sum(one.exactly for one in found), sum(one.agrees for one in found)
    _indented(f"{len(found)} measured again: {same} the same bit by bit, {agree - same} where their seeds lie")
    if agree < len(found):
        outside = ", ".join(f"{one.arm} (seed {one.seed})" for one in found if not one.agrees)
        _indented(f"outside: {outside}: find the change that did it, or measure again with `claims run --restart`")
        raise typer.Exit(1)
    if not note:
        _indented("nothing was noted in the package's own results: --package does that")


def _notes(folder: Path | None) -> Callable[[], bool]:
    """A function that tells whether something has been noted since beside the recordings."""
    place = BOOK.parent / "thesis_kit" / "chapters" if folder is None else folder

    def states() -> list[tuple[Path, int]]:
        return sorted((path, path.stat().st_mtime_ns) for path in place.rglob("reproduced.jsonl"))

    before = states()
    return lambda: states() != before


def _recorded_experiments(
    claim_id: str | None, arena: str | None, folder: Path | None
) -> list[tuple[Experiment, list[str] | None]]:
    """The experiment a claim rests on with the claim's arms, or every recorded one, in all its arms (None)."""
    from thesis_kit.checks import choose
    from thesis_kit.ledger.claims import catalog
    from thesis_kit.ledger.registry import find
    from thesis_kit.ledger.results import NotRecorded, available

    if arena is not None:
        choose(arena, catalog().arenas, "arena")
    if claim_id is not None:
        claim = choose(claim_id, catalog().claims, "claim")
        return [(find(claim.chapter, arena or claim.arena), claim.arms)]
    names = [name.split(".") for name in available(folder)]
    found = [(find(chapter, where), None) for chapter, where in names if arena in (None, where)]
    if not found:
        raise NotRecorded("nothing is recorded there yet: measure with `thesis-kit claims run`")
    return found


def _cells_to_verify(
    places: list[tuple[Experiment, list[str] | None]], folder: Path | None, named: list[str] | None, **which: Any
) -> list[tuple[Experiment, list[tuple[Arm, int]]]]:
    """What is to be measured again in every place that has it: all that was asked for is there before anything runs."""
    from thesis_kit.checks import choose
    from thesis_kit.ledger.reproducing import choose_cells
    from thesis_kit.ledger.results import NotRecorded, load_result

    results = [load_result(experiment.id, folder) for experiment, _ in places]
    there = [
        [name for name in experiment.names if result.cells.get(name)]
        for (experiment, _), result in zip(places, results, strict=True)
    ]
    for name in named or ():
        choose(name, dict.fromkeys(one for names in there for one in names), "recorded arm")
    found, missed = [], NotRecorded("no such run is recorded: choose another claim, or leave it out")
    for (experiment, arms), result, names in zip(places, results, there, strict=True):
        chosen = [name for name in named or arms or names if name in names]
        try:
            if chosen:
                found.append((experiment, choose_cells(experiment, result, arms=chosen, **which)))
        except NotRecorded as error:  # none of that seed here
            missed = error
    if not found:
        raise missed
    return found


def _indented(sentence: str) -> None:
    out.print(f"  {sentence}")


def _headed(head: str, rest: str = "") -> None:
    out.print(Text.assemble((head, "bold"), rest))


def _claim(name: str) -> Claim:
    from thesis_kit.checks import choose
    from thesis_kit.ledger.claims import catalog

    return choose(name, catalog().claims, "claim")


def _all_judged(folder: Path | None) -> list[Judged]:
    from thesis_kit.ledger.claims import catalog
    from thesis_kit.ledger.judging import judge_chapter

    return [judged for chapter in catalog().chapters for judged in judge_chapter(chapter, folder)]


def _print_claim(judged: Judged) -> None:
    from thesis_kit.ledger.claims import catalog
    from thesis_kit.show.claim_rows import rows

    _headed(judged.claim.id, f" ({judged.arena})  {judged.claim.statement}")
    for label, texts in rows(judged):
        for text in texts:
            plain = text.replace("**", "").replace("`", "")
            for source, name in catalog().sources.items():
                plain = plain.replace(f"[@{source}]", f"[{name}]")
            out.print(f"  {label + ':':<16} {plain}")
    out.print()


def _print_makers(judged: Judged) -> None:
    """Which function makes each arm that the claim compares, where it is measured."""
    from thesis_kit.ledger.registry import find

    if judged.claim.not_run:
        return
    experiment = find(judged.claim.chapter, judged.arena)
    for name in judged.claim.arms:
        if name in experiment.names:
            out.print(f"  {'Made by:':<16} {name}: {experiment.arm(name).maker}")
    out.print()
