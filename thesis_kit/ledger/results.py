"""Recorded results: what the arms of one arena came to, with everything needed to judge, draw or repeat it.

A cell is one arm and one seed with the outcome of every test image as a packed bit, so that contrasts can be paired and
intervals recomputed at any time. Arms are read when they are asked for: a damaged file stops only who needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from thesis_kit.files import digest
from thesis_kit.ledger import statistics
from thesis_kit.ledger.arm import Arm, Experiment, plain
from thesis_kit.ledger.cells import Cell, arm_files, read_cells, recordings, unpack
from thesis_kit.ledger.registry import experiments
from thesis_kit.ledger.reproduced import Reproduced, read_reproduced
from thesis_kit.ledger.statistics import Interval
from thesis_kit.names import choose


class NotRecorded(ValueError):
    """A quantity that was asked for is not recorded."""


class _Files(Mapping):
    """arm → seed → cell, each arm read once, when it is asked for."""

    def __init__(self, files: Mapping[str, Path]):
        self._files, self._read = dict(files), {}

    def __getitem__(self, arm: str) -> dict[int, Cell]:
        if arm not in self._read:
            self._read[arm] = read_cells(self._files[arm], arm)
        return self._read[arm]

    def __contains__(self, arm: object) -> bool:
        return arm in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True)
class Result:
    """Measurements by arm and seed.

    ``name`` is chapter and arena, as in ``defenses.digits``; ``cells[arm][seed]`` is what was recorded; ``planned`` are
    the arms as they are now, and ``reproduced`` what was measured again.
    """

    name: str
    cells: Mapping  # of mappings, read when asked for, which a type checker that looks inside would do
    planned: Mapping[str, Arm] = field(default_factory=dict)
    reproduced: tuple[Reproduced, ...] = ()

    @property
    def arms(self) -> list[str]:
        """Arms with at least one finished seed, as planned."""
        return [*(arm for arm in self.planned if arm in self.cells), *(a for a in self.cells if a not in self.planned)]

    def missing(self, arm: str) -> list[int]:
        """Seeds of an arm that are planned and not measured yet."""
        seeds = self.planned[arm].seeds if arm in self.planned else ()
        return [seed for seed in seeds if seed not in self.cells.get(arm, {})]

    def outdated(self, arm: str) -> str:
        """What an arm was recorded with that it has not now, as a phrase; empty where it is the arm as it is."""
        if arm not in self.planned:
            return ""
        now = {"version": self.planned[arm].version, "settings": plain(self.planned[arm].settings)}
        return next(filter(None, (departure(cell, now) for cell in self.cells.get(arm, {}).values())), "")

    def settings(self, arm: str) -> Mapping[str, Any]:
        """The arm's own settings as they were recorded."""
        return next(iter(self._arm(arm).values()))["settings"]

    def units(self, arm: str) -> tuple[str, ...]:
        """What was drawn anew from one number of an arm to the next, from the outermost to the innermost."""
        return self.planned[arm].units if arm in self.planned else statistics.TRAININGS

    def _arm(self, arm: str) -> Mapping[int, Cell]:
        return self.cells[choose(arm, self.arms, f"arm of {self.name}")]

    def outcomes(self, measure: str, arm: str) -> dict[int, np.ndarray]:
        """Per seed, one outcome an image in the fixed order of its group, (n,) bool."""
        return {
            seed: unpack(_entry(cell["outcomes"], measure, arm, seed), cell["n"])
            for seed, cell in self._arm(arm).items()
        }

    def per_image(self, measure: str, arm: str) -> dict[int, np.ndarray]:
        """Per seed, one number an image, (n,) float: an outcome as 0 or 1, or a recorded number."""
        cells = self._arm(arm)
        if any(measure in cell["outcomes"] for cell in cells.values()):
            return {seed: outcome.astype(float) for seed, outcome in self.outcomes(measure, arm).items()}
        return {
            seed: np.asarray(_entry(cell.get("values", {}), measure, arm, seed), dtype=float)
            for seed, cell in cells.items()
        }

    def scalars(self, name: str, arm: str) -> dict[int, float]:
        """Per seed, one recorded number; the mean over images and the cell's own seconds count as such."""
        return {seed: number(cell, name) for seed, cell in self._arm(arm).items()}

    def curves(self, name: str, arm: str) -> dict[int, np.ndarray]:
        """Per seed, a recorded series of points, (k, 2)."""
        cells = self._arm(arm).items()
        return {seed: np.asarray(_entry(cell["curves"], name, arm, seed), dtype=float) for seed, cell in cells}

    def mean(self, measure: str, arm: str) -> Interval:
        """The mean over seeds of an outcome or number, with its 95% interval (outcomes as shares of one)."""
        first = next(iter(self._arm(arm).values()))
        if measure not in {**first["outcomes"], **first.get("values", {})}:
            return statistics.scalars_interval(list(self.scalars(measure, arm).values()), self.units(arm))
        values = self.per_image(measure, arm)
        groups = [self.cells[arm][seed]["group"] for seed in values]
        interval = statistics.items_interval(groups, list(values.values()), self.units(arm))
        if measure not in first["outcomes"]:
            return interval
        if interval.value in (0, 1):  # all images alike: resampling them cannot show what Wilson's interval knows
            ends = statistics.wilson(round(interval.value * interval.n), interval.n)
            return replace(interval, low=ends[0], high=ends[1], kind=statistics.WILSON)
        return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))  # a share ends there

    @property
    def every_cell(self) -> list[Cell]:
        """All cells, arm by arm."""
        return [cell for arm in self.arms for cell in self.cells[arm].values()]

    def provenance(self) -> str:
        """When, where and in which time this was measured, and what of it was measured again, in a sentence or two."""
        cells = self.every_cell
        machines = list(dict.fromkeys(_machine(cell["machine"]) for cell in cells))
        hours = sum(cell["seconds"] for cell in cells) / 3600
        arena = self.name.partition(".")[2]
        return (
            f"Recorded on {_dates(cell['recorded'] for cell in cells)} on {' and '.join(machines)}, in {hours:.1f} "
            f"core-hours{self._again()}. To measure again: `thesis-kit claims run --arena {arena}`"
        )

    def _again(self) -> str:
        """A clause about the cells that were measured again and are still what they were then."""
        found = self.measured_again
        if not found:
            return ""
        ways = list(dict.fromkeys(one.agreed for one in found))
        runs = f"{len(found)} of {len(self.every_cell)} runs"
        return f"; reproduced on {_dates(one.date for one in found)} ({runs}, {' or '.join(ways)})"

    @property
    def measured_again(self) -> tuple[Reproduced, ...]:
        """What is known of the present cells that were measured again."""
        known = {cell.get("sha256") for cell in self.every_cell}
        return tuple(one for one in self.reproduced if one.cell in known)

    @property
    def sha256(self) -> str:
        """One hash of all that is recorded."""
        return digest([cell.get("sha256", cell) for cell in self.every_cell])


