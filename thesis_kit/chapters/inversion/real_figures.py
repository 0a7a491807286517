"""What chapter 4 shows of its real network: recorded drawings by their classes, and a table of what others read.

Recordings of real networks grow over days; what is drawn here is what is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from thesis_kit.chapters.inversion.figures import picture_grid, recorded_pictures, stages_slider
from thesis_kit.files import parse_json
from thesis_kit.ledger.results import NotRecorded, Result
from thesis_kit.show.figures import Shown
from thesis_kit.show.players import Slider

READING = Path(__file__).with_name("results") / "reading.json"  # what somebody took drawings for, before the answers
_COLUMNS = ("drawings", "V", "V, blurred", "mean rank", "mean rank, blurred", "high freq.")


def finished(recorded: Result, arms: Mapping[str, str]) -> dict[str, str]:
    """Those of the arms that have a drawing, in their order, and what they are called.

    Raises:
        NotRecorded: there is none.
    """
    found = {arm: called for arm, called in arms.items() if arm in recorded.arms}
    if not found:
        raise NotRecorded(f"none of {', '.join(arms)} is recorded: `thesis-kit claims run --arena real` measures them")
    return found


def drawings(recorded: Result, arm: str) -> dict[int, Tensor]:
    """The drawings that an arm kept, each (3, h, w), by the number of its class."""
    kept = recorded_pictures(recorded, arm)
    return {int(name.split()[1]): image for name, image in kept.items() if name.startswith("class ")}


def known_grid(
    recorded: Result, arms: Mapping[str, str], names: Mapping[int, str], *, label: str, caption: str
) -> Shown:  # fmt: skip
    """The same classes by several methods: a row an arm, a column a class of ``names`` (logit → name); of six or more,
    three beside each other on a phone."""
    arms = finished(recorded, arms)
    rows = {called: [drawings(recorded, arm)[number] for number in names] for arm, called in arms.items()}
    alt = f"Drawings of {', '.join(names.values())}, a row each: {'; '.join(arms.values())}."
    fold = 3 if len(names) >= 6 else None
    return picture_grid(rows, list(names.values()), label=label, caption=caption, alt=alt, fold=fold)


def kept_stages(recorded: Result, arm: str, name: str, *, label: str, caption: str) -> Slider:
    """The first class of an arm that kept its stages, at the end of each: a slider."""
    kept = recorded_pictures(recorded, arm)
    earlier = [kept[f"stage {number}"] for number in range(1, 1 + sum(key.startswith("stage") for key in kept))]
    last = next(image for key, image in kept.items() if key.startswith("class "))
    return stages_slider([image[None] for image in (*earlier, last)], [name], label=label, caption=caption)


def reading_rows(recorded: Result, arms: Mapping[str, str]) -> tuple[list[tuple[str, ...]], Sequence[str]]:
    """Rows and head of a table: what other networks read in an arm's drawings, as means over those that there are."""
    return [_row(recorded, arm, called) for arm, called in finished(recorded, arms).items()], _COLUMNS


def _row(recorded: Result, arm: str, called: str) -> tuple[str, ...]:
    v, soft, rank, soft_rank, fine = (
        recorded.mean(measure, arm).value
        for measure in ("recognized", "recognized_soft", "log_rank", "log_rank_soft", "high_frequency")
    )
    n = sum(cell["n"] for cell in recorded.cells[arm].values())
    ranks = (f"{math.exp(value):.1f}" for value in (rank, soft_rank))
    return (f"{called} ({n})", f"{v:.0%}", f"{soft:.0%}", *ranks, f"{fine:.0%}")


def blind_images(recorded: Result, arm: str, names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """An arm's drawings, (n, 3, h, w), and what each is."""
    kept = drawings(recorded, arm)
    return torch.stack(list(kept.values())), [names[number] for number in kept]


def blind_reading(names: Sequence[str]) -> str:
    """What the one blind reading that was written down came to, in a sentence with its limits."""
    read = parse_json(READING.read_bytes(), READING.name)
    pairs = [(guess, names[number]) for guess, number in zip(read["guesses"], read["classes"], strict=True)]
    right, taken = sum(guess == name for guess, name in pairs), [pair for pair in pairs if pair[0] != pair[1]]
    wrong = ", ".join(f"the {name} for {guess}" for guess, name in taken)
    return f"{right} of {len(pairs)} were named rightly ({read['how']}); taken were {wrong}."
