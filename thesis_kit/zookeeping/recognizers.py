"""Word errors of a recognizer of letters on a part of speech."""

from __future__ import annotations

import torch

from thesis_kit.data import speech
from thesis_kit.data.parts import Part
from thesis_kit.evaluation.word_errors import WordErrors, word_errors
from thesis_kit.models.speech import transcribe


def errors(model: torch.nn.Module, part: Part) -> WordErrors:
    """The word errors of a recognizer on a part of speech."""
    said = ["".join(speech.TOKENS[number] for number in tokens[:length].tolist())
            for tokens, length in zip(part.y.tokens, part.y.lengths, strict=True)]  # fmt: skip
    return word_errors(said, transcribe(model, part.x, part.y.frames))
