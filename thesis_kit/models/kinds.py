"""Kinds of members that the zoo knows: a classifier, a pair of image and text networks, a recognizer of speech.

A kind says how an untrained network is built from what an entry knows; the weights are then put into it by the names of
its ``state_dict``. What its members are measured by is said in ``zookeeping/scores.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from thesis_kit.models.build import build
from thesis_kit.models.entries import Entry


@dataclass(frozen=True)
class Kind:
    """What the zoo must know about a kind of network.

    ``heading`` stands above its members on the page of the zoo. ``build`` makes the network of an entry, in any mode,
    with any weights; ``takes`` says in words what goes in and what comes out.
    """

    heading: str
    build: Callable[[Entry], nn.Module]
    takes: Callable[[Entry], str]


def _classifier(about: Entry) -> nn.Module:
    given = {"n_classes": about.n_classes, "in_channels": about.input_shape[0]}
    network = build(about.architecture, seed=0, **given, **about.options)
    network.least = about.recipe.get("least", 1)
    return network


def _images_and_classes(about: Entry) -> str:
    named = about.classes if isinstance(about.classes, str) else ", ".join(about.classes)
    return f"images of {' × '.join(map(str, about.input_shape))}, {about.n_classes:,} classes: {named}"


KINDS = {
    "classifier": Kind("Classifiers", _classifier, _images_and_classes),
}
