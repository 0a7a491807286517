"""A member of the zoo that is trained in a second, and what tests do to its files."""

from __future__ import annotations

import json
from pathlib import Path

from thesis_kit.zookeeping.recipe import Recipe

NAME = "digits-tiny"
TINY = Recipe(
    title="A tiny network for digits.",
    data="digits",
    architecture="small_cnn",
    options={"width": 6},
    method="free",
    method_options={"eps": 0.1, "replays": 2},
    updates=80,
    lr=0.3,
    eps=(0.1, 8 / 255),
)
SCENES = {"data": "scenes.v1", "data_options": {"size": 8, "n_validation": 4, "n_test": 6}, "method": "natural",
          "method_options": {}, "batch_size": 4, "updates": 10, "eps": (8 / 255,)}  # fmt: skip


def rewrite(folder: Path, change) -> None:
    """Change the member's entry by hand."""
    record = json.loads((folder / f"{NAME}.json").read_bytes())
    change(record)
    (folder / f"{NAME}.json").write_text(json.dumps(record), encoding="utf-8")


def same_files(one: Path, other: Path) -> bool:
    first, second = ((folder / f"{NAME}.safetensors").read_bytes() for folder in (one, other))
    return first == second
