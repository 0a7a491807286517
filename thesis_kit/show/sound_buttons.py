"""Sounds behind buttons: a click or a key plays one, and what was playing stops; the samples are in the page, as MP3.

A page may hold a hundred of them, for all share one audio element, which browsers allow few of. Each is made as loud as
the others and faded at its ends. Where no script runs, nothing is heard and the words beside the button remain.
"""

from __future__ import annotations

import html
from base64 import b64encode
from io import BytesIO

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.data.speech import RATE
from thesis_kit.extras import needs
from thesis_kit.show.library import Image, mpl
from thesis_kit.show.pictures import image_uri
from thesis_kit.show.sounds import spectrogram, wav
from thesis_kit.sonification import playable

PLAY = """<script>window.tkPlay=window.tkPlay||function(b){var a=window.tkSound||(window.tkSound=new Audio()),
o=a.tkButton,w=o===b&&!a.paused;if(o)o.setAttribute("aria-pressed","false");a.pause();if(w)return;a.tkButton=b;a.src=b.dataset.sound;
b.setAttribute("aria-pressed","true");a.onended=function(){b.setAttribute("aria-pressed","false")};a.play()};</script>"""
_BANDS, _FRAME = 40, 0.01  # of the pictures: bands, and seconds a column
_DARK = -50.0  # decibels below the loudest place, where a picture is black
_BUTTON = (
    "display:block;width:100%;margin:0;padding:0;border:2px solid transparent;border-radius:4px;background:none;"
    "color:inherit;font:inherit;line-height:1.25;text-align:center;cursor:pointer;overflow-wrap:anywhere"
)


def mp3(waveform: Float[Tensor, " t"], *, effort: float = 0.6) -> bytes:
    """A waveform in [−1, 1] at 16 kHz as a small MP3, some 5 kB a second, which every browser plays.

    The encoder puts up to 0.07 s before a sound: take ``sounds.wav`` where the samples themselves matter.

    Args:
        effort: of 0 … 0.9, how much is thrown away.

    Raises:
        MissingPackage: soundfile is not installed; the sentence names the extra.
    """
    soundfile, buffer = needs("soundfile"), BytesIO()
    options = {"mode": "w", "samplerate": RATE, "channels": 1, "format": "MP3"}
    with soundfile.SoundFile(buffer, compression_level=effort, bitrate_mode="VARIABLE", **options) as file:
        file.write(waveform.detach().float().cpu().clamp(-1, 1).numpy())
    return buffer.getvalue()


def sound_uri(waveform: Float[Tensor, " t"], *, exact: bool = False) -> str:
    """A sound, as loud as the others and faded, as a data URI: an MP3, or a WAV where samples are to be ``exact``."""
    heard = playable(waveform)
    kind, data = ("wav", wav(heard)) if exact else ("mpeg", mp3(heard))
    return f"data:audio/{kind};base64,{b64encode(data).decode()}"


def sound_button(
    waveform: Float[Tensor, " t"], said: str, *, words: str = "", seconds: float | None = None, height: int = 44,
    exact: bool = False,
) -> str:  # fmt: skip
    """HTML of a button that shows a sound's spectrum over time, low at the bottom, and plays it.

    A figure with such buttons holds ``PLAY`` once.

    Args:
        waveform: (t,) in [−1, 1] at 16 kHz. said: what is heard, read out by screen readers.
        words: what stands below the picture. seconds: the time that the picture's width stands for, so that short
            sounds look short; the sound's own unless given. height: of the picture in pixels.
        exact: WAV in place of MP3, nine times as large.
    """
    if not said.strip():
        raise ValueError("a sound needs words that say what is heard")
    name = html.escape(f"Play: {said}", quote=True)
    look = f"display:block;width:100%;height:{height}px;object-fit:fill;border-radius:2px;padding:0;margin:0"
    alt = html.escape(f"Spectrum over time: {said}", quote=True)
    picture = f'<img src="{picture_uri(waveform, seconds)}" alt="{alt}" style="{look}">'
    below = f'<span aria-hidden="true">▶ {html.escape(words)}</span>'
    return (
        f'<button type="button" class="tk-play" aria-pressed="false" aria-label="{name}" onclick="tkPlay(this)" '
        f'data-sound="{sound_uri(waveform, exact=exact)}" style="{_BUTTON}">{picture}{below}</button>'
    )


def picture_uri(waveform: Float[Tensor, " t"], seconds: float | None = None) -> str:
    """The spectrum of a sound over time as a small picture: bright where it is loud, black behind its end."""
    decibels = spectrogram(playable(waveform), _BANDS).clamp(min=_DARK)  # (bands, frames)
    share = (decibels - _DARK) / -_DARK
    if seconds is not None:
        frames = round(seconds / _FRAME)
        share = F.pad(share, (0, max(0, frames - share.shape[1])))[:, :frames]
    return image_uri(colored(share.flip(0)), lossless=0, quality=50)


def colored(share: Float[Tensor, "h w"]) -> Image.Image:
    """Numbers in [0, 1] in the colors of magma."""
    rgb = torch.from_numpy(mpl.colormaps["magma"](share.double().numpy())[..., :3])
    return Image.fromarray((255 * rgb).round().byte().numpy(), "RGB")

