"""Random numbers that belong to an image, not to a batch.

A counter-based generator (SplitMix64, Steele et al. 2014): every number is a hash of (seed, image id, draw,
position). An image therefore meets the same random numbers whatever its neighbors, the batch size or the
device, so an attack on the survivors of another attack gives what it would have given on everything, and a
resumed run goes on as if unbroken.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_WORD = 1 << 64
_AT_ONCE = 1 << 15  # numbers that are made together on a CPU: as many as its cache holds


def _signed(value: int) -> int:
    value %= _WORD
    return value - _WORD if value >= _WORD // 2 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)  # a logical shift: int64 would carry the sign along


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)).mul_(_signed(_MIX_1))
    z = z.bitwise_xor_(_shift(z, 27)).mul_(_signed(_MIX_2))
    return z.bitwise_xor_(_shift(z, 31))


def mix_seed(*parts: int) -> int:
    """Hash whole numbers into one 63-bit seed: ``mix_seed(seed, update)`` gives an independent stream an update."""
    state = 0
    for part in parts:
        state = _mix_word((state + int(part) + _GOLDEN) % _WORD)
    return state & (_WORD // 2 - 1)


def seed_default(seed: int, device: torch.device) -> None:
    """Seed the default generators of the CPU and of ``device``, as ``torch.manual_seed`` does of everything.

    That asks for a traceback for every kind of device that is not in use, which costs up to a millisecond, and leaves
    these to start from the seed whenever they are first used, even behind ``fork_rng``.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _mix_word(z: int) -> int:
    """``_mix`` of one number in [0, 2⁶⁴) without tensors: hashing a seed must not cost what drawing noise does."""
    z = (z ^ (z >> 30)) * _MIX_1 % _WORD
    z = (z ^ (z >> 27)) * _MIX_2 % _WORD
    return z ^ (z >> 31)


class ImageRandom:
    """Streams of random numbers, one an image, that no other image can disturb.

    Args:
        seed: the seed shared by all images.
        ids: (n,) int64, what tells the images apart: positions in the data set, for instance. Its device is
            where the numbers are made.

    Draws return tensors of shape ``(n, *shape)``. ``random[index]`` keeps the streams of a subset, at the
    draw reached.
    """

    def __init__(self, seed: int, ids: Tensor):
        # Mixed once more than an id, or image a of seed b would have the numbers of image b of seed a.
        self._keys = _mix(_mix(ids.to(torch.int64) + _signed(_GOLDEN)) + mix_seed(seed, 0))
        self._draw = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: Tensor | slice) -> ImageRandom:
        subset = ImageRandom.__new__(ImageRandom)
        subset._keys, subset._draw = self._keys[index], self._draw
        return subset

    def fork(self, stream: int) -> ImageRandom:
        """Independent streams for the same images: one an attack or a restart."""
        other = ImageRandom.__new__(ImageRandom)
        other._keys, other._draw = _mix(self._keys + mix_seed(stream + 1)), 0
        return other

    def _draws(self, make: Callable[..., Tensor], shape: tuple[int, ...], draws: int, dtype: torch.dtype) -> Tensor:
        """What ``make`` makes of the bits of so many draws, (n, *shape), on a CPU by few images at a time."""
        size, device = math.prod(shape), self._keys.device
        places = torch.arange(1, size + 1, device=device) * _signed(_GOLDEN)
        numbers = range(self._draw + 1, self._draw + draws + 1)
        self._draw += draws
        starts = [_mix(self._keys + _signed(number * _MIX_2)) for number in numbers]
        rows = max(1, _AT_ONCE // max(1, size)) if device.type == "cpu" else max(1, len(self))
        if len(self) <= rows:
            return make(*(_mix(start[:, None] + places) for start in starts)).to(dtype).view(len(self), *shape)
        made = torch.empty(len(self), size, dtype=dtype, device=device)
        for first in range(0, len(self), rows):
            some = slice(first, first + rows)
            made[some] = make(*(_mix(start[some, None] + places) for start in starts))
        return made.view(len(self), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in [low, high)."""
        dtype = dtype or torch.get_default_dtype()
        unit = _doubles if dtype == torch.float64 else _floats
        return self._draws(lambda bits: low + (high - low) * unit(bits), shape, 1, dtype)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers (Box–Muller)."""
        return self._draws(_box_muller, shape, 2, dtype or torch.get_default_dtype())

    def integers(self, *shape: int, high: int | Tensor) -> Tensor:
        """Whole numbers in [0, high), int64; ``high`` may be a tensor that broadcasts to (n, *shape)."""
        unit = self.uniform(*shape, dtype=torch.float64)
        return (unit * high).floor().to(torch.int64)

    def signs(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """−1 or +1 with equal chance."""
        return self._draws(lambda bits: _shift(bits, 63) * 2 - 1, shape, 1, dtype or torch.get_default_dtype())


def _doubles(bits: Tensor) -> Tensor:
    return _shift(bits, 11).to(torch.float64).mul_(2.0**-53)


def _floats(bits: Tensor) -> Tensor:
    return _shift(bits, 40).to(torch.float32).mul_(2.0**-24)


def _box_muller(first: Tensor, second: Tensor) -> Tensor:
    radius = _doubles(first).neg_().log1p_().mul_(-2).sqrt_()
    return radius.mul_(_doubles(second).mul_(2 * math.pi).cos_())


def image_random(generator: torch.Generator | ImageRandom | None, x: Tensor) -> ImageRandom:
    """Streams for the images ``x`` from what a caller passed as ``generator``.

    A ``torch.Generator`` (or, for None, torch's default one) gives a single number, the seed of the streams;
    the images are told apart by their place in the batch. An ``ImageRandom`` brings its own ids, which
    survive batching, and is left at the draw where it stands: the same streams give the same numbers again.
    """
    if isinstance(generator, ImageRandom):
        if len(generator) != len(x):
            raise ValueError(f"the generator holds streams for {len(generator)} images, but {len(x)} were given")
        return generator[:]
    device = generator.device if generator is not None else "cpu"
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return ImageRandom(seed, torch.arange(len(x), device=x.device))
