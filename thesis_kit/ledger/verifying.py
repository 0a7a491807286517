"""Measure recorded runs again with the code as it is now, and see whether they come out the same.

Recording takes hours, and the modules a result rests on go on changing: a new argument, another data set. Runs of
every arm that come out as before, bit by bit, show that a change left the measurement alone; the result file then says
so, counts as current, and takes new runs. Measuring again begins from nothing: what runs share (``memory``) is made
anew for the verification and thrown away after it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from thesis_kit.checks import check_count, choose
from thesis_kit.ledger import memory, runner
from thesis_kit.ledger.comparing import Difference, differences, inside_prediction_interval
from thesis_kit.ledger.results import NotRecorded, Result, read_document, result_path, write_document
from thesis_kit.ledger.runner import Cell, Experiment, OutdatedResult, Say, duration
from thesis_kit.ledger.statistics import LEVEL, prediction_interval

_ROUNDING = ("processor", "device", "torch")  # what decides how sums are rounded


@dataclass(frozen=True)
class Verification:
    """What measuring ``cells`` again came to. Without differences ``result`` carries the entry ``verified``."""

    result: Result
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    elsewhere: str

    @property
    def agrees(self) -> bool:
        """Whether every run came out as it was recorded."""
        return not self.differences

    def report(self) -> list[str]:
        """What to tell the reader, sentence by sentence; on another machine, that rounding may be the cause."""
        runs = f"{len(self.cells)} {'run' if len(self.cells) == 1 else 'runs'}"
        if self.differences:
            cells = len({(one.arm, one.seed) for one in self.differences})
            verdict = f"{cells} of {runs} came out otherwise and nothing was written: {self.elsewhere or _MEASURE}"
            return [*map(str, self.differences), verdict]
        said = f"{runs} came out the same, bit by bit"
        if self.result.is_current():
            return [f"{said}: {self.result.name} counts as measured by the present code"]
        verified = {arm for arm, _ in self.result.document["verified"]["cells"]}
        left = [arm for arm in self.result.arms if arm not in verified and arm in self.result.document["planned"]]
        return [f"{said}: {self.result.name} counts as current once a run of {', '.join(left)} did so too"]


_MEASURE = "find the change that did it, or measure again with `thesis-kit claims run --restart`"


def load_recorded(experiment: Experiment, folder: str | os.PathLike | None = None) -> Result:
    """The recorded result of an experiment.

    Raises:
        NotRecorded: there is no result file. DamagedFile: the file was cut short or altered.
    """
    path = result_path(experiment.id, folder)
    document = read_document(path) if path.exists() else None
    if not document or not document["cells"]:
        command = f"thesis-kit claims run --arena {experiment.arena}"
        raise NotRecorded(f"nothing is recorded in {path.name} that could be verified: measure it with `{command}`")
    return Result(document)


def choose_cells(
    experiment: Experiment,
    result: Result,
    *,
    arms: Iterable[str] | None = None,
    seed: int | None = None,
    everything: bool = False,
) -> list[Cell]:
    """Recorded cells to measure again: one of every arm, or all of them.

    Args:
        experiment, result: what can be run, and what is recorded.
        arms: choose among these arms; None: all recorded arms the experiment still has.
        seed: take this seed wherever it is recorded. Without it each arm takes the seed after its neighbor's, always
            the same ones, so that together they meet the data of many seeds.
        everything: all seeds rather than one.

    Raises:
        NotRecorded: an arm, or the seed in all of them, is not recorded.
    """
    recorded = [arm for arm in experiment.arms if result.cells.get(arm)]
    chosen = recorded if arms is None else [choose(arm, recorded, f"recorded arm of {experiment.id}") for arm in arms]
    if everything or seed is not None:
        cells = [(arm, known) for arm in chosen for known in result.cells[arm] if seed in (None, known)]
    else:
        cells = [(arm, _turn(list(result.cells[arm]), recorded.index(arm))) for arm in chosen]
    if not cells:
        raise NotRecorded(f"no such run is recorded in {experiment.id}: choose another arm or seed, or leave them out")
    return cells


def _turn(seeds: list[int], number: int) -> int:
    return seeds[number % len(seeds)]


def verify_experiment(
    experiment: Experiment,
    *,
    cells: Iterable[Cell] | None = None,
    jobs: int = 1,
    progress: Say | None = None,
    folder: str | os.PathLike | None = None,
    write: bool = True,
) -> Verification:
    """Measure recorded cells again and, if every one comes out the same, note so in the result file.

    Outcomes, numbers other than times, curves, budgets and choices are compared exactly. Where anything differs, or
    the verification is interrupted, the file stays as it is.

    Args:
        experiment: what was run.
        cells: recorded (arm, seed) to measure again; one seed of every arm unless given (see ``choose_cells``).
        jobs: cells at a time, each in a process with one thread.
        progress: called with a sentence before the first and after each cell; None is silent.
        folder: where result files lie, the package's own folder unless given.
        write: note in the result file that all came out the same; otherwise it stays as it is.

    Raises:
        NotRecorded: there is no result, or not of one of the cells. ValueError: ``cells`` is empty.
        DamagedFile: the file was altered.
        OutdatedResult: data, configuration or an arm's networks have changed, so that nothing can come out the same.
        CellFailed: a cell raised or its process died.
    """
    check_count(jobs, what="jobs")
    say = progress or (lambda sentence: None)
    path = result_path(experiment.id, folder)
    with runner.only_writer(path):
        result, fresh = load_recorded(experiment, folder), runner.empty_document(experiment)
        _check_settings(path, result, fresh)
        todo = _recorded_cells(path, result, choose_cells(experiment, result) if cells is None else cells)
        _check_networks(experiment, path, result, todo)
        with tempfile.TemporaryDirectory() as nothing, runner.environment(**{memory.FOLDER_VARIABLE: nothing}):
            found = tuple(_measure_again(experiment, result, todo, jobs, say))
        if not found:
            result = Result(_vouched(result.document, fresh, todo))
            if write:
                write_document(path, result.document)
    elsewhere = _elsewhere(result, fresh["machine"], [(one.arm, one.seed) for one in found])
    return Verification(result, tuple(todo), found, elsewhere)


def _check_settings(path: Path, result: Result, fresh: dict[str, Any]) -> None:
    changed = [change for change in runner.changes(result.document, fresh) if change != runner.OTHER_CODE]
    if changed:
        raise OutdatedResult(
            f"{path.name} was recorded with {' and '.join(changed)} than now, so its runs cannot come out the same: "
            "measure again with `thesis-kit claims run --restart`"
        )


def _check_networks(experiment: Experiment, path: Path, result: Result, cells: list[Cell]) -> None:
    other = runner.other_weights(experiment, result.document, dict.fromkeys(arm for arm, _ in cells))
    if other:
        raise OutdatedResult(
            f"{path.name} has {', '.join(other)} with other weights of their networks than now, which cannot come out "
            "the same: measure them again with `thesis-kit claims run --restart`"
        )


def _recorded_cells(path: Path, result: Result, cells: Iterable[Cell]) -> list[Cell]:
    todo = list(dict.fromkeys(cells))
    if not todo:
        raise ValueError(f"there is nothing to verify {path.name} by: name at least one of its runs")
    for arm, seed in todo:
        if seed not in result.cells.get(arm, {}):
            raise NotRecorded(f"{arm}, seed {seed} is not in {path.name}: name runs that are recorded")
    return todo


def _measure_again(
    experiment: Experiment, result: Result, todo: list[Cell], jobs: int, say: Say
) -> Iterator[Difference]:
    """Run the cells and yield where they differ, saying after each how it went and how long the rest may take."""

    def left(cells: list[Cell]) -> str:
        return f"about {duration(runner.expected_time(experiment, result.document, cells, jobs))}"

    say(f"{len(todo)} of {len(result.document['cells'])} recorded runs to measure again, {left(todo)}")
    for done, again in enumerate(runner.execute(experiment, todo, jobs, lambda arm: None), start=1):
        arm, seed, took = again["arm"], again["seed"], duration(again["seconds"])
        found = differences(result.cells[arm][seed], again)
        outcome = f"differs in {', '.join(one.measure for one in found)}" if found else "the same"
        rest = f", {left(todo[done:])} left" if done < len(todo) else ""
        say(f"{arm}, seed {seed}: {took}, {outcome} ({done} of {len(todo)}{rest})")
        yield from (_placed(result, one) for one in found)


def _placed(result: Result, difference: Difference) -> Difference:
    """The difference with a clause that places the number, where it is one, among those of the recorded seeds.

    Rounding on another processor flips a few images and stays inside; what stays inside may still be another cause.
    """
    name, arm, value = difference.name, difference.arm, difference.value
    if value is None:
        return difference
    low, high = prediction_interval(list(result.scalars(name, arm).values()))
    if math.isinf(low):
        return replace(difference, how=f"{difference.how}; one recorded seed gives no prediction interval")
    inside = "inside" if inside_prediction_interval(result, name, arm, value) else "outside"
    interval = f"{LEVEL:.0%} prediction interval of the recorded seeds, {low:.4g} to {high:.4g}"
    return replace(difference, how=f"{difference.how}; {value:.4g} lies {inside} the {interval}")


def _elsewhere(result: Result, here: dict[str, Any], cells: list[Cell]) -> str:
    """A clause about both machines where one of these cells was recorded on another one, else an empty string."""
    for arm, seed in cells:
        there = result.cells[arm][seed].get("machine", result.document["machine"])
        if any(there[key] != here[key] for key in _ROUNDING):
            before, now = (f"{machine['processor']} with torch {machine['torch']}" for machine in (there, here))
            return f"recorded on {before}, measured again on {now}, where sums may round otherwise: verify on the first"
    return ""


def _vouched(document: dict[str, Any], fresh: dict[str, Any], cells: list[Cell]) -> dict[str, Any]:
    """The document with the entry that these cells came out the same; cells verified by the same code add up."""
    before = document.get("verified")
    if before and before["machine"] == fresh["machine"] and before["code"]["modules"] == fresh["code"]["modules"]:
        recorded = {(cell["arm"], cell["seed"]) for cell in document["cells"]}
        known = [(arm, seed) for arm, seed in before["cells"]]
        cells = [cell for cell in dict.fromkeys([*known, *cells]) if cell in recorded]
    entry = {
        "date": date.today().isoformat(),
        "code": fresh["code"],
        "machine": fresh["machine"],
        "recorded": len(document["cells"]),
        "cells": [list(cell) for cell in cells],
    }
    return {**document, "planned": fresh["planned"], "verified": entry}
