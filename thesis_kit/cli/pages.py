"""What the commands print on, and generated pages: printed, written into the book, or checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import thesis_kit
from thesis_kit.cli.stopping import kept
from thesis_kit.files import renewal, write_atomic

# Names and paths may hold what would be markup or an emoji's name: all text is printed as it is.
_AS_IT_IS = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
out = Console(**_AS_IT_IS)
errors = Console(stderr=True, **_AS_IT_IS)

BOOK = Path(thesis_kit.__file__).resolve().parents[1] / "book"
Write = Annotated[bool, typer.Option("--write", help="Write the page.")]
Check = Annotated[bool, typer.Option("--check", help="Only say whether the page is up to date.")]


def publish(text: str, page: Path, write: bool, check: bool, source: str, command: str) -> None:
    """Print a generated page, write it, or check the one that is there."""
    if write and check:
        raise ValueError("--write and --check are two things to do: give one of them")
    if write:
        if not page.parent.is_dir():
            raise ValueError(
                f"there is no folder {page.parent} to write the page to: run this in a checkout, or give --page"
            )
        written = renewal(page)
        with kept(lambda: f"{page} is written" if written() else "nothing was changed"):
            write_atomic(page, text.encode())
            out.print(f"wrote {page.name}")
    elif check and (not page.exists() or page.read_text(encoding="utf-8") != text):
        raise ValueError(f"{page.name} is not what {source} now: run `{command}`")
    elif check:
        out.print(f"{page.name} is up to date")
    else:
        out.file.write(text)
