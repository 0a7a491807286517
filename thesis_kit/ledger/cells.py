"""Recorded cells on disk: one file an arm, one line a seed, each line with the SHA-256 of what it says.

``chapters/defenses/results/digits/free-8.jsonl`` holds arm free-8 of chapter 1 in arena digits. A file is written whole
and in one step, by one writer at a time who first reads what the others have added: a run that is killed loses no cell
that was finished, two runs at once lose none of each other's, and version control shows the lines that are new.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from thesis_kit.files import DamagedFile, digest, only_writer, parse_json, write_atomic

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
Cell = dict[str, Any]
_KEYS = {"arm", "seed", "version", "settings", "n", "group", "outcomes", "sha256"}
_AGAIN = "restore the file, or delete it and measure again with `thesis-kit claims run`"


def results_folder(chapter: str, folder: str | os.PathLike | None = None) -> Path:
    """Where a chapter's recordings lie: with the chapter, or in a folder of one's own."""
    return CHAPTERS / chapter / "results" if folder is None else Path(folder) / chapter


def arm_file(name: str, arm: str, folder: str | os.PathLike | None = None) -> Path:
    """The file of an arm of the recording ``name``, chapter and arena as in ``defenses.digits``."""
    chapter, _, arena = name.partition(".")
    return results_folder(chapter, folder) / arena / f"{_quoted(arm)}.jsonl"


def arm_files(name: str, folder: str | os.PathLike | None = None) -> dict[str, Path]:
    """The files of all recorded arms."""
    chapter, _, arena = name.partition(".")
    paths = sorted((results_folder(chapter, folder) / arena).glob("*.jsonl"))
    return {unquote(path.stem.replace("_", " ")): path for path in paths}


def _quoted(arm: str) -> str:
    """A name of an arm as a name of a file, on every system."""
    return quote(arm, safe="@=+, ").replace("_", "%5F").replace(" ", "_")


def recordings(folder: str | os.PathLike | None = None) -> list[str]:
    """Names of all recordings, chapter and arena."""
    pattern = "*/results/*/*.jsonl" if folder is None else "*/*/*.jsonl"
    files = Path(CHAPTERS if folder is None else folder).glob(pattern)
    return sorted({f"{path.parents[2 if folder is None else 1].name}.{path.parent.name}" for path in files})


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a file as they were written; none where there is no file.

    Raises:
        DamagedFile: a line was altered or cut short, repeats a key or holds a number that is none; it names the place.
    """
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [_row(line, number, path) for number, line in enumerate(lines, start=1) if line]


def _row(line: bytes, number: int, path: Path) -> dict[str, Any]:
    row = parse_json(b"\n" * (number - 1) + line, _called(path))  # so that it names the line
    if not isinstance(row, dict) or "sha256" not in row:
        raise DamagedFile(f"{_called(path)}, line {number}: this is no recorded line, it has no SHA-256: {_AGAIN}")
    if digest({key: value for key, value in row.items() if key != "sha256"}) != row["sha256"]:
        raise DamagedFile(f"{_called(path)}, line {number}: this was altered, its SHA-256 does not fit: {_AGAIN}")
    return row


def _called(path: Path) -> str:
    return "/".join(path.parts[-2:])


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all lines of a file in one step; whoever adds to it holds ``only_writer``."""
    lines = []
    for row in rows:
        content = {key: value for key, value in row.items() if key != "sha256"}
        lines.append(json.dumps({**content, "sha256": digest(content)}, ensure_ascii=False, allow_nan=False))
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def read_cells(path: str | os.PathLike, arm: str) -> dict[int, Cell]:
    """An arm's recorded cells by seed.

    Raises:
        DamagedFile: as ``read_rows``; or a seed stands twice, or a line is no cell of this arm.
    """
    found: dict[int, Cell] = {}
    for number, row in enumerate(read_rows(path), start=1):
        place = f"{_called(Path(path))}, line {number}"
        if missing := sorted(_KEYS - row.keys()):
            raise DamagedFile(f"{place}: this is no recorded cell, it lacks {', '.join(missing)}: {_AGAIN}")
        if row["arm"] != arm:
            raise DamagedFile(f"{place}: this is a cell of {row['arm']}, not of {arm}: {_AGAIN}")
        if row["seed"] in found:
            raise DamagedFile(f"{place}: seed {row['seed']} stands twice: {_AGAIN}")
        found[row["seed"]] = row
    return dict(sorted(found.items()))


def keep_cell(name: str, cell: Cell, folder: str | os.PathLike | None = None) -> None:
    """Put a finished cell into its arm's file, in place of one of the same seed."""
    path = arm_file(name, cell["arm"], folder)
    with only_writer(path, wait=True):
        cells = {**read_cells(path, cell["arm"]), cell["seed"]: cell}
        write_rows(path, [cells[seed] for seed in sorted(cells)])


def forget_cells(name: str, arm: str, folder: str | os.PathLike | None = None) -> None:
    """Remove what is recorded of an arm."""
    path = arm_file(name, arm, folder)
    if path.exists():
        with only_writer(path, wait=True):
            path.unlink(missing_ok=True)


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


def packed(record: Mapping[str, Any]) -> Cell:
    """A measured record in the form that is kept.

    Raises:
        ValueError: a measure has not as many entries as there are images, or holds what no file can (NaN, tensors).
    """
    cell = {"n": record["n"], "group": record["group"], **record}
    for kind in ("outcomes", "values"):
        for measure, column in cell.get(kind, {}).items():
            if len(column) != cell["n"]:
                raise ValueError(f"{kind[:-1]} {measure} has {len(column)} entries for {cell['n']} images")
    cell["outcomes"] = {measure: pack(bits) for measure, bits in cell["outcomes"].items()}
    cell = {**cell, **{key: cell.get(key, {}) for key in ("values", "scalars", "curves", "budget")}}
    return json.loads(json.dumps(cell, allow_nan=False))
