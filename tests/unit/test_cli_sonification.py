"""``sonify`` and ``listen``: sounds, their spectra and what they are, from an empty folder; and how they fail."""

from __future__ import annotations

import base64
import io
import json
import wave

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from thesis_kit import cli
from thesis_kit.checks import UnknownName
from thesis_kit.cli import sonification
from thesis_kit.models.speech import Jasper
from thesis_kit.show.sounds import player, spectrogram, wav

pytest.importorskip("matplotlib", reason="pictures of spectra need the extra [show]")
runner = CliRunner()


@pytest.fixture
def network(monkeypatch):
    torch.manual_seed(0)
    model = Jasper(widths=(8,), kernels=(3,), first=8, last=8, bands=16).eval()
    monkeypatch.setattr(sonification, "_recognizer", lambda name: model)
    return model


def call(*words):
    return runner.invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def samples(path):
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_units_become_sounds_spectra_and_numbers(network, tmp_path):
    out = tmp_path / "new" / "sounds"
    done = call("sonify", "--layer", "blocks.0", "--units", "3,5", "--seconds", 0.2, "--steps", 3, "--out", out)
    assert done.exit_code == 0
    record = json.loads((out / "sounds.json").read_text())
    assert record["read at"] == "blocks.0.before"
    assert [row["unit"] for row in record["sounds"]] == [3, 5]
    assert all(row["after"] > row["before"] for row in record["sounds"])
    assert len(samples(out / "unit-3.wav")) == 3200
    assert (out / "spectra.png").read_bytes().startswith(b"\x89PNG")
    assert "unit 5: " in done.output


def test_a_recording_is_heard_layer_by_layer(network, tmp_path):
    tone = 0.3 * torch.sin(2 * np.pi * 200 * torch.arange(4800) / 16000)
    pytest.importorskip("soundfile", reason="recordings need the extra [speech]")
    (tmp_path / "me.wav").write_bytes(wav(tone))
    done = call("listen", tmp_path / "me.wav", "--steps", 2, "--out", tmp_path / "heard")
    assert done.exit_code == 0
    record = json.loads((tmp_path / "heard" / "heard.json").read_text())
    assert [row["layer"] for row in record["sounds"]] == ["recording", "front", "prologue", "blocks.0", "epilogue"]
    assert record["sounds"][0]["pitch"] == pytest.approx(200, abs=2)
    assert {row["file"] for row in record["sounds"]} <= {path.name for path in (tmp_path / "heard").iterdir()}
    assert all("heard" in row for row in record["sounds"])


@pytest.mark.parametrize(("words", "said"), [
    (["sonify"], "give --layer"),
    (["sonify", "--layer", "blocks.0", "--units", "x"], "units are numbers or ranges"),
    (["sonify", "--layer", "blocks.0", "--unit", "1,1"], "once each"),
    (["sonify", "--layer", "blocks.0", "--units", "3-1"], "runs backwards"),
], ids=["layer", "unit", "twice", "range"])  # fmt: skip
def test_what_cannot_be_meant_is_refused(words, said, network):
    with pytest.raises(ValueError, match=said):
        call(*words)


def test_a_member_that_does_not_hear_is_refused():
    with pytest.raises(ValueError, match="cnn-digits-natural does not hear: name a recognizer, such as"):
        call("sonify", "--layer", "x", "--model", "cnn-digits-natural")


def test_a_member_that_tells_speakers_and_torchaudio_s_networks_hear(monkeypatch):
    asked = []
    monkeypatch.setattr("thesis_kit.models.zoo.load", lambda name, device: asked.append(name))
    monkeypatch.setattr("thesis_kit.models.speech.from_torchaudio", lambda name: asked.append(name) or torch.nn.ReLU())
    sonification._recognizer("resemblyzer")
    assert asked == ["resemblyzer"]
    pytest.importorskip("torchaudio", reason="torchaudio's networks need the extra [speech]")
    sonification._recognizer("WAV2VEC2_ASR_BASE_960H")
    assert asked[1:] == ["WAV2VEC2_ASR_BASE_960H"]


def test_near_names_are_offered_of_torchaudio_s_networks_too(monkeypatch):
    pytest.importorskip("torchaudio", reason="torchaudio's networks need the extra [speech]")
    with pytest.raises(UnknownName, match="unknown recognizer 'wav2vec2_bas': did you mean wav2vec2_base"):
        call("sonify", "--layer", "x", "--model", "wav2vec2_bas")
    monkeypatch.setattr(sonification, "_of_torchaudio", list)
    with pytest.raises(UnknownName, match="unknown recognizer 'whisper-tiny': did you mean whisper-tiny"):
        call("sonify", "--layer", "x", "--model", "whisper-tiny")


def test_sites_are_listed(network):
    assert "sites of Jasper" in call("sonify", "--list").output


def test_a_spectrum_is_in_decibels_below_its_loudest():
    tone = torch.sin(2 * np.pi * 1000 * torch.arange(8000) / 16000)
    found, softer = spectrogram(tone), spectrogram(0.01 * tone)
    assert found.shape == (80, 50)
    assert found.max() == 0
    assert found.min() == -60
    assert torch.allclose(found[:, 10:40], softer[:, 10:40], atol=0.1)


def test_a_player_holds_its_sound_and_says_what_it_is():
    tone = 0.01 * torch.sin(2 * np.pi * 500 * torch.arange(1600) / 16000)
    shown = player(tone, "a tone & its <label>")
    encoded = shown._repr_html_().partition("base64,")[2].partition('"')[0]
    with wave.open(io.BytesIO(base64.b64decode(encoded))) as file:
        heard = np.frombuffer(file.readframes(1600), "<i2") / 32767
    assert np.sqrt((heard**2).mean()) == pytest.approx(0.08, rel=0.15)
    assert heard[0] == 0
    assert 'aria-label="a tone &amp; its &lt;label&gt;"' in shown.html
    assert repr(shown) == "sound: a tone & its <label>"
    with pytest.raises(ValueError, match="needs a label"):
        player(tone, " ")
