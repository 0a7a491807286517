"""Networks that chapters start from, for what runs live: the zoo's where it has them, else trained now and kept."""

from __future__ import annotations

from thesis_kit.checks import choose
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.experiments import certificates, inversion, regularization, transfer
from thesis_kit.models import Classifier, zoo
from thesis_kit.profiles import Task
from thesis_kit.session import Session


def source_network(session: Session, arm: str) -> Classifier:
    """A network of the transfer chapter's source task ("natural", "free-8", "pgd-7"), in evaluation mode, on the
    session's device."""
    choose(arm, transfer.SOURCES, "source network")
    settings = session.chapter("transfer")
    if arm in settings.members:
        return zoo.load(settings.members[arm]).to(session.device).eval()
    return transfer.World(session.seed, settings, device=session.device).trained(arm)[0]


def smoothed_network(session: Session, sigma: float) -> Classifier:
    """A network trained on noise of this σ, in evaluation mode, on the session's device."""
    if session.profile == "small":
        return zoo.load(f"resnet-scenes-a-noise-{sigma:g}").to(session.device).eval()
    return certificates.World(session.seed, session.chapter("certificates"), device=session.device).smoothed(sigma)


def bounded_network(session: Session, method: str, eps: float) -> Classifier:
    """A network trained on interval bounds ("ibp", "crown-ibp") for this ε, in evaluation mode, on the session's
    device."""
    choose(method, certificates.NETWORKS, "training on bounds")
    if session.profile == "small":
        return zoo.load(f"cnn-scenes-a-{method}-{round(255 * eps)}").to(session.device).eval()
    world = certificates.World(session.seed, session.chapter("certificates"), device=session.device)
    return world.bounded(method, eps)


def regularized_network(session: Session, arm: str) -> Classifier:
    """Chapter 3's network trained as an arm says ("natural", "lsq+noise", "pgd-7"), with one setting and no trial, in
    evaluation mode, on the session's device."""
    members = {"natural": "natural", "lsq+noise": "squeezed", "pgd-7": "pgd7"}
    choose(arm, regularization.CHOSEN, "arm of chapter 3")
    if session.profile == "small" and arm in members:
        return zoo.load(f"cnn-digits-{members[arm]}").to(session.device).eval()
    settings = session.chapter("regularization")
    return regularization.World(session.seed, settings, device=session.device).made(arm).model


def inverted_network(session: Session, name: str) -> Classifier:
    """A network that chapter 4 inverts ("resnet", "vit", …; "random" has never been trained), in evaluation mode, on
    the session's device."""
    settings = session.chapter("inversion")
    choose(name, [*settings.members, inversion.RANDOM], "inverted network")
    return inversion.World(session.seed, settings, device=session.device).inverted(name)


def verifying_networks(session: Session) -> dict[str, Classifier]:
    """The networks that judge chapter 4's images and were never inverted, by how they were trained, on the session's
    device."""
    return inversion.World(session.seed, session.chapter("inversion"), device=session.device).verifiers


def class_names(task: Task) -> tuple[str, ...]:
    """What a task's classes are called; numbers where the data set gives no names."""
    if task.data in DISTRIBUTIONS:
        return DISTRIBUTIONS[task.data].classes
    return tuple(map(str, range(task.n_classes)))
