"""What is said about a recognizer's layers: probes on features with known content, pieces, optima, metamers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from thesis_kit.data.speech import Clip, Segment, Utterance
from thesis_kit.sonification import (
    before_nonlinearity,
    change,
    edited,
    layers,
    one_shot,
    over_pieces,
    pieces,
    playable,
    pooled,
    probe,
    resynthesize,
    sonify,
    states,
    targeted,
    top_segments,
    voices_meet,
    within,
    without,
)
from thesis_kit.sonification.states import layouts


def tone(hertz, seconds=0.3, level=0.1):
    return level * torch.sin(2 * np.pi * hertz * torch.arange(round(seconds * 16000)) / 16000)


def made(hertz, name="a", voice="v", text="a"):
    """A clip of two tones, of which the second is a phone of its own."""
    x = torch.cat([tone(300), tone(hertz)])
    phones = (Segment(0, 0.3, "low"), Segment(0.3, 0.6, name))
    return Clip(x, text, phones, (Segment(0, 0.6, text),), said=Utterance(text, voice))


CLIPS = [made(1000, "b"), made(2000, "c"), made(3000, "d")]


# -- states


@pytest.mark.parametrize(("which", "name", "expected"), [
    ("jasper", "blocks.0", (2, 8, 320)), ("jasper", "front", (2, 16, 160)), ("whisper", "blocks.1", (1, 64, 320)),
    ("whisper", "conv1", (2, 64, 160)), ("whisper", "blocks.0.hidden", (1, 256, 320)),
])  # fmt: skip
def test_time_is_found(which, name, expected, request):
    found = layouts(request.getfixturevalue(which), [name])[name]
    assert (found.time, found.units, found.samples) == expected


def test_layers_go_from_the_first_to_the_last(jasper, whisper):
    assert layers(jasper) == ["front", "prologue", "blocks.0", "blocks.1", "epilogue"]
    assert layers(whisper) == ["front", "conv1", "conv2", "blocks.0", "blocks.1"]
    with pytest.raises(ValueError, match="no blocks with a residual stream"):
        layers(nn.Linear(3, 3))


def test_states_are_those_of_the_clip_alone(jasper):
    clips = [Clip(tone(500, 0.3), ""), Clip(tone(700, 0.5), "")]
    together = states(jasper, clips, ["blocks.1"])["blocks.1"]
    alone = states(jasper, clips[:1], ["blocks.1"])["blocks.1"]
    assert [len(row) for row in together] == [15, 25]
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.allclose(pooled(jasper, clips, "blocks.1")["blocks.1"][1], together[1].mean(dim=0))


def test_a_layer_that_does_not_follow_time_is_refused():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AdaptiveAvgPool1d(4)

        def forward(self, x):
            return self.pool(x[:, None])

    with pytest.raises(ValueError, match="one of two axes must grow"):
        layouts(Fixed(), ["pool"])


def test_pieces_and_their_means(jasper):
    parts = pieces(CLIPS)
    assert [(part.clip, part.name) for part in parts][:2] == [(0, "low"), (0, "b")]
    kept = {"x": [torch.arange(30.0)[:, None] for _ in CLIPS]}
    assert over_pieces(kept, CLIPS, parts)["x"][:2, 0].tolist() == [7.0, 22.0]
    with pytest.raises(ValueError, match="no phones with times"):
        pieces([Clip(tone(100), "")])
    with pytest.raises(ValueError, match="by 'phone' or 'word'"):
        pieces(CLIPS, "letter")


def test_the_best_piece_of_a_band_is_its_tone(jasper):
    bands = jasper.front.filters.argmax(dim=1) * 16000 / 512
    units = [(bands - hertz).abs().argmin().item() for hertz in (1000, 2000, 3000)]
    best = top_segments(jasper, CLIPS, "front", units, k=2)
    assert [top[0].piece.name for top in best] == ["b", "c", "d"]
    assert all(top[0].value > top[1].value for top in best)
    with pytest.raises(ValueError, match=r"front has the units 0 … 15, got \[16\]"):
        top_segments(jasper, CLIPS, "front", [16])


def test_a_foreign_recognizer_is_taken_as_it_comes():
    """torchaudio's wav2vec 2.0: in training mode, with LayerDrop, returning a tuple; no layer may be missing."""
    models = pytest.importorskip("torchaudio.models", reason="wav2vec 2.0 needs the extra [speech]")
    torch.manual_seed(0)
    convolutions = [(16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2]
    model = models.wav2vec2_model(
        extractor_mode="group_norm", extractor_conv_layer_config=convolutions, extractor_conv_bias=False,
        encoder_embed_dim=16, encoder_projection_dropout=0.1, encoder_pos_conv_kernel=16, encoder_pos_conv_groups=4,
        encoder_num_layers=3, encoder_num_heads=2, encoder_attention_dropout=0.1, encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.1, encoder_dropout=0.1, encoder_layer_norm_first=False, encoder_layer_drop=0.9,
        aux_num_out=None,
    ).train()  # fmt: skip
    names = layers(model)
    assert [name.rpartition(".")[2] for name in names] == ["residual"] * 3
    seen = states(model, [Clip(tone(500, 0.5), ""), Clip(tone(700, 0.7), "")], names)
    assert [[tuple(row.shape) for row in seen[name]] for name in names] == [[(25, 16), (34, 16)]] * 3  # it pads nothing
    assert model.training
    hidden = names[1].replace("residual", "hidden")
    found = sonify(model, hidden, [3], seconds=0.1, steps=3, copies=2)
    assert found.layer.endswith("layers.1.feed_forward.intermediate_dense")
    assert found.after[0] > found.before[0]


# -- probes


def known(n=300, width=20, seed=0):
    """Features with a number and a class in them, by groups."""
    drawn = torch.Generator().manual_seed(seed)
    features = torch.randn(n, width, generator=drawn)
    return features, [int(g) for g in torch.randint(30, (n,), generator=drawn)]


def test_a_number_in_the_features_is_read_and_one_that_is_not_scores_zero():
    features, groups = known()
    there = features @ torch.linspace(-1, 1, 20)
    assert probe(features, there, groups).score > 0.98
    absent = torch.randn(300, generator=torch.Generator().manual_seed(9))
    assert probe(features, absent, groups).score < 0.05


def test_classes_are_read():
    features, groups = known()
    classes = features[:, :4].argmax(dim=1)
    assert probe(features, classes, groups).score > 0.75
    assert probe(features[:, 4:], classes, groups).score < 0.4


def test_what_only_the_group_tells_is_not_read():
    """A number that belongs to the group, and is in the features as the group's own direction, does not carry over."""
    _, groups = known()
    own = torch.randn(30, 20, generator=torch.Generator().manual_seed(1))
    value = torch.randn(30, generator=torch.Generator().manual_seed(2))
    assert probe(own[groups], value[groups], groups).score < 0.1


def test_units_that_hardly_move_do_not_explode():
    features, groups = known()
    there = features[:, 0].clone()
    features[:, 10:] = 1e-7 * features[:, 10:]
    features[5, 15] = 1.0
    assert probe(features, there, groups).score > 0.95


@pytest.mark.parametrize(("change", "said"), [
    (lambda f, g: (f, f[:, 0], [0] * 300), "on groups that it was not fitted on"),
    (lambda f, g: (f, f[:5, 0], g), "a row, a target and a group for each item"),
    (lambda f, g: (f * torch.nan, f[:, 0], g), "features hold NaN"),
], ids=["groups", "lengths", "nan"])  # fmt: skip
def test_what_cannot_be_probed_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        probe(*change(*known()))


def test_within_and_without():
    values, voices = torch.tensor([1.0, 3.0, 10.0, 20.0]), ["a", "a", "b", "b"]
    assert within(values, voices).tolist() == [-1, 1, -5, 5]
    features, _ = known()
    nuisance = torch.randn(300, generator=torch.Generator().manual_seed(3))
    left = without(features + nuisance[:, None] - 0.3 * nuisance.square()[:, None], nuisance)
    corr = torch.corrcoef(torch.cat([left.T, nuisance[None]]))[-1, :-1]
    assert corr.abs().max() < 1e-4
    assert torch.allclose(left, without(features, nuisance), atol=1e-4)


def speech_like(voice_weight):
    """Features of 20 words by 5 voices: a word's direction, and the voice's times a weight."""
    drawn = torch.Generator().manual_seed(0)
    word, voice = torch.randn(20, 40, generator=drawn), torch.randn(5, 40, generator=drawn)
    names = [(w, v) for w in range(20) for v in range(5)]
    features = torch.stack([word[w] + voice_weight * voice[v] for w, v in names])
    return features, [f"w{w}" for w, _ in names], [f"v{v}" for _, v in names]


def test_one_clip_a_word_is_enough_where_voices_are_faint():
    assert one_shot(*speech_like(0.1)).score == 1
    assert one_shot(torch.randn(100, 40), *speech_like(0)[1:]).score < 0.15
    with pytest.raises(ValueError, match="in another voice"):
        one_shot(torch.randn(3, 4), ["a", "b", "c"], ["v"] * 3)


def test_voices_meet_where_they_are_faint():
    near, far = (voices_meet(*speech_like(weight), pairs=500) for weight in (0.1, 3.0))
    assert near < -1.5
    assert far > 0.5


# -- optima


def test_the_place_before_a_nonlinearity(jasper, whisper):
    assert before_nonlinearity(jasper, "blocks.1") == "blocks.1.before"
    assert before_nonlinearity(whisper, "blocks.1.hidden") == "blocks.1.mlp.fc1"
    assert before_nonlinearity(whisper, "blocks.1") == "blocks.1"


@pytest.mark.parametrize("form", ["stft", "wave"])
def test_a_band_s_optimum_is_in_the_band(form, jasper):
    bands = jasper.front.filters.argmax(dim=1) * 16000 / 512
    unit = (bands - 2000).abs().argmin().item()
    found = sonify(jasper, "front", [unit], seconds=0.1, form=form, steps=25, copies=2, quiet=100.0)
    power = torch.fft.rfft(found.waveforms[0]).abs().square()
    hertz = torch.fft.rfftfreq(len(found.waveforms[0]), 1 / 16000)
    near = (hertz - bands[unit]).abs() < 400
    assert found.after[0] > found.before[0] + 1
    assert power[near].sum() / power.sum() > 0.5


def test_units_are_optimized_before_their_nonlinearity_and_do_not_meet(whisper):
    both = sonify(whisper, "blocks.1.hidden", [3, 200], seconds=0.2, steps=8, copies=2)
    alone = sonify(whisper, "blocks.1.hidden", [3], seconds=0.2, steps=8, copies=2)
    assert both.layer == "blocks.1.mlp.fc1"
    assert both.waveforms.shape == (2, 3200)
    assert (both.after > both.before).all()
    assert torch.allclose(both.waveforms[:1], alone.waveforms, atol=1e-4)


def test_a_start_is_the_best_real_piece(jasper):
    bands = jasper.front.filters.argmax(dim=1) * 16000 / 512
    unit = (bands - 2000).abs().argmin().item()
    found = sonify(jasper, "front", [unit], seconds=0.2, form="wave", steps=1, lr=1e-9, clips=CLIPS)
    power = torch.fft.rfft(found.waveforms[0]).abs()
    assert torch.fft.rfftfreq(3200, 1 / 16000)[power.argmax()] == pytest.approx(2000, abs=20)
    assert found.waveforms.abs().max() == pytest.approx(0.03, rel=0.05)


def test_a_dead_start_is_named():
    class Off(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(x.unfold(1, 160, 160) - 5)

    with pytest.warns(UserWarning, match=r"the units \[0\] of relu have no gradient at the start"):
        sonify(Off(), "relu", [0], seconds=0.1, steps=1)


def test_what_cannot_be_sonified_is_refused(jasper):
    with pytest.raises(ValueError, match=r"has the units 0 … 7, got \[8\]"):
        sonify(jasper, "blocks.0", [8])
    with pytest.raises(ValueError, match=r"at least, got 0\.01"):
        sonify(jasper, "blocks.0", [0], seconds=0.01)


def test_what_is_played_is_as_loud_as_the_rest_and_has_no_clicks():
    for level in (0.01, 0.5):
        played = playable(tone(440, 0.5, level))
        assert played.square().mean().sqrt() == pytest.approx(0.08, rel=0.05)
        assert played[0] == 0
        assert played[-1] == 0
    assert not playable(torch.zeros(1000)).any()
    assert playable(torch.eye(1, 8000)[0]).abs().max() <= 0.95


# -- changes


def test_a_metamer_of_the_spectrum_comes_near_and_has_its_length(jasper):
    clips = [Clip(tone(500, 0.2), ""), Clip(tone(900, 0.1), "")]
    found = resynthesize(jasper, clips, "front", steps=40, seeds=(0, 1))
    assert [[len(x) for x in row] for row in found.waveforms] == [[3200, 3200], [1600, 1600]]
    assert found.distances.shape == (2, 2)
    assert (found.distances < 0.6).all()
    assert not torch.equal(*found.waveforms[0])
    alone = resynthesize(jasper, clips[:1], "front", steps=40)
    assert torch.allclose(alone.waveforms[0][0], found.waveforms[0][0], atol=1e-3)


def test_change_is_none_for_the_same_and_one_for_a_stranger(jasper):
    assert change(jasper, CLIPS, CLIPS, ["front"])["front"].abs().max() < 1e-5
    moved = change(jasper, CLIPS, [CLIPS[1], CLIPS[2], CLIPS[0]], ["front"])["front"]
    assert moved.mean().item() == pytest.approx(1, abs=0.01)


def test_edits_change_one_thing():
    pytest.importorskip("espeakng_loader", reason="speech needs the extra [speech]")
    from thesis_kit.data.speech import say

    clip = say("morning", "en-us+f2", pitch=40)
    (higher,) = edited([clip], semitones=5)
    assert np.log2(higher.f0 / clip.f0) * 12 == pytest.approx(5, abs=0.5)
    assert [phone.name for phone in higher.phones] == [phone.name for phone in clip.phones]
    assert edited([clip], voice="en-us+m3")[0].f0 < 0.8 * clip.f0
    with pytest.raises(ValueError, match="only synthesized clips"):
        edited([Clip(tone(100), "")])


class Spelling(nn.Module):
    """A recognizer by loudness: an "a" where a step is loud, a blank where it is not."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(200.0))

    def steps(self, lengths):
        return lengths // 320

    def forward(self, x, lengths=None):
        loud = x.unfold(1, 320, 320).square().mean(dim=2)  # (n, steps)
        logits = torch.zeros(*loud.shape, 28, dtype=x.dtype)
        logits[..., 2] = self.scale * (loud - 0.02)
        return logits


def test_a_text_is_forced_quietly():
    clip = Clip(0.01 * torch.randn(3200, generator=torch.Generator().manual_seed(0)), "")
    found = targeted(Spelling(), clip, "a", eps=0.3, steps=60)
    assert found.succeeded
    assert found.heard == "a"
    assert found.linf < 0.3
    assert found.snr < 0
    with pytest.raises(ValueError, match="needs 25 steps and the clip has 10"):
        targeted(Spelling(), clip, "a" * 13)


def test_nothing_is_left_behind(jasper):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jasper.train()
        pooled(jasper, CLIPS, "epilogue")
        assert jasper.training
        assert not any(module._forward_hooks for module in jasper.modules())
        jasper.eval()


def test_a_wrapped_network_has_the_place_before_its_nonlinearity_too(whisper):
    inside = before_nonlinearity(whisper, "blocks.0.hidden")
    assert before_nonlinearity(nn.DataParallel(whisper), "blocks.0.hidden") == inside != "blocks.0.hidden"


def test_nothing_that_could_be_read_off_is_refused():
    features, words = torch.rand(6, 3), ["a", "b", "c", "d", "e", "f"]
    with pytest.raises(ValueError, match="the target is the same for all items"):
        probe(features, torch.ones(6), words)
    with pytest.raises(ValueError, match="no word is said by two of the voices"):
        one_shot(features, words, ["v", "w"] * 3)
    with pytest.raises(ValueError, match="voices meet where two say one word"):
        voices_meet(features, words, ["v", "w"] * 3)


def test_a_text_is_taken_as_it_is_heard():
    clip = Clip(0.01 * torch.randn(3200, generator=torch.Generator().manual_seed(0)), "")
    found = targeted(Spelling(), clip, "  A ", eps=0.3, steps=60)
    assert found.succeeded == targeted(Spelling(), clip, "a", eps=0.3, steps=60).succeeded is True


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1000), (-1,)])
def test_seeds_of_sounds_are_different_small_numbers(seeds, jasper):
    with pytest.raises(ValueError, match="seeds must be different whole numbers from 0 to 999"):
        resynthesize(jasper, [made(200)], "blocks.0", steps=1, seeds=seeds)


def test_no_clips_have_no_states(jasper):
    with pytest.raises(ValueError, match="there are no clips"):
        states(jasper, [], "blocks.0")
