"""What the command line's commands share: a model by name, a data set by name, and the images it is asked about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from torch import nn

from thesis_kit import data
from thesis_kit.checks import check_count, choose
from thesis_kit.data import Part
from thesis_kit.models import build, zoo
from thesis_kit.models.build import BUILDERS, timm_name
from thesis_kit.models.fingerprint import fingerprint
from thesis_kit.zookeeping.making import SOURCES

Model = Annotated[str, typer.Argument(help="A member of the zoo (`zoo list`), or any model name that timm knows.")]
Data = Annotated[str, typer.Option(help="Data set whose test images are taken, such as scenes.v1-a or cifar10.")]
Images = Annotated[int, typer.Option(min=1, help="So many test images.")]
Size = Annotated[int, typer.Option(help="Pixels along a side, for scenes.")]
Seed = Annotated[int, typer.Option(help="Decides all random numbers.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="timm's weights; random ones if left out.")]


@dataclass(frozen=True)
class Subject:
    """A model, the images it is asked about, and what tells this pair from others."""

    model: nn.Module
    part: Part
    settings: dict[str, Any]

    def row(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        one = self.part[i : i + 1]
        return one.x, one.y, one.ids


def subject_of(name: str, data_name: str, images: int, size: int, pretrained: bool) -> Subject:
    """The model and the test images that names stand for, on the GPU where there is one."""
    choose(data_name, data.SETS, "data set")
    check_count(images, what="images")
    drawn = data_name in data.scenes.DISTRIBUTIONS
    options = {"size": size, "n_train": 1, "n_validation": 1, "n_test": images} if drawn else {}
    part = data.load(data_name, **options).test[:images]
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    model = model_of(name, pretrained, part.x.shape[1])
    check_classes(name, model.eval(), data_name, part)
    settings = {"model": name, "weights": fingerprint(model), "data": data_name, **options, "device": device.type}
    return Subject(model.to(device).eval(), part.to(device), settings)


def model_of(name: str, pretrained: bool, in_channels: int) -> nn.Module:
    """A member of the zoo, or a model that timm knows."""
    members = zoo.names()
    if name in members:
        return zoo.load(name)
    if name not in BUILDERS:
        timm_name(name, members)  # for the error, which offers members too
    return build(name, pretrained=pretrained, in_channels=in_channels, seed=0)


def check_classes(name: str, model: nn.Module, data_name: str, part: Part) -> None:
    """Refuse a model whose answers are not about the data's classes."""
    known = zoo.entry(name).class_names if name in zoo.names() else None
    wanted = SOURCES[data_name].class_names if data_name in SOURCES else None
    if known is not None and wanted is not None and known != wanted:
        raise ValueError(
            f"{name} tells {', '.join(known)} apart, and {data_name} has {', '.join(wanted)}: take data with the same "
            f"classes, such as {zoo.entry(name).data}"
        )
    with torch.no_grad():
        n_classes = model(part.x[:1]).shape[1]
    if n_classes <= int(part.y.max()):
        raise ValueError(f"{name} knows {n_classes} classes, and {data_name} has labels up to {int(part.y.max())}")
