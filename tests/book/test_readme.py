"""README's promises: its ten lines run as printed, its picture shows the present results, its paths exist."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from thesis_kit.ledger.results import available, load_result
from tools.build_notebooks import ROOT
from tools.readme_picture import PICTURE

pytestmark = pytest.mark.book
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run_as_printed(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 10
    exec(block, namespace := {})
    printed = capsys.readouterr().out
    assert "1000 updates, 1000 backward passes" in printed
    assert all(attack in printed for attack in ("PGD", "APGD-CE", "Square", "worst case"))
    assert namespace["result"].robust_accuracy > 0.5


@pytest.mark.skipif("defenses.digits" not in available(), reason="chapter 1 has no recorded results yet")
def test_the_picture_was_drawn_from_the_recorded_results():
    with Image.open(PICTURE) as image:
        assert image.text["results"] == load_result("defenses.digits").document["sha256"], "run tools/readme_picture.py"


def test_paths_and_targets_exist():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
