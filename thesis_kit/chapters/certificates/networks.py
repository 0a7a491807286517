"""Networks that chapter 2 starts from, for what runs live: the zoo's where it has them, else trained now and kept."""

from __future__ import annotations

from thesis_kit.chapters.certificates.world import NETWORKS, World
from thesis_kit.checks import choose
from thesis_kit.models import Classifier, zoo
from thesis_kit.session import Session


def smoothed_network(session: Session, sigma: float) -> Classifier:
    """A network trained on noise of this σ, in evaluation mode, on the session's device."""
    if session.profile == "small":
        return zoo.load(f"resnet-scenes-a-noise-{sigma:g}").to(session.device).eval()
    return World.live(session, "certificates").smoothed(sigma)


def bounded_network(session: Session, method: str, eps: float) -> Classifier:
    """A network trained on interval bounds ("ibp", "crown-ibp") for this ε, in evaluation mode, on the session's
    device."""
    choose(method, NETWORKS, "training on bounds")
    if session.profile == "small":
        return zoo.load(f"cnn-scenes-a-{method}-{round(255 * eps)}").to(session.device).eval()
    return World.live(session, "certificates").bounded(method, eps)
