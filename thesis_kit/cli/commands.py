"""The commands: ``certify``, ``attack …``, ``invert``, ``visualize``, ``sonify``, ``listen``, ``claims …``, ``zoo …``.

Thin: each calls the function that a notebook would call, and imports it only then, so that ``--help`` comes at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import thesis_kit
from thesis_kit.cli import certificates, inversion, report, sonification, visualization
from thesis_kit.cli.claims import claims
from thesis_kit.cli.pages import out
from thesis_kit.cli.zoo import zoo

_HELP = "Robust and understandable deep networks: the methods of an executable book."
# Plain help and error texts: no markup in them to trip over, and no boxes that a terminal may not be able to draw.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
attack = typer.Typer(no_args_is_help=True, help="Attack a model by name, and measure what comes of it.")
app.add_typer(claims, name="claims")
app.add_typer(zoo, name="zoo")
app.add_typer(attack, name="attack")
app.command()(certificates.certify)
app.command()(inversion.invert)
app.command()(visualization.visualize)
app.command()(sonification.sonify)
app.command()(sonification.listen)
attack.command("shadow")(certificates.shadow)
attack.command("report")(report.report)


def _version(asked: bool) -> bool:
    if asked:
        out.print(f"thesis-kit {thesis_kit.__version__}")
        raise typer.Exit
    return asked


@app.callback(help=_HELP)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """The first option is read in ``ending.run``, which is where errors end."""
