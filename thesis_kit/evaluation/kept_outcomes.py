"""Robust accuracy that is kept while it is measured: a record for every attack on every minibatch.

The file says which model was attacked with what, and every record on which images, so that a call that was broken off
goes on with the next minibatch, and nothing is ever taken for the outcome of something else.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from thesis_kit.asking import Model
from thesis_kit.data.parts import Part
from thesis_kit.files import Journal, OtherRun, digest, note
from thesis_kit.files.tensors import bits, from_bits
from thesis_kit.identity import must_tell, tell
from thesis_kit.passes import Passes

Measured = tuple[Tensor, Passes]
_END = "all"


class Keeper:
    """Measures minibatches, or recalls what was measured before; without a journal it only measures."""

    def __init__(self, journal: Journal | None = None):
        self._journal, self._met = journal, Counter()

    def measure(
        self, attack: str, places: Tensor, images: Part, make: Callable[[], Measured]
    ) -> tuple[Tensor, Passes, float]:
        """Which images (n,) survive an attack, what it cost in passes and in seconds.

        Args:
            attack: its name. places: (n,) where the images stand in the data. make: measures it.

        Raises:
            OtherRun: something was kept for this minibatch, but of other images or labels.
        """
        started = time.monotonic()
        if self._journal is None:
            survived, passes = make()
            return survived, passes, time.monotonic() - started
        about = digest([tell(places), tell(images.x), tell(images.y)])
        key = f"{attack}, {self._met[attack]}"
        self._met[attack] += 1
        if key not in self._journal.known:
            if _END in self._journal.known:
                self._refuse(key)
            survived, passes = make()
            record = {"images": about, "survived": bits(survived), "passes": asdict(passes)}
            self._journal.append(key, {**record, "seconds": time.monotonic() - started})
        kept = self._journal.known[key]
        if kept["images"] != about:
            self._refuse(key)
        return from_bits(kept["survived"]).to(places.device), Passes(**kept["passes"]), kept["seconds"]

    def _refuse(self, key: str) -> None:
        raise OtherRun(
            f"{self._journal.path} was measured on other images or labels (minibatch {key!r}): name another file, or "
            "delete it to begin anew"
        )


@contextlib.contextmanager
def keeping(
    out: str | os.PathLike | None, model: Model, attacks: Mapping[str, Callable], settings: Mapping[str, Any]
) -> Iterator[Keeper]:
    """A keeper for this model, these attacks and settings, which has the file for itself inside the block.

    Raises:
        OtherRun: the file belongs to another model, other attacks or settings; what differs is named.
        ValueError: nothing tells the model or an attack apart from others of its kind.
    """
    if out is None:
        yield Keeper()
        return
    told = {name: must_tell(attack) for name, attack in attacks.items()}
    header = {"model": must_tell(model), "attacks": told, "order": list(attacks), **settings}
    journal = Journal(out, header, what="measurement of robust accuracy")
    journal.look()
    if _END in journal.known:  # only read, for which nobody need be able to write
        yield Keeper(journal)
        return
    try:
        with journal.held():
            yield Keeper(journal)
            journal.append(_END, {"minibatches": len(journal.known)})
    except (KeyboardInterrupt, SystemExit) as stop:
        if journal.path.exists():
            minibatches = len(journal.known.keys() - {_END})
            note(stop, f"{out} keeps {minibatches:,} minibatches: the same call goes on from there")
        raise
