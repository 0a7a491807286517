"""The encoder of speakers: its spectrum, its pieces, what batches and padding leave alone, and the published one."""

from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import torch

from thesis_kit import sonification
from thesis_kit.data.speech import Clip
from thesis_kit.files import DamagedFile
from thesis_kit.models import reading, zoo
from thesis_kit.models.kinds import KINDS
from thesis_kit.models.speech import SpeakerEncoder
from thesis_kit.models.speech.speakers import QUIET, MelPower, partial_starts, raised


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return SpeakerEncoder(width=12, size=8).eval()


@pytest.fixture(scope="module")
def resemblyzer():
    """The published network, where its package is installed."""
    try:
        distribution("resemblyzer")
    except PackageNotFoundError:
        pytest.skip("resemblyzer is not installed: pip install --no-deps resemblyzer==0.1.4")
    return zoo.load("resemblyzer")


def noise(n, t, level=0.1, seed=0):
    return level * torch.randn(n, t, generator=torch.Generator().manual_seed(seed))


# What goes in


def test_the_spectrum_is_torchaudio_s_of_the_same_settings():
    transforms = pytest.importorskip("torchaudio.transforms", reason="the reference needs the extra [speech]")
    theirs = transforms.MelSpectrogram(16_000, 400, hop_length=160, n_mels=40, pad_mode="constant", norm="slaney",
                                       mel_scale="slaney")  # fmt: skip
    x = noise(2, 5_000)
    assert MelPower()(x).shape == (2, 40, 32)
    torch.testing.assert_close(MelPower()(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_quiet_clips_are_raised_and_others_left():
    x = torch.cat([noise(1, 4000, 0.001), noise(1, 4000, 0.2, 1)])
    found = raised(torch.nn.functional.pad(x, (0, 2000)), torch.tensor([4000, 4000]))
    assert found[0, :4000].square().mean().sqrt().item() == pytest.approx(QUIET, rel=1e-4)
    assert torch.equal(found[1, :4000], x[1])


def test_where_pieces_begin():
    """By the package: 1.3 a second of 1.6 s; the last one counts if three quarters of it are sound."""
    assert partial_starts(1) == partial_starts(16_000) == [0]
    assert partial_starts(25_600) == [0]  # a second one would begin at 0.77 s and hold half
    assert partial_starts(77 * 160 + 19_199) == [0]
    assert partial_starts(77 * 160 + 19_200) == [0, 77]
    assert partial_starts(16_000 * 5) == [0, 77, 154, 231, 308]


# What comes out


def test_embeddings_of_steps_and_of_clips(encoder):
    x = noise(2, 40_000)
    heard, whole = encoder(x), encoder.embed(x)
    assert heard.shape == (2, 251, 8)
    assert encoder.steps(torch.tensor([40_000, 159, 160])).tolist() == [251, 1, 2]
    assert whole.shape == (2, 8)
    for found in (heard, whole):
        assert found.min() >= 0
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:-1]))
    assert torch.allclose(heard[:, 50], encoder(x[:, :8_200])[:, 50], atol=1e-5)  # nothing is known of what comes later


def test_an_embedding_is_the_mean_of_its_pieces(encoder):
    x = noise(1, 40_000)
    assert partial_starts(40_000) == [0, 77]
    x_raised = raised(x, torch.tensor([40_000]))
    spectrum = encoder.front(torch.nn.functional.pad(x_raised, (0, 2_000)))[0].T
    ends = [encoder.embedding(encoder._read(spectrum[None, start : start + 160]))[0, -1] for start in (0, 77)]
    expected = torch.nn.functional.normalize(torch.stack(ends).mean(dim=0), dim=0)
    torch.testing.assert_close(encoder.embed(x)[0], expected)


def test_padding_and_neighbours_change_nothing(encoder):
    x = noise(2, 20_000)
    x[1, 9_000:] = 0
    alone = x[1:, :9_000]
    assert torch.allclose(encoder(x)[1, :56], encoder(alone)[0, :56], atol=1e-5)
    assert torch.allclose(encoder.embed(x)[1], encoder.embed(alone)[0], atol=1e-5)
    quiet = 1e-3 * x
    assert torch.allclose(encoder.embed(quiet)[1], encoder.embed(1e-3 * alone)[0], atol=1e-5)


