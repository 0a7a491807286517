"""Networks that hear, from waveforms in [−1, 1] at 16 kHz: a small recognizer after Jasper, Whisper, and an encoder of
speakers."""

from thesis_kit.models.speech.jasper import Jasper, check_waveforms, ends_of, transcribe
from thesis_kit.models.speech.packaged import whisper_tiny_en
from thesis_kit.models.speech.speakers import SpeakerEncoder
from thesis_kit.models.speech.spectra import LogMel, mel_filters
from thesis_kit.models.speech.whisper import Whisper, WhisperSize
from thesis_kit.models.speech.whisper_reading import WhisperTokens, closed_set, write_down
from thesis_kit.models.speech.whisper_weights import whisper_from_file

__all__ = [
    "Jasper", "LogMel", "SpeakerEncoder", "Whisper", "WhisperSize", "WhisperTokens", "check_waveforms", "closed_set",
    "ends_of", "mel_filters", "transcribe", "whisper_from_file", "whisper_tiny_en", "write_down",
]  # fmt: skip
