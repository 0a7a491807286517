"""Sentences as numbers, word by word: for a world whose words are known, a vocabulary of its own in place of pieces.

A sentence is its words' numbers, an end mark after them, and padding. The end mark has the largest number of all, as
in CLIP's own vocabulary, so that the largest of a row tells where its sentence ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from thesis_kit.checks import UnknownName, check_count, choose

PADDING = 0
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


class Vocabulary:
    """The words that a text tower knows, and how it is given a sentence.

    Args:
        words: different words in lower case; word i has the number i + 1, whose order therefore belongs to the weights.
        context: most numbers of a sentence, its end mark counted.

    ``size`` is how many different numbers there are, padding and the end mark among them.

    Raises:
        ValueError: no word, one that comes twice, or one that no sentence could have.
    """

    def __init__(self, words: Sequence[str], context: int = 24):
        check_count(context, what="context", least=2)
        self.words, self.context = tuple(words), int(context)
        unfit = [word for word in self.words if word != word.lower() or not _WORD.fullmatch(word)]
        if not self.words or unfit or len(set(self.words)) < len(self.words):
            raise ValueError(
                "a vocabulary needs different single words in lower case, got "
                f"{', '.join(map(repr, unfit[:3])) or 'none, or one twice'}"
            )
        self._numbers = {word: number for number, word in enumerate(self.words, start=1)}
        self.end = len(self.words) + 1
        self.size = self.end + 1

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self.words)} words, context {self.context}"

    def __call__(self, sentences: Sequence[str]) -> Int[Tensor, "n t"]:
        """Numbers (n, context) of n sentences; capitals and punctuation do not matter.

        Raises:
            ValueError: a sentence without a word, or one longer than the context, which would lose its end.
            UnknownName: a word that the vocabulary does not have; near ones are offered.
        """
        rows = torch.full((len(sentences), self.context), PADDING)
        for row, sentence in zip(rows, sentences, strict=True):
            numbers = [self._number(word, sentence) for word in split(sentence)]
            check_length(sentence, len(numbers) + 1, self.context)
            row[: len(numbers) + 1] = torch.tensor([*numbers, self.end])
        return rows

    def _number(self, word: str, sentence: str) -> int:
        if word not in self._numbers:
            try:
                choose(word, self.words, "word")
            except UnknownName as error:
                raise UnknownName(f"{error} (in {sentence!r})") from error
        return self._numbers[word]


def split(sentence: str) -> list[str]:
    """The words of a sentence in lower case.

    Raises:
        ValueError: there is none. TypeError: it is no text.
    """
    check_text(sentence)
    words = _WORD.findall(sentence.lower())
    if not words:
        raise ValueError(f"a sentence without a word says nothing, got {sentence!r}: write one")
    return words


def check_text(sentence: object) -> None:
    """Refuse what is no text, and one of nothing but space."""
    if not isinstance(sentence, str):
        raise TypeError(f"a sentence must be a text, got {sentence!r}")
    if not sentence.strip():
        raise ValueError(f"a sentence without a word says nothing, got {sentence!r}: write one")


def check_length(sentence: str, length: int, context: int) -> None:
    """Refuse a sentence that does not fit: cut short, it would lose its end mark and with it its place to be read."""
    if length > context:
        raise ValueError(
            f"a sentence of {length} tokens is longer than the context of {context}: shorten {_shown(sentence)!r}"
        )


def _shown(sentence: str) -> str:
    return sentence if len(sentence) <= 60 else f"{sentence[:57]}…"
