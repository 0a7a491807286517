"""What chapter 5's arms start from: pictures with all that is known of them, one network of a cohort, an encoder."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thesis_kit.asking import evaluating
from thesis_kit.chapters.features import measures
from thesis_kit.chapters.world import World as Shared
from thesis_kit.chapters.world import taught, untaught
from thesis_kit.data.scenes import DISTRIBUTIONS, Scenes
from thesis_kit.models import Classifier, anatomy
from thesis_kit.randomness import mix_seed

_SCENES, _WEIGHTS = 501, 502  # streams of seeds
_A_PASS = 256  # images


class World(Shared):
    """Scenes, which are the same for all networks and none of which any was trained on, and the seed's network."""

    @cached_property
    def subject(self) -> Classifier:
        """The network that the arm asks: a member of the cohort, or its architecture with weights of the seed's own."""
        s = self.settings
        if s.untrained:
            return untaught(s.member, mix_seed(self.seed, _WEIGHTS), self.device)
        return taught(s.member, self.seed, self.device)

    @cached_property
    def scenes(self) -> Scenes:
        """Scenes with their tables and masks."""
        return self.drawn(self.settings.task.data)

    @cached_property
    def pictures(self) -> measures.Pictures:
        """What units and tokens are asked about."""
        return measures.pictures_of_scenes(self.scenes)

    def drawn(self, name: str) -> Scenes:
        """As many scenes of a distribution as the settings say, the same for every seed."""
        s = self.settings
        size = s.task.data_options["size"]
        return DISTRIBUTIONS[name].draw(s.images, size, seed=mix_seed(_SCENES), device=self.device)

    @property
    def group(self) -> str:
        """The name of these pictures."""
        return f"{self.settings.task.data}/{self.settings.task.data_options['size']}px/{self.settings.images}"

    @cached_property
    def encoder(self) -> Classifier:
        """A network of another kind, whose features say how alike images are."""
        return taught(self.settings.encoder, 0, self.device)

    def embedded(self, x: Tensor) -> Tensor:
        """Images as the encoder sees them, (n, d)."""
        return embeddings(self.encoder, x)


class Photographs(World):
    """The first test images of a data set, the same for all networks, in place of scenes."""

    @cached_property
    def pictures(self) -> measures.Pictures:
        s = self.settings
        test = self.loaded(s.task.data, s.task.data_options, seed=0).test[: s.images]
        return measures.pictures_of_photographs(test.x, test.y, s.task.n_classes)

    @property
    def group(self) -> str:
        return f"{self.settings.task.data}/{self.settings.images}"


def embeddings(encoder: Classifier, x: Tensor) -> Tensor:
    """Penultimate features of images, (n, d), some at a time."""
    with evaluating(encoder), torch.no_grad():
        return torch.cat([anatomy.features(encoder, some) for some in x.split(_A_PASS)])


def plainly(numbers: dict[str, Any]) -> dict[str, float]:
    """Numbers as a record has them."""
    return {name: round(float(value), 6) for name, value in numbers.items()}
