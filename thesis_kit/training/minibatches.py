"""What a training run sees when: minibatch number i, as a function of the seed and of i alone.

An epoch of stored images is a permutation drawn from (seed, epoch) and cut in order; a stream numbers its minibatches
itself. A resumed run begins in the middle by asking for a later number.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from thesis_kit.checks import check_count
from thesis_kit.data.parts import Part, Stream
from thesis_kit.randomness import mix_seed

_ORDER, _ITEM = 1, 3  # which stream of the seed a random number comes from; the loop's own is 2

Data = Part | Stream | Dataset


def identify(data: Data) -> int | str:
    """What a checkpoint knows the data by: a stream's name, else the number of images, at least one."""
    if isinstance(data, Stream):
        return data.name
    check_count(len(data), what="the number of training images")
    return len(data)


def minibatches(
    data: Data, first: int, last: int, *, batch_size: int, seed: int, device: torch.device, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of minibatches ``first`` to ``last``, on the device."""
    if isinstance(data, Stream):
        return _streamed(data.to(device), first, last, batch_size)
    orders = (_order(position, len(data), batch_size, seed) for position in range(first, last))
    if isinstance(data, Part):
        return _stored(data, orders, device)
    batches = ([(place, index) for index in order.tolist()] for place, order in enumerate(orders, start=first))
    loader = DataLoader(_Seeded(data, seed), batch_sampler=batches, num_workers=workers)
    return ((x.to(device), torch.as_tensor(y).to(device)) for x, y in loader)


def _order(position: int, n: int, batch_size: int, seed: int) -> Tensor:
    """Which of n stored images make up the minibatch; an epoch's last one may be smaller."""
    epoch, place = divmod(position, -(-n // batch_size))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(seed, _ORDER, epoch)))
    return order[place * batch_size : (place + 1) * batch_size]


def _stored(data: Part, orders: Iterator[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for order in orders:
        part = data[order.to(data.x.device)].to(device)
        yield part.x, part.y


def _streamed(data: Stream, first: int, last: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for position in range(first, last):
        part = data.minibatch(position, size)
        if len(part) != size:
            raise ValueError(
                f"the stream {data.name} gave {len(part)} images for minibatch {position}, {size} were asked for: "
                "mend its minibatch(position, size)"
            )
        yield part.x, part.y


class _Seeded(Dataset):
    """Items by (minibatch, index): their random transforms depend on the seed and the minibatch, not on the past."""

    def __init__(self, data: Dataset, seed: int):
        self.data, self.seed = data, seed

    def __getitem__(self, place: tuple[int, int]) -> tuple:
        torch.manual_seed(mix_seed(self.seed, _ITEM, *place))  # in a worker process, or inside the loop's fork
        return self.data[place[1]]
