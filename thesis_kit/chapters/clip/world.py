"""What chapter 6's arms start from: scenes with all that is known of them, and the twins of one seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from thesis_kit.chapters.clip.settings import TAUGHT
from thesis_kit.chapters.world import World as Shared
from thesis_kit.chapters.world import taught, untaught
from thesis_kit.data.scenes import Scenes
from thesis_kit.data.scenes.pairs import LANGUAGE
from thesis_kit.data.scenes.table import Table
from thesis_kit.data.scenes.vocabulary import SHAPES
from thesis_kit.language import scene_classes, zero_shot
from thesis_kit.models import Classifier, Clip
from thesis_kit.randomness import mix_seed

_JUDGED, _FITTED, _CHOSEN = 601, 602, 603  # streams of scenes, the same for all twins and seen by none in training


class World(Shared):
    """Scenes, which are the same for all twins, and the twins of one seed."""

    def twin(self, teacher: str) -> nn.Module:
        """The seed's network with a teacher, in evaluation mode."""
        return taught(TAUGHT[teacher][0], self.seed, self.device)

    @cached_property
    def subject(self) -> nn.Module:
        """The network that the arm asks: a twin, or the towers' architecture with weights that learned nothing."""
        s = self.settings
        if s.untrained:
            return untaught(TAUGHT[s.teacher][0], self.seed, self.device)
        return self.twin(s.teacher)

    @cached_property
    def tower(self) -> Classifier:
        """Its image tower."""
        return self.subject.image if isinstance(self.subject, Clip) else self.subject

    @cached_property
    def classifier(self) -> nn.Module:
        """It as a classifier of shapes: by the names of the classes, or by its own labels."""
        return naming_shapes(self.subject)

    @cached_property
    def scenes(self) -> Scenes:
        """Scenes to judge by."""
        return self.drawn(self.settings.images, _JUDGED)

    @cached_property
    def fitted(self) -> Scenes:
        """Other scenes, for probes to be fitted on."""
        return self.drawn(self.settings.fitted, _FITTED)

    @cached_property
    def chosen(self) -> Scenes:
        """Still others, on which a radius is chosen."""
        return self.drawn(self.settings.tried, _CHOSEN)

    def drawn(self, n: int, stream: int) -> Scenes:
        """n scenes of the arm's distribution."""
        s = self.settings
        return LANGUAGE[s.data].draw(n, s.size, seed=mix_seed(stream), device=self.device)

    @property
    def group(self) -> str:
        """The name of the scenes that are judged by."""
        return f"{self.settings.data}/{self.settings.size}px"


def judged_table(settings: Mapping[str, Any], rows: Iterable[int]) -> Table:
    """The table of these of the scenes by which a recorded cell of such settings was judged, by their places."""
    return LANGUAGE[settings["data"]].sample(torch.tensor([*rows]), seed=mix_seed(_JUDGED))


def naming_shapes(network: nn.Module) -> nn.Module:
    """A twin as a classifier of the sixteen shapes."""
    return zero_shot(network, scene_classes()) if isinstance(network, Clip) else _Shapes(network)


class _Shapes(nn.Module):
    """The logits of shapes, which come first among those of attributes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[:, : len(SHAPES)]


def answers(network: nn.Module, x: Tensor, widths: dict[str, int]) -> dict[str, Tensor]:
    """What a twin taught every attribute reads from images, (n,) each."""
    with torch.no_grad():
        logits = torch.cat([network(some) for some in x.split(250)])
    return {name: part.argmax(dim=1) for name, part in zip(widths, logits.split([*widths.values()], 1), strict=True)}
