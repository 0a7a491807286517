"""wav2vec 2.0 and its kin by torchaudio's names, with random weights: shapes, layers, padding, letters, gradients.

Pipelines go through torchaudio's own loading code, with random weights in place of what it downloads; only the base
network is in its full size.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torchaudio
from torch import nn

from thesis_kit import sonification
from thesis_kit.checks import UnknownName
from thesis_kit.data.speech import TOKENS, Clip
from thesis_kit.files import DamagedFile
from thesis_kit.models import pretrained
from thesis_kit.models.speech import Wav2Vec2, from_torchaudio, torchaudio_models, torchaudio_names, transcribe
from thesis_kit.sonification.states import layouts

pipelines = torchaudio.pipelines
SMALL = {"encoder_embed_dim": 16, "encoder_pos_conv_kernel": 16, "encoder_pos_conv_groups": 4, "encoder_num_layers": 3,
         "encoder_num_heads": 2, "encoder_ff_interm_features": 32,
         "extractor_conv_layer_config": [(16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2]}  # fmt: skip
NAMES = {  # pipeline → what comes out of it
    "WAV2VEC2_BASE": 16, "WAV2VEC2_ASR_BASE_960H": 28, "WAV2VEC2_ASR_LARGE_LV60K_960H": 28, "HUBERT_BASE": 16,
    "HUBERT_ASR_LARGE": 28, "WAVLM_BASE": 16, "VOXPOPULI_ASR_BASE_10K_EN": 28, "VOXPOPULI_ASR_BASE_10K_DE": 32,
}  # fmt: skip


@pytest.fixture
def without_network(monkeypatch, tmp_path):
    """Nothing has been downloaded and nothing answers."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torchaudio_models, "reachable", lambda address: False)
    return tmp_path


@pytest.fixture
def published(without_network, monkeypatch):
    """A function: name of a pipeline → its network, small, with random weights in the file that torch would keep."""

    def make(name: str) -> Wav2Vec2:
        torch.manual_seed(0)
        bundle = getattr(pipelines, name)
        small = replace(bundle, _params={**bundle._params, **SMALL})
        monkeypatch.setattr(pipelines, name, small)
        state = pipelines._wav2vec2.utils._get_model(small._model_type, small._params).state_dict()
        if hasattr(small, "get_labels"):  # as the published files have it, with places that no label belongs to
            axes, count = small._remove_aux_axis, len(small.get_labels()) + len(small._remove_aux_axis)
            assert state["aux.weight"].shape[0] == count - len(axes)
            for key in ("aux.weight", "aux.bias"):
                state[key] = torch.stack([torch.full_like(state[key][0], 1e9) if row in axes else
                                          state[key][row - sum(axis < row for axis in axes)]
                                          for row in range(count)])  # fmt: skip
        folder = without_network / "checkpoints"
        folder.mkdir(exist_ok=True)
        torch.save(state, folder / bundle._path.rpartition("/")[2])
        return from_torchaudio(name)

    return make


