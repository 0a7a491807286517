"""Chapter 4's real networks, and their drawings of one seed.

A seed is one drawing of every class, with random numbers that all arms of the seed share. Drawings are judged by the
networks of the family that were not inverted, at the size at which they were made: by the rank of the class among a
thousand, by whether it comes first, and by whether it still does after a slight blur at equal contrast, which takes
from a drawing what only a network sees.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import ask, evaluating
from thesis_kit.chapters import world
from thesis_kit.extras import needs
from thesis_kit.inversion import STAGES, growing, invert_with_penalties, plug_in_inversion
from thesis_kit.models import Classifier, zoo
from thesis_kit.models.folding import folded
from thesis_kit.randomness import mix_seed
from thesis_kit.synthesis import (
    Adam,
    Blur,
    ColorShift,
    Ensemble,
    Fourier,
    Jitter,
    Stage,
    Synthesis,
    cross_entropy,
    preview,
    synthesize,
)

DRAWING, TRIALS, WEIGHTS = range(50, 53)  # streams of a seed
_FLAT = 1e-6  # deviation of pixels below which an image has no contrast to bring to another


class RealWorld(world.World):
    """Networks and drawings of one seed."""

    def network(self, member: str) -> nn.Module:
        """A network of the zoo, where and as it is used."""
        return zoo.load(member).to(self.device, memory_format=torch.channels_last)

    @cached_property
    def subject(self) -> nn.Module:
        """The network that the arm inverts, with BatchNorm folded away where the arm does not ask it for statistics."""
        s = self.settings
        if s.untrained:
            model = untaught(s.member, mix_seed(self.seed, WEIGHTS))
            model = model.to(self.device, memory_format=torch.channels_last)
        else:
            model = self.network(s.member)
        return model if s.asks_batchnorm else folded(model, torch.zeros(1, 3, s.size, s.size, device=self.device))

    @cached_property
    def verifiers(self) -> dict[str, nn.Module]:
        """The networks that judge."""
        return {name: self.network(member) for name, member in self.settings.verifiers.items()}

    @property
    def group(self) -> str:
        """The name of what a seed's arms are compared on."""
        s = self.settings
        return f"imagenet/{s.size}px/{len(s.classes)} classes × 1 from {s.classes[0]}/seed {self.seed}"

    def plugged(
        self, *, steps: int, lr: float, copies: int, color: float = 1.0, rounds: int = 1, **change: Any
    ) -> Synthesis:
        """Plug-In Inversion of all classes, perhaps several rounds; without ColorShift copies are alike, and one stands
        for all."""
        s = self.settings
        knobs = {"size": s.size, "steps": steps, "lr": lr, "copies": copies if color else 1, "batch": s.batch, **change}
        seed = mix_seed(self.seed, DRAWING)
        return plug_in_inversion(self.subject, s.classes * rounds, color=color, seed=seed, progress=False, **knobs)

    def penalized(self, *, steps: int, **knobs: float) -> Synthesis:
        """Cross-entropy and perhaps penalties at full size."""
        return self._penalized(self.settings.classes, mix_seed(self.seed, DRAWING), steps, knobs)

    def tried(self, classes: tuple[int, ...], *, steps: int, **knobs: float) -> Synthesis:
        """The same for a trial, on classes that are judged nowhere."""
        return self._penalized(classes, mix_seed(self.seed, TRIALS), steps, knobs)

    def _penalized(self, classes: tuple[int, ...], seed: int, steps: int, knobs: dict[str, float]) -> Synthesis:
        s, same = self.settings, {"progress": False, "batch": self.settings.batch}
        return invert_with_penalties(self.subject, classes, size=s.size, steps=steps, seed=seed, **same, **knobs)

    def in_frequencies(
        self, *, steps: int, lr: float, copies: int, grows: bool, color: float = 1.0, rounds: int = 1
    ) -> Synthesis:
        """The augmentations of Plug-In Inversion on a canvas of frequencies and decorrelated colors, at full size or in
        the method's seven stages."""
        s = self.settings
        colors = [ColorShift(color, color)] if color else []
        seen = [Jitter.for_size(s.size), Ensemble(copies if color else 1), *colors]
        stages = growing(s.size, steps) if grows else Stage(s.size, steps)
        return synthesize(
            self.subject, cross_entropy(s.classes * rounds), stages=stages,
            parametrization=Fourier(), augmentations=seen, optimizer=Adam(lr, (0.9, 0.999), "constant"),
            seed=mix_seed(self.seed, DRAWING), batch=s.batch, progress=False,
        )  # fmt: skip

    def ranks(self, x: Float[Tensor, "n c h w"], classes: tuple[int, ...]) -> dict[str, Int[Tensor, " n"]]:
        """The place of its class in each verifier's order, 1 for the first."""
        x, y = x.to(self.device), torch.tensor(classes, device=self.device)
        return {name: _ranks(verifier, x, y) for name, verifier in self.verifiers.items()}

    def softened(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Images blurred by a share of their side and brought to one mean and contrast."""
        s = self.settings
        blurred = preview(x, [Blur(s.blur * x.shape[-1])])[:, 0]
        mean, deviation = (getattr(blurred, what)(dim=(1, 2, 3), keepdim=True) for what in ("mean", "std"))
        return ((blurred - mean) / deviation.clamp_min(_FLAT) * s.deviation + s.mean).clamp(0, 1)


def steps_in_all(stage: int) -> int:
    """The steps of a whole inversion."""
    return STAGES * stage


def untaught(member: str, seed: int) -> Classifier:
    """A member's architecture with random weights of a seed, and with the statistics that noise has in its layers.

    With the statistics it begins with, nothing of an image would reach the logits of so deep a network.
    """
    half = [0.5, 0.5, 0.5]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = needs("timm").create_model(zoo.entry(member).architecture, pretrained=False).train()
        noise = torch.rand(16, 3, 128, 128)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = 1.0
        with torch.no_grad():
            network(2 * noise - 1)
    return Classifier(network, mean=half, std=half).eval()


def _ranks(verifier: nn.Module, x: Tensor, y: Tensor, batch_size: int = 64) -> Tensor:
    found = []
    with evaluating(verifier), torch.no_grad():
        for some, classes in zip(x.split(batch_size), y.split(batch_size), strict=True):
            logits = ask(verifier, some)
            found.append((logits > logits.gather(1, classes[:, None])).sum(dim=1) + 1)
    return torch.cat(found).cpu()
