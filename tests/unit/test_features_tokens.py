"""Tokens of a ViT: what is cut off, held, dropped and read is what the network itself would make of these tokens."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thesis_kit import recording
from thesis_kit.features import tokens

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 5}


def vit(name: str = "vit_tiny_patch16_224", **knobs) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **{**TINY, **knobs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # or hardly anything depends on anything
    return model


@pytest.fixture(scope="module")
def model():
    return vit()


@pytest.fixture(scope="module")
def x():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def logits(model, x):
    with torch.no_grad():
        return model(x)


def embedded(model, x):
    return recording.record(model, x, "tokens")["tokens"]


def headed(model, tokens):
    with torch.no_grad():
        return model.forward_head(model.norm(tokens))


def test_nothing_isolated_nothing_dropped_is_the_whole_network(model, x):
    expected = logits(model, x)
    for found in (
        tokens.isolate_cls(model, x, 0), tokens.isolate_cls(model, x, 0, hold="mean"), tokens.drop_patches(model, x, 3),
        tokens.class_logits(model, x, 3),
    ):  # fmt: skip
        torch.testing.assert_close(found, expected)


def test_an_isolated_class_token_goes_through_the_blocks_by_itself(model, x):
    z = embedded(model, x)
    with torch.no_grad():
        alone, patches = z[:, :1], z[:, 1:]
        for block in model.blocks[:2]:
            alone, patches = block(alone), block(patches)
        expected = headed(model, model.blocks[2](torch.cat([alone, patches], dim=1)))
    torch.testing.assert_close(tokens.isolate_cls(model, x, 2, batch_size=2), expected)
    assert not torch.allclose(expected, logits(model, x), atol=1e-3)


def test_isolated_to_the_end_every_image_is_the_same(model, x):
    for hold in tokens.HOLDS:
        found = tokens.isolate_cls(model, x, 3, hold=hold)
        torch.testing.assert_close(found, found[:1].expand_as(found))


def test_held_at_the_mean_of_one_image_that_image_is_as_it_was(model, x):
    one = x[:1]
    for blocks in range(4):
        torch.testing.assert_close(
            tokens.isolate_cls(model, one, blocks, hold="mean"), logits(model, one), atol=1e-5, rtol=1e-4
        )
    means = tokens.class_means(model, x)
    assert means.shape == (4, 1, 12)
    torch.testing.assert_close(means[0, 0], embedded(model, x)[:, 0].mean(dim=0))
    held = tokens.isolate_cls(model, x, 2, hold="mean", means=means)
    torch.testing.assert_close(held, tokens.isolate_cls(model, x, 2, hold="mean"))


def test_a_class_token_without_patches_goes_on_alone(model, x):
    seen = recording.record(model, x, "blocks.0.residual")["blocks.0.residual"]
    with torch.no_grad():
        expected = headed(model, model.blocks[2](model.blocks[1](seen[:, :1])))
    torch.testing.assert_close(tokens.drop_patches(model, x, 1), expected)
    blind = tokens.drop_patches(model, x, 0)
    torch.testing.assert_close(blind, blind[:1].expand_as(blind))


def test_single_patches_and_class_tokens_are_read_by_the_networks_own_head(model, x):
    seen = recording.record(model, x, ["blocks.0.residual", "blocks.2.residual"])
    early, last = seen.values()
    found = tokens.patch_logits(model, x, batch_size=2)
    assert found.shape == (5, 16, 5)
    torch.testing.assert_close(found[:, 7], headed(model, last[:, 8:9]))
    torch.testing.assert_close(tokens.patch_logits(model, x, 1)[:, 0], headed(model, early[:, 1:2]))
    torch.testing.assert_close(tokens.class_logits(model, x, 1), headed(model, early))


def test_similarity_and_variance_are_those_of_a_plain_loop(model, x):
    names = ["tokens", *(f"blocks.{k}.residual" for k in range(3))]
    cosines, shares = tokens.similarity(model, x, batch_size=2), tokens.within_share(model, x, batch_size=2)
    for depth, z in enumerate(recording.record(model, x, names).values()):
        z = z[:, 1:].double()
        centered = z - z.mean(dim=(0, 1))
        directions = centered / centered.norm(dim=2, keepdim=True)
        pairs = directions @ directions.transpose(1, 2)
        off = ~torch.eye(16, dtype=torch.bool)
        assert cosines[depth].item() == pytest.approx(pairs[:, off].mean().item(), abs=1e-5)
        inside = (z - z.mean(dim=1, keepdim=True)).square().sum()
        assert shares[depth].item() == pytest.approx((inside / centered.square().sum()).item(), abs=1e-6)


def test_norms_are_of_every_token_at_every_depth(model, x):
    found = tokens.token_norms(model, x, batch_size=2)
    assert found.shape == (4, 5, 17)
    torch.testing.assert_close(found[0], embedded(model, x).norm(dim=2))


def test_both_tokens_of_a_distilled_network_are_isolated_and_registers_stay_with_patches(x):
    distilled = vit("deit_tiny_distilled_patch16_224")
    found = tokens.isolate_cls(distilled, x, 3)
    torch.testing.assert_close(found, found[:1].expand_as(found))
    registered = vit("vit_small_patch14_reg4_dinov2", init_values=0.5)
    known = tokens.stack(registered)
    assert (known.classes, known.prefix) == (1, 5)
    assert tokens.patch_logits(registered, x).shape == (5, 16, 5)
    assert not torch.allclose(tokens.isolate_cls(registered, x, 2), logits(registered, x), atol=1e-4)


def test_blocks_are_left_as_they_were(model, x):
    tokens.isolate_cls(model, x, 2)
    assert not any("forward" in vars(block) for block in model.blocks)
    own = model.blocks[0].forward
    model.blocks[0].forward = lambda z: own(z)
    try:
        tokens.drop_patches(model, x, 0)
        assert "forward" in vars(model.blocks[0])
    finally:
        del model.blocks[0].forward


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vit(class_token=False, global_pool="avg"), "has no class token"),
        (lambda: vit(global_pool="avg"), "reads all patches"),
        (lambda: timm.create_model("resnet10t", num_classes=5), "no row of tokens"),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1,),
                                      num_heads=(2,), num_classes=5),
            "no row of tokens",
        ),
        (lambda: vit("eva02_tiny_patch14_224", global_pool="token", embed_dim=16), "more than its tokens"),
    ],
)  # fmt: skip
def test_networks_whose_class_token_cannot_be_taken_apart_are_refused(make, message, x):
    with pytest.raises(ValueError, match=message):
        tokens.isolate_cls(make(), x, 1)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("means", "message"),
    [
        ("all", r"means must be a floating-point tensor \(depths, class tokens, d\), got str"),
        (torch.zeros(4, 12), r"means must have shape \(depths, class tokens, d\), got \(4, 12\)"),
        (torch.zeros(4, 1, 10), r"means must have shape \(4, 1, 12\), .* got \(4, 1, 10\): take those that"),
        (torch.zeros(3, 1, 12), r"means must have shape \(4, 1, 12\), .* got \(3, 1, 12\)"),
        (torch.zeros(4, 2, 12), r"means must have shape \(4, 1, 12\), .* got \(4, 2, 12\)"),
        (torch.full((4, 1, 12), torch.nan), "means contain NaN"),
    ],
)
def test_means_of_another_network_are_refused(model, x, means, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tokens.isolate_cls(model, x, 1, hold="mean", means=means)


ASKED = {
    "isolate_cls": lambda *given, **knobs: tokens.isolate_cls(*given, 1, **knobs),
    "held": lambda *given, **knobs: tokens.isolate_cls(*given, 1, hold="mean", **knobs),
    "drop_patches": lambda *given, **knobs: tokens.drop_patches(*given, 1, **knobs),
    "class_logits": lambda *given, **knobs: tokens.class_logits(*given, 1, **knobs),
    "patch_logits": tokens.patch_logits,
    "class_means": tokens.class_means,
    "similarity": tokens.similarity,
    "within_share": tokens.within_share,
    "token_norms": tokens.token_norms,
}


@pytest.mark.bad_input
@pytest.mark.parametrize("asked", ASKED)
def test_images_and_batches_that_cannot_be_meant_are_one_sentence(model, x, asked):
    for batch_size in (0, "4", 2.0):
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
            ASKED[asked](model, x, batch_size=batch_size)
    for other, message in (
        (x[:, :1], r"the model cannot take images of shape \(1, 16, 16\)"),
        (x[:, :, :8], r"the model cannot take images of shape \(3, 8, 16\)"),
        (x[:0], r"at least one, got shape \(0, 3, 16, 16\)"),
        (x[0], r"images must have shape \(n, c, h, w\)"),
        (x.mul(255).long(), "images must be a floating-point tensor"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            ASKED[asked](model, other)


class Beside(nn.Module):
    """A ViT whose logits come in a tuple or a dict."""

    def __init__(self, network: nn.Module, form):
        super().__init__()
        self.network, self.form = network, form

    def forward(self, x):
        return self.form(self.network(x))


@pytest.mark.bad_input
@pytest.mark.parametrize("form", [lambda z: (z, z), lambda z: {"logits": z}])
@pytest.mark.parametrize("asked", ["isolate_cls", "held", "drop_patches", "class_logits"])
def test_networks_that_return_more_than_logits_are_told_so(x, asked, form):
    with pytest.raises(ValueError, match="a classifier must return logits of shape"):
        ASKED[asked](Beside(vit(), form), x)


@pytest.mark.bad_input
@pytest.mark.parametrize("depth", [-1, 4])
def test_depths_that_there_are_not_are_refused(model, x, depth):
    with pytest.raises(ValueError, match=r"the network has 3 blocks, got 4|at least 0"):
        tokens.isolate_cls(model, x, depth)


def test_means_are_for_a_class_token_that_is_held(model, x):
    with pytest.raises(ValueError, match='means are for hold="mean"'):
        tokens.isolate_cls(model, x, 1, means=tokens.class_means(model, x))
