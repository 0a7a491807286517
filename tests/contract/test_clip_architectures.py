"""open_clip's architectures by their own names, with random weights: both kinds of image tower and of text tower."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thesis_kit import attacks, recording
from thesis_kit.chapters.clip import published_units, twin_measures
from thesis_kit.checks import UnknownName
from thesis_kit.data import Part, Splits
from thesis_kit.extras import MissingPackage
from thesis_kit.language import name_by_text, zero_shot
from thesis_kit.models import build, build_clip
from thesis_kit.models.clip_build import _Pieces
from thesis_kit.models.pretrained import WeightsUnavailable

open_clip = pytest.importorskip("open_clip", reason="the extra clip brings open_clip")
from open_clip.modified_resnet import AttentionPool2d  # noqa: E402
from open_clip.transformer import QuickGELU, TextTransformer  # noqa: E402

PAIRS = {
    "ViT-B-32": {"force_quick_gelu": True},  # its text tower among the whole's own layers
    "RN50": {"force_custom_text": True},  # its text tower a module of its own
}


@pytest.fixture(scope="module", params=list(PAIRS))
def pair(request):
    return request.param, build_clip(request.param, seed=0, **PAIRS[request.param]).eval()


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, 80, 80, generator=torch.Generator().manual_seed(0))


def test_towers_are_those_of_the_name(pair):
    name, clip = pair
    kinds = [type(module) for module in clip.modules()]
    if name == "RN50":
        assert AttentionPool2d in kinds
        assert type(clip.text) is TextTransformer
    else:
        assert QuickGELU in kinds
        assert nn.GELU not in kinds
    assert clip.image.size == (224, 224)
    assert clip.scale.item() == pytest.approx(1 / 0.07, rel=1e-4)


def test_pixels_and_sentences_end_in_one_space(pair):
    name, clip = pair
    with torch.no_grad():
        seen, said = clip.encode_image(images()), clip.encode_text(["a photo of a cat", "a photo of a dog"])
    assert seen.shape == said.shape == (2, 512 if name == "ViT-B-32" else 1024)
    assert torch.allclose(seen.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(said.norm(dim=1), torch.ones(2), atol=1e-5)
    assert not torch.allclose(said[0], said[1], atol=1e-4)


def test_it_says_what_open_clip_says(pair):
    """With open_clip's own normalization, tokenizer and text tower."""
    name, clip = pair
    network = open_clip.create_model(name, **PAIRS[name]).eval()
    theirs = network.visual
    theirs.load_state_dict(clip.image.network.state_dict())
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (theirs.image_mean, theirs.image_std))
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    tokens = open_clip.get_tokenizer(name)(["a photo of a cat"])
    assert torch.equal(clip.tokenizer(["a photo of a cat"]), tokens)
    with torch.no_grad():
        expected = nn.functional.normalize(theirs((x - mean) / std), dim=1)
        assert torch.allclose(clip.encode_image(x), expected, atol=1e-5)


def test_zero_shot_is_attacked_for_a_step(pair):
    _, clip = pair
    model = zero_shot(clip, ["cat", "dog"], ("a photo of a {}",))
    x = images()
    y = model(x).argmax(dim=1).detach()
    x_adv = attacks.pgd(model, x, y, eps=8 / 255, steps=1)
    assert model(x_adv).shape == (2, 2)
    assert (x_adv - x).abs().max() <= 8 / 255 + 1e-6


def test_a_prompt_that_open_clip_would_cut_short_is_refused(pair):
    _, clip = pair
    assert clip.tokenizer(["cat " * 75]).shape == (1, 77)
    with pytest.raises(ValueError, match="78 tokens is longer than the context of 77"):
        clip.encode_text(["cat " * 76])
    with pytest.raises(ValueError, match="without a word says nothing"):
        clip.encode_text(["cat", ""])


def test_length_is_counted_to_the_end_mark_whatever_stands_before(pair):
    _, clip = pair
    long = "a star " + "!$ " * 40  # "!" is the token 0, which also fills up
    with pytest.raises(ValueError, match="85 tokens is longer than the context of 77"):
        clip.tokenizer([f"{long}red"])
    row = clip.tokenizer(["!$ a star"])[0].tolist()
    assert 0 in row[: row.index(49407)]
    with pytest.raises(ValueError, match="holds a mark of a sentence's beginning or end"):
        clip.tokenizer(["a red <end_of_text> star"])


def test_a_tokenizer_of_pieces_reads_what_has_no_letters():
    clip = build_clip("ViT-B-32", seed=0)
    assert clip.tokenizer(["🦊"]).shape == (1, 77)
    with pytest.raises(ValueError, match="a sentence without a word says nothing"):
        clip.tokenizer([" "])


class Padded:
    """A tokenizer of the kind whose end mark also fills up, as SigLIP's."""

    tokenizer = type("Inner", (), {"pad_token_id": 1, "eos_token_id": 1})()

    def __call__(self, texts, context_length):
        rows = [[5 + len(word) for word in text.split()] + [1] for text in texts]
        return torch.tensor([(row + [1] * context_length)[:context_length] for row in rows])


def test_an_end_mark_that_also_fills_up_is_counted():
    pieces = _Pieces(Padded(), context=4)
    assert pieces(["a red star"]).tolist() == [[6, 8, 9, 1]]
    with pytest.raises(ValueError, match="5 tokens is longer than the context of 4"):
        pieces(["a red star here"])


