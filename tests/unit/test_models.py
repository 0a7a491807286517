"""A classifier takes pixels in [0, 1]; the book's networks have the published shapes; names are found or offered."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision import transforms as T
from torchvision.transforms import v2

from thesis_kit.checks import UnknownName, check_logits
from thesis_kit.models import Classifier, build
from thesis_kit.models.build import WeightsUnavailable
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


def test_without_statistics_and_size_the_network_gets_a_copy_of_the_pixels():
    x, spy = torch.rand(2, 3, 5, 7), Spy()
    Classifier(spy)(x)
    assert torch.equal(spy.seen, x)
    assert spy.seen.data_ptr() != x.data_ptr()


class InPlace(nn.Module):
    """Writes into what it is given."""

    def forward(self, x):
        return x.neg_().add_(1).mean(dim=(2, 3))


@pytest.mark.parametrize("knobs", [{}, {"size": 6}, {"size": 5}, {"mean": [0.5] * 3, "std": [0.5] * 3}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_that_writes_into_its_input_leaves_the_callers_images(knobs, dtype):
    x = torch.rand(2, 3, 6, 6, dtype=dtype, requires_grad=True)
    before, model = x.detach().clone(), Classifier(InPlace(), **knobs)
    model(x).sum().backward()  # a leaf that is written into would be an error of torch
    assert torch.equal(model(x), model(x))
    assert torch.equal(x, before)
    assert (x.grad < 0).all()


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
    assert torch.equal(spy.seen, fitting)


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
        ({"mean": 0.5, "std": 0.2}, "mean and std belong together"),
        ({"mean": [], "std": []}, "mean and std belong together"),
        ({"mean": [0.5], "std": [0.0]}, "std must be positive in every channel, got [0.0]"),
        ({"mean": [123, 117, 104], "std": [58, 57, 57]}, "units of pixels in [0, 1], got mean [123.0, 117.0, 104.0]"),
        ({"mean": [0.5], "std": [58.0]}, "and std [58.0]: divide both by 255 where they are of pixels up to 255"),
        ({"mean": [-0.1], "std": [1.0]}, "units of pixels in [0, 1], got mean [-0.1]"),
        ({"mean": [float("nan")], "std": [1.0]}, "units of pixels in [0, 1], got mean [nan]"),
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
    with pytest.raises(ValueError, match=r"must return logits of shape \(2, k\) for 2 images, got \(2, 3, 8, 8\): re"):
        Classifier(nn.Identity())(torch.rand(2, 3, 8, 8))


# Precision


STATISTICS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


@pytest.mark.parametrize("form", [np.float64, np.float32, torch.tensor])
def test_statistics_may_be_arrays_of_any_precision(form):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2)
    array = torch.tensor if form is torch.tensor else (lambda numbers: np.array(numbers, dtype=form))
    model = Classifier(network, **{key: array(numbers) for key, numbers in STATISTICS.items()})
    assert model.mean.dtype == torch.float32
    assert torch.equal(model(x), Classifier(network, **STATISTICS)(x))


def test_a_changed_default_dtype_changes_no_statistics():
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2)
    expected = Classifier(network, **STATISTICS)(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Classifier(network, **STATISTICS)(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("images", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("own", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("when", ["before", "after", "inside"])
def test_images_are_brought_to_the_networks_precision(images, own, when):
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2).to(images)
    expected = Classifier(network, **STATISTICS)(x.float())
    if when == "before":
        model = Classifier(network.to(own), **STATISTICS)
    else:
        model = Classifier(network, **STATISTICS)
        (model if when == "after" else network).to(own)
    logits = model(x)
    assert logits.dtype == own
    assert torch.allclose(logits.float(), expected, atol=0.05 if torch.bfloat16 in (own, images) else 1e-5)


@pytest.mark.bad_input
def test_whole_numbers_are_no_images():
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch.uint8: convert with x\.float"):
        Classifier(Spy())(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))


# What a network returns


class Answers(nn.Module):
    """Returns whatever it was made with."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer


class Output(OrderedDict):
    """As the Transformers library returns them."""


@dataclass
class Struct:
    logits: torch.Tensor


