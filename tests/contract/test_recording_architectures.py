"""Sites of real architectures with random weights: what is recorded is what the network's own modules compute.

A row says how a network is made, what it is shown and where its parts are; attention maps are multiplied out and
projected by the network's own layer, hidden units are compared with what the second layer is given, and the residual
stream is added up. Widths and depths are small where an architecture lets them be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import open_clip
import pytest
import timm
import torch
import torchaudio
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig

from thesis_kit import recording
from thesis_kit.models import Classifier, build


def timm_model(name: str, **knobs) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **knobs)


def images(size: int, n: int = 2) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def by_timm(block: nn.Module, z: Tensor) -> Tensor:
    """What timm's attention does behind map times v."""
    return block.drop_path1(block.ls1(block.attn.proj(block.attn.norm(z))))


def by_eva(block: nn.Module, z: Tensor) -> Tensor:
    scale = 1 if block.gamma_1 is None else block.gamma_1
    return scale * block.attn.proj(block.attn.norm(z))


def by_beit(block: nn.Module, z: Tensor) -> Tensor:
    return (1 if block.gamma_1 is None else block.gamma_1) * block.attn.proj(z)


def by_torch(name: str) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda block, z: getattr(block, name).out_proj(z)


@dataclass
class Row:
    """Where the parts of a network with attention are; ``adds`` says that its blocks are added up (pre-norm)."""

    make: Callable[[], nn.Module]
    x: Tensor
    blocks: str
    project: Callable[[nn.Module, Tensor], Tensor]
    second: str
    prefix: int = 0
    tokens: str = "tokens"
    adds: bool = True
    run: str = ""


def clip(batch_first: bool = True) -> nn.Module:
    """open_clip's ViT-B-32 with two of its twelve blocks a tower, an eighth as wide, and few words."""
    config = open_clip.get_model_config("ViT-B-32")
    vision = {**config["vision_cfg"], "layers": 2, "width": 96, "head_width": 24, "image_size": 64}
    text = {**config["text_cfg"], "layers": 2, "width": 64, "heads": 4, "vocab_size": 500}
    model = open_clip.CLIP(64, vision, text)
    if not batch_first:  # as older releases and their pickles
        for transformer in (model.visual.transformer, model.transformer):
            transformer.batch_first = False
            for block in transformer.resblocks:
                block.attn.batch_first = False
    return model


def beit() -> nn.Module:
    """timm's BEiT, whose bias of positions is drawn rather than 0."""
    model = timm.create_model("beit_base_patch16_224", **TINY)
    for block in model.blocks:
        nn.init.normal_(block.attn.relative_position_bias_table)
    return model


def wav2vec2(layer_norm_first: bool) -> nn.Module:
    """torchaudio's wav2vec 2.0, base or large by its norms, as narrow as it gets."""
    return torchaudio.models.wav2vec2_model(
        "group_norm", [(16, 10, 5), (16, 3, 2)], False, 16, 0.1, 8, 4, 2, 4, 0.1, 32, 0.1, 0.1, layer_norm_first, 0.5, 8
    )


