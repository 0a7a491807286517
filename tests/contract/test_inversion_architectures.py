"""Plug-In Inversion on the published architectures, with random weights: two steps at full size, and memory."""

from __future__ import annotations

import resource

import pytest
import torch

from thesis_kit.inversion import plug_in_inversion
from thesis_kit.models import anatomy, build
from thesis_kit.synthesis import Ensemble, Jitter, Stage, channel, cross_entropy, synthesize

ARCHITECTURES = ("vit_base_patch16_224", "deit_small_patch16_224", "mixer_b16_224", "resnet50", "convnext_tiny")
MEMORY = 6e9  # bytes of the process at most


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    model = build(request.param, seed=0)
    torch.nn.init.normal_(anatomy.head(model).weight, std=0.02)  # timm's Mixer starts with a head of zeros
    return model


def test_two_steps_at_full_size(model, record_property):
    found = synthesize(
        model, cross_entropy([3, 900]), stages=[Stage(224, 2)], augmentations=[Jitter.for_size(224), Ensemble(2)],
        progress=False,
    )  # fmt: skip
    assert found.images.shape == (2, 3, 224, 224)
    assert torch.isfinite(found.losses).all()
    assert not torch.equal(*found.images)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record_property("peak_bytes", peak)
    assert peak < MEMORY


def test_stages_smaller_than_the_network_expects(model):
    """A ViT or Mixer gets small images enlarged, a convolutional network as they are."""
    found = plug_in_inversion(model, [7], size=128, steps=1, copies=1, progress=False)
    assert found.snapshots[0][1].shape[-1] == 32


def test_an_early_block_can_be_excited(model):
    name, _ = anatomy.blocks(model)[1]
    found = synthesize(model, -channel(name, [0, 1]), stages=[Stage(64, 2)], progress=False)
    assert torch.isfinite(found.losses).all()
