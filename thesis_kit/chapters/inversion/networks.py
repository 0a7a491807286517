"""Networks that chapter 4 inverts and that judge its images, for what runs live."""

from __future__ import annotations

from thesis_kit.chapters.inversion.world import RANDOM, STUDIED, World
from thesis_kit.checks import choose
from thesis_kit.models import Classifier
from thesis_kit.session import Session


def inverted_network(session: Session, name: str) -> Classifier:
    """A network to invert ("resnet", "vit", …; "random" has never been trained), in evaluation mode, on the session's
    device."""
    members, world = session.chapter("inversion").members, World.live(session, "inversion")
    choose(name, [*members, RANDOM], "inverted network")
    return world.untrained(members[STUDIED]) if name == RANDOM else world.network(members[name])


def verifying_networks(session: Session) -> dict[str, Classifier]:
    """The networks that judge images and were never inverted, by how they were trained, on the session's device."""
    return World.live(session, "inversion").verifiers
