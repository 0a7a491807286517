"""The command line's ``attack report``: is a model robust, or does it only look so?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thesis_kit.cli.pages import out as console
from thesis_kit.cli.stopping import kept
from thesis_kit.cli.subjects import (
    Arch,
    Data,
    Images,
    Name,
    NamedModel,
    NClasses,
    Pretrained,
    Seed,
    Size,
    Subject,
    Weights,
    check_classes,
    named,
    real,
    subject_of,
)
from thesis_kit.files import only_writer, renewal, write_atomic

if TYPE_CHECKING:
    from torch import nn

Eps = Annotated[float, real("Radius of the attacks, in units of pixels in [0, 1], such as 8/255.")]
Norm = Annotated[str, typer.Option(help="Norm of the radius: linf or l2.")]
Twin = Annotated[
    str | None,
    typer.Option(help='Model to make transferred examples on; "train" makes one from the data; none if left out.'),
]
Json = Annotated[Path | None, typer.Option(help="Write the diagnosis here, as JSON.")]


def report(
    data: Data, eps: Eps, model: Name = None, norm: Norm = "linf", images: Images = 200, size: Size = 32,
    twin: Twin = None,
    twin_updates: Annotated[int, typer.Option(min=1, help="Updates of a twin that is trained.")] = 1000,
    steps: Annotated[int, typer.Option(min=10, help="Steps of the strongest gradient attacks.")] = 100,
    restarts: Annotated[int, typer.Option(min=1, help="Restarts of PGD.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Queries of Square.")] = 1000,
    seed: Seed = 0, pretrained: Pretrained = False, weights: Weights = None, arch: Arch = None,
    n_classes: NClasses = None, out: Json = None,
) -> None:  # fmt: skip
    """Diagnose whether a model is robust or only hard to attack with gradients, by attacks that should agree."""
    with kept(_what_stays(out)):
        from thesis_kit import evaluation
        from thesis_kit.attacks.norms import NORMS
        from thesis_kit.checks import check_eps, choose

        check_eps(eps), choose(norm, NORMS, "norm")  # now, for a twin may take minutes
        if out is not None and not out.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {out.parent} to write the diagnosis to")
        if out is not None:
            with only_writer(out):
                pass  # a file that cannot be written is noticed now
        subject = subject_of(named(model, pretrained, weights, arch, n_classes), data, images, size)
        other = _twin(twin, subject, data, size, pretrained, twin_updates)
        knobs = {"steps": steps, "restarts": restarts, "queries": queries, "seed": seed}
        found = evaluation.masking_report(
            subject.model, subject.part, eps=eps, norm=norm, twin=other, images_shown=0, **knobs
        )
        if out is not None:
            record = {"settings": {**subject.settings, "twin": twin, **knobs}, **found.record()}
            write_atomic(out, (json.dumps(record, indent=1) + "\n").encode())
        console.print(str(found))
        if out is not None:
            console.print(f"\nwritten to {out}")


def _what_stays(out: Path | None) -> Callable[[], str]:
    """What Ctrl-C leaves."""
    written = renewal(*([out] if out else []))
    anew = "nothing was kept: a diagnosis is made in one piece, and the same command begins it anew"
    return lambda: f"the diagnosis is in {out}" if written() else anew


def _twin(name: str | None, subject: Subject, data: str, size: int, pretrained: bool, updates: int) -> nn.Module | None:
    """The model on which transferred examples are made."""
    from thesis_kit import data as data_sets
    from thesis_kit import training

    if name is None:
        return None
    device = subject.part.x.device
    if name != "train":
        twin = NamedModel(name, pretrained)
        network = twin.load(subject.part.x.shape[1]).to(device)
        check_classes(twin, network, data, subject.part)
        return network
    options = {"size": size} if data in data_sets.scenes.DISTRIBUTIONS else {}
    return training.natural_twin(subject.model, data_sets.load(data, **options).to(device).train, updates=updates)
