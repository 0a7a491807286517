"""``speech.v1``: sixty-four words by eighteen voices, with pitch and rate crossed with every word, frozen by a hash.

Twelve voices are for training, two for choosing, four judge. The crossed clips, one word each, are what layers are
asked about; phrases of one to three words are what recognizers are trained on. Once a result rests on it, it never
changes: another one gets another name.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import torch

from thesis_kit.checks import choose
from thesis_kit.data.parts import Part, Splits, Stream
from thesis_kit.data.speech.alphabet import encode
from thesis_kit.data.speech.clips import Clip, say_all, together
from thesis_kit.data.speech.synthesizer import Utterance
from thesis_kit.data.transcripts import Transcripts
from thesis_kit.names import check_count
from thesis_kit.randomness import mix_seed

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "apple", "bird", "boat", "bread",
    "cat", "chair", "city", "cloud", "dog", "door", "fish", "flower", "forest", "garden", "green", "guitar", "hand",
    "happy", "house", "island", "jump", "kitchen", "lamp", "letter", "light", "lion", "moon", "morning", "mountain",
    "music", "never", "night", "ocean", "open", "orange", "paper", "people", "pencil", "river", "school", "sheep",
    "silver", "sister", "stone", "summer", "table", "tiger", "travel", "tree", "water", "window", "winter", "yellow",
    "young",
)  # fmt: skip
VOICES = {
    "train": ("en-us", "en-us+m3", "en-us+f2", "en-us+boris", "en-us+linda", "en-us-nyc+m5", "en-gb+m1", "en-gb+f4",
              "en-gb-x-rp+f5", "en-gb-scotland+m7", "en-gb-x-gbclan+m8", "en-029+f1"),
    "validation": ("en-us+m6", "en-gb+f3"),
    "test": ("en-us+m4", "en-us+steph", "en-gb+Andrea", "en-gb-x-rp+m2"),
}  # fmt: skip
PITCHES, RATES = (30, 50, 70, 90), (140, 180)  # of the crossed clips; below a pitch of 20 voices do not go lower
_PHRASES = {"train": 4000, "validation": 200, "test": 400}
_SPEECH = {"speech.v1": "bfbacd684ab432ec"}  # of what is said how, and of some clips' samples
NAMES = tuple(_SPEECH)


def crossed(
    words: Sequence[str] = WORDS, voices: Sequence[str] | None = None, pitches: Sequence[int] = PITCHES,
    rates: Sequence[int] = RATES,
) -> list[Utterance]:  # fmt: skip
    """Every word by every voice at every pitch and rate, voices slowest and rates fastest; ``say_all`` makes clips.

    Args:
        words, pitches, rates: all of the distribution unless given. voices: likewise, in all three parts.

    Examples:
        >>> spoken = list(tk.data.speech.crossed(words=("yes", "no")))
        >>> spoken[0].text
        'yes'
    """
    voices = [voice for part in VOICES.values() for voice in part] if voices is None else voices
    every = itertools.product(voices, words, pitches, rates)
    return [Utterance(word, voice, pitch, rate) for voice, word, pitch, rate in every]


def phrases(part: str, count: int | None = None, *, seed: int = 0) -> list[Utterance]:
    """Phrases of one to three words by the voices of a part, at random pitches (15 to 95) and rates (120 to 200).

    Args:
        part: "train", "validation" or "test". count: how many; the distribution's own number unless given.
        seed: decides words, voices, pitches and rates; a prefix of more phrases is the same as fewer.

    Examples:
        >>> len(tk.data.speech.phrases("test", 3))
        3
    """
    voices = choose(part, VOICES, "part of speech")
    count = _PHRASES[part] if count is None else count
    check_count(count, what="count")
    drawn = torch.Generator().manual_seed(mix_seed(seed, list(VOICES).index(part)))
    numbers = torch.rand(count, 7, generator=drawn, dtype=torch.float64).tolist()
    made = []
    for a, b, c, how_many, voice, pitch, rate in numbers:
        words = [WORDS[int(share * len(WORDS))] for share in (a, b, c)][: 1 + int(3 * how_many)]
        made.append(
            Utterance(" ".join(words), voices[int(voice * len(voices))], 15 + int(81 * pitch), 120 + int(81 * rate))
        )
    return made


def part_of(clips: Sequence[Clip]) -> Part:
    """Clips as a ``Part``: waveforms (n, t) padded with zeros, and what they say as ``Transcripts``.

    Examples:
        >>> silence = [tk.data.speech.from_samples(torch.zeros(n), 16_000, "no") for n in (100, 300)]
        >>> tk.data.speech.part_of(silence).x.shape
        torch.Size([2, 300])
    """
    x, frames = together([clip.waveform for clip in clips])
    spelled = [torch.tensor(encode(clip.text)) for clip in clips]
    tokens, lengths = torch.nn.utils.rnn.pad_sequence(spelled, batch_first=True), [len(one) for one in spelled]
    return Part(x, Transcripts(tokens, torch.tensor(lengths), frames), torch.arange(len(clips)))


class Phrases(Stream):
    """Minibatches drawn from clips, each padded to its own longest one; a minibatch holds every clip at most once.

    Args:
        clips: what is drawn from. name: by which a checkpoint knows them again. seed: of the drawing.
    """

    def __init__(self, clips: Sequence[Clip], *, name: str, seed: int = 0):
        self.name, self._seed = f"{name}, {len(clips)} clips, seed {seed}", seed
        # Half the memory: samples are whole numbers of 16 bits.
        self._clips = [(torch.round(clip.waveform * 32767).short(), torch.tensor(encode(clip.text))) for clip in clips]

    def __len__(self) -> int:
        return len(self._clips)

    def minibatch(self, position: int, size: int) -> Part:
        """Minibatch ``position``: ``size`` clips, or all of them in a random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(mix_seed(self._seed, position)))
        order = order[:size]
        waveforms, spelled = zip(*[self._clips[number] for number in order.tolist()], strict=True)
        x, frames = together([waveform.float() / 32767 for waveform in waveforms])
        tokens = torch.nn.utils.rnn.pad_sequence(spelled, batch_first=True)
        return Part(x, Transcripts(tokens, torch.tensor([len(one) for one in spelled]), frames), order)


