"""Synthesized speech: what is known of a clip is true, the same words give the same samples, crashes are survived."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch

from thesis_kit.checks import UnknownName
from thesis_kit.data import speech
from thesis_kit.data.speech import Synthesizer, SynthesizerDied, Utterance, pitch_track, say, say_all
from thesis_kit.data.speech import synthesizer as synthesizing
from thesis_kit.extras import MissingPackage

pytest.importorskip("espeakng_loader", reason="speech needs the extra [speech]")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TK_DATA", str(tmp_path))


@pytest.fixture(scope="module")
def clip():
    return say("stop paper tiger", "en-gb+f4", pitch=40, rate=150)


def loudness(clip, start, end):
    piece = clip.waveform[round(start * 16000) : round(end * 16000)]
    return 10 * torch.log10(piece.square().mean() + 1e-10).item()


def high_share(clip, phone):
    piece = clip.waveform[round(phone.start * 16000) : round(phone.end * 16000)]
    power = torch.fft.rfft(piece).abs().square()
    return (power[torch.fft.rfftfreq(len(piece), 1 / 16000) > 3500].sum() / power.sum()).item()


def test_a_clip_says_what_it_is(clip):
    assert clip.waveform.dtype == torch.float32
    assert clip.waveform.ndim == 1
    assert 0.1 < clip.waveform.abs().max() <= 1
    assert [word.name for word in clip.words] == ["stop", "paper", "tiger"]
    assert clip.voice == "en-gb+f4"
    assert clip.said.pitch == 40
    assert clip.seconds == pytest.approx(1.5, abs=0.4)


def test_phones_follow_one_another_inside_the_clip(clip):
    starts, ends = [p.start for p in clip.phones], [p.end for p in clip.phones]
    assert starts[1:] == ends[:-1]
    assert starts[0] >= 0
    assert ends[-1] <= clip.seconds
    assert [p.name for p in clip.phones][:4] == ["s", "t", "0", "p"]


def test_words_begin_and_end_with_phones(clip):
    for word in clip.words:
        assert word.start in [p.start for p in clip.phones]
        assert word.end in [p.end for p in clip.phones]
    assert clip.words[1].start == clip.words[0].end


def test_energy_agrees_with_the_boundaries(clip):
    """Vowels are louder than the stops beside them, and a hiss has its power high up."""
    by_name = {p.name: p for p in clip.phones}
    vowel, stop = by_name["eI"], [p for p in clip.phones if p.name == "p"][1]
    assert loudness(clip, vowel.start, vowel.end) > loudness(clip, stop.start, stop.end) + 8
    assert high_share(clip, by_name["s"]) > 0.6
    assert high_share(clip, vowel) < 0.1


def test_a_boundary_is_where_the_sound_changes():
    """Moved by 40 ms either way, the boundary between hiss and vowel parts them less well."""
    clip = say("see", pitch=50)
    hiss = next(p for p in clip.phones if p.name == "s")

    def contrast(shift):
        at = hiss.end + shift
        before, after = (speech.Segment(at - 0.05, at, ""), speech.Segment(at, at + 0.05, ""))
        return high_share(clip, before) - high_share(clip, after)

    assert contrast(0) > 0.8
    assert contrast(0) > contrast(-0.04) + 0.05
    assert contrast(0) > contrast(0.04) + 0.05


def test_the_same_words_give_the_same_samples_whatever_was_said_before():
    with Synthesizer() as one, Synthesizer() as other:
        asked = Utterance("seven cats", "en-gb-scotland")
        first = one.say(asked).samples
        one.say(Utterance("another thing altogether"))
        assert np.array_equal(first, one.say(asked).samples)
        assert np.array_equal(first, other.say(asked).samples)


def test_breath_is_the_same_in_another_process():
    asked = Utterance("cat", "en-us+f2")  # a voice with breath, whose noise eSpeak NG takes from the clock
    with Synthesizer() as one, Synthesizer() as other:
        first = one.say(asked).samples
        time.sleep(1.1)
        assert np.array_equal(first, other.say(asked).samples)


@pytest.mark.parametrize("voice", ["en-us", "en-gb+Andrea", "en-gb-x-rp+f5"])
def test_pitch_as_measured_follows_the_setting(voice):
    """eSpeak NG's settings lie on a line in octaves: 20 of them are about 0.35 octaves."""
    settings = [30, 50, 70, 90]
    measured = np.log2([say("morning", voice, pitch=pitch).f0 for pitch in settings])
    assert np.corrcoef(settings, measured)[0, 1] > 0.995
    assert np.polyfit(settings, measured, 1)[0] == pytest.approx(0.0173, abs=0.002)


def test_the_pitch_of_a_known_tone():
    seconds = np.arange(16000) / 16000
    tone = sum(np.sin(2 * np.pi * 150 * k * seconds) / k for k in range(1, 6))
    assert np.allclose(pitch_track(tone, 16000), 150, rtol=0.005)
    assert np.isnan(pitch_track(np.zeros(16000), 16000)).all()
    assert np.isnan(pitch_track(np.random.default_rng(0).normal(size=16000), 16000)).mean() > 0.9
    assert len(pitch_track(np.zeros(10), 16000)) == 0


def test_rate_makes_it_shorter():
    assert say("morning", rate=220).seconds < 0.8 * say("morning", rate=120).seconds


