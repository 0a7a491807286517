"""Where patches lie: networks that keep them in another order than that of reading, and layers by their own names."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thesis_kit import features, recording
from thesis_kit.features import tokens

SMALL = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2},
    "swin_tiny_patch4_window7_224": {
        "img_size": 56, "window_size": 7, "depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 2, 2),
    },
    "hiera_tiny_224": {"stages": (1, 1, 1, 1), "embed_dim": 24, "num_heads": 1},
    "nest_tiny": {},
    "mobilevitv2_050": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
}  # fmt: skip


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **SMALL[name]).eval()


@pytest.mark.parametrize(
    ("name", "site", "size", "shape"),
    [
        ("hiera_tiny_224", "blocks.0.hidden", 224, (96, 3136)),  # unrolled, so that neighbors are pooled
        ("nest_tiny", "levels.0.transformer_encoder.0.hidden", 224, (384, 3136)),  # block by block
        ("mobilevitv2_050", "stages.2.1.transformer.0.hidden", 64, (128, 64)),  # place in a patch by patch
        ("vit_tiny_patch16_224", "blocks.1.hidden", 32, (96, 4, 4)),
        ("swin_tiny_patch4_window7_224", "layers.1.blocks.0.hidden", 56, (192, 7, 7)),
        ("convnext_atto", "stages.1.blocks.0.hidden", 64, (64, 8, 8)),  # whose convolutions blur where it is noticed
    ],
)
def test_patches_have_rows_and_columns_only_where_they_lie_as_in_the_image(name, site, size, shape):
    model, x = network(name), torch.rand(2, 3, size, size)
    seen = features.maps(model, x, site)
    assert seen.shape[1:] == shape
    top = recording.top_examples(model, x, site, 1, units=[0, 1], patterns=True)
    assert top.pattern.shape == (2, 1, *shape[1:])
    assert torch.equal(top.pattern[0, 0], seen[top.index[0, 0], 0])
    if len(shape) == 2:
        with pytest.raises(ValueError, match="has no patches that form a grid"):
            features.triples(model, x, site, [0], strongest=1, steps=1, copies=1, controls=0)


def test_a_changed_patch_is_noticed_at_its_place():
    model, x = network("vit_tiny_patch16_224"), torch.rand(1, 3, 32, 32)
    changed = x.clone()
    changed[..., 8:16, 24:] = 1 - changed[..., 8:16, 24:]
    first = recording.sites(model).of_kind("tokens")[0].name
    far = (features.maps(model, x, first) - features.maps(model, changed, first)).abs().sum(dim=1)[0]
    assert divmod(int(far.argmax()), 4) == (1, 3)


@pytest.mark.parametrize(
    ("name", "layer", "site"),
    [
        ("vit_tiny_patch16_224", "blocks.1", "blocks.1.residual"),
        ("vit_tiny_patch16_224", "input of blocks.1.mlp.fc2", "blocks.1.hidden"),
        ("vit_tiny_patch16_224", "blocks", "blocks.1.residual"),
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0", "layers.0.blocks.0.residual"),
        ("swin_tiny_patch4_window7_224", "layers.0", "layers.0.blocks.0.residual"),
    ],
)
def test_units_of_a_layer_are_those_of_the_site_that_listens_there(name, layer, site):
    model, size = network(name), 56 if "swin" in name else 32
    x = torch.rand(5, 3, size, size)
    assert torch.equal(features.maps(model, x, layer), features.maps(model, x, site))
    ours, theirs = (recording.top_examples(model, x, one, 2) for one in (layer, site))
    assert torch.equal(ours.index, theirs.index)
    assert torch.equal(ours.value, theirs.value)
    excited = [
        features.visualize(model, one, [3], size=size, steps=1, copies=1, seed=1, progress=False).losses
        for one in (layer, site)
    ]
    assert torch.equal(*excited)
    assert torch.equal(
        recording.stream(model, x, layer, reduce="rows")[layer], recording.stream(model, x, site, reduce="rows")[site]
    )


def test_a_layer_lies_as_its_tokens_wherever_it_stands():
    model, x = network("vit_tiny_patch16_224"), torch.rand(2, 3, 32, 32)
    for layer in ("blocks.1.mlp", "blocks.1.mlp.act", "blocks.1.mlp.fc1", "blocks.1.attn", "blocks.1.norm2"):
        assert features.maps(model, x, layer).shape[2:] == (4, 4), layer
    mixer = timm.models.MlpMixer(img_size=64, patch_size=8, embed_dim=256, num_blocks=2).eval()
    x = torch.rand(2, 3, 64, 64)
    assert features.maps(mixer, x, "blocks.0.mlp_tokens.fc1").shape == (2, 128, 256)  # over places, channels in a row
    assert features.maps(mixer, x, "blocks.0.mlp_channels.fc1").shape == (2, 1024, 8, 8)


class Twice(nn.Module):
    """A ViT under a name that wrappers have too, whose blocks run twice."""

    def __init__(self, vit: nn.Module):
        super().__init__()
        self.network = vit

    def forward(self, x):
        tokens = self.network._pos_embed(self.network.patch_embed(x))
        for block in [*self.network.blocks, *self.network.blocks]:
            tokens = block(tokens)
        return self.network.forward_head(tokens)


@pytest.mark.parametrize("run", ["", "#2"])
def test_layers_that_run_again_and_have_wrappers_names_are_found(run):
    model, x = Twice(network("vit_tiny_patch16_224")).eval(), torch.rand(2, 3, 32, 32)
    for layer, site in (("network.blocks.1", "residual"), ("input of network.blocks.1.mlp.fc2", "hidden")):
        ours = features.maps(model, x, layer + run)
        assert torch.equal(ours, features.maps(model, x, f"network.blocks.1.{site}{run}"))
        assert ours.shape[2:] == (4, 4)


def test_stages_that_turn_their_tokens_into_maps_are_not_turned_again():
    model, x = timm.create_model("mobilevit_xxs", pretrained=False).eval(), torch.rand(2, 3, 128, 128)
    given = recording.record(model, x, "stages.2")["stages.2"]
    assert torch.equal(features.maps(model, x, "stages.2"), given)
    moments = recording.stream(model, x, "stages.2")["stages.2"]
    torch.testing.assert_close(moments.mean, given.double().mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    model = timm.create_model("pvt_v2_b0", pretrained=False).eval()
    with pytest.raises(ValueError, match=r"channels first or last: take the site stages\.0\.blocks\.1\.residual"):
        features.maps(model, x, "stages.0")  # (n, 32, 32, 32)


def test_branches_that_are_joined_keep_their_channels_first():
    torchvision = pytest.importorskip("torchvision")
    model, x = torchvision.models.squeezenet1_1().eval(), torch.rand(1, 3, 260, 260)
    seen = recording.record(model, x, ["features.3.residual", "features.3"])
    assert torch.equal(*seen.values())  # 64 is the last branch's width and the map's side


def test_a_function_pools_what_is_recorded():
    model, x = network("swin_tiny_patch4_window7_224"), torch.rand(3, 3, 56, 56)
    layer, pool = "layers.0.blocks.0", lambda v: v.mean(dim=(1, 2))  # (n, h, w, c)
    rows = recording.stream(model, x, layer, reduce="rows", pool=pool)[layer]
    top = recording.top_examples(model, x, layer, 1, pool=pool, patterns=True)
    assert torch.equal(top.value[:, 0], rows.max(dim=0).values)
    assert top.pattern.shape == (24, 1, 14, 14)


def test_layers_of_one_position_have_their_channels_where_they_are():
    model, x = network("swin_tiny_patch4_window7_224"), torch.rand(2, 3, 56, 56)
    given = recording.record(model, x, "layers.0.blocks.0.mlp.fc1")["layers.0.blocks.0.mlp.fc1"]  # (n, h, w, c)
    assert torch.equal(features.maps(model, x, "layers.0.blocks.0.mlp.fc1"), given.mT.unflatten(2, (14, 14)))
    given = recording.record(model, x, "layers.0.blocks.0.norm1")["layers.0.blocks.0.norm1"]  # (n, h, w, c)
    assert torch.equal(features.maps(model, x, "layers.0.blocks.0.norm1"), given.movedim(-1, 1))


class TokensFirst(nn.Module):
    """A PyTorch encoder whose tokens come as (t, n, d)."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 8, 8)
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 3, 48), 2)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.enc(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("count", [12, 16])
def test_tokens_are_not_taken_for_images(count):
    model, x = TokensFirst().eval(), torch.rand(count, 3, 32, 32)
    given = recording.record(model, x, "enc.layers.1")["enc.layers.1"]  # (t, n, d), 16 tokens
    assert given.shape == (16, count, 24)
    rows = recording.stream(model, x, "enc.layers.1", reduce="rows")["enc.layers.1"]
    torch.testing.assert_close(rows, given.mean(dim=0))
    assert features.maps(model, x, "enc.layers.1.linear1").shape == (count, 48, 4, 4)
    made = features.visualize(model, "enc.layers.1", [0], size=32, steps=1, copies=1, progress=False)
    assert made.images.shape == (1, 3, 32, 32)


def test_rows_of_an_attention_map_have_no_mean():
    model, x = network("vit_tiny_patch16_224"), torch.rand(3, 3, 32, 32)
    with pytest.raises(ValueError, match="adds up to 1, so that its mean says nothing"):
        recording.top_examples(model, x, "blocks.1.attention_map", 1)
    assert recording.top_examples(model, x, "blocks.1.attention_map", 1, pool="max").index.shape == (3, 1)
    for ask in (features.maps, features.excitation):
        given = (x, "blocks.1.attention_map", [0]) if ask is features.maps else ("blocks.1.attention_map", [0])
        with pytest.raises(ValueError, match="has no units that lie in an image"):
            ask(model, *given)


class Own(nn.Module):
    """A ViT of one's own, whose head reads some of the tokens."""

    def __init__(self, reads, registers: int = 0):
        super().__init__()
        self.patch, self.reads = nn.Conv2d(3, 24, 8, 8), reads
        self.cls_token = nn.Parameter(torch.randn(1, 1, 24))
        self.extra = nn.Parameter(torch.randn(1, registers, 24))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(24, 3, 48, batch_first=True) for _ in range(3))
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([part.expand(len(x), -1, -1) for part in (self.cls_token, self.extra)] + [x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.reads(x))


def test_class_tokens_are_asked_of_networks_that_read_them():
    x = torch.rand(2, 3, 32, 32)
    model = Own(lambda t: t[:, 0]).eval()
    torch.testing.assert_close(tokens.class_logits(model, x, 3), model(x))
    for reads in (lambda t: t[:, 1:].mean(dim=1), lambda t: t.mean(dim=1), lambda t: t[:, -1]):
        with pytest.raises(ValueError, match="does not read the first token alone"):
            tokens.isolate_cls(Own(reads).eval(), x, 1)


def test_registers_that_nobody_told_of_are_no_patches():
    model, x = Own(lambda t: t[:, 0], registers=3).eval(), torch.rand(2, 3, 32, 32)
    assert tokens.patch_logits(model, x).shape == (2, 16, 10)
    assert tokens.similarity(model, x).shape == (4,)
    torch.testing.assert_close(tokens.isolate_cls(model, x, 0), model(x))