ANSWERS = [
    ({"logits": torch.zeros(2, 3), "aux": 1}, "dict with the keys logits, aux", "network(x)['logits']"),
    (Output(last_hidden_state=torch.zeros(2, 3)), "Output with the keys last_hidden_state", "['last_hidden_state']"),
    ((torch.zeros(2, 3), torch.zeros(2, 3)), "tuple of 2", "network(x)[0]"),
    ([torch.zeros(2, 3)], "list of 1", "network(x)[0]"),
    (Struct(torch.zeros(2, 3)), "Struct", "network(x).logits"),
    (None, "NoneType", "nn.Module whose forward returns"),
    (torch.zeros(3), "(3,)", "one row an image"),
    (torch.zeros(1, 3), "(1, 3)", "one row an image"),
    (torch.zeros(2, 5, 3), "(2, 5, 3)", "reduce its maps or tokens"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("answer", "seen", "advice"), ANSWERS)
def test_a_network_that_returns_no_logits_hears_what_a_bare_one_hears(answer, seen, advice):
    with pytest.raises(ValueError, match=re.escape(f"logits of shape (2, k) for 2 images, got {seen}: ")) as wrapped:
        Classifier(Answers(answer))(torch.rand(2, 3, 4, 4))
    assert advice in str(wrapped.value)
    with pytest.raises(ValueError, match=re.escape(str(wrapped.value))):
        check_logits(answer, 2)


# What can be seen of it beforehand


HEADLESS = ("num_classes=0", "head taken off", "torchvision", "in a sequence", "in parallel", "compiled")


def headless() -> dict[str, nn.Module]:
    """Networks whose outputs are features."""
    timm_made = timm.create_model("test_resnet", num_classes=0)
    reset, emptied = timm.create_model("test_vit"), torchvision.models.resnet18()
    reset.head, emptied.fc = nn.Identity(), nn.Identity()
    return {
        "num_classes=0": timm_made,
        "head taken off": reset,
        "torchvision": emptied,
        "in a sequence": nn.Sequential(nn.Identity(), timm_made),
        "in parallel": nn.DataParallel(timm_made),
        "compiled": torch.compile(timm_made, backend="eager"),
    }


@pytest.mark.parametrize("kind", HEADLESS)
def test_features_are_not_taken_for_logits(kind):
    with pytest.raises(ValueError, match="has no classifier, so that its outputs are features and not logits: make"):
        Classifier(headless()[kind])


def test_a_head_behind_features_makes_a_classifier():
    backbone = timm.create_model("test_resnet", num_classes=0)
    model = Classifier(nn.Sequential(backbone, nn.Linear(backbone.num_features, 4)))
    assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 4)


