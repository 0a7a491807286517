"""Reports as tables: every attack a row, the worst case last, and code as code."""

from __future__ import annotations

import torch

from tests.unit.test_figures import Elements
from thesis_kit import training
from thesis_kit.evaluation import AttackOutcome, RobustAccuracy
from thesis_kit.passes import Passes
from thesis_kit.show.reports import attacks_table, source


def report(attacks: int) -> RobustAccuracy:
    survived = torch.tensor([True, True, False, False])
    cost = Passes(forward_images=30, backward_images=10)
    outcomes = [AttackOutcome(f"attack {n}", survived.roll(n), 4, cost, 0.5) for n in range(attacks)]
    return RobustAccuracy(torch.tensor([True, True, True, False]), outcomes)


def test_every_attack_is_a_row_with_its_interval_and_cost():
    lines = attacks_table(report(2), caption="a network").text.splitlines()
    assert lines[0] == "a network"
    assert [line.split()[0] for line in lines[2:]] == ["no", "attack", "attack", "worst"]
    assert "75.0%" in lines[2]
    assert lines[3].split() == ["attack", "0", "50.0%", "15.0", "to", "85.0", "10"]
    assert "25.0%" in lines[-1]
    rows = Elements(attacks_table(report(2)).html).all("tr")
    assert [row.get("class") for row in rows] == [None] * 4 + ["tk-bold"]


def test_one_attack_is_its_own_worst_case():
    assert "worst" not in attacks_table(report(1)).text


def test_a_functions_lines_are_shown_as_code():
    shown = source(training.Free.minibatch)
    assert shown._repr_markdown_().startswith("```python\ndef minibatch(")
    assert shown._repr_markdown_().endswith("```\n")
    assert repr(shown) in shown._repr_markdown_()
