"""Where features end and blocks begin, in the book's networks and in real architectures by their own names.

Random weights: what is tested is that names, shapes and order are those of the network and, for timm, of timm itself.
"""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn

from thesis_kit.models import Classifier, anatomy, build

OURS = {"small_cnn": (3, 32), "small_resnet": (7, 32), "preact_resnet18": (9, 32), "wrn_32_10": (16, 32)}
TIMM = {"resnet18": (8, 64), "vit_tiny_patch16_224": (12, 224), "mixer_s32_224": (8, 224), "convnext_atto": (12, 64)}
BLOCKS = {name: count for name, (count, _) in {**OURS, **TIMM}.items()}


def images(size: int, n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=BLOCKS)
def network(request):
    """Name, classifier for ten classes in evaluation mode, two images."""
    name = request.param
    options = {"width": 8} if name in OURS else {}
    model = build(name, n_classes=10, in_channels=3, seed=0, **options).eval()
    return name, model, images({**OURS, **TIMM}[name][1])


def owned(parts) -> list[nn.Parameter]:
    return [p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]


def addresses(model: nn.Module) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}


def test_the_head_turns_features_into_logits(network):
    _, model, x = network
    with torch.no_grad():
        z = anatomy.features(model, x)
        assert z.shape == (2, anatomy.head(model).in_features)
        assert torch.equal(anatomy.head(model)(z), model(x))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_features_are_what_the_network_itself_calls_so(network):
    name, model, x = network
    with torch.no_grad():
        if name in OURS:
            expected = model.network[:-1](x)
        else:
            timms = model.network
            expected = timms.forward_head(timms.forward_features((x - model.mean) / model.std), pre_logits=True)
        assert torch.allclose(anatomy.features(model, x), expected, atol=1e-6)


def test_features_carry_gradients_and_keep_the_mode(network):
    _, model, x = network
    x = x.clone().requires_grad_()
    anatomy.features(model, x).square().sum().backward()
    assert (x.grad != 0).any()
    assert not any(module.training for module in model.modules())
    model.zero_grad()


