"""A chapter's networks and images for what runs live, on the session's device and with a memory of their own there."""

from __future__ import annotations

from typing import Any

from thesis_kit.ledger.memory import Memory
from thesis_kit.session import Session


def live(world: type, table: str, session: Session) -> Any:
    """The world of the session's seed, with the settings that ``table`` has for the session's profile.

    What a GPU has made is not what a CPU's recorded runs would make, so neither finds the other's work.
    """
    made = world(session.seed, session.chapter(table), device=session.device)
    made.memory = Memory(world.__module__, device=session.device)
    return made
