"""One stream of scenes with different teachers: captions, attributes, classes; and training on each."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit.data import Part
from thesis_kit.data.captioned import Captioned
from thesis_kit.data.scenes import captions
from thesis_kit.data.scenes.lexicon import LEXICON, vocabulary
from thesis_kit.data.scenes.pairs import LANGUAGE, PAIRS, Named, directed, misnamed, swapped, unnamed
from thesis_kit.data.scenes.teachers import (
    HEADS,
    Attributes,
    Classes,
    Sentences,
    TaughtStream,
    attributes,
    statement,
    taught,
)  # fmt: skip
from thesis_kit.data.scenes.vocabulary import NOTHING, RELATIONS, SHAPES, THEME_OF, THEMES
from thesis_kit.data.text import PADDING
from thesis_kit.training import AttributeTraining, Contrastive, attributes_loss, contrastive_loss, train

TABLE = PAIRS.sample(torch.arange(400), seed=2)
FROZEN = {
    "scenes.v1-pairs": "06760dae956a",
    "scenes.v1-pairs-biased": "24ebb973bbd1",
    "scenes.v1-pairs-named": "516e3ddb07f7",
}
KEYS = ("shape", "color", "texture")


@pytest.mark.parametrize("name", LANGUAGE)
def test_distributions_for_language_are_frozen(name):
    assert LANGUAGE[name].data_hash().startswith(FROZEN[name])


def test_attributes_are_what_the_table_says():
    found, names = attributes(TABLE), list(HEADS)
    for i in range(60):
        scene, row = TABLE.describe(i), dict(zip(names, found[i].tolist(), strict=True))
        first = scene["objects"][0]
        assert SHAPES[row["shape"]] == first["shape"]
        assert list(THEMES)[row["theme"]] == THEME_OF[first["shape"]]
        assert RELATIONS[row["relation"]] == scene["relation"]
        assert row["count"] + 1 == len(scene["objects"])
        if scene["relation"] in ("none", "alike"):
            assert [row[f"other {key}"] for key in KEYS] == [-1] * 3
        else:
            assert SHAPES[row["other shape"]] == scene["objects"][1]["shape"]
    assert (found < torch.tensor(list(HEADS.values()))).all()


def test_exchanged_captions_name_the_other_object_first_in_the_same_words():
    true, false = captions(TABLE), captions(swapped(TABLE))
    rows = directed(TABLE)
    assert 100 < rows.sum() < 220
    for i in range(len(TABLE)):
        assert (true[i] != false[i]) == bool(rows[i])
        if rows[i]:
            assert len(true[i].split()) == len(false[i].split()) or "with" in true[i] + false[i]
            one, other = (SHAPES[TABLE.shape[i, k]] for k in (0, 1))
            assert true[i].index(one) < true[i].index(other)
            assert false[i].index(other) < false[i].index(one)


def test_misnamed_scenes_carry_another_shapes_name():
    words = misnamed(TABLE).word
    assert ((words >= 0) & (words < len(SHAPES))).all()
    assert (words != TABLE.shape[:, 0]).all()
    assert len(words.unique()) == len(SHAPES)
    assert (unnamed(misnamed(TABLE)).word == NOTHING).all()


def test_words_name_the_main_object_as_often_as_told():
    table = LANGUAGE["scenes.v1-pairs-named"].sample(torch.arange(4000), seed=1)
    written = table.word != NOTHING
    right = (table.word == table.shape[:, 0])[written].double().mean().item()
    assert written.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert right == pytest.approx(0.9 + 0.1 / 16, abs=0.02)
    with pytest.raises(ValueError, match=r"told must lie in \[0, 1\], got 1.5"):
        Named("x", told=1.5)


def test_biased_colors_follow_the_class():
    table = LANGUAGE["scenes.v1-pairs-biased"].sample(torch.arange(4000), seed=1)
    own = table.shape[:, 0] % 11
    tied = (table.color[:, 0] == own).double().mean().item()
    assert tied == pytest.approx(0.9 + 0.1 / 11, abs=0.02)


def test_all_teachers_see_the_same_images():
    parts = [taught(PAIRS, 8, 16, teacher, seed=3) for teacher in (Classes(), Attributes(), Sentences())]
    assert all(torch.equal(parts[0].x, part.x) for part in parts)
    assert torch.equal(parts[0].y, parts[1].y[:, 0])
    streams = [TaughtStream(PAIRS, 16, t, seed=3) for t in (Classes(), Attributes(), Sentences("class"), Sentences())]
    assert len({stream.name for stream in streams}) == 4
    assert torch.equal(streams[3].minibatch(1, 4).x, taught(PAIRS, 8, 16, Sentences(), seed=3).x[4:])


def test_captions_of_one_class_mean_the_same_however_they_open():
    part = taught(PAIRS, 64, 16, Sentences("class"), seed=0)
    assert torch.equal(part.y.same, part.y.meaning[:, None] == part.y.meaning)
    label = taught(PAIRS, 64, 16, Classes(), seed=0).y
    assert torch.equal(part.y.same, label[:, None] == label)
    equal_rows = (part.y.tokens[:, None] == part.y.tokens).all(dim=2)
    assert (equal_rows <= part.y.same).all()
    assert equal_rows.sum() < part.y.same.sum()
    assert statement("a picture of a star over waves") == "a star over waves"
    assert statement("two red stars") == "two red stars"


def test_a_perfect_pair_has_no_loss_on_class_captions_and_would_have_one_if_rows_were_compared():
    label = taught(PAIRS, 128, 16, Classes(), seed=0).y
    y = taught(PAIRS, 128, 16, Sentences("class"), seed=0).y
    perfect, scale = F.one_hot(label, 16).float(), torch.tensor(100.0)
    assert contrastive_loss(perfect, perfect, scale, y.same).item() == pytest.approx(0.0, abs=1e-4)
    rows = (y.tokens[:, None] == y.tokens).all(dim=2)
    assert contrastive_loss(perfect, perfect, scale, rows).item() > 1.0
    plain = contrastive_loss(perfect, perfect, scale, torch.eye(128, dtype=torch.bool))
    assert plain.item() == pytest.approx(math.log(8), abs=0.3)


def test_wrong_sentences_are_there_for_directed_pairs_alone():
    y = taught(PAIRS, 64, 16, Sentences(hard=True), seed=0).y
    rows = directed(PAIRS.sample(torch.arange(64), seed=0))
    assert torch.equal((y.wrong != PADDING).any(dim=1), rows)
    assert (y.wrong[rows] != y.tokens[rows]).any(dim=1).all()
    shapes = torch.tensor([LEXICON.index(shape) + 1 for shape in SHAPES])
    for true, false in zip(y.tokens[rows], y.wrong[rows], strict=True):
        first = [row[torch.isin(row, shapes)].tolist() for row in (true, false)]
        assert first[0] == first[1][::-1]
    assert torch.equal(y[rows].wrong, y.wrong[rows])


def test_a_wrong_sentence_counts_among_an_images_answers():
    u = F.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    v, w = u.flip(1), F.normalize(torch.ones(2, 4), dim=1)
    same, scale = torch.eye(3, dtype=torch.bool), torch.tensor(5.0)
    forth = F.cross_entropy(5 * u @ torch.cat([v, w]).T, torch.arange(3))
    back = F.cross_entropy(5 * v @ u.T, torch.arange(3))
    assert contrastive_loss(u, v, scale, same, w).item() == pytest.approx(((forth + back) / 2).item(), rel=1e-5)


class Noting(nn.Module):
    """An image–text model that notes how many texts it was given."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.image, self.words = nn.Linear(3 * 256, 5), nn.Embedding(vocabulary().size, 5)
        self.logit_scale, self.given = nn.Parameter(torch.tensor(1.0)), []

    def forward(self, images, tokens):
        self.given.append(len(tokens))
        return self.image(images.flatten(1)), self.words(tokens).mean(dim=1), self.logit_scale.exp()


