"""Recognizers of speech, from waveforms in [−1, 1] at 16 kHz: a small one after Jasper."""

from thesis_kit.models.speech.jasper import Jasper, check_waveforms, ends_of, transcribe
from thesis_kit.models.speech.spectra import LogMel, mel_filters

__all__ = ["Jasper", "LogMel", "check_waveforms", "ends_of", "mel_filters", "transcribe"]
