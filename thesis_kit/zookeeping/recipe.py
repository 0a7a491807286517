"""A recipe: every setting that decides a member's weights, and where its robustness is measured.

It is data. ``zookeeping/making.py`` carries it out and writes its settings into the entry beside the scores, so that a
recipe changed after training is noticed. Weights that are not ``shipped`` are left out of the wheel.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from thesis_kit.attacks.norms import NORMS
from thesis_kit.casting import PRECISIONS
from thesis_kit.checks import check_count, check_eps, choose
from thesis_kit.files import canonical
from thesis_kit.models.kinds import KINDS
from thesis_kit.training import METHODS, TERMS, Method
from thesis_kit.training.augmentation import AUGMENTATIONS
from thesis_kit.training.run import Term
from thesis_kit.training.schedules import SCHEDULES

STORAGES = ("float16", "float32")
_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@dataclass(frozen=True)
class TrainingStage:
    """A part of training: ``share`` of the updates, on the recipe's own data and options unless it names others."""

    share: float
    data: str | None = None
    data_options: dict[str, Any] | None = None


@dataclass(frozen=True)
class Recipe:
    """One member's training.

    Args:
        title: one line of what it is.
        data, data_options: the distribution it is for, as ``data.load`` takes it; its test part gives the scores.
        architecture, options: as ``models.build`` takes them; classes and channels come from the data.
        method, method_options: a name of ``training.METHODS`` and its knobs.
        terms: what the loss has beside cross-entropy, names of ``training.TERMS`` with their knobs.
        updates, batch_size, lr, momentum, weight_decay, optimizer, schedule, seed: as ``training.train`` takes them;
            the seed also cuts the data and draws the initial weights.
        precision: of the passes, "float32", "float16" or "bfloat16". storage: of the weights file.
        augment: a name of ``training.augmentation.AUGMENTATIONS``, or None.
        eps, norm: radii at which robust accuracy is measured.
        verified: ℓ∞ radii at which interval bounds verify, or None. sigma: standard deviation of the noise to be
            smoothed with, at which certified accuracy is measured, or None.
        start: a member of the same architecture whose weights training starts from, or None.
        stages: a curriculum of streams, with shares that add up to 1.
        shipped: whether the weights come with the package.
        kind: of network, a name of ``models.kinds.KINDS``.
        seeds: how many networks of this recipe make up its cohort, from seed 0 on; the member itself is that of seed 0,
            the wheel leaves out the others.
        cohort_precision: of the others' passes, where it is not the member's own.

    Raises:
        ValueError: a setting that cannot be meant.
    """

    title: str
    data: str
    architecture: str
    method: str
    updates: int
    lr: float
    eps: tuple[float, ...]
    data_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, dict[str, Any]] = field(default_factory=dict)
    norm: str = "linf"
    verified: tuple[float, ...] | None = None
    sigma: float | None = None
    batch_size: int = 128
    optimizer: str = "sgd"
    schedule: str = "one-cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    precision: str = "float32"
    storage: str = "float16"
    augment: str | None = None
    seed: int = 0
    start: str | None = None
    stages: tuple[TrainingStage, ...] = (TrainingStage(1.0),)
    shipped: bool = True
    kind: str = "classifier"
    seeds: int = 1
    cohort_precision: str | None = None

    def __post_init__(self) -> None:
        choose(self.schedule, SCHEDULES, "schedule")
        choose(self.norm, NORMS, "norm")
        choose(self.precision, PRECISIONS, "precision")
        choose(self.cohort_precision or self.precision, PRECISIONS, "precision of a cohort")
        choose(self.storage, STORAGES, "storage")
        if self.augment is not None:
            choose(self.augment, AUGMENTATIONS, "augmentation")
        check_count(self.updates, what="updates")
        check_count(self.seed, what="seed", least=0)
        check_count(self.seeds, what="seeds")
        choose(self.kind, KINDS, "kind of member")
        if self.seeds > 1 and self.seed:
            raise ValueError(f"a cohort's seeds begin at 0, got seed={self.seed} and seeds={self.seeds}")
        for eps in (*self.eps, *(self.verified or ())):
            check_eps(eps)
        shares = [stage.share for stage in self.stages]
        if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1):
            raise ValueError(f"the shares of stages must be above 0 and add up to 1, got {shares}")
        self.make_method(), self.make_terms()

    @property
    def rests_on(self) -> dict[str, str]:
        """The members whose weights decide this one's, by their role: "start", "teacher"."""
        found = {"start": self.start, "teacher": self.method_options.get("teacher")}
        return {role: name for role, name in found.items() if name is not None}

    def of_seed(self, seed: int) -> Recipe:
        """The recipe of one network of the cohort; only seed 0 may be shipped.

        Raises:
            ValueError: the cohort has no such seed.
        """
        if seed == self.seed:
            return self
        if seed not in range(self.seeds):
            has = f"seeds 0 … {self.seeds - 1}" if self.seeds > 1 else f"seed {self.seed} alone"
            raise ValueError(f"the recipe is for {has}, got seed {seed}: raise seeds in the recipe to have more")
        precision = self.cohort_precision or self.precision
        return replace(self, seed=seed, seeds=1, shipped=False, precision=precision, cohort_precision=None)

    def make_method(self) -> Method:
        """The training method with its knobs, new."""
        make = choose(self.method, METHODS, "training method")
        try:
            return make(**self.method_options)
        except TypeError as error:
            raise ValueError(f"{self.method} training cannot be set to {self.method_options}: {error}") from error

    def make_terms(self) -> list[Term]:
        """The terms of the loss, new."""
        try:
            return [choose(name, TERMS, "term")(**options) for name, options in self.terms.items()]
        except TypeError as error:
            raise ValueError(f"the terms {self.terms} cannot be made: {error}") from error

    def settings(self) -> dict[str, Any]:
        """All that decides weights and scores, as its entry holds it; wording and shipping are not among it."""
        plain = json.loads(canonical(asdict(self)))
        unsaid = ["title", "shipped", "seeds", "cohort_precision"]
        unsaid += [] if self.terms else ["terms"]
        unsaid += ["kind"] if self.kind == "classifier" else []
        return {key: value for key, value in plain.items() if key not in unsaid}


def register(table: dict[str, Recipe]) -> dict[str, Recipe]:
    """The table, if its names can be names of files: lower case, digits, single hyphens and dots."""
    for name in table:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a zoo model: use lower-case letters, digits and single hyphens")
    return table
