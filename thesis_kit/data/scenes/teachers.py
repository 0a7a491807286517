"""The same scenes with different teachers: a class, every attribute, or a sentence.

What networks that are compared see is one stream of images; all that differs is what they are told about each. A
teacher turns scenes into targets, and ``TaughtStream`` serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256

import torch
from jaxtyping import Int
from torch import Tensor

from thesis_kit.checks import check_count, choose
from thesis_kit.data.captioned import Captioned
from thesis_kit.data.parts import Part, Splits, Stream, Targets
from thesis_kit.data.scenes.captions import KINDS, OPENINGS, captions
from thesis_kit.data.scenes.distributions import DISTRIBUTIONS, TEST, TRAIN, VALIDATION, Distribution, Scenes
from thesis_kit.data.scenes.lexicon import vocabulary
from thesis_kit.data.scenes.pairs import LANGUAGE, directed, swapped
from thesis_kit.data.scenes.table import Table
from thesis_kit.data.scenes.vocabulary import BACKGROUNDS, COLORS, RELATIONS, SHAPES, TEXTURES, THEMES
from thesis_kit.data.text import Vocabulary
from thesis_kit.randomness import mix_seed

UNSAID = -1  # of an attribute that a scene does not have
ANSWERS = {  # what captions name, and the answers there are
    "shape": SHAPES,
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "background": BACKGROUNDS,
    "relation": RELATIONS,
    "count": ("one", "two", "three"),
    "theme": tuple(THEMES),
    "other shape": SHAPES,
    "other color": tuple(COLORS),
    "other texture": TEXTURES,
}
HEADS = {name: len(answers) for name, answers in ANSWERS.items()}


def attributes(table: Table) -> Int[Tensor, "n h"]:
    """What the captions of scenes name, (n, 10): positions of answers in the order of ``HEADS``, −1 for what is not
    there (another object in scenes of one kind of object)."""
    pair = directed(table)
    second = [_second(getattr(table, key), pair) for key in ("shape", "color", "texture")]
    first = [getattr(table, key)[:, 0] for key in ("shape", "color", "texture")]
    count, theme = table.present.sum(dim=1) - 1, _themes().to(table.shape.device)[table.shape[:, 0]]
    return torch.stack([*first, table.background, table.relation, count, theme, *second], dim=1)


def _second(column: Tensor, pair: Tensor) -> Tensor:
    return torch.where(pair, column[:, 1], UNSAID) if column.shape[1] > 1 else torch.full_like(column[:, 0], UNSAID)


@cache
def _themes() -> Tensor:
    return torch.tensor([place for shape in SHAPES for place, own in enumerate(THEMES.values()) if shape in own])


@dataclass(frozen=True)
class Classes:
    """The main object's shape, (n,) int64."""

    name: str = "classes"
    outputs: tuple[str, ...] = SHAPES

    def __call__(self, scenes: Scenes) -> Tensor:
        return scenes.labels


@dataclass(frozen=True)
class Attributes:
    """Every attribute that captions name: see ``attributes``."""

    name: str = "attributes"
    outputs: tuple[str, ...] = tuple(f"{name} {answer}" for name, known in ANSWERS.items() for answer in known)

    def __call__(self, scenes: Scenes) -> Tensor:
        return attributes(scenes.table)


@dataclass(frozen=True)
class Sentences:
    """A caption as token ids.

    Args:
        kind: of captions, see ``captions``.
        hard: with the caption of each directed pair that has its objects exchanged, as a wrong answer near by.
        vocabulary: what tokens stand for.

    Two sentences mean the same where they are the same but for their opening ("a picture of", "we see"). Of a varied
    caption that says little no objects can be exchanged: only scenes described in full have a wrong answer.
    """

    kind: str = "full"
    hard: bool = False
    vocabulary: Vocabulary = field(default_factory=vocabulary, compare=False)
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choose(self.kind, KINDS, "kind of caption")

    @property
    def name(self) -> str:
        """What a stream is called by it."""
        words = sha256(" ".join(self.vocabulary.words).encode()).hexdigest()[:8]
        return f"{self.kind} captions{' with exchanged ones' * self.hard} in {words}"

    def __call__(self, scenes: Scenes) -> Captioned:
        table = scenes.table
        said, device = captions(table, self.kind), table.ids.device
        meaning = torch.tensor([_number(statement(sentence)) for sentence in said], device=device)
        wrong = None
        if self.hard:
            false = captions(swapped(table), self.kind)
            other = torch.tensor([one != true for one, true in zip(false, said, strict=True)], device=device)
            full = torch.tensor([one == all_ for one, all_ in zip(said, captions(table), strict=True)], device=device)
            wrong = self.vocabulary(false).to(device) * (other & full)[:, None]
        return Captioned(self.vocabulary(said).to(device), meaning, wrong)


