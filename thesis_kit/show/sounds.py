"""Sounds for files and pages: WAV as bytes, players that need no kernel, and spectra over time as pictures."""

from __future__ import annotations

import html
import math
import wave
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.data.speech import RATE
from thesis_kit.extras import needs
from thesis_kit.models.speech import LogMel
from thesis_kit.sonification import playable

_DECIBELS = 60.0  # below the loudest place, where a picture is black


def wav(waveform: Float[Tensor, " t"]) -> bytes:
    """A waveform in [−1, 1] at 16 kHz as a WAV file of 16 bits."""
    samples = torch.round(waveform.detach().float().cpu().clamp(-1, 1) * 32767).short().numpy()
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


@dataclass(frozen=True)
class Player:
    """A sound with a label, which a page or notebook plays without a kernel; see ``player``."""

    html: str
    label: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"sound: {self.label}"


def player(waveform: Float[Tensor, " t"], label: str) -> Player:
    """A labelled player of a sound, made as loud as all others and faded at its ends; the samples are in the page.

    A second is 43 kB of text. The browser's own controls are used, which a keyboard reaches.

    Args:
        waveform: (t,) in [−1, 1] at 16 kHz. label: what is heard; shown, and read out by screen readers.
    """
    if not label.strip():
        raise ValueError("a sound needs a label that says what is heard")
    data, shown = b64encode(wav(playable(waveform))).decode(), html.escape(label, quote=True)
    return Player(
        f'<figure class="tk-sound" style="margin:0.3em 0"><figcaption>{shown}</figcaption><audio controls '
        f'preload="metadata" aria-label="{shown}" src="data:audio/wav;base64,{data}"></audio></figure>', label,
    )  # fmt: skip


def spectrogram(waveform: Float[Tensor, " t"], bands: int = 80) -> Float[Tensor, "b f"]:
    """Decibels below the loudest place, clipped at −60, as silence is, over mel bands and steps of 10 ms."""
    power = LogMel(bands, floor=1e-10).raw(waveform.detach().float().cpu()[None])[0] * (10 / math.log(10))
    if power.max() == power.min():  # the floor, everywhere
        return torch.full_like(power, -_DECIBELS)
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
