"""The networks that chapter 1's second half transfers from, for what runs live."""

from __future__ import annotations

from thesis_kit.checks import choose
from thesis_kit.experiments.transfer import SOURCES, World
from thesis_kit.models import Classifier, zoo
from thesis_kit.session import Session


def source_network(session: Session, arm: str) -> Classifier:
    """A network of the source task ("natural", "free-8", "pgd-7"), in evaluation mode, on the session's device.

    It is the zoo's where the session's profile names one; else it is trained now, and kept for the next time.
    """
    choose(arm, SOURCES, "source network")
    settings = session.chapter("transfer")
    if arm in settings.members:
        return zoo.load(settings.members[arm]).to(session.device).eval()
    return World(session.seed, settings, device=session.device).trained(arm)[0]
