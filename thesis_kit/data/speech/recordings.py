"""Recordings as clips: any file that soundfile reads, LibriSpeech and Speech Commands.

Whatever the rate and the number of channels, a clip has 16 kHz and one. ``torchaudio.load`` is not used: its present
release hands files to another package.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from thesis_kit.data.photos import DataUnavailable, default_root
from thesis_kit.data.speech.clips import RATE, Clip, at_16_khz
from thesis_kit.data.speech.pitch import median_pitch
from thesis_kit.extras import needs
from thesis_kit.names import check_count


class AudioNote(UserWarning):
    """A clip was made of a recording that had another form; the message says which."""


def from_file(path: str | os.PathLike, text: str = "") -> Clip:
    """A recording as a clip of 16 kHz, whatever its rate; several channels become their mean, with a note.

    Args:
        path: of a file that soundfile reads: WAV, FLAC, OGG, MP3. text: what is said in it.

    Raises:
        FileNotFoundError: there is none. ValueError: it is no sound, or holds nothing, NaN or infinity.
        MissingPackage: soundfile is not installed.

    Warns:
        AudioNote: it has several channels, or is clipped.

    Examples:
        >>> clip = tk.data.speech.from_file("recording.wav", text="good morning")  # doctest: +SKIP
        >>> clip.waveform.shape  # doctest: +SKIP
    """
    soundfile, path = needs("soundfile"), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is no sound that soundfile can read ({error}): convert it to WAV or FLAC") from error
    return from_samples(samples.T, rate, text, what=str(path))


def from_samples(samples: np.ndarray | torch.Tensor, rate: int, text: str = "", *, what: str = "the samples") -> Clip:
    """Samples (t,) or (channels, t) of any rate, in [−1, 1] or whole numbers of any width, as a clip of 16 kHz.

    Args:
        samples: as they come. rate: samples a second. text: what is said. what: how messages call them.

    Raises:
        ValueError: nothing there, NaN, infinity, values far outside of [−1, 1], or a form that is no sound.

    Warns:
        AudioNote: several channels, or a hundredth of the samples at the limits.

    Examples:
        >>> clip = tk.data.speech.from_samples(torch.zeros(8_000), 8_000, "silence")
        >>> clip.waveform.shape
        torch.Size([16000])
    """
    check_count(rate, what="rate", least=1000)
    samples = np.asarray(samples)
    if samples.dtype.kind in "iu":
        width = np.iinfo(samples.dtype)
        samples = (samples.astype(np.float64) - (width.max + 1 + width.min) / 2) / ((width.max - width.min + 1) / 2)
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or samples.size == 0:
        raise ValueError(f"a sound is an array (t,) or (channels, t) of numbers, got {samples.dtype} {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{what} hold NaN or infinity: look at how they were made")
    largest = np.abs(samples).max()
    if largest > 2:
        raise ValueError(f"{what} must lie in [−1, 1], got up to {largest:.3g}: divide by the full scale")
    if samples.ndim == 2:
        if samples.shape[0] > 32:
            raise ValueError(f"{what} of shape {samples.shape} would have {samples.shape[0]} channels: transpose them")
        if samples.shape[0] > 1:
            warnings.warn(f"{what} have {samples.shape[0]} channels: their mean is taken", AudioNote, stacklevel=2)
        samples = samples.mean(axis=0)
    if largest >= 1 and (np.abs(samples) >= 0.999).mean() > 0.01:
        warnings.warn(f"{what} are clipped: a hundredth or more is at full scale", AudioNote, stacklevel=2)
    waveform = at_16_khz(samples.astype(np.float64), rate)
    return Clip(torch.from_numpy(waveform).float(), text, f0=median_pitch(waveform, RATE))


def librispeech(
    part: str = "test-clean", *, count: int | None = None, root: str | os.PathLike | None = None, download: bool = True
) -> Iterator[Clip]:
    """Clips of LibriSpeech (Panayotov et al., ICASSP 2015), read books, with their transcripts in small letters.

    Args:
        part: as torchaudio calls it, such as "test-clean" and "dev-clean". count: the first so many; all unless given.
        root: folder of the download; the user's cache unless given. download: fetch it where it is missing.

    Raises:
        DataUnavailable: it is neither on disk nor to be downloaded.

    Examples:
        >>> clip = next(tk.data.speech.librispeech("test-clean", count=1))  # doctest: +SKIP
        >>> clip.text  # doctest: +SKIP
    """
    return _clips("LIBRISPEECH", count, root, download, url=part)


def speech_commands(
    part: str = "testing", *, count: int | None = None, root: str | os.PathLike | None = None, download: bool = True
) -> Iterator[Clip]:
    """Clips of Speech Commands (Warden 2018), one of 35 words each, by many speakers; arguments as ``librispeech``.

    Examples:
        >>> clip = next(tk.data.speech.speech_commands("testing", count=1))  # doctest: +SKIP
        >>> clip.text  # doctest: +SKIP
    """
    return _clips("SPEECHCOMMANDS", count, root, download, subset=part)


def _clips(kind: str, count: int | None, root, download: bool, **part: str) -> Iterator[Clip]:
    """Clips of one of torchaudio's data sets, whose file names are asked for and whose files soundfile reads."""
    make, folder = getattr(needs("torchaudio.datasets"), kind), Path(root or default_root())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = make(str(folder), download=download, **part)
    except (OSError, RuntimeError) as error:
        raise DataUnavailable(
            f"{kind} is not in {folder} and could not be downloaded ({error}): connect to the network once, or stay "
            "offline with the speech that comes with the package"
        ) from error
    return (_clip(data, number) for number in itertools.islice(range(len(data)), count))


def _clip(data, number: int) -> Clip:
    place, _, text, *_ = data.get_metadata(number)
    return from_file(Path(data._archive) / place, text.lower())
