"""What the JSON beside drawings says, whatever they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thesis_kit import __version__

if TYPE_CHECKING:
    from torch import nn

    from thesis_kit.synthesis import Synthesis


def record_of(
    model: str, network: nn.Module, settings: dict[str, Any], images: list[dict[str, Any]], found: Synthesis
) -> dict[str, Any]:
    """Which network drew, with which settings, what it drew and what that cost."""
    from thesis_kit.identity import fingerprint

    return {
        "model": model,
        "weights": fingerprint(network),
        "version": __version__,
        "settings": settings,
        "images": images,
        "passes": vars(found.passes),
        "seconds": found.seconds,
        "peak_bytes": found.peak_bytes,
    }
