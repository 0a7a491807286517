"""Networks that chapters start from, for what runs live: the zoo's where it has them, else trained now and kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from thesis_kit.checks import choose
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.experiments import certificates, inversion, regularization, transfer
from thesis_kit.experiments.memory import Memory
from thesis_kit.models import Classifier, zoo
from thesis_kit.profiles import Task
from thesis_kit.session import Session


def _world(chapter: ModuleType, session: Session) -> Any:
    """A chapter's networks and images on the session's device, which has a memory of its own: what a GPU has made is
    not what a CPU's recorded runs would make."""
    settings = session.chapter(chapter.__name__.rpartition(".")[2])
    world = chapter.World(session.seed, settings, device=session.device)
    world.memory = Memory(chapter.__name__, device=session.device)
    return world


def source_network(session: Session, arm: str) -> Classifier:
    """A network of the transfer chapter's source task ("natural", "free-8", "pgd-7"), in evaluation mode, on the
    session's device."""
    choose(arm, transfer.SOURCES, "source network")
    members = session.chapter("transfer").members
    if arm in members:
        return zoo.load(members[arm]).to(session.device).eval()
    return _world(transfer, session).trained(arm)[0]


def smoothed_network(session: Session, sigma: float) -> Classifier:
    """A network trained on noise of this σ, in evaluation mode, on the session's device."""
    if session.profile == "small":
        return zoo.load(f"resnet-scenes-a-noise-{sigma:g}").to(session.device).eval()
    return _world(certificates, session).smoothed(sigma)


def bounded_network(session: Session, method: str, eps: float) -> Classifier:
    """A network trained on interval bounds ("ibp", "crown-ibp") for this ε, in evaluation mode, on the session's
    device."""
    choose(method, certificates.NETWORKS, "training on bounds")
    if session.profile == "small":
        return zoo.load(f"cnn-scenes-a-{method}-{round(255 * eps)}").to(session.device).eval()
    return _world(certificates, session).bounded(method, eps)


def regularized_network(session: Session, arm: str) -> Classifier:
    """Chapter 3's network trained as an arm says ("natural", "lsq+noise", "pgd-7"), with one setting and no trial, in
    evaluation mode, on the session's device."""
    members = {"natural": "natural", "lsq+noise": "squeezed", "pgd-7": "pgd7"}
    choose(arm, regularization.CHOSEN, "arm of chapter 3")
    if session.profile == "small" and arm in members:
        return zoo.load(f"cnn-digits-{members[arm]}").to(session.device).eval()
    return _world(regularization, session).made(arm).model


def inverted_network(session: Session, name: str) -> Classifier:
    """A network that chapter 4 inverts ("resnet", "vit", …; "random" has never been trained), in evaluation mode, on
    the session's device."""
    choose(name, [*session.chapter("inversion").members, inversion.RANDOM], "inverted network")
    return _world(inversion, session).inverted(name)


def verifying_networks(session: Session) -> dict[str, Classifier]:
    """The networks that judge chapter 4's images and were never inverted, by how they were trained, on the session's
    device."""
    return _world(inversion, session).verifiers


def class_names(task: Task) -> tuple[str, ...]:
    """What a task's classes are called; numbers where the data set gives no names."""
    if task.data in DISTRIBUTIONS:
        return DISTRIBUTIONS[task.data].classes
    return tuple(map(str, range(task.n_classes)))
