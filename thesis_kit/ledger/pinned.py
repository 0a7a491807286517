"""The rules as they were before a claim was measured: a threshold that is edited afterwards does not go unnoticed."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from thesis_kit.files import only_writer
from thesis_kit.ledger.cells import read_rows, results_folder, write_rows
from thesis_kit.ledger.claims import Claim


@dataclass(frozen=True)
class Pinned:
    """What was asked of a claim before it was measured: rules, conditions and the kinds of their intervals."""

    claim: str
    rule: tuple[str, ...]
    conditions: tuple[str, ...]
    kinds: tuple[str, ...]
    date: str

    @classmethod
    def of(cls, claim: Claim, when: str | None = None) -> Pinned:
        """A claim's rule as it is."""
        return cls(
            claim.id,
            tuple(contrast.text for contrast in claim.rule),
            tuple(condition.text for condition in claim.conditions),
            tuple(contrast.kind for contrast in claim.rule),
            when or date.today().isoformat(),
        )

    def asks_the_same(self, claim: Claim) -> bool:
        """Whether the claim's rule is still this one."""
        return Pinned.of(claim, self.date) == self


def _file(chapter: str, folder: str | os.PathLike | None) -> Path:
    return results_folder(chapter, folder) / "rules.jsonl"


def read_pinned(chapter: str, folder: str | os.PathLike | None = None) -> dict[str, Pinned]:
    """The pinned rules of a chapter's claims.

    Raises:
        DamagedFile: as ``read_rows``.
    """
    rows = [{key: value for key, value in row.items() if key != "sha256"} for row in read_rows(_file(chapter, folder))]
    found = [Pinned(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows]
    return {one.claim: one for one in found}


def pin(claim: Claim, folder: str | os.PathLike | None = None, when: str | None = None) -> None:
    """Write down a claim's rule, unless one was before."""
    path = _file(claim.chapter, folder)
    with only_writer(path, wait=True):
        known = read_pinned(claim.chapter, folder)
        if claim.id not in known:
            write_rows(path, [asdict(one) for one in (*known.values(), Pinned.of(claim, when))])
