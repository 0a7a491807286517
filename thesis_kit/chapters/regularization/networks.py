"""Networks that chapter 3 starts from, for what runs live: the zoo's where it has them, else trained now and kept."""

from __future__ import annotations

from thesis_kit.chapters.regularization.arms import WAYS, one_setting
from thesis_kit.chapters.regularization.world import World
from thesis_kit.checks import choose
from thesis_kit.models import Classifier, zoo
from thesis_kit.session import Session

_MEMBERS = {"natural": "cnn-digits-natural", "lsq+noise": "cnn-digits-squeezed", "pgd-7": "cnn-digits-pgd7"}


def regularized_network(session: Session, arm: str) -> Classifier:
    """A network trained as an arm says ("natural", "lsq+noise", "pgd-7"), with one setting and no trial, in evaluation
    mode, on the session's device."""
    way = choose(arm, WAYS, "arm of chapter 3")
    if session.profile == "small" and arm in _MEMBERS:
        return zoo.load(_MEMBERS[arm]).to(session.device).eval()
    world = World.live(session, "regularization")
    return world.made([[one_setting(way, world.settings)]], by="accuracy").model
