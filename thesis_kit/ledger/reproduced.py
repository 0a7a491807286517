"""What was measured again: a line for every cell that was, beside the recordings of its chapter."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from thesis_kit.files import only_writer
from thesis_kit.ledger.cells import read_rows, results_folder, write_rows

EXACTLY, WITHIN = "bit by bit", "within the prediction interval of its seeds"


@dataclass(frozen=True)
class Reproduced:
    """A recorded cell (its ``sha256``) that was measured again, how it agreed, when, where and with which code."""

    arena: str
    arm: str
    seed: int
    cell: str
    agreed: str
    date: str
    processor: str
    commit: str | None


def _file(chapter: str, folder: str | os.PathLike | None) -> Path:
    return results_folder(chapter, folder) / "reproduced.jsonl"


def read_reproduced(name: str, folder: str | os.PathLike | None = None) -> tuple[Reproduced, ...]:
    """What was measured again of a recording.

    Raises:
        DamagedFile: as ``read_rows``.
    """
    chapter, _, arena = name.partition(".")
    rows = ({key: value for key, value in row.items() if key != "sha256"} for row in read_rows(_file(chapter, folder)))
    return tuple(one for one in (Reproduced(**row) for row in rows) if one.arena == arena)


def note_reproduced(chapter: str, found: list[Reproduced], folder: str | os.PathLike | None = None) -> None:
    """Add lines; of a cell that was measured again before, the latest stands."""
    path = _file(chapter, folder)
    with only_writer(path, wait=True):
        rows = {(row["arena"], row["arm"], row["seed"]): row for row in read_rows(path)}
        rows.update({(one.arena, one.arm, one.seed): asdict(one) for one in found})
        write_rows(path, rows.values())
