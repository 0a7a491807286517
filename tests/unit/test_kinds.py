"""Kinds of members beside classifiers: how a pair and a recognizer are built, entered, answer and are measured."""

from __future__ import annotations

import pytest
import torch

from thesis_kit.checks import UnknownName
from thesis_kit.cli.subjects import NamedModel
from thesis_kit.data.parts import Part
from thesis_kit.data.speech import TOKENS, encode
from thesis_kit.data.transcripts import Transcripts
from thesis_kit.models import zoo
from thesis_kit.models.entries import Entry
from thesis_kit.models.kinds import KINDS
from thesis_kit.models.speech import Jasper, Whisper
from thesis_kit.zookeeping.member_scores import MEASURES
from thesis_kit.zookeeping.recipes import RECIPES

TINY_PAIR = {"image_options": {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1}, "embed_dim": 8,
             "width": 12, "depth": 1}  # fmt: skip
TINY_JASPER = {"widths": [8, 8], "kernels": [3, 5], "first": 8, "last": 8, "bands": 16}
TINY_WHISPER = {"width": 64, "depth": 1, "decoder_depth": 1, "vocabulary": 40, "bands": 16, "places": 50, "text": 12}


def entry_of(kind, architecture, options, *, classes=(), input_shape=(16000,)):
    nothing = {key: {} for key in ("data_hashes", "scores", "training", "measured", "code")}
    return Entry(name="x", title="", recipe={"architecture": architecture, "options": options, "data": ""},
                 classes=classes, input_shape=input_shape, file="", sha256="", bytes=0, dtype="float32", kind=kind,
                 **nothing)  # fmt: skip


ENTRIES = {
    "pair": entry_of("image-text pair", "small_clip", TINY_PAIR, input_shape=(3, 16, 16)),
    "jasper": entry_of("speech recognizer", "jasper", TINY_JASPER, classes=tuple(TOKENS)),
    "whisper": entry_of("speech recognizer", "whisper", TINY_WHISPER),
    "speakers": entry_of("speaker encoder", "speaker_encoder", {"width": 8, "size": 8}),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_network_is_its_seed_s_and_answers_in_one_row(name):
    about = ENTRIES[name]
    kind, before = KINDS[about.kind], torch.random.get_rng_state()
    one, same, other = (kind.build(about, seed).eval() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    shape = about.input_shape if name == "pair" else (3000,)
    answers = [kind.answer(network, shape) for network in (one, same, other)]
    assert answers[0].ndim == 1
    assert torch.isfinite(answers[0]).all()
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


def test_what_a_decoder_says_is_part_of_the_answer():
    about = ENTRIES["whisper"]
    network = KINDS[about.kind].build(about, 0).eval()
    before = KINDS[about.kind].answer(network, (3000,))
    with torch.no_grad():
        network.decoder.norm.bias += 1
    assert not torch.allclose(KINDS[about.kind].answer(network, (3000,)), before)


def test_an_unknown_recognizer_offers_those_there_are():
    assert isinstance(KINDS["speech recognizer"].build(ENTRIES["jasper"], 0), Jasper)
    assert isinstance(KINDS["speech recognizer"].build(ENTRIES["whisper"], 0), Whisper)
    with pytest.raises(UnknownName, match="unknown recognizer 'jaspr': did you mean jasper"):
        KINDS["speech recognizer"].build(entry_of("speech recognizer", "jaspr", {}), 0)


def clips(*texts):
    x = 0.1 * torch.randn(len(texts), 4000, generator=torch.Generator().manual_seed(0))
    spelled = [torch.tensor(encode(text)) for text in texts]
    tokens = torch.nn.utils.rnn.pad_sequence(spelled, batch_first=True)
    lengths = torch.tensor([len(one) for one in spelled])
    return Part(x, Transcripts(tokens, lengths, torch.full((len(texts),), 4000)), torch.arange(len(texts)))


def test_a_recognizer_s_front_end_is_fit_before_training():
    about, part = ENTRIES["jasper"], clips("a", "b")
    network = KINDS[about.kind].build(about, 0)
    KINDS[about.kind].begin(network, part)
    spectrum = network.front(part.x)
    assert spectrum.mean().abs() < 0.05
    assert spectrum.std() == pytest.approx(1, abs=0.05)


class Hears(torch.nn.Module):
    """Says the same letters whatever it is given, a letter a step."""

    def __init__(self, text):
        super().__init__()
        self.path = [number for letter in encode(text) for number in (letter, 0)]

    def forward(self, x, lengths=None):
        return torch.nn.functional.one_hot(torch.tensor(self.path), len(TOKENS)).float().expand(len(x), -1, -1)

    def steps(self, lengths):
        return torch.full_like(lengths, len(self.path))


def test_a_recognizer_s_score_is_the_words_that_it_hears():
    part = clips("one two", "one six", "ten")
    score = MEASURES["speech recognizer"](Hears("one two"), part, {})["words"]()
    assert (score.value, score.n) == (pytest.approx(2 / 5), 5)  # 0 + 1 + 2 errors among five words
    assert score.low < 0.4 < score.high


def test_the_cohort_of_recognizers_is_a_recipe():
    recipe = RECIPES["jasper-speech"]
    assert (recipe.kind, recipe.seeds, recipe.of_seed(5).seed) == ("speech recognizer", 6, 5)
    assert recipe.of_seed(5).make_method().blank == 0


def test_what_asks_about_images_refuses_another_kind():
    assert zoo.entry("whisper-tiny.en").kind == "speech recognizer"
    with pytest.raises(ValueError, match=r"whisper-tiny\.en is no classifier but of the kind 'speech recognizer'"):
        NamedModel("whisper-tiny.en").member  # noqa: B018
