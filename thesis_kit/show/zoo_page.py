"""The page of the zoo: every member with its scores, size and recipe, written from the members' entries alone."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from typing import Any

from thesis_kit.models import zoo
from thesis_kit.models.kinds import KINDS
from thesis_kit.models.zoo import Entry, Package
from thesis_kit.show.shown import html_id
from thesis_kit.zookeeping.wording import percent, radius_text, score_text, size_text

_HEAD = """# The zoo

<!-- Written by `thesis-kit zoo page --write` from the zoo's entries; do not edit. -->

Small trained networks come with the package, so that every chapter can start from the same ones. Each was trained by
a recipe that anyone can run again, and its scores were measured on the very weights that are stored; the 95% intervals
are Wilson's, for the choice of test images. *clean* is accuracy without an attack, *robust@8/255* accuracy under
PGD-20 with perturbations of at most 8/255 a pixel, *verified* what interval bounds prove within such a radius, and
*certified* what randomized smoothing certifies within an ℓ₂ radius. `load` refuses a file that was changed.
"""
_EMPTY = """
The zoo has no members yet: `thesis-kit zoo list` names those that can be trained, and `make zoo NAME=…` trains one.
"""
_HOW = """
```python
import thesis_kit as tk

name = "{name}"
model = tk.zoo.load(name)
print(tk.zoo.entry(name).scores)
```

`model` takes pixels in [0, 1] to logits and is in evaluation mode. `make zoo NAME={name}` trains the same model again;
stopped or killed, it goes on where it was.
"""
_BROUGHT = """(zoo-brought)=
## Networks that packages bring

Others trained these, and nothing of them is copied into this project: `pip install ".[real]"` in its checkout installs
the packages that carry them; one that asks for more than its network needs is installed alone, as its section says.
`load` finds the package by its name, runs nothing of it, refuses a file whose SHA-256 is another one, and lets the
network answer a computed input as it answered when it was entered. The scores in the table above were measured here; of
these networks none is claimed. Images go in as they are, from 32 pixels a side; with `load(name, size=…)` they are
brought to a size first. Pixels are scaled by 0.5 and 0.5: of the usual ways the one that brings photographs nearest to
the statistics that the first layer remembers.
"""


def zoo_page(folder: str | os.PathLike | None = None) -> str:
    """The whole page in MyST, from the entries in ``folder`` (the package's own unless given)."""
    members = [zoo.entry(name, folder=folder) for name in zoo.names(folder=folder)]
    if not members:
        return _HEAD + _EMPTY
    ours = [member for member in members if member.package is None]
    others = [member for member in members if member.package is not None]
    held = sum(member.bytes for member in members if member.shipped)
    shipped = sum(member.shipped for member in members)
    count = f"{shipped} network{'s' * (shipped != 1)} in {size_text(held)}"
    rows = ["", "```{raw} html", members_table(ours), "```", ""] if ours else [""]
    brought = [_BROUGHT, *map(_brought, others)] if others else []
    name = min((member.name for member in ours or others), key=len)  # a line of code fits a phone
    return "\n".join([_HEAD + _HOW.format(name=name), f"The package holds {count}.", *rows,
                      *_by_kind(ours), *brought])  # fmt: skip


def _by_kind(members: Sequence[Entry]) -> list[str]:
    """The members' sections under the headings of their kinds."""
    sections = []
    for name, kind in KINDS.items():
        own = [_section(member) for member in members if member.kind == name]
        sections += [f"## {kind.heading}\n", *own] if own else []
    return sections


def members_table(members: Sequence[Entry]) -> str:
    """HTML of a row a member, linked to its section; on a phone the cells of a row stand under each other."""
    names = ("trained on", "test accuracy", "file")
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in ("name", *names))
    rows = "\n".join(_row(member, names) for member in members)
    return (
        f'<table class="tk-table tk-stacks" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{rows}\n</tbody></table>'
    )


