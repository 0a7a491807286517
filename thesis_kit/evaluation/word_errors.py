"""Word errors of a recognizer: the least number of words put in, left out or taken for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WordErrors:
    """``errors`` among ``words`` that were said; ``rate`` may be above 1 where more is heard than was said."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors a word."""
        return self.errors / self.words


def word_errors(said: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Errors over all texts, by the smallest edit distance between the words of each pair.

    Raises:
        ValueError: the lists differ in length, or nothing was said.
    """
    if len(said) != len(heard):
        raise ValueError(f"there must be as many texts heard as said, got {len(heard)} and {len(said)}")
    words = sum(len(text.split()) for text in said)
    if not words:
        raise ValueError("no word was said: give texts with words")
    return WordErrors(sum(_distance(a.split(), b.split()) for a, b in zip(said, heard, strict=True)), words)


def _distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein's distance, one row of the table at a time."""
    row = list(range(len(heard) + 1))
    for place, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(heard, start=1):
            diagonal, row[column] = row[column], min(
                row[column] + 1, row[column - 1] + 1, diagonal + (word != other)
            )
    return row[-1]
