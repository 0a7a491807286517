"""What units answer to: planted units are found, and planted noise is not."""

from __future__ import annotations

import pytest
import torch

from thesis_kit.data.text import Vocabulary
from thesis_kit.language.naming import agreement, count_auroc, name_by_text, selective, strata_of, theme_auroc
from thesis_kit.models import Classifier, Clip

N = 800
G = torch.Generator().manual_seed(0)
LABEL = torch.arange(N) % 4
AREA = torch.rand(N, generator=G)
NOISE = torch.randn(N, 6, generator=G)


def test_strata_are_of_one_class_and_about_one_area():
    strata = strata_of(LABEL, AREA, bins=2)
    assert len(strata.unique()) == 8
    for stratum in strata.unique():
        rows = strata == stratum
        assert len(LABEL[rows].unique()) == 1
        assert AREA[rows].max() - AREA[rows].min() < 0.55


def test_a_unit_of_a_concept_is_selective_and_one_of_the_class_is_not():
    concept = torch.rand(N, 2, generator=G) < torch.where(LABEL[:, None] < 2, 0.8, 0.2)  # tied to the class
    a = torch.stack([concept[:, 0] + 0.3 * NOISE[:, 0], (LABEL < 2) + 0.1 * NOISE[:, 1], NOISE[:, 2],
                     torch.zeros(N)], dim=1)  # fmt: skip
    found = selective(a, concept, strata_of(LABEL, AREA), shuffles=5)
    assert found.tolist() == [[True, False], [False, False], [False, False], [False, False]]


def test_a_concept_that_is_everywhere_is_selected_by_nobody():
    found = selective(NOISE, torch.ones(N, 1, dtype=torch.bool), LABEL, shuffles=2)
    assert not found.any()


def test_a_low_bar_is_still_above_chance():
    concept = torch.rand(N, 1, generator=G) < 0.5
    found = selective(NOISE, concept, LABEL, least=0.0, shuffles=20)
    assert found.sum() <= 1


def test_a_theme_unit_answers_to_every_member_and_a_shape_unit_does_not():
    themes, shape = torch.tensor([0, 0, 1, 1]), torch.arange(N) % 4
    a = torch.stack([(shape < 2) + 0.2 * NOISE[:, 0], (shape == 0) + 0.2 * NOISE[:, 1], NOISE[:, 2]], dim=1)
    found = theme_auroc(a, shape, themes)
    assert found.shape == (3, 2)
    assert found[0, 0] > 0.99
    assert found[0, 1] < 0.01
    assert 0.3 < found[1, 0] < 0.7  # its other member is no more than those outside
    assert ((found[2] > 0.3) & (found[2] < 0.6)).all()


def test_units_that_count_are_told_from_units_of_area():
    many = torch.rand(N, generator=G) < AREA  # many objects cover more
    a = torch.stack([many + 0.1 * NOISE[:, 0], AREA, NOISE[:, 1]], dim=1)
    found = count_auroc(a, many, strata_of(LABEL, AREA, bins=20))
    assert found[0] > 0.99
    assert found[1] == pytest.approx(0.5, abs=0.12)
    assert found[2] == pytest.approx(0.5, abs=0.12)


class Means(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


class Axes(torch.nn.Module):
    def forward(self, tokens):
        return torch.eye(3)[tokens[:, 0] - 1]


def test_names_by_text_are_what_the_strongest_images_have_beyond_others():
    words = ["red", "green", "blue"]
    clip = Clip(Classifier(Means()), Axes(), Vocabulary(words, context=3))
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(90, 3, 1, 1, generator=generator).expand(90, 3, 4, 4) * torch.tensor([1.0, 0.5, 0.5])[:, None, None]
    a = torch.stack([x[:, 2, 0, 0], x[:, 0, 0, 0], x[:, 1, 0, 0]], dim=1)
    named, scores = name_by_text(clip, a, x.contiguous(), words, k=10)
    assert named.tolist() == [2, 0, 1]
    assert scores.shape == (3, 3)
    assert agreement(named, torch.tensor([2, 0, 2])) == pytest.approx(2 / 3)


@pytest.mark.bad_input
def test_names_that_do_not_fit_are_refused():
    clip = Clip(Classifier(Means()), Axes(), Vocabulary(["red"], context=3))
    for rows, k in ((9, 10), (8, 2)):
        with pytest.raises(ValueError, match="give a row an image, and no larger k"):
            name_by_text(clip, torch.rand(rows, 2), torch.rand(9, 3, 4, 4), ["red"], k=k)
    with pytest.raises(ValueError, match="one a unit in both"):
        agreement(torch.tensor([0, 1]), torch.tensor([1]))
