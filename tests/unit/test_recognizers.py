"""Recognizers: padding changes nothing, gradients reach the waveform, and weights come in three forms."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.worlds.tiny_whisper import SIZE
from thesis_kit.evaluation.word_errors import word_errors
from thesis_kit.extras import MissingPackage
from thesis_kit.files import DamagedFile
from thesis_kit.models.speech import (
    Jasper,
    LogMel,
    Whisper,
    WhisperTokens,
    closed_set,
    ends_of,
    mel_filters,
    packaged,
    transcribe,
    whisper_from_file,
    write_down,
)
from thesis_kit.models.speech.ctranslate2 import read_ctranslate2
from thesis_kit.models.speech.whisper import sinusoids
from thesis_kit.recording import record, sites


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bands", "n_fft"), [(80, 400), (64, 512)])
def test_filters_are_torchaudio_s(bands, n_fft):
    functional = pytest.importorskip("torchaudio.functional", reason="the reference needs the extra [speech]")
    theirs = functional.melscale_fbanks(n_fft // 2 + 1, 0.0, 8000.0, bands, 16000, norm="slaney", mel_scale="slaney")
    assert torch.allclose(mel_filters(bands, n_fft), theirs.T, atol=1e-6)


def test_a_tone_is_in_its_band():
    front = LogMel(64)
    x = torch.sin(2 * np.pi * 1000 * torch.arange(16000) / 16000)[None]
    loudest = front.raw(x)[0, :, 10:90].argmax(dim=0)
    centers = mel_filters(64, 512).argmax(dim=1) * 16000 / 512
    assert (centers[loudest] - 1000).abs().max() < 50
    assert front(x).shape == (1, 64, 100)


def test_the_front_end_s_statistics_are_those_of_clips_not_of_padding():
    front, x = LogMel(16), noise(2, 4000)
    front.fit(x, torch.tensor([4000, 4000]))
    alone = front.mean.clone()
    front.fit(torch.nn.functional.pad(x, (0, 8000)), torch.tensor([4000, 4000]))
    assert torch.allclose(front.mean, alone, atol=0.05)
    assert front(x).mean().abs() < 0.05
    assert front(x).std() == pytest.approx(1, abs=0.05)


def test_padding_changes_nothing(jasper):
    x = noise(2, 5000)
    x[1, 3200:] = 0
    padded = torch.nn.functional.pad(x, (0, 4000))
    steps = jasper.steps(torch.tensor([5000, 3200]))
    one, other = jasper(x), jasper(padded)
    assert steps.tolist() == [16, 10]
    assert torch.allclose(one[0, :16], other[0, :16], atol=1e-5)
    assert torch.allclose(one[1, :10], other[1, :10], atol=1e-5)
    assert torch.allclose(jasper(x[1:, :3200])[0], one[1, :10], atol=1e-5)


def test_statistics_of_training_are_those_of_frames_inside(jasper):
    x, lengths = noise(2, 3200), torch.tensor([3200, 3200])
    networks = [Jasper(widths=(8,), kernels=(3,), first=8, last=8, bands=16, dropout=0, masked=0) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    networks[0].train()(x, lengths), networks[1].train()(torch.nn.functional.pad(x, (0, 3200)), lengths)
    means = [network.prologue.units[0].norm.running_mean for network in networks]
    assert torch.allclose(*means, atol=1e-3)
    assert means[0].abs().max() > 1e-2


def test_ends_are_told_by_zeros():
    x = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    assert ends_of(x).tolist() == [3, 5, 5]


@pytest.mark.parametrize("which", ["jasper", "whisper"])
def test_gradients_reach_the_waveform_also_from_silence(which, request):
    model = request.getfixturevalue(which)
    for x in (noise(2, 4000), torch.zeros(2, 4000)):
        x.requires_grad_()
        model(x).square().sum().backward()
        assert torch.isfinite(x.grad).all()
    x = noise(1, 4000).requires_grad_()
    model(x).square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("which", ["jasper", "whisper"])
@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(2, 1, 100), "one channel at 16 kHz"),
        (torch.full((1, 4000), torch.nan), "must be finite"),
        (torch.full((1, 4000), 30000.0), "look at the scale"),
        (torch.zeros(1, 0), "must have shape"),
    ],
    ids=["channels", "nan", "scale", "nothing"],
)
@pytest.mark.bad_input
def test_what_is_no_waveform_is_refused(which, x, said, request):
    with pytest.raises(ValueError, match=said):
        request.getfixturevalue(which)(x)


@pytest.mark.bad_input
def test_whole_numbers_are_refused(jasper):
    with pytest.raises(TypeError, match="divide samples of 16 bits by 32768"):
        jasper(torch.zeros(1, 4000, dtype=torch.int16))


def test_clips_shorter_than_the_receptive_field_work(jasper, whisper):
    assert jasper(noise(1, 10)).shape == (1, 1, 28)
    assert whisper(noise(1, 10)).shape == (1, 1, 64)


def test_sites_of_jasper(jasper):
    x = noise(2, 3200)
    seen = record(jasper, x, ["prologue.before", "blocks.0.before", "blocks.1", "epilogue"])
    assert seen["blocks.0.before"].shape == (2, 8, 10)
    assert (seen["blocks.0.before"] < 0).any()
    assert not (seen["blocks.1"] < 0).any()
    assert "blocks.1.residual" in sites(jasper) or "blocks.1" in dict(jasper.named_modules())


def test_a_dense_residual_reaches_every_later_block(jasper):
    assert [len(block.skips) for block in jasper.blocks] == [1, 2]


def test_transcripts_are_those_of_the_clip_alone(jasper):
    x = noise(3, 6400)
    x[1, 3200:] = 0
    together = transcribe(jasper, x, batch_size=2)
    assert together[1] == transcribe(jasper, x[1:2, :3200])[0]
    assert len(together) == 3


def test_word_errors():
    found = word_errors(["a cat sat", "dog"], ["a cat", "dog dog"])
    assert (found.errors, found.words) == (2, 4)
    assert word_errors(["one two three"], ["two one three"]).errors == 2
    assert word_errors(["one"], [""]).rate == 1
    with pytest.raises(ValueError, match="as many texts"):
        word_errors(["a"], [])
    with pytest.raises(ValueError, match="no word was said"):
        word_errors([""], ["a"])


def test_sites_of_whisper(whisper):
    x = noise(2, 3200)
    listed = sites(whisper)
    assert {"blocks.1.hidden", "blocks.1.q", "blocks.0.attention_map", "blocks.1.residual"} <= set(listed)
    seen = record(whisper, x, ["blocks.1.hidden", "blocks.1.mlp.fc1", "blocks.0.attention_map"])
    assert seen["blocks.1.hidden"].shape == (2, 10, 256)
    assert torch.allclose(seen["blocks.1.hidden"], torch.nn.functional.gelu(seen["blocks.1.mlp.fc1"]), atol=1e-6)
    assert torch.allclose(seen["blocks.0.attention_map"].sum(-1), torch.ones(2, 1, 10), atol=1e-5)


def test_whisper_pads_to_its_window_and_refuses_more(whisper):
    padded = Whisper(SIZE, seconds=0.5)
    assert padded(noise(1, 3200)).shape[1] == 25
    assert whisper.steps(torch.tensor([3200, 1])).tolist() == [10, 1]
    with pytest.raises(ValueError, match=r"may last 2 s, got 2\.2: cut it into pieces"):
        whisper(noise(1, 35200))


def test_positions_are_sinusoids():
    assert torch.allclose(sinusoids(4, 8)[1, :2], torch.tensor([np.sin(1.0), np.sin(10_000 ** (-1 / 3))]).float())
    assert torch.allclose(sinusoids(4, 8)[0], torch.tensor([0.0] * 4 + [1.0] * 4))


def written_by_ctranslate2(variables, path):
    """The binary form, written from its description."""
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        array = value.numpy()
        kind = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}[array.dtype.name]
        data += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    aliases = struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    path.write_bytes(data + aliases)


def ctranslate2_names(model):
    """The weights under CTranslate2's names, with q, k and v stacked."""
    state, found = model.state_dict(), {}
    zero = torch.zeros(model.size.width)
    for side, own in (("encoder", ""), ("decoder", "decoder.")):
        found[f"{side}/position_encodings/encodings"] = state[f"{own}positions"]
        layers = [("layer_norm", f"{own}norm")]
        depth = model.size.depth if side == "encoder" else model.size.decoder_depth
        for block in range(depth):
            at, ours = f"layer_{block}", f"{own}blocks.{block}"
            layers += [(f"{at}/self_attention/layer_norm", f"{ours}.norm1"), (f"{at}/ffn/layer_norm", f"{ours}.norm2"),
                       (f"{at}/ffn/linear_0", f"{ours}.mlp.fc1"), (f"{at}/ffn/linear_1", f"{ours}.mlp.fc2"),
                       (f"{at}/self_attention/linear_1", f"{ours}.attn.out")]  # fmt: skip
            stacked = [f"{ours}.attn.{part}" for part in "qkv"]
            stack(found, f"{side}/{at}/self_attention/linear_0", stacked, state, zero)
            if side == "decoder":
                layers += [(f"{at}/attention/layer_norm", f"{ours}.norm_cross"),
                           (f"{at}/attention/linear_0", f"{ours}.cross.q"),
                           (f"{at}/attention/linear_2", f"{ours}.cross.out")]  # fmt: skip
                stack(found, f"{side}/{at}/attention/linear_1", [f"{ours}.cross.{part}" for part in "kv"], state, zero)
        for theirs, ours in layers:
            names = ("gamma", "beta") if theirs.endswith("norm") else ("weight", "bias")
            for name, kind in zip(names, ("weight", "bias"), strict=True):
                found[f"{side}/{theirs}/{name}"] = state[f"{ours}.{kind}"]
    for name in ("conv1", "conv2"):
        found |= {f"encoder/{name}/{kind}": state[f"{name}.{kind}"] for kind in ("weight", "bias")}
    return found | {"decoder/embeddings/weight": state["decoder.embedding.weight"]}