def statement(sentence: str) -> str:
    """A caption without its opening."""
    opening = max((opening for opening in OPENINGS if sentence.startswith(opening)), key=len)
    return sentence[len(opening) :]


def _number(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


Teacher = Classes | Attributes | Sentences
TEACHERS: dict[str, Callable[[], Teacher]] = {
    "classes": Classes,
    "class captions": lambda: Sentences("class"),
    "captions": Sentences,
    "varied captions": lambda: Sentences("varied"),
    "varied captions with exchanged ones": lambda: Sentences("varied", hard=True),
    "attributes": Attributes,
}


class TaughtStream(Stream):
    """Fresh scenes without end, as ``SceneStream`` draws them, with what a teacher says of each.

    Streams of one distribution, size and seed show the same images whoever teaches.
    """

    def __init__(
        self, distribution: Distribution, size: int, teacher: Teacher, *, seed: int, device: torch.device | str = "cpu"
    ):
        self.distribution, self.size, self.teacher, self.seed = distribution, size, teacher, seed
        self.device = torch.device(device)
        self.name = f"{distribution.name}-{distribution.data_hash()[:12]}/{size}px/{seed}/{teacher.name}"

    def minibatch(self, position: int, size: int) -> Part:
        """Minibatch number ``position`` of ``size`` scenes."""
        return taught(self.distribution, size, self.size, self.teacher, seed=self.seed, first=position * size,
                      device=self.device)  # fmt: skip

    def to(self, device: torch.device | str) -> TaughtStream:
        """The same stream drawn on another device."""
        return TaughtStream(self.distribution, self.size, self.teacher, seed=self.seed, device=device)


def taught(
    distribution: Distribution, n: int, size: int, teacher: Teacher, *, seed: int, first: int = 0,
    device: torch.device | str = "cpu",
) -> Part:  # fmt: skip
    """Scenes ``first`` to ``first + n − 1`` of a stream with what the teacher says of them."""
    scenes = distribution.draw(n, size, seed=seed, first=first, device=device)
    targets: Targets = teacher(scenes)
    return Part(scenes.images, targets, scenes.table.ids)


def taught_splits(
    seed: int = 0, *, name: str = "scenes.v1-pairs", teacher: str, size: int = 64, n_validation: int = 1,
    n_test: int = 1000, device: torch.device | str = "cpu",
) -> Splits:  # fmt: skip
    """Run ``seed``'s scenes with what a teacher says of them, cut as ``scenes.splits`` cuts them: the same images.

    Varied captions vary in training alone: of validation and test scenes all is said, so that one caption fits each.

    Args:
        name: of a frozen distribution. teacher: a name of ``TEACHERS``. size, n_validation, n_test, device: as there.

    Raises:
        UnknownName: no distribution or no teacher has the name.
    """
    check_count(seed, what="seed", least=0)
    distribution = choose(name, {**LANGUAGE, **DISTRIBUTIONS}, "distribution")
    says = choose(teacher, TEACHERS, "teacher")()
    asks = replace(says, kind="full") if isinstance(says, Sentences) and says.kind == "varied" else says
    train = TaughtStream(distribution, size, says, seed=mix_seed(seed, TRAIN), device=device)
    validation, test = (
        taught(distribution, n, size, asks, seed=stream, device=device)
        for n, stream in ((n_validation, mix_seed(seed, VALIDATION)), (n_test, mix_seed(TEST)))
    )
    return Splits(train, validation, test)
