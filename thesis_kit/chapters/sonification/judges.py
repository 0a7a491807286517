"""Who says what a sound is: another recognizer than the one it was made for, asked for a word or for phones.

A word is the best of a closed set: by the loss of CTC where the recognizer writes letters, by likelihood where it is a
Whisper. Phones are read step by step from the states of a layer by a ridge regression on clips whose phones are known,
pauses and noise among them; what lasts less than three steps (60 ms) does not count.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.data.speech import Clip, encode, together
from thesis_kit.models.speech import Whisper, WhisperTokens, closed_set
from thesis_kit.models.speech.packaged import folder_of_tiny_en
from thesis_kit.sonification import states
from thesis_kit.sonification.probes import deviations

NOTHING = ""  # what a step without a phone is called
_LEAST = 3  # steps that a phone must last
_STRENGTH = 0.01  # of regularization, as a share of the states' mean square
_HISSES = 24  # clips of noise that say nothing


@torch.no_grad()
def best_word(judge: nn.Module, waveforms: Sequence[Float[Tensor, " _"]], words: Sequence[str]) -> Int[Tensor, " n"]:
    """The number of the word that a recognizer takes each sound for, if it must be one of these."""
    x, lengths = together([waveform.clamp(-1, 1) for waveform in waveforms])
    if isinstance(judge, Whisper):
        texts = [f" {word.capitalize()}." for word in words]
        return closed_set(judge, WhisperTokens(folder_of_tiny_en()), x, texts).argmax(dim=1).cpu()
    spelled = [torch.tensor(encode(word)) for word in words]
    targets, letters = torch.cat(spelled), torch.tensor([len(one) for one in spelled])
    found = []
    for one, length in zip(x, lengths, strict=True):
        logits = judge(one[None, :length], length[None]).log_softmax(dim=2)[0]  # (steps, tokens)
        rows = logits[:, None].expand(-1, len(words), -1)
        steps = torch.full((len(words),), len(logits))
        found.append(F.ctc_loss(rows, targets, steps, letters, reduction="none").argmin())
    return torch.stack(found)


@dataclass(frozen=True)
class PhoneReader:
    """Phones by a linear map of a layer's states: ``names`` of its k answers, the first of which is that of nothing."""

    model: nn.Module
    layer: str
    names: tuple[str, ...]
    center: Tensor
    scale: Tensor
    weights: Tensor

    def read(self, waveforms: Sequence[Float[Tensor, " _"]]) -> list[list[str]]:
        """The phones of each sound in their order, those that last too short a time left out."""
        clips = [Clip(waveform.clamp(-1, 1), "") for waveform in waveforms]
        told = []
        for row in states(self.model, clips, self.layer)[self.layer]:
            best = (_with_one((row.double() - self.center) / self.scale) @ self.weights).argmax(dim=1).tolist()
            runs = [(number, len(list(run))) for number, run in itertools.groupby(best)]
            told.append([self.names[number] for number, length in runs if number and length >= _LEAST])
        return told


def phone_reader(model: nn.Module, layer: str, clips: Sequence[Clip]) -> PhoneReader:
    """A reader of phones, fitted on clips with times and on noise as loud as they are."""
    drawn = torch.Generator().manual_seed(0)
    levels = torch.logspace(-3, -1, _HISSES)
    hisses = [Clip(level * torch.randn(8_000, generator=drawn), "") for level in levels]
    names = (NOTHING, *sorted({p.name for clip in clips for p in clip.phones if not p.name.startswith("_")}))
    rows, answers = [], []
    every = [*clips, *hisses]
    for clip, row in zip(every, states(model, every, layer)[layer], strict=True):
        rows.append(row.double())
        answers.append(_of_steps(clip, len(row), names))
    x, y = torch.cat(rows), F.one_hot(torch.cat(answers), len(names)).double()
    center, scale = x.mean(dim=0), deviations(x)
    x = _with_one((x - center) / scale)
    square = x.T @ x
    ridge = _STRENGTH * square.diagonal().mean() * torch.eye(len(square), dtype=torch.float64)
    return PhoneReader(model, layer, names, center, scale, torch.linalg.solve(square + ridge, x.T @ y))


def _of_steps(clip: Clip, steps: int, names: Sequence[str]) -> Int[Tensor, " t"]:
    """Which phone, as a number of ``names``, the middle of each step is in."""
    middles = (torch.arange(steps) + 0.5) / steps * clip.seconds
    found = torch.zeros(steps, dtype=torch.int64)
    for phone in clip.phones:
        if phone.name in names:
            found[(middles >= phone.start) & (middles < phone.end)] = names.index(phone.name)
    return found


def _with_one(x: Float[Tensor, "n u"]) -> Float[Tensor, "n v"]:
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
