"""Chapter 4's networks, real images and inversions of one seed.

Every seed inverts all classes, several images each, with random numbers of its own that its arms share, so that arms
are compared image by image; arms whose first stages have one size also share their starts. Images are judged by
verifiers that none of them was made with, one trained in the ordinary way and one adversarially; V is the mean of their
verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thesis_kit.chapters import world
from thesis_kit.data import Part
from thesis_kit.evaluation.synthesized import kid_of_images, recognized
from thesis_kit.extras import needs
from thesis_kit.inversion import STAGES, invert_with_penalties, plug_in_inversion
from thesis_kit.ledger.arm import weights_hash
from thesis_kit.models import Classifier, build, zoo
from thesis_kit.randomness import mix_seed
from thesis_kit.synthesis import Synthesis

STUDIED = "resnet"  # the network on which parts of the method are taken away, and on which penalties are tuned
RANDOM = "random"  # its architecture with weights that never were trained
JUDGED = ("task", "size", "classes", "verifiers", "each")  # what decides how images are judged
INVERSION, TRIALS, WEIGHTS = range(40, 43)  # streams of a seed


class World(world.World):
    """Networks, real images and inversions of one seed."""

    def network(self, member: str) -> Classifier:
        """A network by its name in the zoo, or in timm with its weights; in evaluation mode."""
        return self._placed(zoo.load(member) if is_member(member) else build(member, pretrained=True))

    def _placed(self, model: Classifier) -> Classifier:
        """The model where and how it is used; with channels last convolutions take a fifth less time on a CPU."""
        return model.to(self.device, memory_format=torch.channels_last).eval()

    def untrained(self, member: str) -> Classifier:
        """A network's architecture with the seed's own weights, which never were trained."""
        seed = mix_seed(self.seed, WEIGHTS)
        if not is_member(member):
            return self._placed(build(member, seed=seed))
        about = zoo.entry(member)
        shape = {"n_classes": about.n_classes, "in_channels": about.image_shape[0]}
        return self._placed(build(about.architecture, seed=seed, **shape, **about.options))

    @property
    def subject(self) -> Classifier:
        """The network that the arm inverts."""
        s = self.settings
        return self.untrained(s.member) if s.untrained else self.network(s.member)

    @cached_property
    def verifiers(self) -> dict[str, Classifier]:
        """The networks that judge."""
        return {name: self.network(member) for name, member in self.settings.verifiers.items()}

    @cached_property
    def _real(self) -> dict[int, Part]:
        """All real test images, class by class, and the logit of each class."""
        s = self.settings
        test = self.loaded(s.task.data, s.task.data_options).test
        return {logit: test[test.y == label] for label, logit in enumerate(s.classes)}

    def real(self, which: int) -> Tensor:
        """Real images of the inverted classes in their order, (n, c, h, w), which no other seed has: those that the
        inversions stand beside (0), and those that KID measures the distance to (1)."""
        each, chosen = self.settings.each, []
        for logit, part in self._real.items():
            first = (2 * self.seed + which) * each
            if first + each > len(part):
                raise ValueError(
                    f"seed {self.seed} needs {first + each} test images of class {logit}, and there are {len(part)}: "
                    "enlarge n_test"
                )
            chosen.append(part.x[first : first + each])
        return torch.cat(chosen)

    @property
    def group(self) -> str:
        """The name of the images that a seed's arms are compared on: targets by their class and number."""
        s = self.settings
        return f"{s.task.data}/{s.size}px/{len(s.classes)} classes × {s.each}/seed {self.seed}"

    def wanted(self, each: int | None = None) -> list[int]:
        """The class of every image, as a logit: each class as often as the settings say."""
        s = self.settings
        return [logit for logit in s.classes for _ in range(each or s.each)]

    def plugged(self, *, color: float, copies: int, **change: Any) -> Synthesis:
        """Plug-In Inversion of the arm's network, with one thing changed or another.

        Without ColorShift the copies of an image are all alike and so are their losses and gradients, so one copy
        stands for all.
        """
        s = self.settings
        knobs = {"size": s.size, "steps": s.steps, "lr": s.lr, "copies": copies if color else 1, **change}
        seed = mix_seed(self.seed, INVERSION)
        return plug_in_inversion(self.subject, self.wanted(), color=color, seed=seed, progress=False, **knobs)

    def penalized(self, model: Classifier, **knobs: float) -> Synthesis:
        """Cross-entropy and perhaps penalties at full size, with as many steps as the method has in all."""
        return self._penalized(model, self.wanted(), INVERSION, knobs)

    def tried(self, model: Classifier, **knobs: float) -> Synthesis:
        """The same for a trial, whose images are others."""
        return self._penalized(model, self.wanted(self.settings.each_trial), TRIALS, knobs)

    def _penalized(self, model: Classifier, wanted: list[int], stream: int, knobs: Mapping[str, float]) -> Synthesis:
        s = self.settings
        seed, steps = mix_seed(self.seed, stream), STAGES * s.steps
        return invert_with_penalties(model, wanted, size=s.size, steps=steps, seed=seed, progress=False, **knobs)

    def votes(self, x: Tensor, each: int | None = None) -> dict[str, Tensor]:
        """Which images each verifier names the class of, as 0 and 1."""
        x, y = x.to(self.device), torch.tensor(self.wanted(each), device=self.device)
        return {name: recognized([verifier], x, y) for name, verifier in self.verifiers.items()}

    def kid(self, x: Tensor) -> float:
        """How far images are from as many real ones, to the verifier that was trained in the ordinary way."""
        y = torch.tensor(self.wanted(), device=self.device)
        return kid_of_images(self.verifiers["natural"], x, self.real(1), classes=(y, y))

    def about_images(self, what: str, *names: str, **more: Any) -> dict[str, Any]:
        """What tells kept work apart: as ``about``, with how images are judged and the weights of all networks."""
        s = self.settings
        members = {name: weights_hash(name) for name in (s.member, *s.verifiers.values())}
        return self.about(what, *JUDGED, "member", *names, weights=members, **more)


def is_member(name: str) -> bool:
    """Whether a network is the zoo's; one that neither the zoo nor timm knows counts as a member not yet made."""
    return name in zoo.names() or not needs("timm").is_model(name.split(".")[0])
