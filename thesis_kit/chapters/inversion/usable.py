"""How many weights of total variation can be used, from the shares of drawings that are recognized at each."""

from __future__ import annotations

import numpy as np

USABLE = 0.8  # of the best V: a weight of total variation that keeps so much of it can be used
_ROUNDING = 1e-9  # of a share


def usable_weights(shares: np.ndarray) -> np.ndarray:
    """How many weights of each arm keep ``USABLE`` of the best share that any arm reaches at any weight.

    Args:
        shares: V at every weight, (arms, …, weights).

    Returns:
        Counts, (arms, …); zero where nothing is recognized at all.
    """
    floor = USABLE * shares.max(axis=(0, -1), keepdims=True)
    return ((shares >= floor - _ROUNDING) & (floor > 0)).sum(axis=-1)