def stack(found, name, parts, state, zero):
    found[f"{name}/weight"] = torch.cat([state[f"{part}.weight"] for part in parts])
    found[f"{name}/bias"] = torch.cat([state.get(f"{part}.bias", zero) for part in parts])


OPENAI = [(".mlp.fc1.", ".mlp.0."), (".mlp.fc2.", ".mlp.2."), (".q.", ".query."), (".k.", ".key."), (".v.", ".value."),
          (".norm_cross.", ".cross_attn_ln."), (".cross.", ".cross_attn."), (".norm1.", ".attn_ln."),
          (".norm2.", ".mlp_ln.")]  # fmt: skip
HUGGING_FACE = [(".blocks.", ".layers."), (".mlp.fc", ".fc"), (".q.", ".q_proj."), (".k.", ".k_proj."),
                (".v.", ".v_proj."), (".out.", ".out_proj."), (".norm_cross.", ".encoder_attn_layer_norm."),
                (".cross.", ".encoder_attn."), (".norm1.", ".self_attn_layer_norm."), (".attn.", ".self_attn."),
                (".norm2.", ".final_layer_norm.")]  # fmt: skip


def theirs(model, names, special):
    found = {}
    for name, value in model.state_dict().items():
        name = special.get(name, name)
        for special_start, instead in special.items():
            if special_start.endswith(".") and name.startswith(special_start):
                name = instead + name.removeprefix(special_start)
        name = name if name.startswith("decoder.") else f"encoder.{name}"
        for ours, other in names:
            name = name.replace(ours, other)
        found[name] = value.clone()
    return found