def test_coca_s_towers_give_features_alone():
    config = open_clip.get_model_config("coca_ViT-B-32")
    small = {"layers": 1, "width": 64, "heads": 2}
    config["vision_cfg"] |= {"layers": 1, "width": 64, "image_size": 32, "head_width": 32, "attn_pooler_heads": 4}
    config["text_cfg"] |= small
    config["multimodal_cfg"] |= {**small, "dim_head": 32}
    open_clip.factory._MODEL_CONFIGS["tiny-coca"] = {**config, "embed_dim": 64}
    try:
        clip = build_clip("tiny-coca", seed=0).eval()
    finally:
        del open_clip.factory._MODEL_CONFIGS["tiny-coca"]
    with torch.no_grad():
        assert clip.similarity(images(), ["a dog", "a cat", "a star"]).shape == (2, 3)


@pytest.mark.bad_input
def test_files_that_hold_no_weights_are_named(tmp_path):
    missing, junk, other = tmp_path / "none.pt", tmp_path / "junk.pt", tmp_path / "other.pt"
    junk.write_bytes(b"no weights")
    torch.save(nn.Linear(2, 2).state_dict(), other)
    with pytest.raises(WeightsUnavailable, match=r"there is no file .*none\.pt"):
        build_clip("ViT-B-32", pretrained=missing)
    for file in (junk, other):
        with pytest.raises(ValueError, match=f"{file.name} holds no weights of ViT-B-32"):
            build_clip("ViT-B-32", pretrained=str(file))
    with pytest.raises(WeightsUnavailable, match="there is no folder"):
        build_clip(f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(UnknownName, match="unknown place of a model in 'foo:bar'"):
        build_clip("foo:bar")
    with pytest.raises(ValueError, match="precision='fp16' mixes precisions"):
        build_clip("ViT-B-32", precision="fp16")


def test_what_a_tokenizer_lacks_is_named(monkeypatch):
    def without(name):
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: None)
    monkeypatch.setattr(open_clip, "get_tokenizer", without)
    with pytest.raises(MissingPackage, match="the package transformers is not installed"):
        build_clip("ViT-B-32")


def test_units_behind_quick_gelu_can_be_recorded(pair):
    name, clip = pair
    if name == "RN50":
        pytest.skip("a ResNet has no units behind a GELU")
    layer = "network.transformer.resblocks.0.mlp.gelu"
    seen = recording.record(clip.image, images(), [layer])
    assert seen[layer].shape[-1] == 3072


@pytest.mark.parametrize(
    ("name", "tag", "said"),
    [
        ("ViT-B-33", None, "unknown image–text model 'ViT-B-33': did you mean ViT-B-32"),
        ("ViT-B-32", "opnai", "unknown tag 'opnai' of ViT-B-32: it has openai"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, tag, said):
    with pytest.raises(UnknownName, match=said):
        build_clip(name, pretrained=tag)


def test_without_a_connection_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr("thesis_kit.models.clip_build.reachable", lambda url: False)
    monkeypatch.setattr(open_clip, "create_model", _failing)
    with pytest.raises(WeightsUnavailable, match=r"huggingface.co does not answer.*leave out pretrained") as caught:
        build_clip("RN50", pretrained="openai")
    assert "\n" not in str(caught.value)


def _failing(*args, **kwargs):
    raise RuntimeError("Failed to download file")


def test_units_of_published_networks_are_named_on_photographs(monkeypatch):
    clip, other = build_clip("ViT-B-32", seed=0), build("vit_tiny_patch16_224", seed=0).eval()
    asked_for = []
    monkeypatch.setattr(published_units, "build_clip", lambda name, **how: asked_for.append((name, how)) or clip)
    monkeypatch.setattr(published_units, "build", lambda name, **how: asked_for.append((name, how)) or other)
    x = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    part = Part(x, torch.arange(4), torch.arange(4))
    monkeypatch.setattr(published_units.data, "imagenette", lambda *, size, n_test: Splits(part, part, part))
    few = type("Few", (), {"label_descriptions": lambda self: ["tench, Tinca tinca", "orange", "crane"]})
    monkeypatch.setattr(timm.data, "ImageNetInfo", few)
    found = published_units.named_units("ViT-B-32", "openai", "vit_tiny", 4, strongest=2)
    assert asked_for == [
        ("ViT-B-32", {"pretrained": "openai"}), ("vit_tiny", {"pretrained": True}), ("vit_tiny", {"seed": 0}),
    ]  # fmt: skip
    pair, labeled, untrained = found.values()
    a = twin_measures.late_units(clip.image, x)
    names, _ = name_by_text(clip, a, x, ["a tench", "an orange", "a crane", *published_units.NO_CLASS], k=2)
    assert pair[0] == pytest.approx((names >= 3).double().mean().item())
    assert labeled == untrained  # here they are one network
    exchanged = a[torch.randperm(4, generator=torch.Generator().manual_seed(0))]
    names, _ = name_by_text(clip, exchanged, x, ["a tench", "an orange", "a crane", *published_units.NO_CLASS], k=2)
    assert pair[1] == pytest.approx((names >= 3).double().mean().item())
