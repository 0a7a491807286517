"""What the command line's commands share: a model by name, a data set by name, and the images it is asked about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from thesis_kit.data import Part


def number(text: str | float) -> float:
    """A number as people write it: 0.03, 1e-3, or a fraction such as 8/255."""
    over, _, under = str(text).partition("/")
    try:
        return float(over) / (float(under) if under or "/" in str(text) else 1.0)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is not a number: write it as 0.03 or 8/255") from None


def real(about: str) -> Any:
    """An option that takes a ``number``."""
    return typer.Option(parser=number, metavar="NUMBER", help=about)


Name = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="A member of the zoo (`zoo list`), or any model name that timm knows."),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Weights of your own, for --arch: safetensors, or a state_dict that torch.save wrote."),
]
Arch = Annotated[
    str | None, typer.Option(help="The network that --weights are for: a timm name, one of ours, a member of the zoo.")
]
NClasses = Annotated[
    int | None, typer.Option(min=2, help="Classes that --weights tell apart, where the file does not show it.")
]
Data = Annotated[str, typer.Option(help="Data set whose test images are taken, such as scenes.v1-a or cifar10.")]
Images = Annotated[int, typer.Option(min=1, help="So many test images.")]
Size = Annotated[int, typer.Option(min=1, help="Pixels along a side, for scenes.")]
Seed = Annotated[int, typer.Option(help="Decides all random numbers.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="timm's weights; random ones if left out.")]


@dataclass(frozen=True)
class NamedModel:
    """A model as the command line names it."""

    name: str
    pretrained: bool = False
    weights: Path | None = None
    n_classes: int | None = None

    @property
    def member(self) -> Any:
        """What the zoo knows about it; None where it is no member or has other weights."""
        from thesis_kit.models import zoo

        about = zoo.entry(self.name) if self.weights is None and self.name in zoo.names() else None
        if about is not None and about.kind != "classifier":
            raise ValueError(
                f"{self.name} is no classifier but of the kind {about.kind!r}, and this command asks what images show: "
                "`thesis-kit zoo list` names others"
            )
        return about

    def load(self, in_channels: int) -> nn.Module:
        """The network, in evaluation mode."""
        from thesis_kit.models import build, zoo
        from thesis_kit.models.build import BUILDERS, timm_name

        if self.member is not None:
            return zoo.load(self.name)
        if self.name not in {*BUILDERS, *zoo.names()}:
            timm_name(self.name, zoo.names())  # for its error, which offers members too
        if self.weights is not None:
            return _with_own(self, in_channels)
        return build(self.name, pretrained=self.pretrained, in_channels=in_channels, seed=0).eval()


def named(
    name: str | None, pretrained: bool, weights: Path | None, arch: str | None, n_classes: int | None
) -> NamedModel:
    """The model that these options mean together."""
    if weights is None and (arch is not None or n_classes is not None):
        raise ValueError("--arch and --n-classes say what --weights FILE holds: give that too, or name a model instead")
    if weights is not None and pretrained:
        raise ValueError("--weights and --pretrained are two answers to one question: give one of them")
    if None not in (name, arch) and name != arch:
        raise ValueError(f"the model is {name} or {arch}: with --weights, name the network once")
    if name is None and arch is None:
        if weights is not None:
            raise ValueError("the weights alone are no model: say with --arch what network they are for")
        raise ValueError("there is no model: name one that `thesis-kit zoo list` shows or timm knows")
    return NamedModel(name or arch, pretrained, weights, n_classes)


def _with_own(named: NamedModel, in_channels: int) -> nn.Module:
    from thesis_kit.models import stored, zoo

    if named.name in zoo.names():
        about = zoo.entry(named.name)
        return stored.from_file(
            named.weights, about.architecture, n_classes=named.n_classes, in_channels=about.image_shape[0],
            **about.options,
        )  # fmt: skip
    return stored.from_file(named.weights, named.name, n_classes=named.n_classes, in_channels=in_channels)


@dataclass(frozen=True)
class Subject:
    """A model, the images it is asked about, and what tells this pair from others."""

    model: nn.Module
    part: Part
    settings: dict[str, Any]

    def row(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        one = self.part[i : i + 1]
        return one.x, one.y, one.ids


def subject_of(model: NamedModel, data_name: str, images: int, size: int) -> Subject:
    """The model and the test images that names stand for, on the GPU where there is one."""
    import torch

    from thesis_kit import data
    from thesis_kit.checks import check_count, choose
    from thesis_kit.identity import fingerprint

    choose(data_name, data.SETS, "data set")
    check_member(model, data_name)  # before it is downloaded
    check_count(images, what="images")
    drawn = data_name in data.scenes.DISTRIBUTIONS
    options = {"size": size, "n_train": 1, "n_validation": 1, "n_test": images} if drawn else {}
    part = data.load(data_name, **options).test[:images]
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    network = model.load(part.x.shape[1])
    check_classes(model, network, data_name, part)
    settings = {"model": model.name, "weights": fingerprint(network), "data": data_name, **options}
    return Subject(network.to(device), part.to(device), {**settings, "device": device.type})


def check_member(model: NamedModel, data_name: str) -> None:
    """Refuse a member of the zoo for data of other classes than it was trained on; a model of one's own passes."""
    from thesis_kit import data
    from thesis_kit.zookeeping.plans import SOURCES

    about = model.member
    wanted = SOURCES[data_name].class_names if data_name in SOURCES else None
    if about is None or about.class_names == wanted:
        return
    there = about.data in data.SETS
    offer = f"take data with the same classes, such as {about.data}" if there else "no data set here has these classes"
    has = _some(wanted) if wanted else "classes of its own"
    raise ValueError(f"{model.name} tells {_some(about.class_names)} apart, and {data_name} has {has}: {offer}")


def _some(words: Sequence[str]) -> str:
    """Names of classes, or the first of very many."""
    return ", ".join(words) if len(words) <= 20 else f"{', '.join(words[:3])} and {len(words) - 3:,} more"


def check_classes(model: NamedModel, network: nn.Module, data_name: str, part: Part) -> None:
    """Refuse a model whose answers are not about the data's classes."""
    import torch

    check_member(model, data_name)
    with torch.no_grad():
        n_classes = network(part.x[:1].to(next(network.parameters()).device)).shape[1]
    if n_classes <= int(part.y.max()):
        raise ValueError(
            f"{model.name} knows {n_classes} classes, and {data_name} has labels up to {int(part.y.max())}"
        )