def in_form(form, model, folder):
    """A file of the weights in one of the published forms."""
    if form == "openai":
        state = theirs(model, OPENAI, {"norm.": "ln_post.", "decoder.norm.": "decoder.ln.",
                                       "decoder.embedding.": "decoder.token_embedding.",
                                       "positions": "positional_embedding",
                                       "decoder.positions": "decoder.positional_embedding"})  # fmt: skip
        torch.save({"dims": {"n_mels": 16}, "model_state_dict": state}, folder / "w.pt")
        return folder / "w.pt"
    if form == "hugging face":
        state = theirs(model, HUGGING_FACE, {"norm.": "layer_norm.", "decoder.norm.": "decoder.layer_norm.",
                                             "decoder.embedding.": "decoder.embed_tokens.",
                                             "positions": "embed_positions.weight",
                                             "decoder.positions": "decoder.embed_positions.weight"})  # fmt: skip
        save_file({f"model.{name}": value for name, value in state.items()}, folder / "model.safetensors")
        return folder
    written_by_ctranslate2(ctranslate2_names(model), folder / "model.bin")
    return folder


@pytest.mark.parametrize("form", ["openai", "hugging face", "ctranslate2"])
def test_weights_come_in_three_forms(form, whisper, tmp_path):
    found = whisper_from_file(in_form(form, whisper, tmp_path))
    assert found.size == SIZE
    x, tokens = noise(2, 3200), torch.tensor([[1, 2, 3]])
    assert torch.equal(found(x), whisper(x))
    assert torch.equal(found.read(tokens, found(x)[:1]), whisper.read(tokens, whisper(x)[:1]))


