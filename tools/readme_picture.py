"""Draw the README's picture from the recorded results, their hash inside, so that a test can tell a stale one."""

from __future__ import annotations

from pathlib import Path

from thesis_kit.chapters.defenses.figures import NAMES, draw_cost, recorded_points
from thesis_kit.ledger.results import load_result

PICTURE = Path(__file__).resolve().parent.parent / "book" / "_static" / "cost.png"


def main() -> None:
    """Write book/_static/cost.png."""
    recorded = load_result("defenses.digits")
    figure = draw_cost(recorded_points(recorded, NAMES))
    figure.savefig(PICTURE, dpi=110, metadata={"results": recorded.sha256})


if __name__ == "__main__":
    main()