def _dates(found: Iterable[str]) -> str:
    first, last = min(dates := [*found]), max(dates)
    return first if first == last else f"{first} to {last}"


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']} ({machine['cores']} cores, one thread a run) with torch {machine['torch']}"


def _entry(table: Mapping[str, Any], name: str, arm: str, seed: int) -> Any:
    if name not in table:
        raise NotRecorded(f"{name} of {arm} was not recorded (seed {seed} has {', '.join(table) or 'nothing'})")
    return table[name]


def number(cell: Cell, name: str) -> float:
    """One number of a cell: an outcome's or value's mean over images, a scalar, or the cell's seconds."""
    if name in cell["outcomes"]:
        return float(unpack(cell["outcomes"][name], cell["n"]).mean())
    means = {key: np.mean(numbers) for key, numbers in cell.get("values", {}).items()}
    known = {"seconds": cell["seconds"], **cell["scalars"], **means}
    return float(_entry(known, name, cell["arm"], cell["seed"]))


def departure(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing in which a recorded cell departs from what it should have been measured with, as a phrase."""
    for key, wanted in now.items():
        had = recorded.get(key)
        if isinstance(wanted, Mapping) and isinstance(had, Mapping):
            changed = [name for name in {**wanted, **had} if wanted.get(name) != had.get(name)]
            if changed:
                return f"{changed[0]} was {had.get(changed[0])}, is {wanted.get(changed[0])}"
        elif had != wanted:
            return f"{key} was {had}, is {wanted}"
    return ""


def available(folder: str | os.PathLike | None = None) -> list[str]:
    """Names of all recordings, chapter and arena."""
    return recordings(folder)


def load_result(
    name: str, folder: str | os.PathLike | None = None, experiment: Experiment | None = None
) -> Result:  # fmt: skip
    """A recording by chapter and arena: ``load_result("defenses.digits")``; its arms are read and verified when used.

    ``experiment`` has the arms as they are now; it is found by the name unless given.

    Raises:
        UnknownName: nothing is recorded under this name.
    """
    chapter, _, arena = choose(name, available(folder), "recording").partition(".")
    planned = experiment or experiments(chapter).get(arena)
    arms = {arm.name: arm for arm in planned.arms} if planned else {}
    return Result(name, _Files(arm_files(name, folder)), arms, read_reproduced(name, folder))
