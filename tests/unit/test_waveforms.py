"""Sounds in the synthesis engine: what they are stored as, what happens to them, and that optima are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thesis_kit.randomness import ImageRandom
from thesis_kit.synthesis import (
    Adam,
    BandMask,
    Ensemble,
    Gain,
    GaussianNoise,
    Jitter,
    Objective,
    ShortTime,
    Stage,
    Waveform,
    preview,
    synthesize,
)

FORMS = [Waveform(), ShortTime()]


def tone(hertz, length=2048):
    return 0.3 * torch.sin(2 * np.pi * hertz * torch.arange(length) / 16000)[None, None, None]


class Filter(nn.Module):
    """How much a waveform has of a tone."""

    def __init__(self, hertz=1000.0):
        super().__init__()
        self.tone = nn.Parameter(tone(hertz)[0, 0, 0])

    def forward(self, x):
        assert x.ndim == 2
        return torch.stack([(x * self.tone).mean(dim=1), x.square().mean(dim=1)], dim=1)


LOUD = Objective(["logits"], lambda seen, index: -seen["logits"][..., 0].mean(dim=1), "tone", settings="tone")


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_a_sound_is_stored_and_comes_back(form):
    sounds = tone(700)
    assert torch.allclose(form.image(form.store(sounds)), sounds, atol=2e-3)


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_a_start_is_faint_noise_of_a_target_s_own(form):
    like = torch.zeros(())
    both = form.image(form.start(ImageRandom(3, torch.tensor([5, 9])), 1, (1, 2048), like=like))
    alone = form.image(form.start(ImageRandom(3, torch.tensor([9])), 1, (1, 2048), like=like))
    assert both.shape == (2, 1, 1, 2048)
    assert torch.allclose(both[1:], alone, atol=1e-6)
    assert 1e-3 < both.std() < 0.05


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_the_optimum_of_a_filter_is_its_tone(form):
    found = synthesize(Filter(), LOUD, targets=2, stages=Stage((1, 2048), 30), channels=1, parametrization=form,
                       optimizer=Adam(0.05), augmentations=[Jitter(1), Ensemble(2), Gain(3)])  # fmt: skip
    assert found.images.shape == (2, 1, 1, 2048)
    assert found.images.abs().max() <= 1
    power = torch.fft.rfft(found.images[0, 0, 0]).abs().square()
    assert torch.fft.rfftfreq(2048, 1 / 16000)[power.argmax()] == pytest.approx(1000, abs=10)
    assert (found.losses[-1] < 3 * found.losses[0].clamp(max=0) - 1e-3).all()


def test_a_stage_goes_on_from_the_sound_before():
    always = Objective(["logits"], lambda seen, index: seen["logits"].sum(dim=(1, 2)), "all", settings="all")
    start = tone(500, 1024)
    stages = [Stage((1, 1024), 1), Stage((1, 2048), 1, 1024)]
    found = synthesize(nn.AdaptiveAvgPool1d(2), always, stages=stages, start=start, channels=1,
                       parametrization=Waveform(), optimizer=Adam(1e-9))  # fmt: skip
    grown = found.images[0, 0, 0]
    assert torch.allclose(grown[512:1536], start[0, 0, 0], atol=1e-5)
    assert 0.005 < grown[:512].std() < 0.02


def test_gain_is_even_in_decibels():
    heard = preview(tone(500), [Ensemble(200), Gain(6)])[0]
    decibels = 20 * torch.log10(heard.flatten(1).norm(dim=1) / tone(500).norm())
    assert decibels.abs().max() <= 6.001
    assert decibels.std() == pytest.approx(12 / np.sqrt(12), abs=0.4)


def test_a_band_is_taken_out_and_the_rest_stays():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 1, 4096)
    heard = preview(x, [Ensemble(50), BandMask(0.5)])[0]
    before, after = torch.fft.rfft(x)[0, 0, 0].abs(), torch.fft.rfft(heard)[:, 0, 0].abs()
    silent = after < 1e-3 * before
    assert ((after - before).abs()[~silent.bool()] < 1e-2).all()
    assert silent.float().mean(dim=1).max() <= 0.51
    assert silent.float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_hiss_and_rolls_are_those_of_images():
    heard = preview(tone(500), [Ensemble(8), Jitter(300), GaussianNoise(0.1)])
    assert heard.shape == (1, 8, 1, 1, 2048)
    assert (heard - tone(500)).flatten(2).std(dim=2).min() > 0.09


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"channels": 3}, "one channel and the size"),
        ({"stages": Stage((2, 2048), 1)}, "one channel and the size"),
        ({"parametrization": ShortTime(), "stages": Stage((1, 1000), 1)}, "a multiple of 128 samples"),
        ({"start": torch.full((1, 1, 1, 2048), 3.0)}, "must be finite and lie in"),
        ({"start": torch.zeros(1, 2048)[:, None]}, r"floats of shape \(n, 1, 1, t\)"),
    ],
    ids=["channels", "rows", "length", "loud", "shape"],
)
@pytest.mark.bad_input
def test_what_is_no_sound_is_refused(knobs, said):
    settings = {"stages": Stage((1, 2048), 1), "channels": 1, "parametrization": Waveform(), "targets": 1}
    with pytest.raises(ValueError, match=said):
        synthesize(Filter(), LOUD, **{**settings, **knobs})


@pytest.mark.parametrize("made", [lambda: Gain(-1), lambda: BandMask(1.0)], ids=["gain", "mask"])
def test_settings_that_cannot_be_meant_are_refused(made):
    with pytest.raises(ValueError, match="must"):
        made()
