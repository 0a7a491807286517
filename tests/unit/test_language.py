"""Pictures of prompts, the order of words, written words: against cases whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from thesis_kit.data.scenes import Table, render
from thesis_kit.data.scenes.pairs import PAIRS, directed, misnamed, unnamed
from thesis_kit.data.text import Vocabulary
from thesis_kit.language import (
    SCHEDULES,
    Schedule,
    exchange_similarity,
    invert_prompts,
    name_by_text,
    reads_order,
    shortened,
    strata_of,
    theme_auroc,
    toward,
    typographic,
)
from thesis_kit.models import Classifier, Clip
from thesis_kit.randomness import ImageRandom
from thesis_kit.synthesis import LOGITS, Ensemble, preview
from thesis_kit.synthesis.augmentations import Moment
from thesis_kit.synthesis.moving import RandomAffine

COLORS = ("red", "green", "blue")
SHORT = Schedule(((0.5, 15), (1.0, 15)), copies=2, lr=0.1, tv=0.005)


class Colors(nn.Module):
    """The mean color of an image, less gray."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x):
        return (x.mean(dim=(2, 3)) - 0.2) @ self.weight


class Named(nn.Module):
    """Red, green and blue as directions; words of a sentence add up, so order says nothing."""

    def __init__(self):
        super().__init__()
        rows = [[0.0] * 3, *torch.eye(3).tolist(), [1e-3] * 3, [0.0] * 3]
        self.words = nn.Embedding.from_pretrained(torch.tensor(rows))

    def forward(self, tokens):
        return self.words(tokens).sum(dim=1)


def pair() -> Clip:
    return Clip(Classifier(Colors()), Named(), Vocabulary((*COLORS, "and"), context=5))


@pytest.fixture(scope="module")
def pictures():
    return invert_prompts(pair(), [*COLORS, "red and blue"], size=8, schedule=SHORT, progress=False)


def test_a_prompt_becomes_a_picture_of_it_and_compositions_blend(pictures):
    mean = pictures.images.mean(dim=(2, 3))
    assert mean[:3].argmax(dim=1).tolist() == [0, 1, 2]
    assert mean[3].argmin().item() == 1
    assert mean[3, [0, 2]].min() - mean[3, 1] > 0.2
    assert pictures.images.shape == (4, 3, 8, 8)
    assert [image.shape[-1] for _, image in pictures.snapshots] == [4, 8]


def test_a_picture_does_not_depend_on_the_other_prompts(pictures):
    alone = invert_prompts(pair(), ["blue"], size=8, schedule=SHORT, ids=[2], progress=False)
    assert torch.allclose(alone.images[0], pictures.images[2], atol=1e-4)


def test_an_inversion_is_taken_up_again(tmp_path, pictures):
    file = tmp_path / "state.pt"
    knobs = {"size": 8, "schedule": SHORT, "checkpoint": file, "progress": False}
    again = [invert_prompts(pair(), [*COLORS, "red and blue"], **knobs) for _ in range(2)]
    assert torch.equal(again[0].images, again[1].images)
    assert again[1].seconds == pytest.approx(again[0].seconds, abs=1e-6)
    with pytest.raises(ValueError, match="objective"):
        invert_prompts(pair(), [*COLORS, "green and blue"], **knobs)


def test_the_published_constants():
    stages = [(stage.size, stage.steps, stage.border) for stage in SCHEDULES["2024"].sized(224)]
    assert stages == [(64, 900, 0), (128, 900, 0), (224, 1600, 0)]
    assert (SCHEDULES["2024"].copies, SCHEDULES["2024"].lr, SCHEDULES["2024"].tv) == (13, 0.1, 0.005)
    assert SCHEDULES["2024"].moving == RandomAffine(30.0, 0.1, (0.7, 1.2), 0.5)
    assert shortened("2024", (1, 2, 3), copies=2).stages == ((64 / 224, 1), (128 / 224, 2), (1.0, 3))
    with pytest.raises(ValueError, match="one number for each of 3 stages"):
        shortened("2024", (1, 2))


