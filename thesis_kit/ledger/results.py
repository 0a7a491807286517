"""Result files: what an experiment measured, cell by cell, with everything needed to judge or repeat it.

One file holds one experiment, a chapter in an arena (``chapters/defenses/results/digits.json``). A cell is one model
(arm and seed) with the outcome of every test image as a packed bit, so that contrasts can be paired and intervals
recomputed at any time. The file carries the SHA-256 of its own content: what was altered or cut short is
refused by name.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thesis_kit.checks import choose
from thesis_kit.files import DamagedFile, digest, write_atomic
from thesis_kit.ledger import statistics
from thesis_kit.ledger.provenance import modules_hash
from thesis_kit.ledger.statistics import Interval

SCHEMA = 1
CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"


class NotRecorded(ValueError):
    """A quantity that was asked for is not in the result file."""


def pack(outcomes: Any) -> str:
    """Pack one 0 or 1 an image (a tensor, array or list, (n,)) into base64 text, eight images a byte."""
    bits = np.asarray(outcomes)
    if bits.ndim != 1 or not np.isin(bits, (0, 1)).all():
        raise ValueError(f"outcomes must be one 0 or 1 an image, shape (n,), got shape {bits.shape} of {bits.dtype}")
    return base64.b64encode(np.packbits(bits.astype(bool))).decode()


def unpack(text: str, n: int) -> np.ndarray:
    """The ``n`` outcomes behind ``pack``'s text, (n,) bool."""
    data = base64.b64decode(text, validate=True)
    if len(data) != (n + 7) // 8:
        raise ValueError(f"packed outcomes hold {8 * len(data)} images at most, {n} were expected")
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=n).astype(bool)


def write_document(path: str | os.PathLike, document: dict[str, Any]) -> None:
    """Write a result document in one step, with the SHA-256 of its content as last entry."""
    content = {key: value for key, value in document.items() if key != "sha256"}
    sealed = {**content, "sha256": digest(content)}
    write_atomic(path, _readable(sealed).encode())


def _readable(document: dict[str, Any]) -> str:
    """JSON with a line an entry and a line a cell, so that people and version control can follow it."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_document(path: str | os.PathLike) -> dict[str, Any]:
    """Read a result document and verify that it is whole and as it was written.

    Raises:
        FileNotFoundError: there is no such file. DamagedFile: the file is cut short, altered, or of another
        version of the format; the sentence names it.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedFile(f"{path.name} is incomplete or no result file: {_AGAIN}") from error
    if not isinstance(document, dict) or "sha256" not in document:
        raise DamagedFile(f"{path.name} is no result file, for it carries no SHA-256: {_AGAIN}")
    if digest({key: value for key, value in document.items() if key != "sha256"}) != document["sha256"]:
        raise DamagedFile(f"{path.name} was altered after it was written, its SHA-256 does not fit: {_AGAIN}")
    if document.get("schema") != SCHEMA:
        raise DamagedFile(
            f"{path.name} has format {document.get('schema')}, this thesis_kit reads format {SCHEMA}: {_AGAIN}"
        )
    return document


_AGAIN = "restore it, or delete it and measure again with `thesis-kit claims run`"