def test_gradients_reach_the_waveform_also_from_silence(encoder):
    for x in (noise(2, 4000), torch.zeros(2, 4000)):
        x.requires_grad_()
        (encoder(x).square().sum() + encoder.embed(x).sum()).backward()
        assert torch.isfinite(x.grad).all()
    x = noise(1, 4000).requires_grad_()
    encoder.embedding.before(encoder.heard(x)).sum().backward()
    assert (x.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize(("x", "said"), [
    (torch.zeros(2, 1, 100), "one channel at 16 kHz"), (torch.full((1, 4000), torch.nan), "must be finite"),
    (torch.full((1, 4000), 30000.0), "look at the scale"),
], ids=["channels", "nan", "scale"])  # fmt: skip
@pytest.mark.bad_input
def test_what_is_no_waveform_is_refused(encoder, x, said):
    for ask in (encoder, encoder.embed):
        with pytest.raises(ValueError, match=said):
            ask(x)


def test_it_is_listened_to_as_recognizers_are(encoder):
    assert sonification.layers(encoder) == ["front", "blocks.0", "blocks.1", "blocks.2", "embedding"]
    clips = [Clip(noise(1, 6_400)[0], ""), Clip(noise(1, 9_600)[0], "")]
    seen = sonification.states(encoder, clips, sonification.layers(encoder))
    assert [tuple(row.shape) for row in seen["blocks.1"]] == [(40, 12), (60, 12)]
    found = sonification.sonify(encoder, "embedding", [3], seconds=0.2, steps=3, copies=1)
    assert found.layer == "embedding.before"
    assert found.after[0] > found.before[0]
    kept = sonification.resynthesize(encoder, clips[:1], "blocks.2", steps=3)
    assert torch.isfinite(kept.distances).all()


# The published one


def checkpoint(**more):
    """A file as the package has it, of an encoder with random weights, and that encoder."""
    torch.manual_seed(1)
    model = SpeakerEncoder(width=12, size=8).eval()
    held = {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    for name, tensor in model.state_dict().items():
        part, number, rest = name.partition(".")[0], name.split(".")[1], name.split(".")[-1]
        theirs = f"lstm.{rest.removesuffix('_l0')}_l{number}" if part == "blocks" else f"linear.{rest}"
        held[theirs] = tensor
    buffer = io.BytesIO()
    torch.save({"step": 1, "model_state": held, "optimizer_state": {}, **more}, buffer)
    return buffer.getvalue(), model


def test_its_checkpoint_is_read_by_our_names():
    data, model = checkpoint()
    found = zoo.with_weights(SpeakerEncoder(width=12, size=8), data, "mine", reader="resemblyzer")
    x = noise(1, 4000)
    assert torch.equal(found(x), model(x))
    assert not found.training


@pytest.mark.parametrize("data", [b"nothing", checkpoint(model_state=[])[0], checkpoint(step=print)[0]],
                         ids=["no file", "no weights", "code"])  # fmt: skip
def test_another_file_is_refused(data):
    with pytest.raises(DamagedFile, match="the weights of mine are no checkpoint"):
        reading.from_resemblyzer(data, SpeakerEncoder(width=12, size=8), "mine")


def test_the_zoo_knows_it_whether_or_not_it_is_installed():
    about = zoo.entry("resemblyzer")
    assert (about.kind, about.package.licence, about.package.extra) == ("speaker encoder", "Apache License 2.0", "")
    assert about.package.install == "pip install --no-deps resemblyzer==0.1.4"
    assert "embeddings of who speaks" in KINDS[about.kind].takes(about)
    twins = [KINDS[about.kind].build(about, seed) for seed in (0, 0, 1)]
    assert torch.equal(twins[0].blocks[0].lstm.weight_hh_l0, twins[1].blocks[0].lstm.weight_hh_l0)
    assert not torch.equal(twins[0].blocks[0].lstm.weight_hh_l0, twins[2].blocks[0].lstm.weight_hh_l0)


PLACES = [19, 199, 57, 191]
THEIRS = {0.1: [0.23857, 0.173, 0.15057, 0.11629], 0.001: [0.0, 0.00636, 0.0, 0.08126]}


def test_it_gives_what_its_own_package_gives(resemblyzer):
    """A sum of three tones at two loudnesses: coordinates that resemblyzer 0.1.4 gave with librosa 0.11.0."""
    time = torch.arange(40_000, dtype=torch.float64) / 16_000
    x = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in (180.0, 720.0, 2_450.0))[None].float()
    places = torch.tensor(PLACES)
    for level, expected in THEIRS.items():
        found = resemblyzer.embed(level * x)[0, places]
        torch.testing.assert_close(found, torch.tensor(expected), atol=2e-5, rtol=0)


def test_it_tells_synthesized_voices_apart(resemblyzer):
    pytest.importorskip("espeakng_loader", reason="speech needs the extra [speech]")
    from thesis_kit.data.speech import say, together

    texts, voices = ("good morning everybody", "seven tigers at the window"), ("en-us+m4", "en-gb+f4", "en-us+steph")
    one, other = (
        resemblyzer.embed(*together([say(text, voice).waveform for voice in voices])).detach() for text in texts
    )
    assert (one @ other.T).argmax(dim=1).tolist() == [0, 1, 2]
