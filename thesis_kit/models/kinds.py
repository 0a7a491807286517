"""Kinds of members that the zoo knows: a classifier, a pair of image and text networks, a recognizer of speech.

A kind says how an untrained network is built from what an entry knows; the weights are then put into it by the names of
its ``state_dict``. What its members are measured by is said in ``zookeeping/scores.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from thesis_kit.data.parts import Part, Stream
from thesis_kit.models.build import build
from thesis_kit.models.entries import Entry
from thesis_kit.models.packaged import answers


@dataclass(frozen=True)
class Kind:
    """What the zoo must know about a kind of network.

    ``heading`` stands above its members on the page of the zoo, and ``takes`` says there what goes in and comes out.
    ``build`` makes the untrained network of an entry from a seed, by ``recipe``, ``classes`` and ``input_shape`` alone.
    ``begin`` lets it take from its training data what it needs before the first update, such as statistics of its front
    end. ``answer`` is what it says to the computed input of a shape (``packaged.probe``), in one row.
    """

    heading: str
    build: Callable[[Entry, int], nn.Module]
    takes: Callable[[Entry], str]
    begin: Callable[[nn.Module, Part | Stream], None] = lambda network, data: None
    answer: Callable[[nn.Module, tuple[int, ...]], Tensor] = answers


def _classifier(about: Entry, seed: int) -> nn.Module:
    given = {"n_classes": about.n_classes, "in_channels": about.input_shape[0]}
    network = build(about.architecture, seed=seed, **given, **about.options)
    network.least = about.recipe.get("least", 1)
    return network


def _images_and_classes(about: Entry) -> str:
    named = about.classes if isinstance(about.classes, str) else ", ".join(about.classes)
    return f"images of {' × '.join(map(str, about.input_shape))}, {about.n_classes:,} classes: {named}"


KINDS = {
    "classifier": Kind("Classifiers", _classifier, _images_and_classes),
}