def test_a_new_head_shares_nothing_with_the_old_model(network):
    _, model, x = network
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    new, again, other = (anatomy.replace_head(model, 7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert addresses(new).isdisjoint(addresses(model))
    with torch.no_grad():
        assert new(x).shape == (2, 7)
        assert torch.equal(anatomy.features(new, x), anatomy.features(model, x))
    assert torch.equal(anatomy.head(new).weight, anatomy.head(again).weight)
    assert not torch.equal(anatomy.head(new).weight, anatomy.head(other).weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model(x).shape == (2, 10)


def test_blocks_come_in_the_order_in_which_images_pass_them(network):
    name, model, x = network
    found, passed = anatomy.blocks(model), []
    assert len(found) == BLOCKS[name]
    assert all(dict(model.named_modules())[key] is block for key, block in found)
    hooks = [block.register_forward_hook(lambda *_, key=key: passed.append(key)) for key, block in found]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    assert passed == [key for key, _ in found]


def test_timms_blocks_have_timms_names():
    def names(architecture):
        return [name for name, _ in anatomy.blocks(build(architecture, seed=0))]

    assert names("resnet18") == [f"network.layer{stage}.{i}" for stage in (1, 2, 3, 4) for i in (0, 1)]
    assert names("vit_tiny_patch16_224") == [f"network.blocks.{i}" for i in range(12)]
    assert names("convnext_atto")[:3] == ["network.stages.0.blocks.0", "network.stages.0.blocks.1",
                                          "network.stages.1.blocks.0"]  # fmt: skip


def test_a_cut_at_any_depth_divides_the_weights_in_two(network):
    _, model, _ = network
    everything, sizes = {id(p) for p in model.parameters()}, []
    depth = anatomy.blocks(model)
    for k in range(len(depth) + 1):
        before, behind = anatomy.split(model, k)
        kept, replaced = ({id(p) for p in owned(parts)} for parts in (before, behind))
        assert kept | replaced == everything
        assert kept.isdisjoint(replaced)
        assert {id(p) for p in anatomy.head(model).parameters()} <= replaced
        for place, (_, block) in enumerate(depth):
            side = replaced if place >= len(depth) - k else kept
            assert {id(p) for p in block.parameters()} <= side
        sizes.append(len(replaced))
    assert sizes[0] == len(list(anatomy.head(model).parameters()))
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == len(everything)


def test_layers_between_blocks_go_with_the_block_after_them_and_the_last_norm_with_the_last():
    model = build("convnext_atto", seed=0)
    named = dict(model.named_modules())
    before, behind = anatomy.split(model, 2)  # the last stage has two blocks
    assert named["network.stages.3.downsample"] in behind
    assert named["network.head.norm"] in behind
    assert named["network.stages.2"] in before
    vit = build("vit_tiny_patch16_224", seed=0)
    before, behind = anatomy.split(vit, 11)
    assert any(part is vit.network.cls_token for part in before)
    assert vit.network.norm in behind
    assert anatomy.split(vit, 12)[0] == []
    resnet = build("small_resnet", seed=0, width=4)
    before, behind = anatomy.split(resnet, 1)
    assert [type(part).__name__ for part in behind if part in list(resnet.network)] == [
        "PreActivationBlock", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"]  # fmt: skip


def test_networks_without_the_wrapper_are_fine_too():
    network = build("small_resnet", seed=0, width=4).network
    assert [name for name, _ in anatomy.blocks(network)] == [str(i) for i in range(7)]
    assert anatomy.replace_head(network, 3, seed=0)(images(32)).shape == (2, 3)
    nested = nn.Sequential(network[:-1], nn.Sequential(nn.Dropout(), network[-1]))
    assert anatomy.head(nested) is network[-1]
    assert anatomy.replace_head(nested, 3, seed=0)(images(32)).shape == (2, 3)


def test_a_new_head_has_the_old_ones_dtype_mode_and_bias():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4, bias=False))
    new = anatomy.head(anatomy.replace_head(Classifier(network.double().eval()), 5, seed=0))
    assert (new.weight.dtype, new.bias, new.training) == (torch.float64, None, False)
    assert anatomy.replace_head(build("resnet18", seed=0), 5, seed=0).network.num_classes == 5


def test_the_hook_goes_when_a_pass_breaks():
    model = Classifier(build("resnet18", seed=0).network)
    with pytest.raises(RuntimeError), anatomy.head_inputs(model):
        model(torch.rand(1, 2, 32, 32))
    assert not anatomy.head(model)._forward_pre_hooks


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x.mean(dim=(2, 3)))


class Tokens(nn.Module):
    """Hands its head a grid of vectors."""

    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: anatomy.head(Unknown()), "found no linear head in Unknown: take a model of models.build"),
        (lambda: anatomy.head(Classifier(nn.Sequential())), "found no linear head in Sequential"),
        (lambda: anatomy.head(nn.Sequential(nn.Linear(2, 2), nn.Softmax())), "found no linear head in Sequential"),
        (lambda: anatomy.head(timm.create_model("resnet18", num_classes=0)), "found no linear head in ResNet"),
        (lambda: anatomy.head(build("deit_tiny_distilled_patch16_224")), "found no linear head in VisionTransformerDi"),
        (lambda: anatomy.blocks(Unknown()), "found no blocks in Unknown: take a model of models.build"),
        (lambda: anatomy.blocks(nn.Sequential(nn.Linear(2, 2))), "found no blocks in Sequential"),
        (lambda: anatomy.blocks(build("cait_xxs24_224")), "found no blocks in Cait"),
        (lambda: anatomy.split(build("small_cnn"), -1), "k must be a whole number from 0 to 3, the model's number of"),
        (lambda: anatomy.split(build("small_cnn"), 4), "number of blocks, got 4"),
        (lambda: anatomy.split(build("small_cnn"), 1.0), "number of blocks, got 1.0"),
        (lambda: anatomy.split(build("small_cnn"), True), "number of blocks, got True"),
        (lambda: anatomy.replace_head(build("small_cnn"), 1, seed=0), "n_classes must be a whole number of at least 2"),
        (lambda: anatomy.features(build("small_cnn"), 2 * images(8, channels=1)), "pixels must lie in [0, 1]"),
        (lambda: anatomy.features(build("small_cnn"), images(8, channels=1).to("meta")), "the model is on cpu"),
        (lambda: anatomy.features(nn.Sequential(Tokens(), nn.Linear(3, 2)), images(2)),
         "the head was given [(2, 4, 3)] in one pass: features need one vector an image"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_one_sentence(ask, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        ask()
    assert "\n" not in str(caught.value)