TINY = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4}
TOKENS = torch.randint(1, 400, (2, 77), generator=torch.Generator().manual_seed(2))
SOUND = torch.randn(2, 1600, generator=torch.Generator().manual_seed(3))
ROWS = {
    "vit": Row(timm_model("vit_base_patch16_224", **TINY), images(32), "blocks", by_timm, "mlp.fc2", 1),
    "vit with norms of q and k": Row(
        timm_model("vit_base_patch16_224", qk_norm=True, init_values=0.1, drop_path_rate=0.1, **TINY), images(32),
        "blocks", by_timm, "mlp.fc2", 1,
    ),
    "deit distilled": Row(
        timm_model("deit_small_distilled_patch16_224", **TINY), images(32), "blocks", by_timm, "mlp.fc2", 2
    ),
    "deit3": Row(timm_model("deit3_small_patch16_224", **TINY), images(32), "blocks", by_timm, "mlp.fc2", 1),
    "dinov2 with registers": Row(
        timm_model("vit_small_patch14_reg4_dinov2", **{**TINY, "img_size": 42}), images(42), "blocks", by_timm,
        "mlp.fc2", 5,
    ),
    "siglip, pooled by a map": Row(
        timm_model("vit_base_patch16_siglip_224", **TINY), images(32), "blocks", by_timm, "mlp.fc2", 0
    ),
    "eva02, rotated and gated": Row(
        timm_model("eva02_tiny_patch14_224", **{**TINY, "img_size": 28}), images(28), "blocks", by_eva, "mlp.fc2", 1
    ),
    "beit, with a bias of positions": Row(
        beit, images(32), "blocks", by_beit, "mlp.fc2", 1
    ),
    "torchvision": Row(
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 4, 32, 64, num_classes=5), images(32), "encoder.layers",
        by_torch("self_attention"), "mlp.3", 1, "encoder.tokens",
    ),
    "clip, images": Row(
        clip, images(64), "visual.transformer.resblocks", by_torch("attn"), "mlp.c_proj", 1,
        "visual.transformer.tokens", run="encode_image",
    ),
    "clip, text": Row(
        clip, TOKENS, "transformer.resblocks", by_torch("attn"), "mlp.c_proj", 0, "transformer.tokens",
        run="encode_text",
    ),
    "clip, images, not batch first": Row(
        lambda: clip(batch_first=False), images(64, 3), "visual.transformer.resblocks", by_torch("attn"), "mlp.c_proj",
        1, "visual.transformer.tokens", run="encode_image",
    ),
    "wav2vec2, pre-norm": Row(
        lambda: wav2vec2(True), SOUND, "encoder.transformer.layers", by_torch("attention"), "feed_forward.output_dense",
        0, "encoder.transformer.tokens",
    ),
    "wav2vec2 and hubert, post-norm": Row(
        lambda: wav2vec2(False), SOUND, "encoder.transformer.layers", by_torch("attention"),
        "feed_forward.output_dense", 0, "encoder.transformer.tokens", adds=False,
    ),
    "torch's own encoder": Row(
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
        ),
        torch.randn(2, 5, 16), "layers", by_torch("self_attn"), "linear2",
    ),
    "torch's own encoder, post-norm": Row(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2),
        torch.randn(2, 5, 16), "layers", by_torch("self_attn"), "linear2", adds=False,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=ROWS)
def case(request):
    """The row, its network, all that was recorded of it, its sites."""
    torch.manual_seed(0)
    row = ROWS[request.param]
    model = row.make()
    run = getattr(model, row.run) if row.run else None
    listed = recording.sites(model, row.x, run=run)
    names = [name for name, site in listed.items() if site.calls]
    return row, model, recording.record(model, row.x, names, run=run), listed, run


def heard(model: nn.Module, place: str, x: Tensor, run: Callable | None, *, at_input: bool) -> Tensor:
    """What a module is given or gives, by a plain hook and nothing else of this package."""
    found = []
    module = model.get_submodule(place)
    handle = (
        module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].clone())) if at_input
        else module.register_forward_hook(lambda _, inputs, output: found.append(output))
    )  # fmt: skip
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    was_training = model.training
    with torch.no_grad():
        (run or model.eval())(x) if run is None else (model.eval(), run(x))
    model.train(was_training)
    torch.backends.mha.set_fastpath_enabled(fast)
    handle.remove()
    return found[0]


def block_names(row: Row, model: nn.Module) -> list[str]:
    return [f"{row.blocks}.{name}" for name, _ in model.get_submodule(row.blocks).named_children()]


