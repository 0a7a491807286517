"""A curriculum: one stream after another, from easy images to those that count (Bengio et al. 2009)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from thesis_kit.checks import check_count
from thesis_kit.data.parts import Part, Stream


class Curriculum(Stream):
    """Minibatches of the first stream, then of the second, and so on; the last one never ends.

    Args:
        streams: at least one, in order.
        minibatches: how many to take of each stream but the last.

    A minibatch keeps its number, so that streams that tell their images apart by it never repeat one.
    """

    def __init__(self, streams: Sequence[Stream], minibatches: Sequence[int]):
        if not streams or len(minibatches) != len(streams) - 1:
            raise ValueError(
                f"a curriculum needs a number of minibatches for every stream but the last, got {len(streams)} streams "
                f"and {len(minibatches)} numbers"
            )
        for count in minibatches:
            check_count(count, what="minibatches of a stream", least=0)
        self._streams, self._minibatches = tuple(streams), tuple(minibatches)
        parts = [f"{count} of {stream.name}" for count, stream in zip(minibatches, streams[:-1], strict=True)]
        self.name = ", ".join([*parts, streams[-1].name])

    def minibatch(self, position: int, size: int) -> Part:
        """Minibatch number ``position``, from the stream whose turn it is."""
        return self._stream(position).minibatch(position, size)

    def _stream(self, position: int) -> Stream:
        for count, stream in zip(self._minibatches, self._streams[:-1], strict=True):
            if position < count:
                return stream
            position -= count
        return self._streams[-1]

    def to(self, device: torch.device | str) -> Curriculum:
        """The same curriculum on another device."""
        return Curriculum([stream.to(device) for stream in self._streams], self._minibatches)
