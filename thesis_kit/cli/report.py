"""The command line's ``attack report``: is a model robust, or does it only look so?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from thesis_kit import data as data_sets
from thesis_kit.attacks.norms import NORMS
from thesis_kit.checks import check_eps, choose
from thesis_kit.cli.pages import out as console
from thesis_kit.cli.subjects import (
    Data,
    Images,
    Model,
    Pretrained,
    Seed,
    Size,
    Subject,
    check_classes,
    model_of,
    subject_of,
)
from thesis_kit.evaluation import masking_report
from thesis_kit.files import write_atomic
from thesis_kit.training import natural_twin

Eps = Annotated[float, typer.Option(help="Radius of the attacks, in units of pixels in [0, 1].")]
Norm = Annotated[str, typer.Option(help="Norm of the radius: linf or l2.")]
Twin = Annotated[
    str | None,
    typer.Option(help='Model to make transferred examples on; "train" makes one from the data; none if left out.'),
]
Json = Annotated[Path | None, typer.Option(help="Write the diagnosis here, as JSON.")]


def report(
    model: Model, data: Data, eps: Eps, norm: Norm = "linf", images: Images = 200, size: Size = 32, twin: Twin = None,
    twin_updates: Annotated[int, typer.Option(min=1, help="Updates of a twin that is trained.")] = 1000,
    steps: Annotated[int, typer.Option(min=10, help="Steps of the strongest gradient attacks.")] = 100,
    restarts: Annotated[int, typer.Option(min=1, help="Restarts of PGD.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Queries of Square.")] = 1000,
    seed: Seed = 0, pretrained: Pretrained = False, out: Json = None,
) -> None:  # fmt: skip
    """Diagnose whether a model is robust or only hard to attack with gradients, by attacks that should agree."""
    check_eps(eps, norm=norm), choose(norm, NORMS, "norm")  # now, for a twin may take minutes
    if out is not None and not out.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to write the diagnosis to")
    subject = subject_of(model, data, images, size, pretrained)
    other = _twin(twin, subject, data, size, pretrained, twin_updates)
    knobs = {"steps": steps, "restarts": restarts, "queries": queries, "seed": seed}
    found = masking_report(subject.model, subject.part, eps=eps, norm=norm, twin=other, images_shown=0, **knobs)
    console.print(str(found), markup=False)
    if out is not None:
        record = {"settings": {**subject.settings, "twin": twin, **knobs}, **found.record()}
        write_atomic(out, (json.dumps(record, indent=1) + "\n").encode())
        console.print(f"\nwritten to {out}", markup=False)


def _twin(name: str | None, subject: Subject, data: str, size: int, pretrained: bool, updates: int) -> nn.Module | None:
    """The model on which transferred examples are made."""
    if name is None:
        return None
    device = subject.part.x.device
    if name != "train":
        twin = model_of(name, pretrained, subject.part.x.shape[1]).to(device).eval()
        check_classes(name, twin, data, subject.part)
        return twin
    options = {"size": size} if data in data_sets.scenes.DISTRIBUTIONS else {}
    return natural_twin(subject.model, data_sets.load(data, **options).to(device).train, updates=updates)