def test_attention_maps_times_v_are_what_the_attention_gives(case):
    row, model, found, _, _ = case
    model.eval()
    for name in block_names(row, model):
        weights, v = found[f"{name}.attention_map"], found[f"{name}.v"]
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
        assert weights.min() >= 0
        with torch.no_grad():
            projected = row.project(model.get_submodule(name), (weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(projected, found[f"{name}.attention_out"], atol=1e-5, rtol=1e-4)


def test_q_and_k_are_those_that_meet(case):
    row, model, found, _, _ = case
    for name in block_names(row, model):
        q, k, weights = (found[f"{name}.{part}"] for part in ("q", "k", "attention_map"))
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        if row.run == "encode_text":  # causal
            torch.testing.assert_close(weights, logits.masked_fill(weights == 0, -torch.inf).softmax(dim=-1))
            assert weights.triu(1).abs().max() == 0
            continue
        rest = weights.log() - logits
        rest = rest - rest.mean(dim=-1, keepdim=True)  # without what the softmax takes off
        by_position = isinstance(getattr(model.get_submodule(name), "attn", None), timm.models.beit.Attention)
        assert (rest.abs().max() > 1e-3) == by_position
        torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-4, rtol=0)


def test_hidden_units_are_what_the_second_layer_is_given(case):
    row, model, found, _, run = case
    name = block_names(row, model)[-1]
    expected = heard(model, f"{name}.{row.second}", row.x, run, at_input=True)
    if len(expected) != len(row.x):
        expected = expected.transpose(0, 1)
    torch.testing.assert_close(found[f"{name}.hidden"], expected)


def test_the_residual_stream_adds_up(case):
    row, model, found, _, run = case
    stream = found[row.tokens]
    for name in block_names(row, model):
        if row.adds:
            added = stream + found[f"{name}.attention_out"] + found[f"{name}.mlp_out"]
            torch.testing.assert_close(found[f"{name}.residual"], added, atol=1e-5, rtol=1e-4)
        stream = found[f"{name}.residual"]
    last = heard(model, block_names(row, model)[-1], row.x, run, at_input=False)
    last = last[0] if isinstance(last, tuple) else last
    torch.testing.assert_close(stream, last if len(last) == len(row.x) else last.transpose(0, 1))


def test_each_site_alone_is_the_same_and_patches_are_told_from_other_tokens(case):
    row, model, found, listed, run = case
    name = block_names(row, model)[0]
    for part in ("q", "attention_map", "hidden", "residual"):
        alone = recording.record(model, row.x, f"{name}.{part}", run=run)[f"{name}.{part}"]
        torch.testing.assert_close(alone, found[f"{name}.{part}"])
        assert tuple(alone.shape[1:]) == listed[f"{name}.{part}"].shape[1:]
    site = listed[f"{name}.residual"]
    assert site.prefix == row.prefix
    assert listed[f"{name}.q"].prefix == row.prefix
    assert torch.equal(site.patches(found[site.name]), found[site.name][:, row.prefix :])
    if row.x.ndim == 4:
        maps, patches = site.maps(found[site.name]), site.patches(found[site.name])
        side = maps.shape[-1]
        assert side**2 == patches.shape[1]
        assert torch.equal(maps[:, :, 1, 0], patches[:, side])


def test_models_are_left_in_training_as_they_were(case):
    row, _, _, _, _ = case
    torch.manual_seed(0)
    model = row.make().train()
    run = getattr(model, row.run) if row.run else None
    name = f"{block_names(row, model)[0]}.attention_map"
    first, second = (recording.record(model, row.x, name, run=run)[name] for _ in range(2))
    assert torch.equal(first, second)  # neither dropout nor LayerDrop
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("norms", [False, True])
def test_fused_attention_and_attention_written_out_are_recorded_alike(norms):
    torch.manual_seed(0)
    model, x = timm.create_model("vit_base_patch16_224", qk_norm=norms, **TINY), images(32)
    names = [f"blocks.1.{part}" for part in ("q", "k", "v", "attention_map")]
    found = []
    for fused in (True, False):
        for block in model.blocks:
            block.attn.fused_attn = fused
        found.append(recording.record(model, x, names))
        found.append(recording.record(model, x, names[3]))
        assert model.blocks[1].attn.fused_attn is fused
    for some in found[1:]:
        for name, values in some.items():
            torch.testing.assert_close(values, found[0][name])
    norm = heard(model, "blocks.1.attn.q_norm", x, None, at_input=False)
    torch.testing.assert_close(found[0]["blocks.1.q"], norm)


def test_the_same_as_timms_own_helpers():
    torch.manual_seed(0)
    model, x = timm.create_model("vit_small_patch14_reg4_dinov2", **{**TINY, "img_size": 42}).eval(), images(42)
    with torch.no_grad():
        maps = model.forward_intermediates(x, indices=[0, 1], norm=False, intermediates_only=True)
    found, listed = recording.record(model, x, ["blocks.0.residual", "blocks.1.residual"]), recording.sites(model)
    for (name, values), expected in zip(found.items(), maps, strict=True):
        torch.testing.assert_close(listed[name].maps(values), expected)
    for block in model.blocks:
        block.attn.fused_attn = False
    weights = timm.utils.AttentionExtract(model, method="fx")(x)
    ours = recording.record(model, x, ["blocks.0.attention_map", "blocks.1.attention_map"])
    for values, expected in zip(ours.values(), weights.values(), strict=True):
        torch.testing.assert_close(values, expected.detach())


# Convolutions, mixers, windows


def test_resnets_hidden_maps_are_what_the_last_convolution_is_given():
    torch.manual_seed(0)
    for model in (timm.create_model("resnet18"), torchvision.models.resnet18(weights=None)):
        model.eval()
        listed, x = recording.sites(model, images(32)), images(32)
        assert [site.name for site in listed.of_kind("residual")][-1] == "layer4.1.residual"
        found = recording.record(model, x, ["layer2.0.hidden", "layer2.0.residual", "layer1.1.residual"])
        torch.testing.assert_close(found["layer2.0.hidden"], heard(model, "layer2.0.conv2", x, None, at_input=True))
        assert found["layer2.0.hidden"].min() == 0
        with torch.no_grad():
            torch.testing.assert_close(found["layer2.0.residual"], model.layer2[0](found["layer1.1.residual"]))


@pytest.mark.parametrize(("name", "last"), [("resnet26", "conv3"), ("efficientnet_lite0", "conv_pwl")])
def test_other_convolutional_blocks(name, last):
    model, x = timm.create_model(name), images(32)
    block = "layer1.0" if name == "resnet26" else "blocks.1.0"
    found = recording.record(model, x, f"{block}.hidden")[f"{block}.hidden"]
    torch.testing.assert_close(found, heard(model, f"{block}.{last}", x, None, at_input=True))
    assert recording.sites(model)[f"{block}.hidden"].width == found.shape[1]


CONVNEXTS = {
    "timm": (lambda: timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)), "stages.0.blocks.0", "mlp.fc2"),
    "timm, convolutions": (lambda: timm.create_model("convnext_atto"), "stages.0.blocks.0", "mlp.fc2"),
    "torchvision": (
        lambda: torchvision.models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]), "features.1.0",
        "block.5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", CONVNEXTS)
