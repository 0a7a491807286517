"""The command line: ``certify``, ``attack …``, ``invert``, ``claims …`` and ``zoo …``.

Thin: each command calls the function a notebook would call. An error of the library is one sentence in red and exit
code 2; ``--debug`` shows where it came from.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from thesis_kit.cli import certificates, inversion, report
from thesis_kit.cli.claims import claims
from thesis_kit.cli.pages import errors
from thesis_kit.cli.zoo import zoo

_HELP = "Robust and understandable deep networks: the methods of an executable book."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
attack = typer.Typer(no_args_is_help=True, help="Attack a model by name, and measure what comes of it.")
app.add_typer(claims, name="claims")
app.add_typer(zoo, name="zoo")
app.add_typer(attack, name="attack")
app.command()(certificates.certify)
app.command()(inversion.invert)
attack.command("shadow")(certificates.shadow)
attack.command("report")(report.report)


@app.callback(help=_HELP)
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """The option is read in ``main``, which is where errors end."""


def main() -> None:
    """Run the command line; an expected error ends it with one sentence and exit code 2."""
    from thesis_kit.ledger.runner import CellFailed

    try:
        app()
    except (ValueError, TypeError, OSError, CellFailed) as error:
        if "--debug" in sys.argv:
            raise
        errors.print(f"[red]{escape(str(error))}[/red]")
        sys.exit(2)
