"""What chapter 4 shows of its real network: arms that are there, ranks as geometric means, the one blind reading."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thesis_kit.chapters.inversion import real_figures
from thesis_kit.ledger.results import NotRecorded, load_result

NAMES = tuple(f"class {number}" for number in range(1000))


@pytest.fixture(scope="module")
def recorded():
    return load_result("inversion.real")


def test_a_grid_has_the_arms_that_are_recorded_and_says_so(recorded):
    arms = {"nothing@lite0": "nothing", "shown-fourier@lite0": "in frequencies"}
    shown = real_figures.known_grid(recorded, arms, {340: "zebra", 292: "tiger"}, label="Figure 1", caption="Two.")
    assert "Drawings of zebra, tiger, a row each: in frequencies." in shown.html
    assert shown.html.count("<img") == 2
    with pytest.raises(NotRecorded, match="none of nothing@lite0 is recorded"):
        real_figures.finished(recorded, {"nothing@lite0": "nothing"})


def test_ranks_are_geometric_means_over_all_drawings(recorded):
    (row,), head = real_figures.reading_rows(recorded, {"shown-ce@lite0": "the gradient"})
    numbers = np.concatenate(list(recorded.per_image("log_rank", "shown-ce@lite0").values()))
    assert row[0] == f"the gradient ({len(numbers)})"
    assert row[head.index("mean rank")] == f"{math.exp(numbers.mean()):.1f}"


def test_the_stages_of_a_drawing_grow_to_its_size(recorded):
    kept = real_figures.recorded_pictures(recorded, "shown-fourier@lite0")
    assert [kept[f"stage {number}"].shape[-1] for number in range(1, 7)] == [32, 48, 64, 80, 96, 112]
    slider = real_figures.kept_stages(recorded, "shown-fourier@lite0", "zebra", label="Figure 1", caption="Growing.")
    assert slider.render(1)[1] == "After stage 1 of 7: 32 × 32 pixels."
    assert slider.render(7)[1] == "After stage 7 of 7: 128 × 128 pixels."


def test_a_blind_reading_is_counted_against_names(tmp_path, monkeypatch):
    path = tmp_path / "reading.json"
    path.write_text('{"classes": [3, 1, 2], "guesses": ["class 3", "class 2", "class 2"], "how": "once"}')
    monkeypatch.setattr(real_figures, "READING", path)
    said = real_figures.blind_reading(NAMES)
    assert said == "2 of 3 were named rightly (once); taken were the class 1 for class 2."
