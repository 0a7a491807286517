"""Speech whose words, phones, voices and pitch are known, for it is synthesized; and recordings as clips."""

from thesis_kit.data.speech.alphabet import TOKENS, decode, encode
from thesis_kit.data.speech.clips import RATE, Clip, Segment, say, say_all, together
from thesis_kit.data.speech.distribution import (
    VOICES,
    WORDS,
    Phrases,
    crossed,
    data_hash,
    part_of,
    phrases,
    splits,
)
from thesis_kit.data.speech.pitch import median_pitch, pitch_track
from thesis_kit.data.speech.recordings import AudioNote, from_file, from_samples, librispeech, speech_commands
from thesis_kit.data.speech.synthesizer import Synthesizer, SynthesizerDied, Utterance, variants

__all__ = [
    "RATE",
    "TOKENS",
    "VOICES",
    "WORDS",
    "AudioNote",
    "Clip",
    "Phrases",
    "Segment",
    "Synthesizer",
    "SynthesizerDied",
    "Utterance",
    "crossed",
    "data_hash",
    "decode",
    "encode",
    "from_file",
    "from_samples",
    "librispeech",
    "median_pitch",
    "part_of",
    "phrases",
    "pitch_track",
    "say",
    "say_all",
    "speech_commands",
    "splits",
    "together",
    "variants",
]  # fmt: skip