def test_convnexts_hidden_units_come_as_maps_whose_channels_are_second(source):
    torch.manual_seed(0)
    make, block, second = CONVNEXTS[source]
    model, x = make(), images(32)
    names = [f"{block}.hidden", f"{block}.mlp_out", f"{block}.residual"]
    found = recording.record(model, x, names)
    given = heard(model, f"{block}.{second}", x, None, at_input=True)
    if "convolutions" not in source:  # (n, h, w, c)
        assert given.shape[1:3] == (8, 8)
        given = given.permute(0, 3, 1, 2)
    torch.testing.assert_close(found[names[0]], given)
    module = model.get_submodule(block)
    scale = module.layer_scale if source == "torchvision" else module.gamma.view(1, -1, 1, 1)
    before = heard(model, block, x, None, at_input=True)
    torch.testing.assert_close(found[names[2]], before + scale.detach() * found[names[1]], atol=1e-5, rtol=1e-4)


def test_mixers_mix_tokens_and_channels():
    model = timm.create_model("mixer_s32_224")
    listed, x = recording.sites(model), images(224, 1)
    names = ["blocks.0.mlp_tokens.hidden", "blocks.0.mlp_channels.hidden", "tokens", "blocks.0.residual"]
    found = recording.record(model, x, names)
    assert found[names[0]].shape == (1, 512, 256)
    assert found[names[1]].shape == (1, 49, 2048)
    torch.testing.assert_close(found[names[1]], heard(model, "blocks.0.mlp_channels.fc2", x, None, at_input=True))
    assert listed["blocks.0.residual"].maps(found["blocks.0.residual"]).shape == (1, 512, 7, 7)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_swins_stream_is_right_and_its_windows_are_refused(source):
    torch.manual_seed(0)
    if source == "timm":
        model = timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=56, embed_dim=16, depths=(2, 1), num_heads=(1, 2)
        )
        block, q = "layers.0.blocks.1", "layers.0.blocks.1.q"
    else:
        model = torchvision.models.SwinTransformer([4, 4], 16, [2, 1], [1, 2], [7, 7])
        block, q = "features.1.1", "features.1.1.q"
    x = images(56)
    found = recording.record(model, x, [f"{block}.residual", f"{block}.hidden"])
    given = heard(model, block, x, None, at_input=False)
    assert found[f"{block}.residual"].shape == (2, 16, 14, 14)
    torch.testing.assert_close(found[f"{block}.residual"], given.permute(0, 3, 1, 2))
    listed = recording.sites(model, x)
    hidden = listed[f"{block}.hidden"].maps(found[f"{block}.hidden"])
    assert hidden.shape == (2, 64, 14, 14)
    assert q not in listed
    for part in ("q", "attention_map"):
        with pytest.raises(ValueError, match=rf"{part} cannot be recorded. The attention of \w*WindowAttention works"):
            recording.record(model, x, f"{block}.{part}")


