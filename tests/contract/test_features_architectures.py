"""Units of other people's architectures with random weights: optimum, strongest images and maps, in one call each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import open_clip
import pytest
import timm
import torch
import torchvision
from torch import nn

from thesis_kit import features, recording
from thesis_kit.features import tokens

TINY = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4}


@dataclass
class Row:
    """How it is made, the side of its images, a site, and the side of its grid there."""

    make: Callable[[], nn.Module]
    size: int
    site: str
    grid: int


def by_timm(name: str, **knobs) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **knobs)


def clip_tower() -> nn.Module:
    config = open_clip.get_model_config("ViT-B-32")
    vision = {**config["vision_cfg"], "layers": 2, "width": 96, "head_width": 24, "image_size": 64}
    text = {**config["text_cfg"], "layers": 1, "width": 32, "heads": 2, "vocab_size": 500}
    return open_clip.CLIP(64, vision, text).visual


ROWS = {
    "vit_base_patch16_224": Row(by_timm("vit_base_patch16_224", **TINY), 32, "blocks.1.hidden", 2),
    "class token left out, mean pooling": Row(
        by_timm("vit_base_patch16_224", class_token=False, global_pool="avg", **TINY), 32, "blocks.1.v", 2
    ),
    "deit3_small": Row(by_timm("deit3_small_patch16_224", **TINY), 32, "blocks.1.hidden", 2),
    "two prefix tokens": Row(by_timm("deit_small_distilled_patch16_224", **TINY), 32, "blocks.1.k", 2),
    "registers": Row(
        by_timm("vit_small_patch14_reg4_dinov2", **{**TINY, "img_size": 42}), 42, "blocks.1.hidden", 3
    ),
    "pooled by a map": Row(by_timm("vit_base_patch16_siglip_224", **TINY), 32, "blocks.1.hidden", 2),
    "eva02_tiny, gated": Row(
        by_timm("eva02_tiny_patch14_224", **{**TINY, "img_size": 28}), 28, "blocks.1.hidden", 2
    ),
    "swin_tiny": Row(
        by_timm("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1), num_heads=(2, 4)), 56,
        "layers.1.blocks.0.hidden", 7,
    ),
    "convnext_tiny": Row(
        by_timm("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)), 32, "stages.1.blocks.0.hidden", 4
    ),
    "resnet50": Row(by_timm("resnet50", layers=(1, 1, 1, 1), channels=(8, 16, 16, 16)), 32, "layer2.0.hidden", 4),
    "torchvision vit": Row(
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 4, 32, 64, num_classes=5), 32,
        "encoder.layers.encoder_layer_1.hidden", 2,
    ),
    "open_clip ViT-B-32": Row(clip_tower, 64, "transformer.resblocks.1.hidden", 2),
    "compiled": Row(
        lambda: torch.compile(timm.create_model("vit_base_patch16_224", num_classes=5, **TINY), backend="eager"), 32,
        "blocks.1.hidden", 2,
    ),
    "data parallel": Row(
        lambda: nn.DataParallel(timm.create_model("vit_base_patch16_224", num_classes=5, **TINY)), 32,
        "blocks.1.hidden", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_unit_by_its_optimum_strongest_images_and_maps(name):
    torch.manual_seed(0)
    row = ROWS[name]
    model = row.make().eval()
    x = torch.rand(3, 3, row.size, row.size, generator=torch.Generator().manual_seed(1))
    knobs = {"strongest": 2, "controls": 0, "steps": 3, "copies": 2, "method": "code", "size": row.size}
    found = features.triples(model, x, row.site, [1], **knobs)
    assert found.maps.shape == (1, 2, row.grid, row.grid)
    seen = recording.record(model, x, row.site)[row.site]
    at = features.maps(model, x, row.site, [1])[:, 0].mean(dim=(1, 2))
    assert seen.isfinite().all()
    assert at.argmax() == found.index[0, 0]
    assert found.optima.shape == (1, 3, row.size, row.size)
    start = features.visualize(model, row.site, [1], **{k: knobs[k] for k in ("copies", "size")}, steps=1)
    assert not torch.equal(found.optima, start.images)


def test_a_rectangle_of_patches_is_a_map_only_where_the_network_says_so():
    model = timm.create_model("vit_base_patch16_224", num_classes=5, **{**TINY, "img_size": (32, 64)})
    x = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    assert features.maps(model, x, "blocks.1.hidden", [0]).shape == (2, 1, 2, 4)
    with pytest.raises(ValueError, match="give size"):
        features.visualize(model, "blocks.1.hidden", [0], steps=1)
    model = timm.create_model("vit_base_patch16_224", num_classes=5, dynamic_img_size=True, **TINY)
    assert features.maps(model, x, "blocks.1.hidden", [0]).shape == (2, 1, 2, 4)  # of these images, whatever the size
    with pytest.raises(ValueError, match=r"take the site from recording.sites\(model, x\)"):
        recording.sites(model)["blocks.1.hidden"].maps(torch.zeros(2, 9, 4))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "torchvision vit", "open_clip ViT-B-32", "two prefix tokens"])
def test_class_tokens_can_be_isolated_and_patches_be_read(name):
    torch.manual_seed(0)
    row = ROWS[name]
    model = row.make().eval()
    x = torch.rand(3, 3, row.size, row.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(tokens.isolate_cls(model, x, 0), expected)
    torch.testing.assert_close(tokens.isolate_cls(model, x[:1], 2, hold="mean"), expected[:1], atol=1e-4, rtol=1e-3)
    blind = tokens.isolate_cls(model, x, 2)
    torch.testing.assert_close(blind, blind[:1].expand_as(blind))
    assert tokens.patch_logits(model, x).shape == (3, row.grid**2, expected.shape[1])
    assert tokens.similarity(model, x).shape == (3,)
