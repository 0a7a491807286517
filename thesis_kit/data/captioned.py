"""What images are to be answered with where they come with sentences: token ids, and which sentences say the same.

"A picture of a star" and "we see a star" are different rows of tokens and one statement. Contrastive training that
takes one for a wrong answer to the other's picture could not be satisfied; ``meaning`` tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Captioned:
    """Sentences of n images.

    Args:
        tokens: (n, t) int64.
        meaning: (n,) int64, equal where two sentences say the same.
        wrong: (n, t) int64 tokens of a sentence near each that is false of its image, a row of zeros where there is
            none; None where no image has one.

    Raises:
        ValueError: tensors of another form.
    """

    tokens: Tensor
    meaning: Tensor
    wrong: Tensor | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.dtype != torch.int64:
            seen = f"{self.tokens.dtype} of shape {tuple(self.tokens.shape)}"
            raise ValueError(f"tokens must be int64 of shape (n, t), got {seen}")
        if self.meaning.shape != self.tokens.shape[:1]:
            raise ValueError(f"meaning must be one number a sentence, got shape {tuple(self.meaning.shape)}")
        if self.wrong is not None and self.wrong.shape != self.tokens.shape:
            raise ValueError(f"wrong sentences must be {tuple(self.tokens.shape)} too, got {tuple(self.wrong.shape)}")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Captioned:
        wrong = None if self.wrong is None else self.wrong[index]
        return Captioned(self.tokens[index], self.meaning[index], wrong)

    def to(self, device: torch.device | str) -> Captioned:
        """The same on another device."""
        wrong = None if self.wrong is None else self.wrong.to(device)
        return Captioned(self.tokens.to(device), self.meaning.to(device), wrong)

    @property
    def same(self) -> Tensor:
        """Which sentences say the same as which, (n, n) bool."""
        return self.meaning[:, None] == self.meaning
