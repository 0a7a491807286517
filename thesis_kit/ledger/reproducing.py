"""Measure recorded cells again with the code as it is now, and see whether the numbers can be had again.

Nothing that was recorded is rewritten: what agrees is noted beside it. On the kind of machine that recorded, a cell
comes out bit by bit; elsewhere sums round otherwise, and what can be asked is that every number lies where one more of
the recorded seeds would. Measuring again begins from nothing: what cells share is made anew and thrown away.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from thesis_kit.ledger.arm import Arm, Experiment
from thesis_kit.ledger.cells import Cell
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.ledger.provenance import commit
from thesis_kit.ledger.reproduced import EXACTLY, WITHIN, Reproduced, note_reproduced
from thesis_kit.ledger.results import NotRecorded, Result, departure, load_result, number
from thesis_kit.ledger.runner import OutdatedResult, Say, duration, execute, variables
from thesis_kit.ledger.statistics import LEVEL, prediction_interval, share_prediction
from thesis_kit.names import check_count, choose

_MEASURED = ("group", "n", "outcomes", "values", "scalars", "curves", "chosen", "trials")  # not what it cost


@dataclass(frozen=True)
class Comparison:
    """A cell measured again: whether all of it came out as it was recorded, and else which numbers lie outside the
    prediction interval of the recorded seeds, a phrase each."""

    arm: str
    seed: int
    exactly: bool
    outside: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the recording stands."""
        return not self.outside

    def __str__(self) -> str:
        if self.exactly:
            return f"the same, {EXACTLY}"
        return f"outside: {'; '.join(self.outside)}" if self.outside else WITHIN


def choose_cells(
    experiment: Experiment,
    result: Result,
    *,
    arms: Iterable[str] | None = None,
    seed: int | None = None,
    everything: bool = False,
) -> list[tuple[Arm, int]]:
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
    recorded = [name for name in experiment.names if result.cells.get(name)]
    chosen = recorded if arms is None else [choose(name, recorded, f"recorded arm of {experiment.id}") for name in arms]
    if everything or seed is not None:
        cells = [(name, known) for name in chosen for known in result.cells[name] if seed in (None, known)]
    else:
        cells = [(name, _turn(list(result.cells[name]), recorded.index(name))) for name in chosen]
    if not cells:
        raise NotRecorded(f"no such run is recorded in {experiment.id}: choose another arm or seed, or leave them out")
    return [(experiment.arm(name), known) for name, known in cells]


def _turn(seeds: list[int], place: int) -> int:
    return seeds[place % len(seeds)]


def reproduce(
    experiment: Experiment,
    cells: Iterable[tuple[Arm, int]],
    *,
    jobs: int = 1,
    progress: Say | None = None,
    folder: str | os.PathLike | None = None,
    note: bool = True,
) -> list[Comparison]:
    """Measure recorded cells again and say how they compare; what agrees is noted beside the recording.

    Args:
        experiment: what was run. cells: recorded (arm, seed) to measure again (see ``choose_cells``).
        jobs: cells at a time, each in a process with one thread.
        progress: called with a sentence before the first and after each cell; None is silent.
        folder: where recordings lie, the package's own unless given.
        note: keep what agrees in ``reproduced.jsonl``; otherwise nothing is written.

    Raises:
        NotRecorded: a cell is not recorded. OutdatedResult: an arm was recorded with other settings, data or weights.
        DamagedFile: a file was altered. CellFailed: a cell raised or its process died.
    """
    check_count(jobs, what="jobs")
    say, result, todo = progress or (lambda sentence: None), load_result(experiment.id, folder, experiment), list(cells)
    for arm, seed in todo:
        _check_recorded(result, arm, seed)
    say(f"{len(todo)} recorded {'run' if len(todo) == 1 else 'runs'} to measure again")
    found = []
    with tempfile.TemporaryDirectory() as nothing, variables(**{FOLDER_VARIABLE: nothing}):
        for done, again in enumerate(execute(todo, jobs, lambda name: None), start=1):
            one = compare(result, again)
            found.append(one)
            say(f"{one.arm}, seed {one.seed}: {duration(again['seconds'])}, {one} ({done} of {len(todo)})")
            if one.agrees and note:
                noted = _noted(experiment.arena, result.cells[one.arm][one.seed], again, one)
                note_reproduced(experiment.chapter, [noted], folder)
    return found


def _check_recorded(result: Result, arm: Arm, seed: int) -> None:
    if seed not in result.cells.get(arm.name, {}):
        raise NotRecorded(f"{arm.name}, seed {seed} is not recorded in {result.name}: name a run that is")
    if changed := departure(result.cells[arm.name][seed], arm.identity(seed)):
        raise OutdatedResult(
            f"{arm.name} of {result.name} was recorded with something else than it has now ({changed}), so it cannot "
            "come out the same: measure it again with `thesis-kit claims run --restart`"
        )


def _noted(arena: str, recorded: Cell, again: Cell, one: Comparison) -> Reproduced:
    return Reproduced(
        arena, one.arm, one.seed, recorded["sha256"], EXACTLY if one.exactly else WITHIN, date.today().isoformat(),
        again["machine"]["processor"], commit(),
    )  # fmt: skip


def compare(result: Result, again: Cell, *, level: float = LEVEL) -> Comparison:
    """How a cell measured again compares with what is recorded of its arm.

    A cell holds many numbers and stands if all of them lie inside, so each has an interval wide enough that together
    they do with probability ``level`` where nothing has changed (Bonferroni).
    """
    arm, seed = again["arm"], again["seed"]
    recorded = result.cells[arm][seed]
    exactly = timeless({k: recorded.get(k) for k in _MEASURED}) == timeless({k: again.get(k) for k in _MEASURED})
    names = [*again["outcomes"], *again["values"], *(name for name in again["scalars"] if not _is_time(name))]
    each = 1 - (1 - level) / max(1, len(names))
    outside = () if exactly else tuple(filter(None, (_outside(result, name, again, each) for name in names)))
    return Comparison(arm, seed, exactly, outside)


def _outside(result: Result, name: str, again: Cell, level: float) -> str:
    """A phrase about a number that no seed like the recorded ones would give; empty where it is inside.

    Where all seeds agree on a share, chance alone lets another differ by some items; on any other number, only their
    own value lies inside. A single recorded seed excludes nothing.
    """
    value, arm = number(again, name), again["arm"]
    try:
        recorded = list(result.scalars(name, arm).values())
    except NotRecorded:
        return f"{name} was not recorded"
    if name in again["outcomes"] and len(recorded) > 1 and len(set(recorded)) == 1:
        n = sum(len(outcomes) for outcomes in result.outcomes(name, arm).values())
        low, high = share_prediction(round(recorded[0] * n), n, again["n"], level)
    else:
        low, high = prediction_interval(recorded, level)
    rounding = 1e-9 * max(1.0, abs(value))  # the mean of equal numbers need not equal them in the last bit
    if low - rounding <= value <= high + rounding:
        return ""
    return f"{name} is {value:.4g}, recorded seeds say {low:.4g} to {high:.4g}"


def timeless(value: Any) -> Any:
    """A record without what a clock said: entries called ``seconds`` or ``…_seconds``."""
    if isinstance(value, Mapping):
        return {key: timeless(entry) for key, entry in value.items() if not _is_time(key) and entry not in (None, {})}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def _is_time(name: str) -> bool:
    return name == "seconds" or name.endswith("_seconds")
