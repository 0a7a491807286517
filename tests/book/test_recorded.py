"""The recorded results can be had again: one seed of one arm, measured anew, lies where the recorded seeds say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thesis_kit.experiments import find
from thesis_kit.files import digest
from thesis_kit.reporting.results import available, load_result

pytestmark = [
    pytest.mark.book,
    pytest.mark.skipif("defenses.digits" not in available(), reason="chapter 1 has no recorded results yet"),
]


def prediction_interval(values: list[float], level: float = 0.99) -> tuple[float, float]:
    """Where one more seed falls with this chance, if seeds are alike (Student's t)."""
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) * math.sqrt(1 + 1 / len(values))
    return np.mean(values) - half, np.mean(values) + half


def test_one_seed_of_chapter_1_measured_again():
    arm, seed = "fgsm@enlarged", 0
    experiment, recorded = find("defenses", "digits"), load_result("defenses.digits")
    again = experiment.run(arm, seed, experiment.config)
    for measure in ("N", "one step"):
        low, high = prediction_interval(list(recorded.scalars(measure, arm).values()))
        assert low <= np.mean(again["outcomes"][measure]) <= high, measure
    assert again["scalars"]["passes"] == recorded.scalars("passes", arm)[seed]


def test_every_planned_run_was_recorded_with_the_present_settings_and_data():
    recorded, experiment = load_result("defenses.digits"), find("defenses", "digits")
    assert {arm: recorded.missing(arm) for arm in recorded.document["planned"] if recorded.missing(arm)} == {}
    assert recorded.document["planned"] == {arm: experiment.seeds(arm) for arm in experiment.arms}
    assert recorded.document["data"] == experiment.data_hashes()
    assert recorded.document["config_hash"] == digest(experiment.config)
