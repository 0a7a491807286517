"""Sounds for files and pages: WAV as bytes, and spectra over time as pictures."""

from __future__ import annotations

import math
import wave
from collections.abc import Sequence
from io import BytesIO

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.data.speech import RATE
from thesis_kit.extras import needs
from thesis_kit.models.speech import LogMel

_DECIBELS = 60.0  # below the loudest place, where a picture is black


def wav(waveform: Float[Tensor, " t"]) -> bytes:
    """A waveform in [−1, 1] at 16 kHz as a WAV file of 16 bits."""
    samples = torch.round(waveform.detach().float().cpu().clamp(-1, 1) * 32767).short().numpy()
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def spectrogram(waveform: Float[Tensor, " t"], bands: int = 80) -> Float[Tensor, "b f"]:
    """Decibels below the loudest place, clipped at −60, over mel bands and steps of 10 ms."""
    power = LogMel(bands, floor=1e-10).raw(waveform.detach().float().cpu()[None])[0] * (10 / math.log(10))
    return (power - power.max()).clamp(min=-_DECIBELS)


def spectrograms(waveforms: Sequence[Float[Tensor, " t"]], titles: Sequence[str]) -> bytes:
    """Spectra of several sounds below one another as a PNG, on one scale of time.

    Raises:
        MissingPackage: matplotlib is not installed; the sentence names the extra.
    """
    figure_class = needs("matplotlib.figure").Figure
    figure = figure_class(figsize=(7, 1.5 * len(waveforms) + 0.6), layout="constrained")
    axes = figure.subplots(len(waveforms), 1, sharex=True, squeeze=False)[:, 0]
    for axis, waveform, title in zip(axes, waveforms, titles, strict=True):
        image = spectrogram(waveform).numpy()
        axis.imshow(image, origin="lower", aspect="auto", cmap="magma", extent=(0, len(waveform) / RATE, 0, len(image)))
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_yticks([])
    axes[-1].set_xlabel("seconds")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