def splits(seed: int = 0, *, name: str = "speech.v1", train: int | None = None, test: int | None = None) -> Splits:
    """Phrases to train a recognizer on, to choose by and to judge by, each part by voices of its own.

    Args:
        seed: of the order of training; the phrases are the same for all.
        name: of the distribution. train, test: use so many phrases; the distribution's own numbers unless given.

    Raises:
        UnknownName: there is no such distribution. MissingPackage: espeakng-loader is not installed.

    Examples:
        >>> part = tk.data.speech.splits(train=2, test=1).test
        >>> len(part)
        1
    """
    choose(name, _SPEECH, "distribution of speech")
    training = Phrases(say_all(phrases("train", train)), name=name, seed=seed)
    return Splits(training, *(part_of(say_all(phrases(part, n))) for part, n in (("validation", None), ("test", test))))


@dataclass(frozen=True)
class Frozen:
    """A distribution's hash as it is here, and as it was when it was frozen."""

    here: str
    frozen: str


@cache
def data_hash(name: str = "speech.v1") -> Frozen:
    """The hash of a distribution: of all that is said and how, and of the samples of a clip a voice.

    It is another one where eSpeak NG is another version, or computes otherwise on another kind of machine.
    """
    frozen = choose(name, _SPEECH, "distribution of speech")
    told = sha256(repr((WORDS, VOICES, PITCHES, RATES, crossed(), [phrases(part) for part in VOICES])).encode())
    voices = [voice for part in VOICES.values() for voice in part]
    probes = [Utterance(word, voice) for word, voice in zip(WORDS, voices, strict=False)]
    for clip in say_all(probes):
        told.update(torch.round(clip.waveform * 32767).short().numpy().tobytes())
        told.update(repr([(round(phone.start, 4), phone.name) for phone in clip.phones]).encode())
    return Frozen(told.hexdigest()[:16], frozen)