def _row(member: Entry, names: Sequence[str]) -> str:
    scores = "; ".join(f"{name} {percent(score.value)}" for name, score in member.scores.items())
    where = size_text(member.bytes) if member.shipped else "not shipped"
    place = html_id(f"zoo-{member.name}")
    name = f'<a href="#{place}"><code>{html.escape(member.name)}</code></a>'
    cells = "".join(
        f'<td role="cell" data-label="{name}">{html.escape(text)}</td>'
        for name, text in zip(names, (member.data, scores, where), strict=True)
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{name}</th>{cells}</tr>'


def _section(member: Entry) -> str:
    computer = member.measured["machine"]
    parts = {
        "Scores": [f"{name}: {score_text(score)}" for name, score in member.scores.items()],
        "Network": [
            f"`{member.architecture}`{_knobs(member.options)}; {KINDS[member.kind].takes(member)}"
        ],
        "Training": [recipe_text(member), cost_text(member)],
        **({"Cohort": [cohort_text(member)]} if member.siblings else {}),
        "File": [f"`{member.file}`, {size_text(member.bytes)}, {member.dtype}, SHA-256 `{member.sha256[:16]}…`"],
        "Made": [
            f"{member.measured['date']} on {computer['processor']} with torch {computer['torch']}, by "
            f"`{member.measured['command']}`"
        ],
    }
    lines = [f"(zoo-{member.name})=", f"### {member.name}", "", member.title, ""]
    for label, texts in parts.items():
        lines += [label, *(f": {text}" for text in texts), ""]
    return "\n".join(lines)


def _brought(member: Entry) -> str:
    """The section of a member that a package brings."""
    package, computer = member.package, member.measured["machine"]
    parts = {
        "Network": [f"`{member.architecture}`{_knobs(member.options)}; {KINDS[member.kind].takes(member)}"],
        "Package": [package_text(package)],
        "File": [f"`{member.file}`, {size_text(member.bytes)}, {member.dtype}, SHA-256 `{member.sha256[:16]}…`"],
        "Entered": [f"{member.measured['date']} on {computer['processor']} with torch {computer['torch']}"],
    }
    lines = [f"(zoo-{member.name})=", f"### {member.name}", "", member.title, ""]
    for label, texts in parts.items():
        lines += [label, *(f": {text}" for text in texts), ""]
    return "\n".join(lines)


def package_text(package: Package) -> str:
    """Which package brings a member, under what licence, and from where."""
    way = f"extra [{package.extra}]" if package.extra else f"installed alone, `{package.install}`"
    return f"{package.distribution} {package.version}, {way}; {package.licence}; {package.source}"


def recipe_text(member: Entry) -> str:
    """How a member was trained, in a line."""
    recipe = member.recipe
    said = [f"{recipe['method']}{_knobs(recipe['method_options'])} on {recipe['data']}{_knobs(recipe['data_options'])}"]
    said += [f"with {name}{_knobs(options)}" for name, options in recipe.get("terms", {}).items()]
    if recipe["start"] is not None:
        said.append(f"from the weights of {recipe['start']}")
    if len(recipe["stages"]) > 1:
        said.append("in stages: " + ", then ".join(_stage(stage, recipe["data"]) for stage in recipe["stages"]))
    said.append(f"{recipe['updates']:,} updates of {recipe['batch_size']} images")
    said.append(f"{recipe['optimizer']} at {recipe['lr']:g}, {recipe['schedule']}, {recipe['precision']}")
    if recipe["augment"] is not None:
        said.append(f"augmented by {recipe['augment']}")
    return "; ".join([*said, f"seed {recipe['seed']}"])


def cohort_text(member: Entry) -> str:
    """The other networks of a member's recipe, a seed after another with its scores."""
    told = [
        f"seed {seed} ({', '.join([*(f'{name} {percent(score.value)}' for name, score in one.scores.items()), *way])})"
        for seed, one in member.siblings.items()
        for way in ([one.precision] if one.precision else [],)
    ]
    left = "the others" if member.shipped else "all of them"
    said = f"{len(told) + 1} networks of this recipe; {member.name} is that of seed 0, the wheel leaves out {left}"
    return f"{said}: {', '.join(told)}"


def cost_text(member: Entry) -> str:
    """What its training cost, in a line."""
    passes = member.training["passes"]
    return (
        f"{passes['forward']:,} forward and {passes['backward']:,} backward passes, "
        f"{member.training['seconds'] / 60:.1f} minutes"
    )



def _stage(stage: Mapping[str, Any], default: str) -> str:
    return f"{percent(stage['share'])} on {stage['data'] or default}{_knobs(stage['data_options'] or {})}"


def _knobs(options: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key} {radius_text(v) if key == 'eps' else v}" for key, v in options.items())
    return f" ({text})" if text else ""