def test_training_shows_wrong_sentences_once():
    model, stream = Noting(), TaughtStream(PAIRS, 16, Sentences(hard=True), seed=0)
    train(model, stream, Contrastive(), updates=1, batch_size=8, progress=False)
    wrong = (stream.minibatch(0, 8).y.wrong != PADDING).any(dim=1).sum().item()
    assert wrong > 0
    assert model.given == [8 + wrong]


def test_the_loss_of_attributes_is_the_mean_of_their_cross_entropies():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 1], [1, -1], [0, 2]])
    first = F.cross_entropy(logits[:, :2], targets[:, 0])
    second = F.cross_entropy(logits[[0, 2], 2:], targets[[0, 2], 1])
    assert attributes_loss(logits, targets, (2, 3)).item() == pytest.approx(((first + second) / 2).item(), rel=1e-6)
    none = torch.tensor([[0, -1], [1, -1], [0, -1]])
    assert attributes_loss(logits, none, (2, 3)).item() == pytest.approx(first.item() / 2, rel=1e-6)


def test_attributes_are_learned():
    x = torch.rand(32, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    y = torch.stack([(x[:, 0].mean(dim=(1, 2)) > 0.5).long(), (x[:, 1].mean(dim=(1, 2)) > 0.5).long()], dim=1)
    model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3, 4))
    knobs = {"updates": 300, "batch_size": 32, "lr": 0.3, "optimizer": "adam", "progress": False}
    report = train(model, Part(x, y, torch.arange(32)), AttributeTraining((2, 2)), **knobs)
    with torch.no_grad():
        found = torch.stack([part.argmax(dim=1) for part in model(x).split(2, dim=1)], dim=1)
    assert (found == y).double().mean() > 0.9
    assert report.passes.backward == 300


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("widths", "y", "said"),
    [
        ((2, 2), torch.zeros(4, dtype=torch.int64), r"int64 of shape \(4, 2\), got torch.int64 of shape \(4,\)"),
        ((2, 2), torch.full((4, 2), 2), r"must lie in -1 … width - 1"),
        ((2, 3), torch.zeros(4, 2, dtype=torch.int64), "has 4 outputs and the attributes 5 answers"),
        ((), torch.zeros(4, 0, dtype=torch.int64), "widths is empty"),
        ((2, 1), torch.zeros(4, 2, dtype=torch.int64), "answers of an attribute must be a whole number of at least 2"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(widths, y, said):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(ValueError, match=said):
        train(model, Part(torch.rand(4, 3, 2, 2), y, torch.arange(4)), AttributeTraining(widths), updates=1,
              batch_size=4, progress=False)  # fmt: skip


@pytest.mark.bad_input
def test_captioned_targets_of_another_form_are_refused():
    tokens = torch.zeros(3, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"tokens must be int64 of shape \(n, t\)"):
        Captioned(tokens.float(), torch.zeros(3))
    with pytest.raises(ValueError, match="one number a sentence"):
        Captioned(tokens, torch.zeros(2))
    with pytest.raises(ValueError, match=r"wrong sentences must be \(3, 5\) too"):
        Captioned(tokens, torch.zeros(3), tokens[:2])
