"""A classifier takes pixels in [0, 1]; the book's networks have the published shapes; names are found or offered."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit.checks import UnknownName
from thesis_kit.models import Classifier, build
from thesis_kit.models.residual import PerImageStandardization, PreActivationBlock


class Spy(nn.Module):
    """Returns the mean of each channel as logits and keeps what it was given."""

    def forward(self, x):
        self.seen = x
        return x.mean(dim=(2, 3))


def parameters(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# The wrapper


def test_normalization_is_the_first_layer():
    x, spy = torch.rand(2, 3, 5, 5), Spy()
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    logits = Classifier(spy, mean=mean, std=std)(x)
    for channel in range(3):
        assert torch.allclose(spy.seen[:, channel], (x[:, channel] - mean[channel]) / std[channel])
    assert logits.shape == (2, 3)


def test_without_statistics_and_size_pixels_pass_unchanged():
    x, spy = torch.rand(2, 3, 5, 7), Spy()
    Classifier(spy)(x)
    assert spy.seen is x


@pytest.mark.parametrize(("size", "expected"), [(6, (6, 6)), ((4, 9), (4, 9))])
def test_images_of_another_size_are_resized_differentiably(size, expected):
    x, spy = torch.rand(2, 3, 12, 12, requires_grad=True), Spy()
    Classifier(spy, size=size)(x).sum().backward()
    assert spy.seen.shape[-2:] == expected
    assert (x.grad != 0).all()
    assert spy.seen.min() >= 0
    assert spy.seen.max() <= 1
    fitting = torch.rand(1, 3, *expected)
    Classifier(spy, size=size)(fitting)
    assert spy.seen is fitting


def test_statistics_follow_dtype_and_stay_out_of_the_weights():
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), mean=[0.5] * 3, std=[0.2] * 3)
    assert set(model.state_dict()) == {"network.1.weight", "network.1.bias"}
    assert model.double()(torch.rand(2, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"mean": [0.5]}, "mean and std belong together: give both, with one number a channel, or neither"),
        ({"mean": [0.5], "std": [0.2, 0.2]}, "mean and std belong together"),
        ({"mean": [0.5], "std": [0.0]}, "std must be positive in every channel, got [0.0]"),
    ],
)
def test_statistics_that_cannot_be_meant_are_refused(knobs, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Classifier(Spy(), **knobs)


@pytest.mark.bad_input
def test_wrong_channels_and_shapes_are_one_sentence():
    model = Classifier(Spy(), mean=[0.5] * 3, std=[0.2] * 3)
    with pytest.raises(ValueError, match=r"the model takes 3 channels, got images of shape \(2, 1, 8, 8\)"):
        model(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"the network must return logits of shape \(n, k\), got \(2, 3, 8, 8\)"):
        Classifier(nn.Identity())(torch.rand(2, 3, 8, 8))


# By name


@pytest.mark.parametrize("name", ["small_cnn", "small_mixer", "small_resnet", "preact_resnet18", "wrn_32_10"])
def test_the_seed_fixes_the_weights_and_leaves_the_callers_generator(name):
    def make(seed):
        return parameters(build(name, seed=seed, width=4))

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = make(0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, make(0))
    assert not torch.equal(first, make(1))
    torch.manual_seed(1)
    unseeded = make(None)
    torch.manual_seed(1)
    assert torch.equal(unseeded, make(None))
    assert not torch.equal(unseeded, make(None))


@pytest.mark.parametrize("name", ["small_cnn", "small_resnet", "preact_resnet18", "wrn_32_10", "test_resnet.r160_in1k"])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 10), (4, 7)])
def test_channels_and_classes_are_the_callers_choice(name, channels, classes):
    options = {} if "." in name else {"width": 4}
    model = build(name, n_classes=classes, in_channels=channels, seed=0, **options).eval()
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, classes)


def test_defaults_are_the_architectures_own():
    assert build("small_cnn")(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    assert build("preact_resnet18", width=4)(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert build("small_resnet", width=4)(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert build("test_vit").network.num_classes == 1000


@pytest.mark.parametrize("size", [4, 8, 28, 32])
def test_the_small_network_takes_small_images_alone_or_together(size):
    model, x = build("small_cnn", seed=0, width=4), torch.rand(3, 1, size, size)
    together = model(x)
    assert together.shape == (3, 10)
    assert torch.allclose(together[:1], model(x[:1]), atol=1e-6)  # no batch normalization


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("small_cn", "unknown model 'small_cn': did you mean small_cnn"),
        ("wrn_32_1", "unknown model 'wrn_32_1': did you mean wrn_32_10"),
        ("vit_base_patch16_22", "unknown model 'vit_base_patch16_22': did you mean vit_base_patch16_"),
    ],
)
def test_near_names_are_offered(name, sentence):
    with pytest.raises(UnknownName, match=re.escape(sentence)):
        build(name)


@pytest.mark.bad_input
def test_bad_requests_are_one_sentence():
    with pytest.raises(ValueError, match="n_classes must be a whole number of at least 2, got 1"):
        build("small_cnn", n_classes=1)
    with pytest.raises(ValueError, match="small_cnn has no pretrained weights: train it, or name a timm model"):
        build("small_cnn", pretrained=True)
    with pytest.raises(ValueError, match="blocks must be a whole number of at least 1, got 0"):
        build("small_resnet", blocks=0)


# The published shapes


def test_wrn_32_10_has_the_published_shape():
    model = build("wrn_32_10", seed=0)
    blocks = [module for module in model.modules() if isinstance(module, PreActivationBlock)]
    assert [block.conv2.out_channels for block in blocks] == [160] * 5 + [320] * 5 + [640] * 5
    assert [block.conv1.stride[0] for block in blocks] == [1] * 5 + [2] + [1] * 4 + [2] + [1] * 4
    assert all(layer.negative_slope == 0.1 for layer in model.modules() if isinstance(layer, nn.LeakyReLU))
    assert any(isinstance(module, PerImageStandardization) for module in model.modules())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(46.2e6, abs=0.05e6)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 31  # 32 layers with the head; with the three projections counted, 34 convolutions


def test_preact_resnet18_has_the_published_shape():
    model = build("preact_resnet18", seed=0)
    blocks = [module for module in model.modules() if isinstance(module, PreActivationBlock)]
    assert [block.conv2.out_channels for block in blocks] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.17e6, abs=0.01e6)
    assert sum(isinstance(m, nn.ReLU) for m in model.modules()) == 17


@pytest.mark.parametrize(("size", "last"), [(32, 4), (64, 8)])
def test_small_resnet_has_the_shape_it_says(size, last):
    model, sizes = build("small_resnet", seed=0), []
    blocks = [module for module in model.modules() if isinstance(module, PreActivationBlock)]
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    with torch.no_grad():
        assert model(torch.rand(2, 3, size, size)).shape == (2, 10)
    assert [block.conv2.out_channels for block in blocks] == [24, 24, 48, 48, 96, 96]
    assert sizes == [4 * last] * 2 + [2 * last] * 2 + [last] * 2
    assert sum(p.numel() for p in model.parameters()) == 392_386
    deeper = build("small_resnet", seed=0, blocks=3, width=8)
    assert [m.conv2.out_channels for m in deeper.modules() if isinstance(m, PreActivationBlock)] == [8] * 3 + [
        16
    ] * 3 + [32] * 3


def test_a_block_is_pre_activated_and_shares_its_first_activation_with_the_projection():
    block, x = PreActivationBlock(3, 6, 2, nn.ReLU).eval(), torch.randn(2, 3, 8, 8)
    activated = F.relu(block.norm1(x))
    inner = F.conv2d(activated, block.conv1.weight, stride=2, padding=1)
    expected = F.conv2d(F.relu(block.norm2(inner)), block.conv2.weight, padding=1)
    expected = expected + F.conv2d(activated, block.shortcut.weight, stride=2)
    assert torch.allclose(block(x), expected, atol=1e-6)
    same = PreActivationBlock(3, 3, 1, nn.ReLU).eval()
    assert same.shortcut is None
    nn.init.zeros_(same.conv2.weight)
    assert torch.equal(same(x), x)


def test_standardization_is_per_image_and_finite_where_an_image_is_flat():
    layer, x = PerImageStandardization(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    out = layer(x)
    assert torch.allclose(out.mean(dim=(1, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(out.std(dim=(1, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(layer(x[:1] * 0.3 + 0.1), out[:1])
    flat = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    layer(flat).square().sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_small_mixer_resizes_to_its_own_size():
    model = build("small_mixer", size=32, patch=8, width=12, depth=2, n_classes=5, in_channels=1, seed=0)
    assert model.size == (32, 32)
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 5)
    with pytest.raises(ValueError, match="size must be a multiple, got 30"):
        build("small_mixer", size=30)
