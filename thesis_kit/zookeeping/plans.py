"""What a recipe of the zoo comes to: its data, the members it rests on, and the network it begins with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thesis_kit import data
from thesis_kit.checks import choose
from thesis_kit.data import speech
from thesis_kit.data.curriculum import Curriculum
from thesis_kit.data.digits import data_hash as digits_hash
from thesis_kit.data.parts import Part, Splits, Stream
from thesis_kit.data.photos import FASHION_CLASSES, FASHION_HASH
from thesis_kit.data.scenes.pairs import LANGUAGE
from thesis_kit.data.scenes.teachers import TEACHERS, taught_splits
from thesis_kit.files import digest
from thesis_kit.ledger.memory import code
from thesis_kit.models import zoo
from thesis_kit.models.entries import Entry
from thesis_kit.models.kinds import KINDS
from thesis_kit.zookeeping.recipe import Recipe, TrainingStage
from thesis_kit.zookeeping.recipes import RECIPES


@dataclass(frozen=True)
class DataSource:
    """What the zoo must know about a data set: the names of its classes or tokens, its hash, and how it is loaded,
    ``load(seed, **options)``, where ``data.load`` does not know it; with ``to_judge`` it makes little but the test
    part."""

    class_names: tuple[str, ...]
    data_hash: Callable[[], str]
    load: Callable[..., Splits] | None = None
    to_judge: Mapping[str, Any] = field(default_factory=dict)


SOURCES = {
    "digits": DataSource(tuple("0123456789"), digits_hash),
    **{name: DataSource(one.classes, one.data_hash) for name, one in {**LANGUAGE, **data.scenes.DISTRIBUTIONS}.items()},
    "fashion-mnist": DataSource(FASHION_CLASSES, lambda: FASHION_HASH),
    "speech.v1": DataSource(tuple(speech.TOKENS), lambda: speech.data_hash().here, speech.splits, {"train": 1}),
}


def splits_of(name: str, seed: int, options: Mapping[str, Any]) -> Splits:
    """The data that a recipe names; with a ``teacher`` among the options, what that says of scenes."""
    own = choose(name, SOURCES, "data set of the zoo").load
    usual = partial(taught_splits, name=name) if "teacher" in options else partial(data.load, name)
    return (own or usual)(seed, **options)


def class_names_of(recipe: Recipe) -> tuple[str, ...]:
    """The names of a network's outputs: the data's classes, or what its teacher asks about; none of a pair."""
    if "teacher" in recipe.data_options:
        return choose(recipe.data_options["teacher"], TEACHERS, "teacher")().outputs
    return choose(recipe.data, SOURCES, "data set of the zoo").class_names


@dataclass(frozen=True)
class Making:
    """A recipe with its data, on a device: all that training needs."""

    name: str
    recipe: Recipe
    device: torch.device
    splits: Splits
    train: Part | Stream
    class_names: tuple[str, ...]
    data_hashes: dict[str, str]
    origins: dict[str, str]  # SHA-256 of the weights of the members that it rests on, by their role
    folder: Path

    @property
    def label(self) -> str:
        """What progress calls it."""
        return f"{self.name}, seed {self.recipe.seed}" if is_sibling(self.name, self.recipe) else self.name

    def entry(self) -> Entry:
        """The member's entry before there are weights."""
        nothing = {key: {} for key in ("scores", "training", "measured", "code")}
        return Entry(
            name=self.name, title=self.recipe.title, recipe=self.recipe.settings(), classes=self.class_names,
            input_shape=tuple(self.splits.test.x.shape[1:]), data_hashes=self.data_hashes,
            file=file_of(self.name, self.recipe), sha256="", bytes=0, dtype=self.recipe.storage,
            kind=self.recipe.kind, **nothing,
        )  # fmt: skip

    def network(self) -> nn.Module:
        """The recipe's network with the weights it starts from, on the device."""
        recipe = self.recipe
        network = KINDS[recipe.kind].build(self.entry(), recipe.seed)
        if recipe.start is not None:
            home = home_of(recipe.start, self.folder)
            first = zoo.entry(recipe.start, folder=home)
            network = zoo.with_weights(network, zoo.stored_weights(first, folder=home), recipe.start)
        else:
            KINDS[recipe.kind].begin(network, self.train)
        return network.to(self.device)

    def fingerprint(self) -> str:
        """What a checkpoint must agree with to be gone on from."""
        return digest([self.recipe.settings(), self.data_hashes, self.origins, self.device.type, code()])[:16]


def plan_of(name: str, recipe: Recipe, folder: Path, device: str | torch.device | None) -> Making:
    default = "cuda" if torch.cuda.is_available() else "cpu"
    splits = splits_of(recipe.data, recipe.seed, recipe.data_options)
    return Making(
        name=name,
        recipe=recipe,
        device=torch.device(default if device is None else device),
        splits=splits,
        train=_curriculum(recipe, splits),
        class_names=class_names_of(recipe),
        data_hashes=data_hashes_of(recipe),
        origins={role: zoo.entry(one, folder=home_of(one, folder)).sha256 for role, one in recipe.rests_on.items()},
        folder=folder,
    )


def _curriculum(recipe: Recipe, splits: Splits) -> Part | Stream:
    """What to train on: the recipe's own data, or one stream after another."""
    if len(recipe.stages) == 1 and recipe.stages[0] == TrainingStage(1.0):
        return splits.train
    streams = [_stage_data(recipe, stage) for stage in recipe.stages]
    if not all(isinstance(stream, Stream) for stream in streams):
        raise ValueError("stages need data that are streamed: leave out n_train, or train in one stage")
    if len(streams) == 1:
        return streams[0]
    total = -(-recipe.updates // recipe.make_method().replays)
    ends = [round(total * sum(stage.share for stage in recipe.stages[: i + 1])) for i in range(len(recipe.stages))]
    return Curriculum(streams, [end - start for start, end in zip([0, *ends[:-2]], ends[:-1], strict=True)])


def _stage_data(recipe: Recipe, stage: TrainingStage) -> Part | Stream:
    options = recipe.data_options if stage.data_options is None else stage.data_options
    return splits_of(stage.data or recipe.data, recipe.seed, options).train


def data_hashes_of(recipe: Recipe) -> dict[str, str]:
    names = sorted({recipe.data, *(stage.data or recipe.data for stage in recipe.stages)})
    return {name: choose(name, SOURCES, "data set of the zoo").data_hash() for name in names}


def file_of(name: str, recipe: Recipe) -> str:
    """Where the weights of a recipe go, seen from the folder of entries."""
    home = "" if recipe.shipped else f"{zoo.COHORTS}/"
    return f"{home}{name}{f'.seed{recipe.seed}' if is_sibling(name, recipe) else ''}.safetensors"


def is_sibling(name: str, recipe: Recipe) -> bool:
    """Whether a recipe is that of another seed of a cohort than the member's own."""
    return recipe.seed != RECIPES[name].seed


def home_of(name: str, folder: str | os.PathLike | None) -> str | os.PathLike | None:
    """Where a member lies that another one rests on: in the same folder, or else among the package's own."""
    own = name not in zoo.names(folder=folder) and name in zoo.names()
    return None if own else folder
