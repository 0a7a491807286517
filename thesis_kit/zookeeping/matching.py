"""How good a twin is at what it was taught: captions matched to images, classes by name, attributes read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thesis_kit.asking import ask, evaluating
from thesis_kit.data.parts import Part
from thesis_kit.data.scenes.pairs import LANGUAGE
from thesis_kit.data.scenes.teachers import HEADS, Attributes, Classes, Sentences, taught
from thesis_kit.language import scene_classes, zero_shot
from thesis_kit.models import Clip
from thesis_kit.randomness import mix_seed

_TEST = 3  # the stream of test scenes, all seeds' own
_BATCH = 250


@dataclass(frozen=True)
class Scores:
    """Shares of n test scenes by what was asked."""

    values: dict[str, float]
    n: int

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value:.3f}" for name, value in self.values.items())
        return f"{said} of {self.n:,}"


def measured(model: nn.Module, teacher: str, data: str, size: int, *, n: int = 1000) -> Scores:
    """What a twin gets right on n test scenes that no seed was trained on.

    Of a pair: "matched", images whose own caption is nearest among all n (its equals count), "shown", captions whose
    own image is, and "class", zero-shot classification. Of labels: "class". Of attributes: "class" and the mean over
    "attributes", each on the scenes that have it.
    """
    with evaluating(model), torch.no_grad():
        if isinstance(model, Clip):
            return Scores(_of_pair(model, teacher, data, size, n), n)
        part = _test(data, size, n, Classes() if teacher == "classes" else Attributes())
        logits = _in_batches(model, part)
        if teacher == "classes":
            return Scores({"class": _share(logits.argmax(dim=1) == part.y)}, n)
        return Scores(_of_attributes(logits, part.y), n)


def matched(clip: Clip, part: Part) -> tuple[Tensor, Tensor]:
    """Which images have a caption that says the same as theirs nearest, and which captions such an image, (n,) bool."""
    seen = torch.cat([clip.encode_image(x) for x in part.x.split(_BATCH)])
    said = torch.cat([clip.encode_tokens(tokens) for tokens in part.y.tokens.split(_BATCH)])
    near = seen @ said.T
    meaning = part.y.meaning
    return meaning[near.argmax(dim=1)] == meaning, meaning[near.argmax(dim=0)] == meaning


def _of_pair(clip: Clip, teacher: str, data: str, size: int, n: int) -> dict[str, float]:
    part = _test(data, size, n, Sentences("class" if teacher == "class captions" else "full"))
    to_text, to_image = matched(clip, part)
    label = _test(data, size, n, Classes()).y
    named = _in_batches(zero_shot(clip, scene_classes()), part).argmax(dim=1) == label
    return {"matched": _share(to_text), "shown": _share(to_image), "class": _share(named)}


def _of_attributes(logits: Tensor, y: Tensor) -> dict[str, float]:
    parts = logits.split(list(HEADS.values()), dim=1)
    shares = [_share((one.argmax(dim=1) == own)[own >= 0]) for one, own in zip(parts, y.T, strict=True)]
    return {"class": shares[0], "attributes": sum(shares) / len(shares)}


def _test(data: str, size: int, n: int, teacher: Classes | Attributes | Sentences) -> Part:
    return taught(LANGUAGE[data], n, size, teacher, seed=mix_seed(_TEST))


def _in_batches(model: nn.Module, part: Part) -> Tensor:
    return torch.cat([ask(model, x) for x in part.x.split(_BATCH)])


def _share(right: Tensor) -> float:
    return right.double().mean().item()
