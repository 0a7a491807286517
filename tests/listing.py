"""The pages of the book in their order, as ``_toc.yml`` lists them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def listed(entries: list[dict]) -> Iterator[str]:
    for entry in entries:
        yield entry["file"]
        yield from listed(entry.get("sections", []))


_TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [_TOC["root"], *(page for part in _TOC["parts"] for page in listed(part["chapters"]))]
