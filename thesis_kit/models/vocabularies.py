"""Names of classes that a well-kept package holds already, by the name of the data set: ImageNet's thousand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thesis_kit.extras import needs


@dataclass(frozen=True)
class ClassVocabulary:
    """The classes of a data set: how many, and a function that looks their names up, in the order of the logits."""

    count: int
    words: Callable[[], tuple[str, ...]]


def _imagenet() -> tuple[str, ...]:
    """The short names that torchvision keeps beside its weights; two that would stand twice are told apart there."""
    weights = needs("torchvision.models", extra="real").ResNet18_Weights
    return tuple(weights.IMAGENET1K_V1.meta["categories"])


VOCABULARIES = {"imagenet-1k": ClassVocabulary(1000, _imagenet)}
