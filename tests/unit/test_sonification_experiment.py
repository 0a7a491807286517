"""Chapter 7's arms in miniature, what their numbers are made of, and measures whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from thesis_kit import sonification
from thesis_kit.chapters.sonification import layer_measures as measures
from thesis_kit.chapters.sonification import made_sounds
from thesis_kit.chapters.sonification.arms import EXPERIMENTS, FROM_EDITS, FROM_PROBES, FROM_UNITS
from thesis_kit.chapters.sonification.judges import best_word, phone_reader
from thesis_kit.chapters.sonification.world import untaught
from thesis_kit.data.speech import Clip, crossed, say_all
from thesis_kit.ledger.arm import Settings, frozen_hash
from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import judge_claim
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.models import zoo
from thesis_kit.models.speech import Jasper, Whisper, WhisperSize

ARENAS = ("real", "speech")


@pytest.fixture(scope="module")
def results(miniature):
    return {arena: miniature(f"sonification.{arena}") for arena in ARENAS}


def rows():
    return [claim for claim in catalog().claims.values() if claim.chapter == "sonification"]


def spoken(f0, words=8, voices=("a", "b", "c"), pitches=(30, 70)):
    """Silent clips of every word by every voice at every pitch."""
    utterances = crossed([f"word {number}" for number in range(words)], voices, pitches, (160,))
    return [Clip(torch.zeros(8), said.text, f0=f0(said), said=said) for said in utterances]


# Numbers from means by layer


def test_thirds_are_whole_layers_and_the_spectrum_is_none():
    means = np.array([[4.0, 3.0, 5.0, 1.0, -1.0, 0.5]])
    assert (measures.first(means)[0], measures.last(means)[0]) == (3.5, -0.25)
    assert (measures.most_before(means)[0], measures.last_above_zero(means)[0]) == (5.0, 0.25)
    assert measures.first(means[:, :5])[0] == 3.5  # of five layers a third is two
    assert measures.peak(np.array([[0.1, 0.9, 0.9]]))[0] == 2
    assert measures.stayed(np.array([[4.0, 1.0, 1.0]]))[0] == 0.25
    assert measures.faded(np.array([[4.0, 1.0, 1.0]]))[0] == 0.75
    table = torch.tensor([[1.0], [2.0], [3.0]])
    assert measures.made({"one": (measures.first, "it")}, {"it": table}) == {"one": 1.0}
    assert measures.curve(table, 0)[0] == [0.0, 1.0]


def test_numbers_are_those_of_what_was_recorded_item_by_item(results):
    by = {"probe": FROM_PROBES, "edit": FROM_EDITS, "units": FROM_UNITS, "metamers": made_sounds.FROM_METAMERS,
          "optima": made_sounds.FROM_OPTIMA}  # fmt: skip
    for result in results.values():
        for arm in result.arms:
            cell = result.cells[arm][0]
            for name, (maker, what) in by[arm.partition("@")[0]].items():
                measure = catalog().measures[name]
                assert (measure.by, measure.of) == (f"{maker.__module__}:{maker.__name__}", what)
                points = [value for place, value in cell["curves"][what] if place]
                means = result.per_image(what, arm)[0].reshape(len(points), -1).mean(axis=1)
                assert points == pytest.approx(means.tolist(), abs=1e-4)
                assert cell["scalars"][name] == pytest.approx(maker(means[None])[0], abs=1e-4)
            assert len(points) == (4 if arm.startswith("optima") else 5)


def test_every_measure_that_rules_ask_for_is_recorded(results):
    for claim in rows():
        for arena in {claim.arena, *claim.also}:
            for measure, arm in claim.terms:
                found = results[arena].cells[arm][0]["scalars"][measure]
                assert math.isfinite(found), f"{measure}({arm}) in {arena}"


def test_a_network_for_speakers_is_asked_what_whisper_is_and_judged_by_its_ends(results):
    real, asked = EXPERIMENTS["real"], ("data", "voices", "rate", "words", "pitches", "untrained")
    for one, other in (("speakers", "trained"), ("speakers-random", "random")):
        told, known = (real.arm(f"probe@{name}").settings for name in (one, other))
        assert [told[name] for name in asked] == [known[name] for name in asked]
        cell = results["real"].cells[f"probe@{one}"][0]
        points = [value for place, value in cell["curves"]["speaker"] if place]
        ends = [cell["scalars"][f"speaker_{end}"] for end in ("shallowest", "deepest")]
        assert ends == pytest.approx([points[0], points[-1]], abs=1e-4)
    assert not any("speakers" in arm for arm in EXPERIMENTS["speech"].names)
    judged = judge_claim(catalog().claims["speaker-net"], results["real"], "real")
    assert {found.interval.kind for found in judged.findings} == {"bootstrap over voices and words"}


def test_one_network_is_judged_by_its_voices_and_words_and_a_cohort_by_its_networks(results):
    claim = catalog().claims["pitch-fades"]
    real, speech = (judge_claim(claim, results[arena], arena) for arena in ARENAS)
    assert {found.interval.kind for found in real.findings} == {"bootstrap over voices and words"}
    assert [(found.interval.n, found.interval.item) for found in real.findings] == [(12, "voice–word pair")] * 2
    assert all(found.interval.low <= found.interval.value <= found.interval.high for found in real.findings)
    assert {(found.interval.kind, found.interval.seeds) for found in speech.findings} == {("Student-t over seeds", 2)}
    crossed = judge_claim(claim, results["real"], "speech")  # a sentence about a kind cannot rest on one network
    assert crossed.verdict is Verdict.NOT_RUN
    assert "one fixed network" in crossed.reason


# What is read off a layer


def test_pitch_that_was_not_measured_is_that_of_the_voice_at_the_setting():
    def f0(said):
        missing = said.text == "word 0" and said.voice == "a"
        return math.nan if missing else 100.0 * (1 + (said.pitch == 70)) * (1 + (said.voice == "b"))

    octaves = measures.log_pitch(spoken(f0)).view(3, 8, 2)
    assert octaves[0, 0].tolist() == octaves[0, 1].tolist() == [math.log2(100), math.log2(200)]
    with pytest.raises(ValueError, match="no clip of a voice at a pitch has a measured F0"):
        measures.log_pitch(spoken(lambda said: math.nan))


def test_readings_of_features_that_hold_one_thing_alone():
    """Features of the word say nothing of pitch or voice; those of voice and pitch say all of both."""
    clips = spoken(lambda said: 100 * 2 ** (said.pitch / 100), words=10)
    words, voices = [clip.text for clip in clips], [clip.voice for clip in clips]
    noise = 1e-3 * torch.randn(len(clips), 20, generator=torch.Generator().manual_seed(0))
    of_words, of_voices = (torch.eye(20)[sonification.probes.group_numbers(of)] + noise for of in (words, voices))
    of_voices[:, 10] += torch.tensor([clip.said.pitch / 100 for clip in clips])
    one, other = measures.readings(of_words, clips), measures.readings(of_voices, clips)
    assert one["content"].mean() == 1
    assert other["content"].mean() < 0.5
    assert one["pitch"].mean() < 0.05 < 0.95 < other["pitch"].mean()
    assert one["speaker"].mean() < 0.6 < 0.99 < other["speaker"].mean()
    assert other["speaker_rest"].mean() > 0.99
    assert one["apart"].mean() < -3 < 0.5 < other["apart"].mean()


def test_distances_are_those_of_the_library_up_to_the_order_of_means():
    clips = spoken(lambda said: 100.0, words=12)
    words, voices = [clip.text for clip in clips], [clip.voice for clip in clips]
    features = torch.randn(len(clips), 30, generator=torch.Generator().manual_seed(1))
    features += (
        2 * torch.randn(12, 30, generator=torch.Generator().manual_seed(2))[sonification.probes.group_numbers(words)]
    )
    found = measures.apart(features, words, voices).mean().item()
    assert found == pytest.approx(sonification.voices_meet(features, words, voices), abs=0.02)
    assert found < -0.3


def test_detectors_of_phones_and_of_words_are_told_apart():
    """Six words of three phones each, every phone in two words; units that fire for a phone, a word, or by chance."""
    spelled = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 0], [1, 3, 5], [0, 3, 2], [1, 4, 5]])
    voices = torch.arange(4).repeat_interleave(6 * 3 * 4)
    words = torch.arange(6).repeat_interleave(3 * 4).repeat(4)
    phones = spelled.repeat_interleave(4, dim=1).flatten().repeat(4)
    noise = torch.randn(len(words), 12, generator=torch.Generator().manual_seed(0))
    of_phones, of_words = F.one_hot(phones, 6).float(), F.one_hot(words, 6).float()

    def gap(a):
        return measures.detectors(a, phones, words, voices)

    assert gap(of_phones + 0.01 * noise[:, :6]).min() > 0.3
    assert gap(of_words + 0.01 * noise[:, :6]).max() < -0.1
    assert gap(noise).abs().max() < 0.15
    assert gap(of_phones).shape == (4,)


def test_units_are_hidden_ones_where_blocks_have_such():
    tiny = Whisper(WhisperSize(8, 2, 1, 20, 16, 200, 20)).eval()
    assert measures.unit_sites(tiny) == ["conv1", "conv2", "blocks.0.hidden", "blocks.1.hidden"]
    jasper = Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16)
    assert measures.unit_sites(jasper) == ["prologue", "blocks.0", "blocks.1", "epilogue"]


def test_a_twin_has_random_weights_and_statistics_of_clips():
    one, other = (untaught("jasper-speech", seed) for seed in (1, 2))
    taught = zoo.load("jasper-speech")
    assert torch.allclose(one.front.mean, taught.front.mean, atol=1.0)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.prologue.units[0].norm.running_mean, torch.zeros(96))
    assert not any(module.training for module in one.modules())
    assert torch.equal(untaught("jasper-speech", 1).head.weight, one.head.weight)


# Sounds that are made, and who judges them


def test_halves_and_ends_of_layers():
    means = np.array([[1.0, 2.0, 3.0, 5.0]])
    found = [maker(means)[0] for maker in (made_sounds.of_first, made_sounds.of_last)]
    found += [maker(means)[0] for maker in (made_sounds.early_half, made_sounds.late_half)]
    assert found == [1.0, 5.0, 1.5, 4.0]
    jasper = Jasper(widths=(8, 8, 8), kernels=(3, 5, 5), first=8, last=8, bands=16)
    assert made_sounds.outer_sites(jasper) == ["prologue", "blocks.0", "blocks.2", "epilogue"]


def test_the_mean_product_of_standard_tunes_is_their_correlation():
    one, other = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    product = (made_sounds.standard_tunes(one) * made_sounds.standard_tunes(one + other)).mean().item()
    assert product == pytest.approx(np.corrcoef(one, one + other)[0, 1])
    missing = torch.where(torch.arange(50) < 40, torch.nan, one)
    assert made_sounds.standard_tunes(missing)[:40].abs().max() == 0
    assert made_sounds.standard_tunes(torch.full((4,), torch.nan)).tolist() == [0.0] * 4
    assert made_sounds.standard_tunes(torch.ones(4)).tolist() == [0.0] * 4


def test_clips_to_be_rebuilt_differ_in_voice_pitch_and_word():
    settings = EXPERIMENTS["real"].arm("metamers@trained").settings
    clips = made_sounds.rebuilt_clips(Settings({**settings, "rebuilt": 18}))
    assert len({clip.said.voice for clip in clips}) == len({clip.text for clip in clips}) == 18
    assert {clip.said.pitch for clip in clips} == {30, 50, 70, 90}


def test_a_shipped_recognizer_hears_words_and_reads_phones_but_none_in_noise():
    judge, words = zoo.load("jasper-speech"), ("seven", "bird", "river")
    fitted = say_all(crossed(words, ("en-us", "en-us+f2", "en-gb+m1"), (50,), (160,)), progress=False)
    asked = say_all(crossed(words, ("en-us+m4",), (50,), (160,)), progress=False)
    sounds = [clip.waveform for clip in asked]
    assert best_word(judge, sounds, words).tolist() == [0, 1, 2]
    reader = phone_reader(judge, "blocks.1", fitted)
    told, known = reader.read(sounds)[0], {phone.name for phone in asked[0].phones}
    assert len(known & set(told)) >= 3  # of five
    drawn = torch.Generator().manual_seed(1)
    assert reader.read([0.02 * torch.randn(8_000, generator=drawn), torch.zeros(8_000)]) == [[], []]


# Networks and data


def test_recorded_seeds_are_the_cohort_that_the_recipe_makes_and_data_are_frozen():
    from thesis_kit.zookeeping.recipes import RECIPES

    for arm in EXPERIMENTS["speech"].arms:
        assert len(arm.seeds) == RECIPES["jasper-speech"].seeds
        assert arm.units[0] == "network"
        assert arm.cohorts == (() if arm.settings.untrained else ("jasper-speech",))
        assert arm.networks == (("whisper-tiny.en",) if "judge" in arm.settings else ())
    for arm in EXPERIMENTS["real"].arms:
        member = "resemblyzer" if "speakers" in arm.name else "whisper-tiny.en"
        assert (arm.seeds, arm.settings.member, arm.networks[0]) == ((0,), member, member)
        assert "network" not in arm.units
    assert frozen_hash("speech.v1") == zoo.entry("jasper-speech").data_hashes["speech.v1"]