def noise(n: int, t: int) -> torch.Tensor:
    return 0.1 * torch.randn(n, t, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_is_a_recognizer_of_the_book_s(name, published):
    model = published(name)
    x = noise(2, 8_000)
    assert not model.training
    assert model(x).shape == (2, 24, NAMES[name])
    names = sonification.layers(model)
    assert names[6:8] == ["model.feature_extractor.conv_layers.6.conv", "model.encoder.transformer.layers.0.residual"]
    assert len(names) == 10
    found = layouts(model.train(), names)  # in training mode, with LayerDrop
    assert model.training
    assert [found[one].samples for one in names] == [5, 10, 20, 40, 80, 160, *[320] * 4]
    model.eval()
    x.requires_grad_()
    model(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ["WAV2VEC2_BASE", "WAV2VEC2_ASR_LARGE_LV60K_960H"])
def test_one_clip_comes_out_as_from_torchaudio_itself(name, published):
    """Also of a pipeline that normalizes the waveform first."""
    model = published(name)
    theirs = getattr(pipelines, name).get_model()
    x = 3 * noise(1, 8_000) + 0.1
    with torch.no_grad():
        expected, found = theirs(x)[0], model(x)
    if model.order is None:
        torch.testing.assert_close(found, expected)
    else:
        labels = getattr(pipelines, name).get_labels()
        for label, number in (("|", TOKENS.index(" ")), ("E", TOKENS.index("e")), ("Z", TOKENS.index("z"))):
            torch.testing.assert_close(found[..., number], expected[..., labels.index(label)])
        blank = torch.logaddexp(expected[..., 0], expected[..., labels.index("'")])
        torch.testing.assert_close(found[..., 0], blank)


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_LARGE_LV60K_960H"])
def test_padding_is_passed_by(name, published):
    """Networks that normalize each step by itself see of a batch's shorter clip what they see of it alone."""
    model = published(name)
    x = noise(2, 8_000)
    x[1, 5_000:] = 0
    steps = model.steps(torch.tensor([8_000, 5_000])).tolist()
    assert steps == [24, 15]
    with torch.no_grad():
        together, alone = model(x), model(x[1:, :5_000])
    torch.testing.assert_close(together[1, :15], alone[0], atol=1e-4, rtol=1e-3)


def test_a_recognizer_of_letters_is_heard_attacked_and_listened_to(published):
    model = published("WAV2VEC2_ASR_BASE_960H")
    assert model.tokens == TOKENS
    x = noise(2, 8_000)
    texts = transcribe(model, x)
    assert len(texts) == 2
    assert set("".join(texts)) <= set("".join(TOKENS))
    clip = Clip(x[0], "")
    assert sonification.targeted(model, clip, "no", steps=2).waveform.shape == clip.waveform.shape
    hidden = "model.encoder.transformer.layers.1.hidden"
    found = sonification.sonify(model, hidden, [3], seconds=0.1, steps=3, copies=2)
    assert found.layer == "model.encoder.transformer.layers.1.feed_forward.intermediate_dense"
    assert found.after[0] > found.before[0]
    kept = sonification.resynthesize(model, [clip], "model.encoder.transformer.layers.0.residual", steps=2)
    assert torch.isfinite(kept.distances).all()


def test_the_base_network_in_its_full_size():
    before = torch.random.get_rng_state()
    model = from_torchaudio("wav2vec2_base", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(94.4e6, rel=0.01)
    x = noise(1, 4_000).requires_grad_()
    heard = model(x)
    assert heard.shape == (1, 12, 768)
    heard.square().mean().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0
    assert len(sonification.layers(model)) == 7 + 12


def test_the_shortest_clip_and_what_is_shorter(published):
    model = published("WAV2VEC2_BASE")
    assert model.least == 400
    assert model(noise(1, 400)).shape == (1, 1, 16)
    assert torch.isfinite(model(torch.zeros(2, 4_000))).all()
    with pytest.raises(ValueError, match="must last 400 samples or more, got 399: pad it with silence"):
        model(noise(1, 399))


@pytest.mark.bad_input
@pytest.mark.parametrize(("x", "said"), [
    (torch.zeros(2, 1, 900), "one channel at 16 kHz"), (torch.full((1, 900), torch.nan), "must be finite"),
], ids=["channels", "nan"])  # fmt: skip
def test_what_is_no_waveform_is_refused(x, said, published):
    with pytest.raises(ValueError, match=said):
        published("WAV2VEC2_BASE")(x)


# Names


def test_without_network_a_pipeline_is_refused_in_a_sentence(without_network):
    said = r"the weights of HUBERT_BASE are not on this machine and download\.pytorch\.org does not answer: connect"
    with pytest.raises(pretrained.WeightsUnavailable, match=said):
        from_torchaudio("HUBERT_BASE")


def test_a_file_that_would_run_code_is_not_read(without_network):
    folder = without_network / "checkpoints"
    folder.mkdir()
    torch.save(nn.Linear(2, 2), folder / pipelines.HUBERT_BASE._path)
    said = f"{pipelines.HUBERT_BASE._path} in torch's cache does not hold the weights of HUBERT_BASE: remove"
    with pytest.raises(DamagedFile, match=re.escape(said)):
        from_torchaudio("HUBERT_BASE")


def test_names_are_torchaudio_s():
    known = set(torchaudio_names())
    assert {"WAV2VEC2_BASE", "WAV2VEC2_ASR_BASE_960H", "HUBERT_LARGE", "wav2vec2_base", "hubert_base"} <= known
    assert not {name for name in known if name.endswith("_model") or "TACOTRON" in name}
    with pytest.raises(UnknownName, match=r"unknown network of torchaudio 'WAV2VEC2_ASR_BASE_960': did you mean WAV"):
        from_torchaudio("WAV2VEC2_ASR_BASE_960")
