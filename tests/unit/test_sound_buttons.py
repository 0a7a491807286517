"""Sounds behind buttons: what is in the page, what is said, and that an MP3 holds what was given."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO

import pytest
import soundfile
import torch

from thesis_kit.show import sound_buttons as buttons

TONE = 0.01 * torch.sin(2 * torch.pi * 440 * torch.arange(8_000) / 16_000)


def test_an_mp3_is_small_and_holds_the_sound():
    data = buttons.mp3(TONE)
    assert len(data) < 5_000
    samples, rate = soundfile.read(BytesIO(data))
    assert rate == 16_000
    assert 8_000 <= len(samples) <= 8_000 + 3_000
    spectrum = torch.from_numpy(samples).float()[2_000:6_000]
    assert abs(torch.fft.rfft(spectrum).abs().argmax().item() * 4 - 440) <= 8


def test_a_button_says_what_is_heard_and_plays_it_as_loud_as_others():
    made = buttons.sound_button(TONE, 'a "low" tone', words="<tone>", seconds=1.0, exact=True)
    assert 'aria-label="Play: a &quot;low&quot; tone"' in made
    assert "▶ &lt;tone&gt;" in made
    assert 'alt="Spectrum over time: a &quot;low&quot; tone"' in made
    data = made.partition("data:audio/wav;base64,")[2].partition('"')[0]
    samples, rate = soundfile.read(BytesIO(b64decode(data)))
    assert (len(samples), rate) == (8_000, 16_000)
    assert 0.07 < (samples**2).mean() ** 0.5 < 0.081
    assert "data:audio/mpeg" in buttons.sound_button(TONE, "a tone")
    assert "http" not in buttons.PLAY + made


@pytest.mark.bad_input
def test_a_sound_needs_words():
    with pytest.raises(ValueError, match="a sound needs words"):
        buttons.sound_button(TONE, " ")


def test_pictures_stand_on_one_scale_of_time():
    short, long = (buttons.picture_uri(TONE[:n], 0.5) for n in (1_600, 8_000))
    assert short != long
    assert buttons.picture_uri(TONE, 0.25).startswith("data:image/webp;base64,")
    assert buttons.picture_uri(torch.zeros(1_600)).startswith("data:image/webp;base64,")
