"""Networks that chapter 1 starts from, for what runs live: the zoo's where it has them, else trained now and kept."""

from __future__ import annotations

from thesis_kit.chapters.defenses.transfer_arms import SOURCES, World
from thesis_kit.checks import choose
from thesis_kit.models import Classifier, zoo
from thesis_kit.session import Session


def source_network(session: Session, arm: str) -> Classifier:
    """A network of the source task ("natural", "free-8", "pgd-7"), in evaluation mode, on the session's device."""
    choose(arm, SOURCES, "source network")
    members = session.chapter("transfer").members
    if arm in members:
        return zoo.load(members[arm]).to(session.device).eval()
    return World.live(session, "transfer").source_network(arm)[0]
