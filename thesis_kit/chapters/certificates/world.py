"""Chapter 2's images, networks and forgeries of one seed, on scenes.

Every seed trains networks of its own and tests images of its own, a block of the test part. Where certificates are
attacked, natural and forged ones are of the same images: the first of the block whose smoothed label is right and
certified under noise that is used for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from thesis_kit import training
from thesis_kit.attacks.spoofing import Spoofed, spoof
from thesis_kit.certification import Certificates, certify
from thesis_kit.chapters import world
from thesis_kit.chapters.world import scenes_group
from thesis_kit.data import Part, Splits
from thesis_kit.models import Classifier, build
from thesis_kit.passes import Passes, count_passes
from thesis_kit.training.augmentation import shade

NETWORKS: dict[str, Callable[[float], training.Method]] = {
    "ibp": training.IBP,
    "crown-ibp": training.CrownIBP,
}
SHADOW = "Shadow"  # the attack's name in a budget
SELECTION, NATURAL, SHADOWED, BASELINE, INSIDE, PREDICTION, TARGETS, VERIFIER = range(20, 28)  # streams of a seed

# What decides kept work, by the names of the settings.
TRAINING = ("task", "model", "model_options", "updates", "batch_size", "lr")
BOUNDED = ("task", "batch_size", *(f"interval_{name}" for name in ("model", "options", "updates", "lr", "margin")))
CHOICE = (*TRAINING, "block", "n0", "n_choose", "alpha", "images")
FORGERY = (*CHOICE, "n", "n_select", "constants", "finalists", "final")


@dataclass(frozen=True)
class Forgery:
    """What an attack made of the chosen images, in the words of ``Spoofed``."""

    images: Tensor
    targets: Tensor
    labels: Tensor
    radii: Tensor
    wrong: Tensor
    norms: Tensor
    tv: Tensor

    @classmethod
    def of(cls, spoofed: Spoofed) -> Forgery:
        """From what ``spoof`` returns."""
        some = spoofed.certificates.labels, spoofed.radii, spoofed.wrong, spoofed.norms, spoofed.tv
        return cls(spoofed.images, spoofed.targets, *some)

    def __getitem__(self, rows: slice) -> Forgery:
        return Forgery(*(value[rows] for value in vars(self).values()))


class World(world.World):
    """Images and networks of one seed; ``budget`` is what went into the network that is certified, and into attacks."""

    def __init__(self, seed: int, settings: Any, *, device: torch.device | str = "cpu"):
        super().__init__(seed, settings, device=device)
        self.budget: dict[str, dict[str, int]] = {}

    @cached_property
    def splits(self) -> Splits:
        """The task."""
        return self.loaded(self.settings.task.data, self.settings.task.data_options)

    @property
    def block(self) -> Part:
        """The seed's own test images."""
        size, part = self.settings.block, self.splits.test
        if (self.seed + 1) * size > len(part):
            raise ValueError(f"seed {self.seed} has no block of {size} test images: enlarge n_test")
        return part[self.seed * size : (self.seed + 1) * size]

    def group(self, what: object) -> str:
        """A name for images of this seed's block."""
        return f"{scenes_group(self.settings.task, self.seed)}/block {self.seed}/{what}"

    def smoothed(self, sigma: float) -> Classifier:
        """The network trained on noise of this σ, in evaluation mode."""
        model, self.budget["train"] = self._usual("smoothed", training.Gaussian(sigma), self.seed, sigma=sigma)
        return model

    def verifier(self, *, shaded: bool = False) -> Classifier:
        """A network that saw no noise and shares no random number with the others; ``shaded`` saw random light."""
        name, how = ("shaded verifier", {"augment": shade}) if shaded else ("verifier", {})
        return self._usual(name, training.Natural(), self.stream(VERIFIER), how)[0]

    def _usual(
        self, what: str, method: training.Method, seed: int, how: dict[str, Any] | None = None, **more: float
    ) -> tuple[Classifier, dict[str, int]]:
        s, about = self.settings, self.about(what, *TRAINING, **more)
        model = self._network(s.model, s.model_options, seed)
        model, report = self.trained(
            about, model, self.splits.train, method, updates=s.updates, lr=s.lr, seed=seed, batch_size=s.batch_size,
            **(how or {}),
        )  # fmt: skip
        return model, asdict(report.passes)

    def bounded(self, method: str, eps: float) -> Classifier:
        """The network trained on interval bounds, for slightly larger boxes, as published."""
        s, about = self.settings, self.about("bounded", *BOUNDED, method=method, eps=eps)
        model, report = self.trained(
            about, self._network(s.interval_model, s.interval_options, self.seed), self.splits.train,
            NETWORKS[method](s.interval_margin * eps), updates=s.interval_updates, lr=s.interval_lr, seed=self.seed,
            batch_size=s.batch_size, optimizer="adam", weight_decay=0.0,
        )  # fmt: skip
        self.budget["train"] = asdict(report.passes)
        return model

    def _network(self, architecture: str, options: Any, seed: int) -> Classifier:
        shape = {"n_classes": self.settings.task.n_classes, "in_channels": self.splits.test.x.shape[1]}
        return build(architecture, seed=seed, **shape, **options).to(self.device)

    @contextmanager
    def attacking(self, model: nn.Module, name: str, n: int) -> Iterator[Passes]:
        """Note what the block spends on an attack of n images, beside what was spent on it before."""
        with count_passes(model) as passes:
            yield passes
        before = {key: value for key, value in self.budget.get(name, {}).items() if key != "attacked"}
        self.budget[name] = {"attacked": n, **asdict(Passes(**before) + passes)}

    def certified(self, model: nn.Module, part: Part, sigma: float, which: int) -> Certificates:
        """Certificates under the chapter's budget, with the noise of one purpose."""
        s = self.settings
        return certify(
            model, part.x, sigma=sigma, n0=s.n0, n=s.n, alpha=s.alpha, seed=self.stream(which), ids=part.ids,
            progress=False,
        )  # fmt: skip

    def chosen(self, sigma: float) -> Part:
        """The first images of the block with a right and certified smoothed label."""
        found = self.memory.recall(self.about("chosen", *CHOICE, sigma=sigma), lambda: self._choose(sigma))
        return self.block[torch.tensor(found, dtype=torch.int64)]

    def _choose(self, sigma: float) -> list[int]:
        s, model, found = self.settings, self.smoothed(sigma), []
        for i in range(len(self.block)):
            one = self.block[i : i + 1]
            certificates = certify(
                model, one.x, sigma=sigma, n0=s.n0, n=s.n_choose, alpha=s.alpha, seed=self.stream(SELECTION),
                ids=one.ids, progress=False,
            )  # fmt: skip
            found += [i] if certificates[0].label == int(one.y) else []
            if len(found) == s.images:
                break
        return found

    def forged(self, sigma: float) -> Forgery:
        """The Shadow Attack on the chosen images, made once."""

        def make() -> dict[str, Any]:
            made = self.spoofed(self.chosen(sigma), sigma)
            return {"forgery": {k: value.cpu() for k, value in vars(made).items()}, "budget": self.budget[SHADOW]}

        kept = self.memory.recall_tensors(self.about("forged", *FORGERY, sigma=sigma), make)
        self.budget[SHADOW] = kept["budget"]
        return Forgery(**kept["forgery"])

    def spoofed(self, part: Part, sigma: float) -> Forgery:
        """The Shadow Attack on a part, over all targets, in two stages."""
        s, model = self.settings, self.smoothed(sigma)
        with self.attacking(model, SHADOW, len(part)):
            made = spoof(
                model, part.x, part.y, sigma=sigma, n0=s.n0, n=s.n, alpha=s.alpha, n_select=s.n_select,
                constants=s.constants, finalists=s.finalists, final=s.final, seed=self.stream(SHADOWED), ids=part.ids,
                progress=False,
            )  # fmt: skip
        return Forgery.of(made)
