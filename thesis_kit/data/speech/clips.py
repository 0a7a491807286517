"""Clips of synthesized speech at 16 kHz with what is known of them, kept on disk by what they are made of.

The synthesizer's 22,050 Hz become 16,000, whole numbers of 16 bits stay whole numbers of 16 bits, and phones and words
have their times in seconds. A list of utterances is one file in the user's cache, named by a hash of the utterances,
the library and the version of what happens here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thesis_kit.data.photos import default_root
from thesis_kit.data.speech.pitch import median_pitch
from thesis_kit.data.speech.synthesizer import Spoken, Synthesizer, Utterance, check_utterance, library
from thesis_kit.files import DamagedFile, WriteFailed, digest
from thesis_kit.files.tensors import read_tensors, write_tensors
from thesis_kit.progress import track

RATE = 16_000  # samples a second of all clips
_VERSION = 1  # raised by whoever changes what a clip of the same utterance is
_STRESS = str.maketrans("", "", "',%=|")  # eSpeak's marks before a phone's name


@dataclass(frozen=True)
class Segment:
    """A phone or a word: from ``start`` to ``end`` in seconds."""

    start: float
    end: float
    name: str


@dataclass(frozen=True)
class Clip:
    """A piece of speech.

    ``waveform`` (t,) float32 in [−1, 1] at 16 kHz; ``phones`` and ``words`` with their times; ``f0`` in Hz, the median
    of its voiced frames as measured, NaN where none is; ``said``, what the synthesizer was asked for, None for a
    recording.
    """

    waveform: Tensor
    text: str
    phones: tuple[Segment, ...] = ()
    words: tuple[Segment, ...] = ()
    f0: float = float("nan")
    said: Utterance | None = None

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.waveform) / RATE

    @property
    def voice(self) -> str | None:
        """Who speaks, where that is known."""
        return self.said.voice if self.said else None


def say(text: str, voice: str = "en-us", *, pitch: int = 50, rate: int = 160) -> Clip:
    """A clip of somebody saying a text.

    Args:
        text: what is said; digits and letters outside of English are read as eSpeak NG reads them.
        voice: a language of eSpeak NG, such as "en-gb-scotland", and perhaps a timbre, as in "en-us+f2".
        pitch: 0 … 99, a number without a unit; 50 is the voice's own. rate: words a minute, 80 … 450.

    Raises:
        ValueError, UnknownName: as ``Synthesizer.say``. MissingPackage: espeakng-loader is not installed.

    Examples:
        >>> clip = tk.data.speech.say("good morning", pitch=40)
        >>> clip.text
        'good morning'
    """
    return say_all([Utterance(text, voice, pitch, rate)], keep=False)[0]


def say_all(utterances: Iterable[Utterance], *, keep: bool = True, progress: bool | None = None) -> list[Clip]:
    """Clips of many utterances, in their order.

    Args:
        utterances: what is to be said.
        keep: read them from the cache, or put them there, where there is room.
        progress: show a bar; None follows the session.

    Raises:
        ValueError, UnknownName, SynthesizerDied: as ``Synthesizer.say``. MissingPackage: espeakng-loader is not
            installed.

    Examples:
        >>> clips = tk.data.speech.say_all(tk.data.speech.phrases("test", 2), keep=False, progress=False)
        >>> len(clips)
        2
    """
    utterances = list(utterances)
    for utterance in utterances:
        check_utterance(utterance)
    path = default_root() / "speech" / f"{_key(utterances)}.clips"
    if keep and (kept := _kept(path)) is not None:
        return _unpacked(kept, utterances)
    with Synthesizer() as speaker, track("speaking", len(utterances), progress) as bar:
        packed = []
        for utterance in utterances:
            packed.append(_pack(speaker.say(utterance)))
            bar.advance()
    if keep:
        with contextlib.suppress(WriteFailed):
            write_tensors(path, packed)
    return _unpacked(packed, utterances)


def _key(utterances: Sequence[Utterance]) -> str:
    return digest({"version": _VERSION, "library": library()[2], "said": [[*vars(u).values()] for u in utterances]})


def _kept(path: Path) -> list | None:
    try:
        return read_tensors(path)
    except (OSError, DamagedFile):
        return None


def at_16_khz(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples (t,) in [−1, 1] of any rate, as float64 at 16 kHz; what overshoots is clipped."""
    if rate != RATE:
        from scipy.signal import resample_poly  # which takes a while to load

        shared = np.gcd(rate, RATE)
        samples = resample_poly(samples, RATE // shared, rate // shared)
    return np.clip(samples, -1, 1)


def _pack(spoken: Spoken) -> dict:
    """What a file keeps of a clip."""
    samples = np.rint(32767 * at_16_khz(spoken.samples / 32768, spoken.rate)).astype(np.int16)
    intervals = [[(start / spoken.rate, stop / spoken.rate, name) for start, stop, name in kind]
                 for kind in (spoken.phones, spoken.words)]  # fmt: skip
    return {"samples": torch.from_numpy(samples), "intervals": intervals, "f0": median_pitch(samples / 32767, RATE)}


def _unpacked(packed: Sequence[dict], utterances: Sequence[Utterance]) -> list[Clip]:
    clips = []
    for one, utterance in zip(packed, utterances, strict=True):
        phones, words = one["intervals"]
        phones = tuple(Segment(start, end, name.translate(_STRESS)) for start, end, name in phones)
        words = tuple(Segment(start, end, name.lower()) for start, end, name in words)
        waveform = one["samples"].float() / 32767
        clips.append(Clip(waveform, utterance.text, phones, words, one["f0"], utterance))
    return clips


def together(waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Waveforms of several lengths in one tensor (n, t), with zeros behind, and their lengths (n,).

    Examples:
        >>> x, lengths = tk.data.speech.together([torch.ones(2), torch.ones(3)])
        >>> x.tolist(), lengths.tolist()
        ([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], [2, 3])
    """
    lengths = torch.tensor([len(waveform) for waveform in waveforms], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence([w.float() for w in waveforms], batch_first=True), lengths
