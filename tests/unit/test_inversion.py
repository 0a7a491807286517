"""Plug-In Inversion and the inversions before it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thesis_kit as tk
from thesis_kit import inversion, synthesis
from thesis_kit.checks import UnknownName
from thesis_kit.inversion import (
    STAGES,
    combinations,
    growing,
    invert_with_penalties,
    log_odds,
    plug_in_inversion,
    surest,
)
from thesis_kit.models import Classifier, build
from thesis_kit.models.folding import folded
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.synthesis import Pixels, Synthesis


@pytest.fixture
def network():
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    return Classifier(nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)))


def test_stages_are_eighths_of_the_size():
    stages = growing(224, 400)
    assert [stage.size for stage in stages] == [56, 84, 112, 140, 168, 196, 224]
    assert [stage.border for stage in stages] == [0] + [14] * 6
    assert sum(stage.steps for stage in stages) == 2800
    assert [stage.size for stage in growing(64, 1)] == [16, 24, 32, 40, 48, 56, 64]
    assert [stage.size for stage in growing(36, 1)][-1] == 36  # a size that is no multiple of eight ends at itself


@pytest.mark.parametrize(("zoom", "center", "border"), [(True, False, 0), (False, True, 8), (True, True, 4)])
def test_growth_is_split_between_zoom_and_border(zoom, center, border):
    assert [stage.border for stage in growing(64, 1, zoom=zoom, center=center)] == [0] + [border] * 6


def test_without_zoom_and_centering_as_many_steps_are_made_at_full_size():
    stages = growing(64, 5, zoom=False, center=False)
    assert [(stage.size, stage.steps, stage.border) for stage in stages] == [(64, 5, 0)] * STAGES


def test_combinations_are_named_after_what_is_in_use():
    every = combinations()
    assert list(every) == ["none", "center", "zoom", "color", "zoom+center", "color+center", "color+zoom", "pii"]
    for name, on in every.items():
        in_use = {"none": "", "pii": "color+zoom+center"}.get(name, name)
        assert {factor for factor, there in on.items() if there} == set(filter(None, in_use.split("+")))
        assert set(on) == {"color", "zoom", "center"}


def slow_inversion(network, wanted, size, steps, lr, zoom, center):
    """Plug-In Inversion of one image without colors, jitter and copies, as Algorithm 1 says it."""
    stages = growing(size, steps, zoom=zoom, center=center)
    growth, image, losses = size // 8, None, []
    for number, stage in enumerate(stages):
        random = ImageRandom(mix_seed(0, 0, number), torch.arange(1))
        fresh = Pixels().start(random, 3, stage.sides, like=torch.zeros(()))
        if image is not None:
            border = {(True, True): growth // 2, (False, True): growth}.get((zoom, center), 0)
            inner = stage.size - border
            at = slice(border // 2, border // 2 + inner)
            fresh[..., at, at] = nn.functional.interpolate(image, (inner, inner), mode="bilinear")
        image = fresh.requires_grad_()
        adam = torch.optim.Adam([image], lr=lr, betas=(0.5, 0.99))
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(network(image), torch.tensor([wanted]))
            losses.append(loss.item())
            adam.zero_grad(), loss.backward(), adam.step(), rate.step()
            image.data.clamp_(0, 1)
        image = image.detach()
    return image, losses


@pytest.mark.parametrize("zoom", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_an_inversion_is_algorithm_1(network, zoom, center):
    network.eval()
    images, losses = slow_inversion(network, 2, 32, 5, 0.05, zoom, center)
    found = plug_in_inversion(
        network, [2], size=32, steps=5, copies=1, color=0, jitter=0, lr=0.05, zoom=zoom, center=center, progress=False
    )
    torch.testing.assert_close(found.losses[:, 0], torch.tensor(losses), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.images, images, rtol=0, atol=1e-4)


def test_penalties_see_rolled_images_unless_told_otherwise(network):
    asked = {"size": 32, "steps": 3, "lr": 0.05, "progress": False}
    rolled, still = (invert_with_penalties(network, [1], **asked, jitter=jitter).images for jitter in (None, 0))
    assert not torch.equal(rolled, still)


def test_an_inversion_is_what_the_network_takes_for_its_class():
    model = tk.zoo.load("resnet-scenes-a-pgd7")
    found = plug_in_inversion(model, [0, 3, 6], size=32, steps=25, copies=4, lr=0.05, progress=False)
    with torch.no_grad():
        assert model(found.images).softmax(dim=1)[range(3), [0, 3, 6]].min() > 0.5
    assert found.images.shape == (3, 3, 32, 32)
    assert [images.shape[-1] for _, images in found.snapshots] == [8, 12, 16, 20, 24, 28, 32]


def test_each_augmentation_and_penalty_changes_the_result(network):
    knobs = {"size": 16, "steps": 2, "copies": 3, "progress": False}
    plain = plug_in_inversion(network, [1], **knobs).images
    changes = (
        {"color": 0.0},
        {"jitter": 0},
        {"zoom": False},
        {"center": False},
        {"tv": 1.0},
        {"batchnorm": 1.0},
        {"copies": 1},
    )
    for change in changes:
        assert not torch.equal(plug_in_inversion(network, [1], **{**knobs, **change}).images, plain), change


def test_cross_entropy_alone_reaches_the_class_too(network):
    found = invert_with_penalties(network, [2, 2], size=16, steps=30, progress=False)
    assert (found.losses[-1] < found.losses[0] - 0.1).all()
    assert not torch.equal(found.images[0], found.images[1])


def test_penalties_make_images_smoother_and_fainter(network):
    knobs = {"size": 16, "steps": 40, "progress": False}
    bare, smooth = (invert_with_penalties(network, [2], tv=tv, **knobs).images for tv in (0.0, 50.0))
    assert smooth.diff(dim=-1).abs().mean() < 0.7 * bare.diff(dim=-1).abs().mean()
    faint = invert_with_penalties(network, [2], norm=10.0, **knobs).images
    assert faint.norm() < 0.7 * bare.norm()


def test_settings_that_cannot_be_meant(network):
    with pytest.raises(ValueError, match="size must be a whole number of at least 16"):
        plug_in_inversion(network, [0], size=8)
    with pytest.raises(ValueError, match=r"classes must lie in \[0, 4\]"):
        plug_in_inversion(network, [5], size=16, steps=1, progress=False)
    with pytest.raises(ValueError, match="no batch normalization"):
        invert_with_penalties(nn.Flatten(), [0], size=16, batchnorm=1.0)


@pytest.mark.bad_input
@pytest.mark.parametrize("invert", [plug_in_inversion, invert_with_penalties])
@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"size": (16, 32)}, r"size must be a whole number of at least"),
        ({"tv": -1.0}, "the weight of total variation must be a finite number of at least 0, got -1.0"),
        ({"batchnorm": float("nan")}, "the weight of BatchNorm statistics must be a finite number"),
    ],
)
def test_an_inversion_that_cannot_be_meant(network, invert, knobs, sentence):
    with pytest.raises(ValueError, match=sentence):
        invert(network, [1], **{"size": 16, "steps": 1, "progress": False, **knobs})


def test_a_quality_is_its_settings_by_one_name():
    sketch = inversion.QUALITIES["sketch"]
    model = build("small_cnn", n_classes=3, in_channels=3, width=2, seed=0).eval()
    knobs = {"size": 16, "seed": 3, "steps": 2, "copies": 2, "progress": False}
    named = inversion.plug_in_inversion(model, [0, 2], quality="sketch", **knobs)
    told = synthesis.synthesize(
        model, synthesis.cross_entropy([0, 2]), stages=inversion.growing(16, 2), parametrization=synthesis.Fourier(),
        augmentations=[synthesis.Jitter.for_size(16), synthesis.Ensemble(2), synthesis.ColorShift()],
        optimizer=sketch["optimizer"], seed=3, progress=False,
    )  # fmt: skip
    assert torch.equal(named.images, told.images)
    with pytest.raises(UnknownName, match="did you mean sketch"):
        inversion.plug_in_inversion(model, [0], size=16, quality="sketchy")


def test_growths_of_even_pixels_give_even_sides():
    assert [stage.size for stage in inversion.growing(28, 1, even=True)] == [16, 18, 20, 22, 24, 26, 28]
    assert [stage.size for stage in inversion.growing(128, 1, even=True)] == [s.size for s in inversion.growing(128, 1)]


def test_folded_normalizations_leave_the_function_and_the_model_as_they_were(network):
    x = torch.rand(2, 3, 8, 8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1), module.running_var.uniform_(0.5, 2)
    network.eval()
    expected, keys = network(x), list(network.state_dict())
    light = folded(network, x)
    assert torch.allclose(light(x), expected, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in light.modules())
    assert list(network.state_dict()) == keys
    assert torch.equal(network(x), expected)


def test_a_normalization_that_follows_no_convolution_stays():
    body = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    kept = folded(nn.Sequential(*body).eval(), torch.rand(1, 3, 8, 8))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in kept.modules()) == 1


def test_the_surest_of_several_drawings_is_the_one_that_withstands_a_blur():
    """A model that answers to the mean brightness of the left half; a fine pattern vanishes in the blur."""

    def model(x):
        left = x[..., :8].mean(dim=(1, 2, 3)) - 0.5
        fine = (x[..., ::2] - x[..., 1::2]).abs().mean(dim=(1, 2, 3))
        return torch.stack([20 * left + 40 * fine, -20 * left], dim=1)

    striped = torch.full((3, 16, 16), 0.5)
    striped[..., ::2], striped[..., 1::2] = 1.0, 0.0
    bright = torch.full((3, 16, 16), 0.5)
    bright[..., :8] = 0.9
    dark = 1 - bright
    images = torch.stack([striped, striped, bright, dark])  # two rounds of the classes 0 and 1
    plain, soft = (log_odds(model, images, [0, 1] * 2, blur=blur) for blur in (0, 0.1))
    assert torch.allclose(plain, (model(images) * torch.tensor([[1, -1], [-1, 1]] * 2)).sum(dim=1).double(), atol=1e-5)
    assert plain[0] > plain[2]
    assert soft[0] < soft[2]
    made = Synthesis(images, torch.arange(8.0).reshape(2, 4), [(1, images / 2)], seconds=3.0)
    kept = surest(model, made, [0, 1], blur=0.1)
    assert torch.equal(kept.images, images[[2, 3]])
    assert kept.losses.tolist() == [[2, 3], [6, 7]]
    assert torch.equal(kept.snapshots[0][1], images[[2, 3]] / 2)
    assert kept.seconds == 3.0
    with pytest.raises(ValueError, match="4 drawings are no whole number of rounds of 3 classes"):
        surest(model, made, [0, 1, 0])
    with pytest.raises(ValueError, match="4 images, but 1 class"):
        log_odds(model, images, [0])
