"""Common questions in one call do what the long form does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thesis_kit.checks import UnknownName
from thesis_kit.synthesis import (
    Adam,
    Affine,
    Fourier,
    Jitter,
    Pixels,
    Stage,
    activations,
    channel,
    dream,
    layer,
    maximize,
    neuron,
    synthesize,
    visualize,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)).eval()


def test_to_maximize_is_to_minimize_minus():
    asked, minus = maximize(channel("2", [1, 2])), -channel("2", [1, 2])
    assert (asked.settings, asked.targets, asked.layers) == (minus.settings, 2, ("2",))
    knobs = {"stages": Stage(8, 3), "progress": False}
    assert torch.equal(synthesize(network(), asked, **knobs).images, synthesize(network(), minus, **knobs).images)


@pytest.mark.bad_input
def test_only_an_objective_is_maximized():
    with pytest.raises(TypeError, match=r"must be an objective, such as channel\(layer, channels\), got 'conv1'"):
        maximize("conv1")


@pytest.mark.parametrize(("what", "objective"), [("channel", channel), ("neuron", neuron)])
def test_a_visualization_is_lucids_setting_of_the_engine(what, objective):
    found = visualize(network(), "2", [0, 3], size=32, steps=4, what=what, seed=7, progress=False)
    expected = synthesize(
        network(), -objective("2", [0, 3]), stages=Stage(32, 4), parametrization=Fourier(),
        augmentations=[Jitter(2), Affine(10.0, (0.9, 1.1)), Jitter(1)],
        optimizer=Adam(0.05, (0.9, 0.999), "constant"), seed=7, progress=False,
    )  # fmt: skip
    assert torch.equal(found.images, expected.images)


def test_a_visualization_excites_its_channel_more_than_noise_does():
    found = visualize(network(), "2", range(4), size=16, steps=60, progress=False)
    excited = activations(network(), "2", found.images)["2"].mean(dim=(2, 3)).diagonal()
    noise = activations(network(), "2", torch.rand(200, 3, 16, 16))["2"].mean(dim=(2, 3))
    assert (excited > noise.amax(dim=0)).all()
    assert (found.losses[-1] < found.losses[0]).all()


def test_other_arguments_are_the_engines():
    gray = nn.Conv2d(1, 2, 3)
    found = visualize(
        nn.Sequential(gray), "0", [0], size=9, steps=1, in_channels=1, parametrization=Pixels(), augmentations=(),
        progress=False,
    )  # fmt: skip
    assert found.images.shape == (1, 1, 9, 9)
    with pytest.raises(UnknownName, match="unknown what to visualize 'neurons': did you mean neuron"):
        visualize(network(), "2", [0], what="neurons")


def test_a_dream_makes_more_of_what_a_layer_gives():
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    found = dream(network(), "1", x, steps=15, progress=False)
    before, after = (activations(network(), "1", images)["1"].square().mean() for images in (x, found.images))
    assert after > 1.2 * before
    assert (found.images - x).abs().max() < 0.3
    expected = synthesize(
        network(), -layer("1"), stages=Stage((8, 12), 15), start=x, augmentations=Jitter(1), optimizer=Adam(0.02),
        progress=False,
    )  # fmt: skip
    assert torch.equal(found.images, expected.images)


@pytest.mark.bad_input
def test_a_dream_begins_with_images():
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\]"):
        dream(network(), "1", 255 * torch.rand(1, 3, 8, 8))
