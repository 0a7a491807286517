"""What Whisper reads out of speech: free transcripts, letter by greedy letter, and the best of a closed set of texts.

Texts become tokens by byte-pair encoding (Sennrich et al., ACL 2016) over bytes that stand for printable letters, as in
GPT-2; the merges come from the ``tokenizer.json`` beside the weights.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import evaluating
from thesis_kit.files import DamagedFile, parse_json
from thesis_kit.models.speech.whisper import Whisper

_PIECES = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


class WhisperTokens:
    """Texts to tokens and back.

    Args:
        path: of a ``tokenizer.json``, or of the folder that holds it.

    Raises:
        FileNotFoundError: there is none. DamagedFile: it holds no byte-pair encoding.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        held = parse_json(path.read_bytes(), path)
        try:
            model, added = held["model"], held["added_tokens"]
            self._number = model["vocab"] | {token["content"]: token["id"] for token in added}
            merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
            self.start, self.plain, self.end = (
                self._number[f"<|{name}|>"] for name in ("startoftranscript", "notimestamps", "endoftext")
            )
        except (KeyError, TypeError) as error:
            raise DamagedFile(f"{path} holds no byte-pair encoding of Whisper's ({error!r} is missing)") from error
        self._text = {number: token for token, number in self._number.items()}
        self._rank = {pair: place for place, pair in enumerate(merges)}

    @property
    def prompt(self) -> list[int]:
        """The tokens that an English transcript without times begins with."""
        return [self.start, self.plain]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; a word in the middle of a text begins with its space."""
        return [number for piece in _PIECES.findall(text) for number in self._encoded(piece)]

    def _encoded(self, piece: str) -> list[int]:
        """The tokens of a piece: the pair that was merged first when the encoding was made is merged first."""
        parts = [_letters()[byte] for byte in piece.encode()]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        return [self._number[part] for part in parts]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without those that mark times, beginning and end."""
        told = "".join(self._text.get(number, "") for number in tokens if number < self.end)
        return bytes(_bytes()[letter] for letter in told).decode("utf-8", "replace")


@cache
def _letters() -> list[str]:
    """The letter that stands for every byte: itself where it is printable, one from 256 on where it is not."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


@cache
def _bytes() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(_letters())}


@torch.no_grad()
def closed_set(
    model: Whisper, tokens: WhisperTokens, x: Float[Tensor, "n t"], texts: Sequence[str], *, seconds: float = 3.0,
    batch_size: int = 16,
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Log-likelihood of each of k texts for each of n clips, a sum over the text's tokens and its end.

    Args:
        model, tokens: the network and its tokens. x: waveforms. texts: what may have been said, such as " seven." as
            the network would write it; its first letter and its full stop are part of it.
        seconds: the window that clips are padded to; 30 is what the network was trained on and costs ten times as much.
        batch_size: clips a pass of the encoder.

    Examples:
        >>> from thesis_kit.models.speech import closed_set, whisper_tiny_en  # doctest: +SKIP
        >>> whisper, tokens = whisper_tiny_en()  # doctest: +SKIP
        >>> closed_set(whisper, tokens, torch.zeros(1, 16_000), ["yes", "no"]).shape  # doctest: +SKIP
        torch.Size([1, 2])
    """
    if not texts:
        raise ValueError("a closed set must hold at least one text")
    spelled = [[*tokens.prompt, *tokens.encode(text), tokens.end] for text in texts]
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in spelled], True, tokens.end).to(x.device)
    lengths = torch.tensor([len(row) for row in spelled], device=x.device)
    place = torch.arange(1, rows.shape[1], device=x.device)
    counts = (place >= len(tokens.prompt)) & (place < lengths[:, None])  # (k, t − 1): the text and its end
    scores = []
    with evaluating(model), _window(model, seconds):
        for some in x.split(batch_size):
            for heard in model(some):
                logits = model.read(rows[:, :-1], heard.expand(len(rows), -1, -1))  # (k, t − 1, v)
                told = logits.log_softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
                scores.append((told * counts).sum(dim=1))
    return torch.stack(scores)


@torch.no_grad()
def write_down(
    model: Whisper, tokens: WhisperTokens, x: Float[Tensor, "n t"], *, seconds: float = 30.0, longest: int = 64
) -> list[str]:
    """Greedy transcripts of n clips, one after the other.

    Args:
        model, tokens, x, seconds: as for ``closed_set``. longest: the most tokens of a transcript.

    Examples:
        >>> from thesis_kit.models.speech import whisper_tiny_en, write_down  # doctest: +SKIP
        >>> write_down(*whisper_tiny_en(), tk.data.speech.say("good morning").waveform[None])  # doctest: +SKIP
    """
    texts = []
    with evaluating(model), _window(model, seconds):
        for one in x.split(1):
            heard, written = model(one), list(tokens.prompt)
            while len(written) < longest + len(tokens.prompt):
                logits = model.read(torch.tensor([written], device=x.device), heard)[0, -1]
                logits[tokens.end + 1 :] = -torch.inf  # marks of times and tasks are no text
                if len(written) == len(tokens.prompt):
                    logits[tokens.end] = -torch.inf
                best = int(logits.argmax())
                if best == tokens.end:
                    break
                written.append(best)
            texts.append(tokens.decode(written[len(tokens.prompt) :]).strip())
    return texts


@contextmanager
def _window(model: Whisper, seconds: float) -> Iterator[None]:
    """Inside the block, the network pads clips to another window."""
    before, model.seconds = model.seconds, seconds
    try:
        yield
    finally:
        model.seconds = before