class Normalizer(nn.Module):
    """As people write them."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.std = [1.0] * 3

    def forward(self, x):
        return x - self.mean.view(3, 1, 1)


@pytest.mark.parametrize("first", [T.Normalize([0.5] * 3, [0.5] * 3), v2.Normalize([0.5] * 3, [0.5] * 3), Normalizer()])
def test_images_are_normalized_once(first):
    network = nn.Sequential(nn.Upsample(4), first, nn.Flatten(), nn.Linear(48, 2))
    said = f"begins with {type(first).__name__}, so that images would be normalized twice: leave out mean and std"
    for wrapped in (network, nn.DataParallel(network), Classifier(network)):
        with pytest.raises(ValueError, match=said):
            Classifier(wrapped, **STATISTICS)
        assert Classifier(wrapped)(torch.rand(2, 3, 8, 8)).shape == (2, 2)
    with pytest.raises(ValueError, match="begins with Classifier"):
        Classifier(Classifier(Spy(), **STATISTICS), **STATISTICS)
    behind = nn.Sequential(nn.Conv2d(3, 3, 1), first, nn.Flatten(), nn.Linear(48, 2))  # no normalization of pixels
    assert Classifier(behind, **STATISTICS)(torch.rand(2, 3, 4, 4)).shape == (2, 2)


# By name


@pytest.mark.parametrize(
    "name", ["small_cnn", "small_mixer", "stem_vit", "small_resnet", "preact_resnet18", "wrn_32_10"]
)
def test_the_seed_fixes_the_weights_and_leaves_the_callers_generator(name):
    def make(seed):
        return parameters(build(name, seed=seed, width=6))

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


def test_an_unknown_tag_is_answered_with_those_there_are():
    with pytest.raises(UnknownName, match=r"unknown tag 'nope' of resnet18: it has a1_in1k, a2_in1k, .*tv_in1k"):
        build("resnet18.nope")
    with pytest.raises(UnknownName, match="unknown tag 'x' of resnet50_clip_gap: it has "):
        build("resnet50_clip_gap.x")


def test_a_name_that_is_like_no_other_is_answered_with_a_few():
    few = r"choose one of small_cnn, .* and 1,\d{3} more: see `thesis-kit zoo list` and timm"
    with pytest.raises(UnknownName, match=few) as said:
        build("§§§")
    assert len(str(said.value)) < 300


@pytest.mark.parametrize("name", ["timm/test_resnet.r160_in1k", "hf-hub:timm/test_resnet", "hf_hub:timm/test_resnet"])
def test_names_of_a_hub_that_are_timms_own(name):
    assert torch.equal(parameters(build(name, seed=0)), parameters(build("test_resnet", seed=0)))


def test_names_of_a_hub_are_told_from_timms():
    with pytest.raises(UnknownName, match=r"'someone/model': a model of the .* is called hf-hub:someone/"):
        build("someone/model")


def test_what_cannot_be_loaded_is_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(WeightsUnavailable, match=r"nowhere could not be loaded \(Config file not found.*\): con"):
        build(f"local-dir:{tmp_path}/nowhere")

    def offline(*args, **knobs):
        raise OSError("no\nroute.")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("thesis_kit.models.pretrained.reachable", lambda url: True)
    with pytest.raises(WeightsUnavailable, match=r"^resnet18 could not be loaded \(no route\): connect to the network"):
        build("resnet18", pretrained=True)


@pytest.mark.parametrize(
    ("name", "gives"),
    [
        ("vit_small_patch14_dinov2", "features"),
        ("resnet50_clip_gap", "features"),
        ("vit_small_patch8_224.dino", "features"),
        ("vit_base_patch32_clip_224.openai", "embeddings of 512 numbers"),
        ("vitamin_small_224.datacomp1b_clip", "embeddings of 384 numbers"),
    ],
)
def test_models_without_classes_need_to_be_told_how_many(name, gives):
    with pytest.raises(ValueError, match=f"{name} has no classes of its own, for it gives {gives}: say n_classes"):
        build(name)


def test_every_name_of_timm_has_classes_or_is_refused():
    refused = 0
    for name in timm.list_models():
        if timm.get_pretrained_cfg(name).num_classes == 0:
            with pytest.raises(ValueError, match="has no classes of its own"):
                build(name)
            refused += 1
    assert refused >= 145


def test_a_model_without_classes_gets_a_head_for_those_it_is_told():
    model = build("vit_small_patch14_dinov2", n_classes=3, seed=0, img_size=28, depth=1).eval()
    assert model(torch.rand(2, 3, 28, 28)).shape == (2, 3)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["small_cnn", "test_resnet"])
def test_timms_words_are_understood(name):
    model = build(name, num_classes=4, in_chans=2).eval()
    assert model(torch.rand(1, 2, 32, 32)).shape == (1, 4)
    with pytest.raises(ValueError, match="n_classes must be a whole number of at least 2, got 0"):
        build(name, num_classes=0)
    with pytest.raises(ValueError, match="n_classes=3 and num_classes=4 contradict one another: give n_classes alone"):
        build(name, n_classes=3, num_classes=4)
    with pytest.raises(ValueError, match="features_only gives maps and no logits: build the classifier and read"):
        build(name, features_only=True)


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


def test_a_stem_cuts_the_image_where_a_vits_patches_would():
    """A token sees what lies around its place: a change in one corner reaches the first token of the stem, not the
    last."""
    model = build("stem_vit", size=32, channels=(4, 6, 8), width=12, depth=1, n_classes=5, in_channels=1, seed=0).eval()
    assert model.size == (32, 32)
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 5)
    stem, x = model.network.patch_embed, torch.rand(1, 1, 32, 32)
    other = x.clone()
    other[:, :, :8, :8] = 0
    moved = (stem(x) - stem(other)).abs().sum(dim=2)[0].view(4, 4)
    assert moved[0, 0] > 0
    assert (moved[2:] == 0).all()
    assert (moved[:, 2:] == 0).all()
    with pytest.raises(ValueError, match="3 halvings of the size need a multiple of 8, got 36"):
        build("stem_vit", size=36)
    with pytest.raises(ValueError, match="width is cut into 3 heads and must be a multiple of that, got 64"):
        build("stem_vit", width=64)


def test_small_mixer_resizes_to_its_own_size():
    model = build("small_mixer", size=32, patch=8, width=12, depth=2, n_classes=5, in_channels=1, seed=0)
    assert model.size == (32, 32)
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 5)
    with pytest.raises(ValueError, match="size must be a multiple, got 30"):
        build("small_mixer", size=30)
