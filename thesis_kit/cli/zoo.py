"""``zoo …``: trained networks, what there is, how good it is, and making it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from thesis_kit.cli.pages import BOOK, Check, Write, out, publish
from thesis_kit.cli.stopping import kept

if TYPE_CHECKING:
    from thesis_kit.models.zoo import Entry

zoo = typer.Typer(no_args_is_help=True, help="Trained networks: what there is, how good it is, and making it again.")

BOOK_ZOO = BOOK / "zoo.md"
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="One member; all of them if left out.")]
Weights = Annotated[Path | None, typer.Option("--folder", help="Folder of the weights; the package's own if left out.")]


@zoo.command("list")
def list_models(folder: Weights = None) -> None:
    """Every member with its scores and the size of its file, and the recipes that wait to be trained."""
    from thesis_kit.models import zoo as models_zoo
    from thesis_kit.zookeeping.recipes import RECIPES
    from thesis_kit.zookeeping.wording import percent, size_text

    table = Table("name", "data", "scores", "file", box=None, pad_edge=False)
    members = {name: models_zoo.entry(name, folder=folder) for name in models_zoo.names(folder=folder)}
    for name in sorted({*members, *RECIPES}):
        if name in members:
            about = members[name]
            scores = ", ".join(f"{score} {percent(value.value)}" for score, value in about.scores.items())
            table.add_row(name, about.data, scores, _where(about, folder))
        else:
            table.add_row(name, RECIPES[name].data, "", "not trained yet")
    out.print(table)
    out.print(f"weights in all: {size_text(sum(about.bytes for about in members.values() if about.shipped))}")


def _where(about: Entry, folder: Path | None) -> str:
    from thesis_kit.models import zoo as models_zoo
    from thesis_kit.zookeeping.wording import size_text

    if models_zoo.is_here(about, folder=folder):
        return size_text(about.bytes)
    if about.package is not None:
        return f"not installed: [{about.package.extra}]" if about.package.extra else "not installed"
    return "missing" if about.shipped else "not shipped"


@zoo.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The member.")], folder: Weights = None
) -> None:
    """One member in full: recipe, scores, cost, file, where it was made."""
    from thesis_kit.models import zoo as models_zoo
    from thesis_kit.models.kinds import KINDS
    from thesis_kit.show.zoo_page import cohort_text, cost_text, package_text, recipe_text
    from thesis_kit.zookeeping.wording import score_text, size_text

    about = models_zoo.entry(name, folder=folder)
    origin = {"training:": recipe_text(about), "cost:": cost_text(about)} if about.package is None else {
        "package:": package_text(about.package)
    }  # fmt: skip
    lines = {
        **{f"{score}:": score_text(value) for score, value in about.scores.items()},
        "network:": f"{about.architecture} {about.options or ''}".rstrip(),
        "takes:": KINDS[about.kind].takes(about),
        **origin,
        "file:": f"{about.file}, {size_text(about.bytes)}, {about.dtype}, SHA-256 {about.sha256}",
        "made:" if about.package is None else "entered:": f"{about.measured['date']} on "
        f"{about.measured['machine']['processor']}, torch {about.measured['machine']['torch']}",
    }
    if about.siblings:
        lines["cohort:"] = cohort_text(about)
    out.print(Text.assemble((about.name, "bold"), f"  {about.title}"))
    for label, text in lines.items():
        out.print(f"  {label:<16} {text}")


@zoo.command()
def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The member; `zoo list` names them.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Of a cohort, the network of this seed.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train again although nothing has changed.")] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Folder for the weights.")] = Path("zoo"),
    package: Annotated[bool, typer.Option("--package", help="Write the package's own weights.")] = False,
) -> None:
    """Train a member by its recipe, measure it, and put it in the place of the old one.

    Stopped or killed, the same command goes on; until it has finished, the old weights stay.
    """
    made = None
    with kept(lambda: "nothing was changed" if made is None else f"{name} is made"):
        from thesis_kit.zookeeping.making import make

        made = make(name, seed=seed, force=force, folder=None if package else folder, progress=out.print)
        if not package:
            which = "" if seed is None else f", seed={seed}"
            out.print(f"in Python: thesis_kit.zoo.load({name!r}{which}, folder={str(folder)!r})")


@zoo.command("check")
def check_models(
    name: Name = None,
    n: Annotated[int | None, typer.Option(min=1, help="Measure on so many test images; all if left out.")] = None,
    folder: Weights = None,
) -> None:
    """Compare files with entries and recipes, and scores with the ones measured now from the stored weights."""
    from thesis_kit.checks import choose
    from thesis_kit.models import zoo as models_zoo
    from thesis_kit.zookeeping.auditing import audit

    known = models_zoo.names(folder=folder)
    chosen = known if name is None else [choose(name, known, "zoo model")]
    wrong = [fault for member in chosen for fault in audit(member, n=n, folder=folder, progress=out.print)]
    if wrong:
        raise ValueError("; ".join(wrong))


@zoo.command("page")
def page_of_models(
    write: Write = False,
    check: Check = False,
    page: Annotated[Path, typer.Option(help="The page; book/zoo.md of the checkout if left out.")] = BOOK_ZOO,
    folder: Weights = None,
) -> None:
    """Print the page of the zoo, write it into the book, or check that the book's is up to date."""
    from thesis_kit.show.zoo_page import zoo_page

    publish(zoo_page(folder), page, write, check, "the zoo says", "thesis-kit zoo page --write")
