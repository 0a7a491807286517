"""What clips say, as targets of training: tokens with their lengths, and how long each clip is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Transcripts:
    """What clips say, indexed and moved as tensors are, so that a ``Part`` holds them.

    ``tokens`` (n, s) int64, of which the first ``lengths`` (n,) count; ``frames`` (n,) int64, how long each clip is in
    steps of its input.
    """

    tokens: Int[Tensor, "n s"]
    lengths: Int[Tensor, " n"]
    frames: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: slice | Tensor) -> Transcripts:
        return Transcripts(self.tokens[index], self.lengths[index], self.frames[index])

    def to(self, device: torch.device | str) -> Transcripts:
        """The same on another device."""
        return Transcripts(self.tokens.to(device), self.lengths.to(device), self.frames.to(device))
