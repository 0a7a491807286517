"""Recordings become clips of 16 kHz, one channel and [−1, 1], or are refused in a sentence."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from thesis_kit.data.photos import DataUnavailable
from thesis_kit.data.speech import AudioNote, from_file, from_samples, librispeech
from thesis_kit.extras import MissingPackage

TONE = np.sin(2 * np.pi * 200 * np.arange(22050) / 22050) * 0.5  # a second at 22,050 Hz


def test_another_rate_is_resampled():
    clip = from_samples(TONE, 22050, "tone")
    assert len(clip.waveform) == 16000
    assert clip.f0 == pytest.approx(200, rel=0.01)
    assert clip.waveform.abs().max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8"])
def test_whole_numbers_are_scaled(dtype):
    width = np.iinfo(dtype)
    whole = np.rint((TONE + 1) / 2 * (width.max - width.min) + width.min).astype(dtype)
    expected = from_samples(TONE, 22050).waveform
    assert np.allclose(from_samples(whole, 22050).waveform, expected, atol=0.01)


def test_channels_become_their_mean_with_a_note():
    with pytest.warns(AudioNote, match="have 2 channels: their mean is taken"):
        clip = from_samples(np.stack([TONE, -TONE]), 22050)
    assert clip.waveform.abs().max() < 1e-6
    assert np.isnan(clip.f0)


def test_clipping_is_noted():
    with pytest.warns(AudioNote, match="are clipped"):
        from_samples(np.clip(4 * TONE, -1, 1), 22050)


def test_silence_is_a_clip_without_pitch():
    clip = from_samples(np.zeros(16000), 16000)
    assert np.isnan(clip.f0)
    assert clip.seconds == 1


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.array([0.1, np.nan]), "hold NaN or infinity"),
        (TONE * 100, "divide by the full scale"),
        (np.zeros(0), "a sound is an array"),
        (np.zeros((3, 2, 5)), "a sound is an array"),
        (np.zeros((16000, 2)), "transpose them"),
    ],
    ids=["nan", "large", "empty", "dimensions", "transposed"],
)
def test_what_is_no_sound_is_refused(samples, said):
    with pytest.raises(ValueError, match=said):
        from_samples(samples, 16000)


def test_a_file(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="files need the extra [speech]")
    soundfile.write(tmp_path / "tone.wav", TONE, 22050)
    assert from_file(tmp_path / "tone.wav").f0 == pytest.approx(200, rel=0.01)
    (tmp_path / "none.wav").write_text("words")
    with pytest.raises(ValueError, match="is no sound that soundfile can read"):
        from_file(tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_file(tmp_path / "nowhere.wav")


def test_a_missing_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingPackage, match=r"\[speech\]"):
        from_file(tmp_path / "tone.wav")


def test_librispeech_is_read_by_soundfile(monkeypatch, tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="files need the extra [speech]")

    class Set:
        def __init__(self, root, *, url, download):
            assert (root, url, download) == (str(tmp_path), "dev-clean", False)
            self._archive = str(tmp_path)

        def __len__(self):
            return 2

        def get_metadata(self, number):
            return f"{number}.flac", 16000, "A CAT", 1, 2, 3

    soundfile.write(tmp_path / "0.flac", TONE[:16000], 16000)
    module = types.ModuleType("torchaudio.datasets")
    module.LIBRISPEECH = Set
    monkeypatch.setitem(sys.modules, "torchaudio.datasets", module)
    (clip,) = librispeech("dev-clean", count=1, root=tmp_path, download=False)
    assert clip.text == "a cat"
    assert len(clip.waveform) == 16000


def test_a_data_set_that_is_not_there_is_said(tmp_path):
    pytest.importorskip("torchaudio", reason="LibriSpeech needs the extra [speech]")
    with pytest.raises(DataUnavailable, match="LIBRISPEECH is not in"):
        librispeech(root=tmp_path, download=False)  # at once, before a clip is asked for