def test_attention_in_windows_of_another_name_is_refused_when_it_is_seen():
    model = timm.create_model("vit_base_patch16_224", **TINY)
    inner = model.blocks[0].attn.forward

    def in_windows(x, **knobs):
        return inner(x[:, :4].reshape(-1, 2, x.shape[-1]), **knobs).reshape(len(x), 4, -1).repeat(1, 2, 1)[:, :5]

    model.blocks[0].attn.forward = in_windows
    with pytest.raises(ValueError, match=r"of shape \(4, 4, 2, 8\) for 2 inputs: the attention works in windows"):
        recording.record(model, images(32), "blocks.0.q")


def test_the_conformer_keeps_time_before_the_batch():
    torch.manual_seed(0)
    model, x = torchaudio.models.Conformer(16, 4, 32, 2, 7).eval(), torch.randn(3, 20, 16)

    def run(x):
        return model(x, torch.full((len(x),), x.shape[1]))

    names = [f"conformer_layers.1.{part}" for part in ("ffn1.hidden", "q", "v", "attention_map", "attention_out")]
    found = recording.record(model, x, [*names, "conformer_layers.1.residual"], run=run)
    given = heard(model, "conformer_layers.1.ffn1.sequential.4", x, run, at_input=True)
    torch.testing.assert_close(found[names[0]], given.transpose(0, 1))
    weights, v = found[names[3]], found[names[2]]
    assert weights.shape == (3, 4, 20, 20)
    with torch.no_grad():
        out = model.conformer_layers[1].self_attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(found[names[4]], out, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found["conformer_layers.1.residual"], run(x)[0])


def test_the_books_own_networks_and_a_classifier_around_them():
    x = images(32)
    model = build("small_resnet", n_classes=4, in_channels=3, width=4, seed=0).network
    found = recording.record(model, x, ["1.hidden", "1.residual", "penultimate"])
    torch.testing.assert_close(found["1.hidden"], heard(model, "1.conv2", x, None, at_input=True))
    assert found["penultimate"].shape == (2, 16)
    vit = Classifier(ROWS["vit"].make(), mean=[0.5] * 3, std=[0.5] * 3, size=32)
    name = "blocks.0.attention_map"
    expected = recording.record(vit.network, (x - 0.5) / 0.5, name)[name]
    for asked in (name, f"network.{name}"):
        torch.testing.assert_close(recording.record(vit, x, asked)[asked], expected)


