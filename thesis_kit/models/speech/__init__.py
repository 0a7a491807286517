"""Networks that hear, from waveforms in [−1, 1] at 16 kHz: a small recognizer after Jasper, Whisper, wav2vec 2.0 and
its kin by torchaudio's names, and an encoder of speakers."""

from thesis_kit.models.speech.jasper import Jasper, check_waveforms, ends_of, transcribe
from thesis_kit.models.speech.packaged import whisper_tiny_en
from thesis_kit.models.speech.speakers import SpeakerEncoder
from thesis_kit.models.speech.spectra import LogMel, mel_filters
from thesis_kit.models.speech.torchaudio_models import Wav2Vec2, from_torchaudio, torchaudio_names
from thesis_kit.models.speech.whisper import Whisper, WhisperSize
from thesis_kit.models.speech.whisper_reading import WhisperTokens, closed_set, write_down
from thesis_kit.models.speech.whisper_weights import whisper_from_file

__all__ = [
    "Jasper", "LogMel", "SpeakerEncoder", "Wav2Vec2", "Whisper", "WhisperSize", "WhisperTokens", "check_waveforms",
    "closed_set", "ends_of", "from_torchaudio", "mel_filters", "torchaudio_names", "transcribe", "whisper_from_file",
    "whisper_tiny_en", "write_down",
]  # fmt: skip