@pytest.mark.parametrize(("form", "value"), [("distance", 2**0.5), ("cosine", 1.0)])
def test_how_far_features_point(form, value):
    objective = toward(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), form=form)
    seen = {LOGITS: torch.tensor([[[5.0, 0.0], [0.0, 5.0]], [[0.0, 1.0], [0.0, 7.0]]])}  # (n, e, d)
    found = objective(seen, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([value / 2, 0.0], abs=1e-6)
    assert objective(seen, torch.tensor([1, 0])).tolist() == pytest.approx([value / 2, value], abs=1e-6)


@pytest.mark.parametrize(
    ("prompts", "knobs", "said"),
    [
        (["rde"], {}, "unknown word 'rde': did you mean red"),
        ([""], {}, "without a word says nothing"),
        (["red " * 5], {}, "6 tokens is longer than the context of 5"),
        ([], {}, "no sentence to encode"),
        (["red"], {"schedule": "2023"}, "unknown schedule of inversion '2023': did you mean 2024"),
        (["red"], {"size": 0}, "size must be a whole number of at least 1"),
    ],
)
def test_a_prompt_that_cannot_be_inverted_is_refused(prompts, knobs, said):
    with pytest.raises(ValueError, match=said):
        invert_prompts(pair(), prompts, **{"size": 8, **knobs})


def test_directions_that_are_none_are_refused():
    with pytest.raises(ValueError, match="finite and not zero"):
        toward(torch.zeros(1, 3))


def moment(n: int) -> Moment:
    random = ImageRandom(0, torch.arange(n))
    return Moment(random, random.fork(1), 0.0)


def test_some_copies_move_and_the_border_goes_on():
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    still = RandomAffine(share=0.0)(x[:, None], moment(2))
    assert torch.allclose(still[:, 0], x, atol=1e-5)
    copies = preview(x, [Ensemble(200), RandomAffine(share=0.5)])
    same = (copies - x[:, None]).flatten(2).abs().amax(dim=2) < 1e-4
    assert same.double().mean().item() == pytest.approx(0.5, abs=0.1)
    plain = torch.full((1, 1, 3, 12, 12), 0.3)
    assert torch.allclose(RandomAffine(share=1.0)(plain, moment(1)), plain, atol=1e-5)


def test_a_shift_is_a_shift():
    x = torch.zeros(1, 1, 1, 20, 20)
    x[..., 10, 10] = 1.0
    moved = RandomAffine(degrees=0.0, shift=0.25, scale=(1.0, 1.0), share=1.0)(x.expand(1, 50, 1, 20, 20), moment(1))
    places = moved.flatten(2).argmax(dim=2)[0]
    rows, columns = places // 20 - 10, places % 20 - 10
    for offsets in (rows, columns):
        assert offsets.abs().max() <= 5
        assert offsets.unique().numel() > 5


@pytest.mark.parametrize("change", [{"degrees": -1.0}, {"scale": (1.2, 0.7)}, {"share": 2.0}, {"shift": -0.1}])
def test_changes_that_cannot_be_meant_are_refused(change):
    with pytest.raises(ValueError, match="must"):
        RandomAffine(**change)


class Placing(nn.Module):
    """A text tower that reads the order of the two shapes in a sentence, or, blind, only which there are."""

    def __init__(self, shapes: list[int], blind: bool):
        super().__init__()
        self.shapes, self.blind = torch.tensor(shapes), blind

    def forward(self, tokens):
        rows = []
        for row in tokens:
            own = row[torch.isin(row, self.shapes)].tolist()
            rows.append(torch.tensor([1.0, float(self.blind or own[0] < own[1])]))
        return torch.stack(rows)


class First(nn.Module):
    """An image tower that knows, by the images' order, what the text tower would say of the truth."""

    def __init__(self, rows: torch.Tensor):
        super().__init__()
        self.rows = rows

    def forward(self, x):
        return self.rows


@pytest.mark.parametrize("blind", [False, True])
def test_who_takes_sentences_for_bags_of_words_reads_no_order(blind):
    from thesis_kit.data.scenes import captions
    from thesis_kit.data.scenes.lexicon import LEXICON, vocabulary
    from thesis_kit.data.scenes.vocabulary import SHAPES

    scenes = PAIRS.draw(40, 16, seed=5)
    text = Placing([LEXICON.index(shape) + 1 for shape in SHAPES], blind)
    true = captions(scenes.table[directed(scenes.table)])
    clip = Clip(First(text(vocabulary()(true))), text, vocabulary())
    found = reads_order(clip, scenes)
    assert len(found) == directed(scenes.table).sum()
    assert found.double().mean() == (0.0 if blind else 1.0)
    assert (exchange_similarity(clip, scenes) > 1 - 1e-6).all() == blind
    assert torch.equal(reads_order(clip, scenes, images=scenes.images), found)
    with pytest.raises(ValueError, match="an image a scene, 40, got 3"):
        reads_order(clip, scenes, images=scenes.images[:3])


def test_scenes_without_a_relation_have_no_order_to_read():
    from thesis_kit.data.scenes import DISTRIBUTIONS

    with pytest.raises(ValueError, match="none of the scenes has two objects in a relation"):
        reads_order(pair(), DISTRIBUTIONS["scenes.v1"].draw(3, 16, seed=0))


def answering(table: Table, *, reads: bool) -> nn.Module:
    """A model that names the main object, or, where it reads, the word on the picture."""
    known = {}
    for one, said in ((unnamed(table), table.shape[:, 0]), (misnamed(table), misnamed(table).word)):
        for image, answer in zip(render(one, 40).images, said if reads else table.shape[:, 0], strict=True):
            known[image.numpy().tobytes()] = int(answer)

    class Answering(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(torch.tensor([known[image.numpy().tobytes()] for image in x]), 16).float()

    return Answering()


@pytest.mark.parametrize(("reads", "share"), [(True, 1.0), (False, 0.0)])
def test_a_reader_is_turned_by_every_word_and_a_looker_by_none(reads, share):
    table = PAIRS.sample(torch.arange(12), seed=3)
    found = typographic(answering(table, reads=reads), table, 40)
    assert found.flipped.double().mean() == share
    assert found.harmed.double().mean() == share
    assert torch.equal(found.plain, table.shape[:, 0])


@pytest.mark.bad_input
def test_words_that_cannot_be_read_are_refused():
    table = PAIRS.sample(torch.arange(2), seed=0)
    with pytest.raises(ValueError, match="cannot be read at 32 × 32"):
        typographic(nn.Flatten(), table, 32)
    with pytest.raises(ValueError, match=r"must tell 16 shapes apart, got logits \(2, 4800\)"):
        typographic(nn.Flatten(), table, 40)
    with pytest.raises(TypeError, match=r"give scenes\.table"):
        typographic(nn.Flatten(), PAIRS.draw(2, 40, seed=0), 40)


@pytest.mark.bad_input
def test_numbers_that_cannot_be_meant_are_refused():
    clip, x = pair(), torch.rand(4, 3, 16, 16)
    for a in (torch.tensor([[1.0], [2.0], [torch.nan], [0.0]]), torch.rand(4, 2, 3), torch.rand(4)):
        with pytest.raises(ValueError, match=r"activations must be finite rows \(n, u\)"):
            name_by_text(clip, a, x, ["a red star"], k=2)
    shape = torch.arange(8) % 4
    for themes in ([0, 0, 0, 0], [0, 0, 2, 2]):
        with pytest.raises(ValueError, match="numbered from 0 without a gap, two at least"):
            theme_auroc(torch.rand(8, 1), shape, torch.tensor(themes))
    with pytest.raises(ValueError, match="areas must be finite"):
        strata_of(shape, torch.full((8,), torch.nan))
    with pytest.raises(ValueError, match=r"must be rows \(targets, d\)"):
        toward(torch.ones(4))
    with pytest.raises(ValueError, match="tv is the weight of a penalty"):
        replace(SCHEDULES["small"], tv=-1.0)