def test_pooling_leaves_class_tokens_and_registers_out():
    torch.manual_seed(0)
    row = ROWS["dinov2 with registers"]
    model, name = row.make(), "blocks.1.hidden"
    values = recording.record(model, row.x, name)[name]
    for pool, expected in {
        "mean": values[:, 5:].mean(dim=1), "max": values[:, 5:].amax(dim=1), "class": values[:, 0],
    }.items():  # fmt: skip
        found = recording.stream(model, row.x, name, reduce="rows", pool=pool, batch_size=1)[name]
        torch.testing.assert_close(found, expected)
    top = recording.top_examples(model, row.x, name, 1, units=[3], patterns=True)
    best = values[:, 5:, 3].mean(dim=1).argmax()
    torch.testing.assert_close(top.pattern[0, 0], values[best, 5:, 3].view(3, 3))


def test_attention_pooling_of_clips_resnets():
    model = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], output_dim=32, heads=4, image_size=64, width=16)
    found = recording.record(model, images(64), ["attnpool.attention_map", "layer1.0.hidden"])
    weights = found["attnpool.attention_map"]
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert found["layer1.0.hidden"].shape == (2, 16, 16, 16)


def test_recording_costs_about_a_pass_and_less_where_it_ends_early():
    """Counted in what runs, not in seconds: nothing behind the site, and nothing twice."""
    model, ran = ROWS["vit"].make(), []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    recording.record(model, images(32), "blocks.0.hidden")
    assert "blocks.0.mlp.fc2" not in ran
    assert not [name for name in ran if name.startswith("blocks.1")]
    assert len(ran) == len(set(ran))
    with torch.no_grad():
        assert F.mse_loss(model.eval()(images(32)), model(images(32))) == 0


# Where patches lie


def test_class_tokens_may_join_late():
    torch.manual_seed(0)
    knobs = {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2}
    for name, last in (("cait_xxs24_224", "blocks_token_only.1"), ("xcit_nano_12_p16_224", "cls_attn_blocks.1")):
        model, x = timm.create_model(name, num_classes=5, **knobs), images(64)
        listed = recording.sites(model, x)
        site = listed["blocks.1.residual"]
        assert (site.prefix, site.grid) == (0, (4, 4))
        values = recording.record(model, x, site)[site.name]
        assert torch.equal(site.maps(values), values.transpose(1, 2).unflatten(2, (4, 4)))
        pooled = recording.stream(model, x, site, reduce="rows")[site.name]
        torch.testing.assert_close(pooled, values.mean(dim=1))
        with pytest.raises(ValueError, match="has no class token"):
            recording.stream(model, x, site, pool="class")
        hidden = f"{last}.hidden"
        with pytest.raises(ValueError, match=f"{hidden} holds class tokens and no patches: pool it by “class”"):
            recording.stream(model, x, hidden)
        found = recording.stream(model, x, hidden, reduce="rows", pool="class")[hidden]
        torch.testing.assert_close(found, recording.record(model, x, hidden)[hidden][:, 0])


def test_tokens_that_nobody_told_of_are_told_by_their_number():
    torch.manual_seed(0)
    model, x = timm.create_model("crossvit_tiny_240", num_classes=5), images(240, 1)
    name = "blocks.0.blocks.0.0.hidden"
    values = recording.record(model, x, name)[name]
    assert values.shape[1] == 1 + 20 * 20  # under a name of its own, one class token
    pooled = recording.stream(model, x, name, reduce="rows")[name]
    torch.testing.assert_close(pooled, values[:, 1:].mean(dim=1))
    assert recording.top_examples(model, x, name, 1, units=[0], patterns=True).pattern.shape == (1, 1, 20, 20)


