"""How large the tests' Whisper is."""

from thesis_kit.models.speech import WhisperSize

SIZE = WhisperSize(width=64, depth=2, decoder_depth=1, vocabulary=40, bands=16, places=100, text=12)