@dataclass(frozen=True)
class Result:
    """One experiment's measurements, by arm and seed."""

    document: dict[str, Any]

    @property
    def name(self) -> str:
        """Chapter and arena, as in ``defenses.digits``."""
        return f"{self.document['experiment']}.{self.document['arena']}"

    @cached_property
    def cells(self) -> dict[str, dict[int, dict[str, Any]]]:
        """``cells[arm][seed]``, arms as planned and seeds in order."""
        table: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in self.document["planned"]}
        for cell in sorted(self.document["cells"], key=lambda cell: cell["seed"]):
            table.setdefault(cell["arm"], {})[cell["seed"]] = cell
        return table

    @property
    def arms(self) -> list[str]:
        """Arms with at least one finished seed."""
        return [arm for arm, cells in self.cells.items() if cells]

    def missing(self, arm: str) -> list[int]:
        """Seeds of an arm that were planned and are not measured yet."""
        return [seed for seed in self.document["planned"].get(arm, []) if seed not in self.cells[arm]]

    def _arm(self, arm: str) -> dict[int, dict[str, Any]]:
        return choose(arm, {name: self.cells[name] for name in self.arms}, f"arm of {self.name}")

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
        return {seed: _number(cell, name) for seed, cell in self._arm(arm).items()}

    def curves(self, name: str, arm: str) -> dict[int, np.ndarray]:
        """Per seed, a recorded series of points, (k, 2)."""
        cells = self._arm(arm).items()
        return {seed: np.asarray(_entry(cell["curves"], name, arm, seed), dtype=float) for seed, cell in cells}

    def mean(self, measure: str, arm: str) -> Interval:
        """The mean over seeds of an outcome or number, with its 95% interval (outcomes as shares of one)."""
        first = next(iter(self._arm(arm).values()))
        if measure not in {**first["outcomes"], **first.get("values", {})}:
            return statistics.scalars_interval(list(self.scalars(measure, arm).values()))
        values = self.per_image(measure, arm)
        interval = statistics.items_interval([self.cells[arm][seed]["group"] for seed in values], list(values.values()))
        if measure not in first["outcomes"]:
            return interval
        if interval.value in (0, 1):  # all images alike: resampling them cannot show what Wilson's interval knows
            ends = statistics.wilson(round(interval.value * interval.n), interval.n)
            return Interval(interval.value, *ends, n=interval.n, seeds=interval.seeds, kind=statistics.WILSON)
        return replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))  # a share ends there

    def _code_now(self) -> str:
        """Hash of the measuring modules as they are installed now."""
        return modules_hash(self.document.get("verified", self.document)["code"]["module"])

    def is_current(self) -> bool:
        """Whether this is what the installed code measures (wording and layout aside): it made every run, or a run of
        every arm was measured again with it and came out the same."""
        return stands_for(self.document, self._code_now())

    def code_status(self) -> str:
        """What has become of the code since it measured, as a main clause."""
        if not self.is_current():
            return "the code that measures has changed since"
        if not _made_by_other_code(self.document, self._code_now()):
            return "the code that measures is unchanged since"
        verified = self.document["verified"]
        runs = f"{len(verified['cells'])} of {verified['recorded']} runs measured again on {verified['date']}"
        return f"the code that measures has changed since; {runs} gave the same outcomes bit by bit"

    def provenance(self) -> str:
        """When, where and with what code this was measured, in a sentence."""
        machine, seconds = self.document["machine"], self.document["seconds"]
        others = "" if all("machine" not in cell for cell in self.document["cells"]) else ", in part on other machines"
        return (
            f"Recorded on {self.document['recorded']} on {machine['processor']} ({machine['cores']} cores, one thread "
            f"a run{others}) with torch {machine['torch']}, in {seconds / 3600:.1f} core-hours; {self.code_status()}. "
            f"To measure again: `{self.document['command']}`"
        )


def stands_for(document: Mapping[str, Any], modules: str) -> bool:
    """Whether a document is what the code with this modules hash measures.

    It is where that code made the runs of every planned arm, or was the last one with which a run of the arm was
    measured again and came out the same (an arm may rest on modules that no other arm uses).
    """
    verified = document.get("verified")
    same = {arm for arm, _ in verified["cells"]} if verified and verified["code"]["modules"] == modules else set()
    return _made_by_other_code(document, modules) <= same


def _made_by_other_code(document: Mapping[str, Any], modules: str) -> set[str]:
    """The planned arms with a run that was not made by the code with this modules hash."""
    usual = document["code"]["modules"]
    others = {cell["arm"] for cell in document["cells"] if cell.get("modules", usual) != modules}
    return others & set(document["planned"])


def _entry(table: Mapping[str, Any], name: str, arm: str, seed: int) -> Any:
    if name not in table:
        raise NotRecorded(f"{name} of {arm} was not recorded (seed {seed} has {', '.join(table) or 'nothing'})")
    return table[name]


def _number(cell: Mapping[str, Any], name: str) -> float:
    if name in cell["outcomes"]:
        return float(unpack(cell["outcomes"][name], cell["n"]).mean())
    means = {key: np.mean(numbers) for key, numbers in cell.get("values", {}).items()}
    known = {"seconds": cell["seconds"], **cell["scalars"], **means}
    return float(_entry(known, name, cell["arm"], cell["seed"]))


def summarize(result: Result, arm: str) -> list[dict[str, Any]]:
    """Every measure of one arm with its interval, as it stands in a result file for people to read."""
    first = next(iter(result.cells[arm].values()))
    rows = []
    for measure in [*first["outcomes"], *first.get("values", {}), *first["scalars"]]:
        i = result.mean(measure, arm)
        ends = [end if math.isfinite(end) else None for end in (i.low, i.high)]
        rows.append(
            {
                "arm": arm,
                "measure": measure,
                "mean": i.value,
                "low": ends[0],
                "high": ends[1],
                "n": i.n,
                "seeds": i.seeds,
            }
        )
    return rows


def available(folder: str | os.PathLike | None = None) -> list[str]:
    """Names of the experiments that have a result file."""
    if folder is None:
        return sorted(f"{path.parents[1].name}.{path.stem}" for path in CHAPTERS.glob("*/results/*.json"))
    return sorted(path.name.removesuffix(".json") for path in Path(folder).glob("*.*.json"))


def result_path(name: str, folder: str | os.PathLike | None = None) -> Path:
    """Where the result file of an experiment lies: with its chapter, or in a folder by its full name."""
    chapter, _, arena = name.partition(".")
    return CHAPTERS / chapter / "results" / f"{arena}.json" if folder is None else Path(folder) / f"{name}.json"


def load_result(name: str, folder: str | os.PathLike | None = None) -> Result:
    """Load and verify a recorded experiment, by chapter and arena: ``load_result("defenses.digits")``."""
    choose(name, available(folder), "recorded experiment")
    return Result(read_document(result_path(name, folder)))
