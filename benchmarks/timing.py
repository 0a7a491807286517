"""What two pieces of work cost beside one another, in one run: machines are noisy, ratios less so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(one: Callable[[], object], other: Callable[[], object], pairs: int) -> float:
    """Median over pairs, each in turn in the other order, of the seconds of one over those of the other."""
    found = []
    for pair in range(-1, pairs):  # the first pair warms up
        order = (one, other) if pair % 2 else (other, one)
        spent = {work: seconds(work) for work in order}
        found += [spent[one] / spent[other]] if pair >= 0 else []
    return statistics.median(found)
