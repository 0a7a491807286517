"""What a training run sees when: minibatch number i, as a function of the seed and of i alone.

An epoch of stored images is a permutation drawn from (seed, epoch) and cut in order; a stream numbers its minibatches
itself. A resumed run begins in the middle by asking for a later number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from thesis_kit.checks import check_count
from thesis_kit.data.forms import FORMS, Pair, in_memory, is_dataset, labelled
from thesis_kit.data.parts import Part, Stream, Targets
from thesis_kit.randomness import mix_seed

_ORDER, _ITEM = 1, 3  # which stream of the seed a random number comes from; the loop's own is 2

Data = Part | Pair | Stream | Dataset | Iterable
Stored = Part | Stream | Dataset | Iterable  # a pair has become a part
Minibatch = tuple[Tensor, Targets, Tensor | None]


def stored(data: Data) -> Stored:
    """Data in any form that training takes, a pair of tensors or arrays as a part.

    Raises:
        TypeError: another form, or minibatches that can be read only once.
    """
    part = in_memory(data)
    if part is not None:
        return part
    if isinstance(data, Stream) or is_dataset(data):
        return data
    if not isinstance(data, Iterable) or isinstance(data, str | dict | Tensor):
        raise TypeError(f"training images come as a Stream, {FORMS}; got {type(data).__name__}")
    if isinstance(data, Iterator):
        raise TypeError(
            f"{type(data).__name__} can be read only once, and training reads its data many times: give {FORMS}"
        )
    return data


def identify(data: Stored) -> int | str:
    """What a checkpoint knows the data by: a stream's name, else the number of images, at least one."""
    if isinstance(data, Stream):
        return data.name
    if not isinstance(data, Part) and not is_dataset(data):
        images = getattr(data, "dataset", None)
        return f"{type(data).__name__} of {len(images)}" if hasattr(images, "__len__") else type(data).__name__
    check_count(len(data), what="the number of training images")
    return len(data)


def minibatches(
    data: Stored, first: int, last: int, *, batch_size: int, seed: int, device: torch.device, workers: int
) -> Iterator[Minibatch]:
    """Minibatches ``first`` to ``last``: images and labels on the device, and where they stand in stored data."""
    if isinstance(data, Stream):
        return _streamed(data.to(device), first, last, batch_size)
    if not isinstance(data, Part) and not is_dataset(data):
        return _loaded(data, first, last, seed, device)
    orders = (_order(position, len(data), batch_size, seed) for position in range(first, last))
    if isinstance(data, Part):
        return _stored(data, orders, device)
    batches = ([(place, index) for index in order.tolist()] for place, order in enumerate(orders, start=first))
    private = torch.Generator()  # else a loader draws from the caller's random state
    loader = DataLoader(_Seeded(data, seed), batch_sampler=batches, num_workers=workers, generator=private)
    return ((x.to(device), torch.as_tensor(y).to(device), index.to(device)) for x, y, index in loader)


def _order(position: int, n: int, batch_size: int, seed: int) -> Tensor:
    """Which of n stored images make up the minibatch; an epoch's last one may be smaller."""
    epoch, place = divmod(position, -(-n // batch_size))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(mix_seed(seed, _ORDER, epoch)))
    return order[place * batch_size : (place + 1) * batch_size]


def _stored(data: Part, orders: Iterator[Tensor], device: torch.device) -> Iterator[Minibatch]:
    for order in orders:
        part = data[order.to(data.x.device)].to(device)
        yield part.x, part.y, order.to(device)


def _streamed(data: Stream, first: int, last: int, size: int) -> Iterator[Minibatch]:
    for position in range(first, last):
        part = data.minibatch(position, size)
        if len(part) != size:
            raise ValueError(
                f"the stream {data.name} gave {len(part)} images for minibatch {position}, {size} were asked for: "
                "mend its minibatch(position, size)"
            )
        yield part.x, part.y, None


def _loaded(loader: Iterable, first: int, last: int, seed: int, device: torch.device) -> Iterator[Minibatch]:
    """Minibatches as a loader cuts them, epoch after epoch; what it draws from torch's generator follows the seed.

    A run that is resumed in the middle of an epoch reads that epoch from its beginning.
    """
    length = len(loader) if hasattr(loader, "__len__") else 0
    epoch, position = (first // length, first // length * length) if length else (0, 0)
    while position < last:
        begun = position
        for minibatch in _own_randomness(loader, mix_seed(seed, _ORDER, epoch)):
            if first <= position < last:
                yield *labelled(minibatch, device), None
            position += 1
            if position >= last:
                return
        if position == begun:
            raise ValueError("the loader gave no minibatch: the data are empty, or it was read before")
        epoch += 1


def _own_randomness(loader: Iterable, seed: int) -> Iterator[object]:
    """The loader's minibatches, with torch's generator seeded for them and given back in between."""
    outside, inside, nothing = torch.get_rng_state(), torch.Generator().manual_seed(seed).get_state(), object()
    minibatches = None
    while True:
        torch.set_rng_state(inside)
        minibatches = iter(loader) if minibatches is None else minibatches
        minibatch = next(minibatches, nothing)
        inside = torch.get_rng_state()
        torch.set_rng_state(outside)
        if minibatch is nothing:
            return
        yield minibatch
        outside = torch.get_rng_state()


class _Seeded(Dataset):
    """Items by (minibatch, index), with the index: random transforms depend on seed and minibatch, not on the past."""

    def __init__(self, data: Dataset, seed: int):
        self.data, self.seed = data, seed

    def __getitem__(self, place: tuple[int, int]) -> tuple:
        torch.manual_seed(mix_seed(self.seed, _ITEM, *place))  # in a worker process, or inside the loop's fork
        x, y = self.data[place[1]]
        return x, y, place[1]