@pytest.mark.parametrize(("size", "grid"), [((32, 128), (2, 8)), ((64, 144), (4, 9)), ((64, 64), (4, 4))])
def test_patches_lie_as_in_the_images_at_hand(size, grid):
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224", num_classes=5, dynamic_img_size=True, **{**TINY, "img_size": 64})
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    values = recording.record(model, x, "tokens")["tokens"]
    expected = values[:, 1:].transpose(1, 2).unflatten(2, grid)
    assert torch.equal(recording.sites(model, x)["tokens"].maps(values), expected)
    found = recording.top_examples(model, x, "tokens", 1, units=[5], patterns=True)
    assert torch.equal(found.pattern[0, 0], expected[0, 5])
    with pytest.raises(ValueError, match=r"no rows and columns are known of them: take the site from recording.sites"):
        recording.sites(model)["tokens"].maps(values)


def test_a_classifier_that_resizes_decides_where_patches_lie():
    torch.manual_seed(0)
    model = Classifier(ROWS["vit"].make(), mean=[0.5] * 3, std=[0.5] * 3, size=32)
    x = torch.rand(1, 3, 20, 80, generator=torch.Generator().manual_seed(1))
    assert recording.top_examples(model, x, "blocks.0.hidden", 1, units=[0], patterns=True).pattern.shape[2:] == (2, 2)


def test_a_network_of_one_size_says_where_patches_lie_whoever_resizes():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = ROWS["vit"].make()

        def forward(self, x):
            return self.inner(F.interpolate(x, 32))

    x = torch.rand(1, 3, 20, 80, generator=torch.Generator().manual_seed(1))
    name = "inner.blocks.0.hidden"
    assert recording.top_examples(Around(), x, name, 1, units=[0], patterns=True).pattern.shape[2:] == (2, 2)


def test_mixers_patches_form_the_grid_of_their_stem():
    model, x = timm.create_model("mixer_s32_224"), images(224, 1)
    found = recording.top_examples(model, x, "blocks.0.mlp_channels.hidden", 1, units=[0], patterns=True)
    assert found.pattern.shape == (1, 1, 7, 7)
    mixed = recording.record(model, x, "blocks.0.mlp_tokens.hidden")["blocks.0.mlp_tokens.hidden"]
    pooled = recording.stream(model, x, "blocks.0.mlp_tokens.hidden", reduce="rows")["blocks.0.mlp_tokens.hidden"]
    torch.testing.assert_close(pooled, mixed.mean(dim=1))  # over channels: none of them is a class token


@pytest.mark.parametrize(
    ("name", "knobs", "why"),
    [
        ("xcit_nano_12_p16_224", {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2}, "is among channels"),
        ("vit_dwee_patch16_reg1_gap_256", {"img_size": 64, "depth": 2}, "subtracts one map from another"),
    ],
)
def test_attention_of_another_kind_is_refused(name, knobs, why):
    model = timm.create_model(name, num_classes=5, **knobs)
    for part in ("q", "attention_map"):
        with pytest.raises(ValueError, match=f"blocks.0.{part} cannot be recorded. The attention of .* {why}"):
            recording.record(model, images(64), f"blocks.0.{part}")
    assert torch.isfinite(recording.record(model, images(64), "blocks.0.attention_out")["blocks.0.attention_out"]).all()


def test_parallel_blocks():
    torch.manual_seed(0)
    model, x = timm.create_model("vit_base_patch16_xp_224", num_classes=5, **TINY), images(32)
    assert "blocks.0.attention_out" not in recording.sites(model)  # one sum with what its MLP gives
    model = timm.create_model("vit_small_patch16_18x2_224", num_classes=5, init_values=0.3, **TINY)
    listed = recording.sites(model)
    branches = [name for name in listed if name.startswith("blocks.0.attns") and name.endswith("attention_out")]
    found = recording.record(model, x, ["tokens", *branches])
    with torch.no_grad():
        added = model.blocks[0].attns[0](found["tokens"])
    torch.testing.assert_close(found[branches[0]], added)  # with its layer scale


def test_patches_of_films_form_no_grid():
    class Film(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv3d(3, 8, (1, 8, 8), stride=(1, 8, 8))
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                x = block(x)
            return x

    x = torch.rand(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))  # 4 pictures of 2 × 2 patches
    found = recording.top_examples(Film(), x, "blocks.1.hidden", 1, units=[0], patterns=True)
    assert found.pattern.shape == (1, 1, 16)
