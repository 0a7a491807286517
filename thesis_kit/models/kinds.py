"""Kinds of members that the zoo knows: a classifier, a reader of attributes, a pair of networks for images and text, a
recognizer of speech, an encoder of speakers.

A kind says how an untrained network is built from what an entry knows; the weights are then put into it by the names of
its ``state_dict``. What its members are measured by is said in ``zookeeping/member_scores.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thesis_kit.checks import choose
from thesis_kit.data.parts import Part, Stream
from thesis_kit.models.build import build
from thesis_kit.models.entries import Entry
from thesis_kit.models.packaged import answers, probe


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


def _images_and_attributes(about: Entry) -> str:
    return f"images of {' × '.join(map(str, about.input_shape))}, {about.n_classes} answers about attributes"


def _pair(about: Entry, seed: int) -> nn.Module:
    from thesis_kit.models.clip_build import build_clip

    return build_clip(about.architecture, seed=seed, **about.options)


def _images_and_sentences(about: Entry) -> str:
    return f"images of {' × '.join(map(str, about.input_shape))} and sentences, into one space"


def _answer_of_pair(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Features of the computed image, and of one row of token ids."""
    with torch.no_grad():
        image, text, _ = network(probe(shape), torch.ones(1, network.tokenizer.context, dtype=torch.int64))
    return torch.cat([image.flatten(), text.flatten()])


_RECOGNIZERS = ("jasper", "whisper")
_STATISTICS = 256  # clips that a front end's mean and deviation are taken from


def _recognizer(about: Entry, seed: int) -> nn.Module:
    from thesis_kit.models import speech

    architecture = choose(about.architecture, _RECOGNIZERS, "recognizer")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if architecture == "jasper":
            return speech.Jasper(**about.options)
        return speech.Whisper(speech.WhisperSize(**about.options))


def _clips(about: Entry) -> str:
    gives = f"letters ({about.n_classes} tokens)" if about.classes else "states of its encoder, which its decoder reads"
    return f"clips of 16 kHz to {gives}"


def _fit_front(network: nn.Module, data: Part | Stream) -> None:
    """Mean and deviation of the spectrum's bands, from the first clips."""
    first = data.minibatch(0, _STATISTICS) if isinstance(data, Stream) else data[:_STATISTICS]
    if hasattr(network.front, "fit"):
        network.front.fit(first.x, first.y.frames)


def _answer_of_recognizer(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """What it says to the computed clip, and of four tokens what its decoder says after it, if it has one."""
    with torch.no_grad():
        heard = network(probe(shape))
        read = [network.read(torch.arange(4)[None], heard).flatten()] if hasattr(network, "read") else []
    return torch.cat([heard.flatten(), *read])


def _speakers(about: Entry, seed: int) -> nn.Module:
    from thesis_kit.models import speech

    choose(about.architecture, ("speaker_encoder",), "encoder of speakers")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return speech.SpeakerEncoder(**about.options)


def _voices(about: Entry) -> str:
    return "clips of 16 kHz to embeddings of who speaks, a point of the unit sphere"


def _answer_of_speakers(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """What its embedding is made of, step by step of the computed clip, before what is negative is cut off."""
    with torch.no_grad():
        return network.embedding.before(network.heard(probe(shape))).flatten()


KINDS = {
    "classifier": Kind("Classifiers", _classifier, _images_and_classes),
    "attribute reader": Kind("Readers of attributes", _classifier, _images_and_attributes),
    "image-text pair": Kind("Image–text pairs", _pair, _images_and_sentences, answer=_answer_of_pair),
    "speech recognizer": Kind(
        "Speech recognizers", _recognizer, _clips, begin=_fit_front, answer=_answer_of_recognizer
    ),
    "speaker encoder": Kind("Encoders of speakers", _speakers, _voices, answer=_answer_of_speakers),
}