def test_a_file_of_ctranslate2(tmp_path):
    held = {"a/b": torch.arange(6).half().view(2, 3), "decoder/embeddings/weight": torch.ones(2, dtype=torch.int8)}
    written_by_ctranslate2(held, tmp_path / "m.bin")
    specification, variables = read_ctranslate2(tmp_path / "m.bin")
    assert specification == "WhisperSpec"
    assert variables["a/b"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert variables["decoder/projection/weight"] is variables["decoder/embeddings/weight"]


@pytest.mark.parametrize("form", ["openai", "hugging face", "ctranslate2"])
def test_half_a_file_is_refused(form, whisper, tmp_path):
    path = in_form(form, whisper, tmp_path)
    path = next(path.iterdir()) if path.is_dir() else path
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DamagedFile):
        whisper_from_file(path)


def test_a_pickle_with_code_is_refused(tmp_path):
    torch.save({"model_state_dict": print}, tmp_path / "w.pt")
    with pytest.raises(DamagedFile, match="other things than weights"):
        whisper_from_file(tmp_path / "w.pt")


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor model\.bin"):
        whisper_from_file(tmp_path)


def test_weights_that_are_missing_are_named(whisper, tmp_path):
    state = {f"model.encoder.{name}": value.clone() for name, value in whisper.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DamagedFile, match="do not make a Whisper"):
        whisper_from_file(tmp_path)


@pytest.fixture
def tokens(tmp_path):
    """An encoding with three merges, over a vocabulary of 36 tokens."""
    letters = ["Ġ", *"abcdefghijklmnopqrstuvwxyz."]
    merges = ["Ġ c", "a t", "Ġc at"]
    vocabulary = {token: place for place, token in enumerate([*letters, "Ġc", "at", "Ġcat"])}
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    added = [{"content": mark, "id": len(vocabulary) + place} for place, mark in enumerate(marks)]
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": vocabulary, "merges": merges}, "added_tokens": added})
    )
    return WhisperTokens(tmp_path)


def test_byte_pairs(tokens):
    assert [tokens.decode([number]) for number in tokens.encode(" cat at ca.")] == [" cat", " ", "at", " c", "a", "."]
    assert tokens.decode([*tokens.prompt, *tokens.encode(" cat sat."), tokens.end]) == " cat sat."


def test_a_closed_set_is_scored_as_the_texts_themselves(whisper, tokens):
    x, texts = noise(2, 3200), [" cat", " a."]
    scores = closed_set(whisper, tokens, x, texts, seconds=0.3)
    assert whisper.seconds is None
    row = torch.tensor([[*tokens.prompt, *tokens.encode(" a."), tokens.end]])
    heard = Whisper.forward(whisper, torch.nn.functional.pad(x[:1], (0, 1600)))
    told = whisper.read(row[:, :-1], heard).log_softmax(-1)[0].gather(-1, row[0, 1:, None])[1:].sum()
    assert scores[0, 1].item() == pytest.approx(told.item(), abs=1e-4)


def test_greedy_transcripts_end(whisper, tokens):
    texts = write_down(whisper, tokens, noise(2, 3200), seconds=0.3, longest=5)
    assert len(texts) == 2
    assert all(len(tokens.encode(text)) <= 6 for text in texts)


def test_the_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(packaged, "PACKAGE", "no-such-package")
    with pytest.raises(MissingPackage, match=r"\[real\]"):
        packaged.whisper_tiny_en()


def test_whisper_tiny_en_reads_a_synthetic_voice():
    pytest.importorskip("espeakng_loader", reason="speech needs the extra [speech]")
    try:
        model, tokens = packaged.whisper_tiny_en()
    except MissingPackage as error:
        pytest.skip(str(error))
    from thesis_kit.data.speech import say

    words = [" Seven.", " Window.", " Tiger.", " Paper."]
    clip = say("window", "en-gb+f4")
    assert closed_set(model, tokens, clip.waveform[None], words).argmax().item() == 1