def test_many_clips_are_kept_and_read_again(monkeypatch):
    asked = [Utterance(word, "en-us") for word in ("cat", "dog")]
    made = say_all(asked)
    monkeypatch.setattr(Synthesizer, "say", lambda self, utterance: pytest.fail("it was kept"))
    kept = say_all(asked)
    assert [k.phones for k in kept] == [m.phones for m in made]
    assert kept[0].f0 == made[0].f0
    assert all(torch.equal(k.waveform, m.waveform) for k, m in zip(kept, made, strict=True))


def test_a_damaged_cache_is_made_again(tmp_path):
    asked = [Utterance("cat")]
    (made,) = say_all(asked)
    (file,) = (tmp_path / "speech").glob("*.clips")
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(say_all(asked)[0].waveform, made.waveform)


def test_a_killed_synthesizer_is_started_again():
    with Synthesizer() as speaker:
        before = speaker.say(Utterance("cat")).samples
        speaker._process.kill()
        assert np.array_equal(speaker.say(Utterance("cat")).samples, before)


def test_words_that_kill_are_reported(monkeypatch):
    with Synthesizer() as speaker:
        speaker.say(Utterance("cat"))
        monkeypatch.setattr(synthesizing, "_PATIENCE", 0.2)
        monkeypatch.setattr(synthesizing, "_started", lambda start=synthesizing._started: stopped(start()))
        speaker.close()
        with pytest.raises(SynthesizerDied, match="ended twice while it was to say 'cat'"):
            speaker.say(Utterance("cat"))


def stopped(process):
    """A process that hangs."""
    os.kill(process.pid, signal.SIGSTOP)
    return process


def test_voices_that_do_not_exist_are_refused_with_near_names():
    with pytest.raises(UnknownName, match=r"unknown voice 'en-uz': did you mean en-us"):
        say("cat", "en-uz")
    with pytest.raises(UnknownName, match="unknown variant of a voice 'f9': did you mean f"):
        say("cat", "en-us+f9")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"text": "…"}, "a text to say must hold a letter"),
        ({"text": "a\0b"}, "NUL"),
        ({"pitch": 100}, "pitch must lie in 0 … 99, got 100"),
        ({"rate": 20}, "rate must be a whole number of at least 80, got 20"),
    ],
    ids=["no letters", "nul", "pitch", "rate"],
)
def test_what_cannot_be_said_is_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        say(**{"text": "cat", **knobs})


def test_other_letters_are_spoken_but_not_spelled():
    assert [word.name for word in say("café").words] == ["café"]
    with pytest.raises(ValueError, match="a transcript may hold a to z and spaces, got 'é' in 'café'"):
        speech.encode("café")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    synthesizing.library.cache_clear()
    with pytest.raises(MissingPackage, match=r"\[speech\]"):
        say("cat")
    synthesizing.library.cache_clear()


def test_letters_and_back():
    assert speech.decode(speech.encode("Seven  cats")) == "seven cats"
    assert speech.decode([0, 9, 9, 0, 9, 1, 1, 0, 2]) == "hh a"
    assert len(speech.TOKENS) == 28
    assert speech.encode("") == []


def test_the_distribution_is_what_it_was():
    found = speech.data_hash()
    assert len(set(speech.WORDS)) >= 60
    assert sum(map(len, speech.VOICES.values())) >= 12
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        pytest.skip("eSpeak NG may compute otherwise on other machines")
    assert found.here == found.frozen


def test_every_word_is_crossed_with_voice_pitch_and_rate():
    asked = speech.crossed(words=["cat", "dog"], voices=["en-us", "en-gb"])
    assert len(asked) == len(set(asked)) == 2 * 2 * 4 * 2
    assert len(speech.crossed()) == 64 * 18 * 4 * 2


def test_phrases_have_voices_of_their_part_and_prefixes():
    many = speech.phrases("test", 40, seed=3)
    assert many[:10] == speech.phrases("test", 10, seed=3)
    assert many[:10] != speech.phrases("test", 10, seed=4)
    assert {u.voice for u in many} == set(speech.VOICES["test"])
    assert {len(u.text.split()) for u in many} == {1, 2, 3}
    with pytest.raises(UnknownName, match="did you mean train"):
        speech.phrases("training")


def test_minibatches_of_phrases():
    clips = say_all(speech.phrases("train", 6))
    stream = speech.Phrases(clips, name="some")
    one, again = stream.minibatch(3, 4), stream.minibatch(3, 4)
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.ids, again.ids)
    assert len(set(one.ids.tolist())) == 4
    for x, number, frames, tokens, length in zip(
        one.x, one.ids, one.y.frames, one.y.tokens, one.y.lengths, strict=True
    ):
        clip = clips[number]
        assert torch.allclose(x[:frames], clip.waveform, atol=1e-7)
        assert not x[frames:].any()
        assert speech.decode(tokens[:length].tolist()).replace(" ", "")[:1] == clip.text[0]
    assert not torch.equal(stream.minibatch(4, 4).ids, one.ids)


def test_a_part_of_clips():
    clips = say_all(speech.phrases("test", 3))
    part = speech.part_of(clips)
    assert part.x.shape == (3, max(len(clip.waveform) for clip in clips))
    assert part.y[torch.tensor([1])].tokens[0, : part.y.lengths[1]].tolist() == speech.encode(clips[1].text)
