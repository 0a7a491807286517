"""Streams keyed per image: uniform, independent across images, draws and positions, and untouched by company."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from thesis_kit.randomness import _GOLDEN, ImageRandom, _mix, _signed, image_random, mix_seed

ACCEPTED = 1e-3  # seeds are fixed, so a p-value below this is a finding and not bad luck


def streams(n: int = 500, seed: int = 0) -> ImageRandom:
    return ImageRandom(seed, torch.arange(n))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Correlation of two samples in standard errors."""
    a, b = a.flatten().double(), b.flatten().double()
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item() * math.sqrt(len(a))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_uniform(dtype, seed):
    numbers = streams(seed=seed).uniform(10, 20, dtype=dtype)
    assert numbers.shape == (500, 10, 20)
    assert numbers.dtype == dtype
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > ACCEPTED
    by_image = stats.kstest(numbers.mean(dim=(1, 2)).numpy(), "norm", args=(0.5, math.sqrt(1 / 12 / 200)))
    by_position = stats.kstest(numbers.mean(dim=0).flatten().numpy(), "norm", args=(0.5, math.sqrt(1 / 12 / 500)))
    assert min(by_image.pvalue, by_position.pvalue) > ACCEPTED
    assert numbers.unique().numel() > 0.98 * numbers.numel()


def test_limits_and_shapes():
    random = streams()
    numbers = random.uniform(3, low=-0.2, high=0.4)
    assert -0.2 <= numbers.min() < -0.19
    assert 0.39 < numbers.max() <= 0.4
    assert random.uniform().shape == (500,)
    assert random.uniform(0, 3).shape == (500, 0, 3)
    assert streams(0).uniform(2, 3).shape == (0, 2, 3)
    assert random.uniform(2).dtype == torch.get_default_dtype()
    for dtype in (torch.float16, torch.bfloat16):
        assert random.normal(2, dtype=dtype).dtype == dtype


def test_normal():
    numbers = streams().normal(100, dtype=torch.float64)
    assert stats.kstest(numbers.flatten().numpy(), "norm").pvalue > ACCEPTED
    assert stats.kstest((numbers**2).sum(dim=1).numpy(), "chi2", args=(100,)).pvalue > ACCEPTED


def test_integers():
    numbers = streams().integers(100, high=7)
    assert numbers.dtype == torch.int64
    assert stats.chisquare(numbers.flatten().bincount(minlength=7).numpy()).pvalue > ACCEPTED
    each = streams(3).integers(4000, high=torch.tensor([[1], [2], [50]]))
    assert each.amin(dim=1).tolist() == [0, 0, 0]
    assert each.amax(dim=1).tolist() == [0, 1, 49]


def test_signs():
    signs = streams().signs(100)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert stats.binomtest(int((signs > 0).sum()), signs.numel()).pvalue > ACCEPTED


def test_nothing_is_correlated():
    random = streams(2000)
    first, second = random.uniform(40, dtype=torch.float64), random.uniform(40, dtype=torch.float64)
    forked = streams(2000).fork(0).uniform(40, dtype=torch.float64)
    seeded = streams(2000, seed=1).uniform(40, dtype=torch.float64)
    pairs = {
        "neighboring images": (first[1:], first[:-1]),
        "neighboring positions": (first[:, 1:], first[:, :-1]),
        "the same place in the next draw": (first, second),
        "a fork": (first, forked),
        "another seed": (first, seeded),
    }
    assert {name: round(z, 1) for name, (a, b) in pairs.items() if abs(z := correlation(a, b)) > 4} == {}


def test_nearby_seeds_and_ids_share_no_number():
    drawn = [ImageRandom(seed, torch.arange(50)).uniform(50, dtype=torch.float64).flatten() for seed in range(20)]
    assert torch.cat(drawn).unique().numel() == 20 * 2500
    swapped = ImageRandom(1, torch.tensor([2])).uniform(3), ImageRandom(2, torch.tensor([1])).uniform(3)
    assert not torch.equal(*swapped)


@pytest.mark.parametrize("index", [[3], [7, 2, 499], list(range(100, 0, -1))])
def test_an_image_has_its_numbers_in_any_company(index):
    together, alone = streams(), ImageRandom(0, torch.tensor(index))
    for draw in ("uniform", "normal", "signs"):
        assert torch.equal(getattr(together, draw)(4, 5)[index], getattr(alone, draw)(4, 5))


def test_a_subset_goes_on_where_the_whole_was():
    whole = streams()
    whole.uniform(3)
    left = torch.arange(500) % 3 == 0
    some = whole[left]
    assert len(some) == int(left.sum())
    assert torch.equal(some.uniform(8), whole.uniform(8)[left])
    some.uniform(1)  # does not move the whole
    again = streams()
    again.uniform(3), again.uniform(8)
    assert torch.equal(again.uniform(2), whole.uniform(2))


def test_a_longer_draw_begins_like_a_shorter_one():
    assert torch.equal(streams().uniform(9)[:, :4], streams().uniform(4))


def test_forks():
    random = streams()
    forks = [random.fork(stream).uniform(5) for stream in range(10)]
    assert torch.stack(forks).unique().numel() > 0.99 * 10 * 2500
    random.uniform(1)
    assert torch.equal(random.fork(3).uniform(5), forks[3]), "a fork does not depend on the draw reached"
    index = torch.tensor([5, 1])
    assert torch.equal(random[index].fork(3).uniform(5), forks[3][index])


def test_mix_seed():
    assert mix_seed(1, 2) == mix_seed(1, 2)
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert mix_seed(1) != mix_seed(1, 0)
    seeds = np.array([mix_seed(a, b) for a in range(40) for b in range(40)])
    assert len(np.unique(seeds)) == 1600
    assert seeds.min() >= 0
    assert stats.kstest(seeds / 2**63, "uniform").pvalue > ACCEPTED
    assert mix_seed(-1) >= 0
    assert mix_seed(2**64 + 5) == mix_seed(5)


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((), 0),
        ((0,), 7070836379803831727),
        ((-1,), 7266964230113668128),
        ((2**63 - 1,), 3055647633038352039),
        ((2**63,), 5196802822362493915),
        ((-(2**63),), 5196802822362493915),
        ((2**64 + 5,), 7134611160154358618),
        ((1, 2, 3), 7702586659592502839),
        ((0, 1, 0, 0), 5836808580306815285),
        ((7, 1, 12345, 999), 1550918842606439214),
        ((3, 2, 4, 5, 6), 1205502005644458886),
        ((10**30, -(10**30)), 48375421121830499),
    ],
)
def test_seeds_are_frozen(parts, seed):
    """Recorded results rest on them."""
    assert mix_seed(*parts) == seed


@pytest.mark.bad_input
def test_seeds_may_be_numpys():
    assert mix_seed(np.int64(7), np.int64(1), np.uint8(2)) == mix_seed(7, 1, 2)


def test_a_seed_is_hashed_as_a_stream_is():
    """A number's hash is the same whether it is hashed alone or in a tensor: ``_mix`` of the word plus the constant."""
    words = [0, 1, 2**31, 2**63 - 1, -1, -(2**63), 123456789012345678]
    hashed = _mix(torch.tensor(words) + _signed(_GOLDEN)) & (2**63 - 1)
    assert [mix_seed(word) for word in words] == hashed.tolist()


def test_a_seed_costs_no_tensor():
    class NoTensor(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            raise AssertionError(f"{function} was called")

    with NoTensor():
        assert mix_seed(1, 2, 3) > 0


def test_the_numbers_are_frozen():
    """Recorded results rest on them."""
    numbers = ImageRandom(7, torch.tensor([0, 12345])).uniform(2, dtype=torch.float64)
    assert numbers.tolist() == [
        [0.5334360869094659, 0.34036143333582414],
        [0.15594845731770757, 0.9636628197176952],
    ]


def test_global_random_state_is_untouched():
    state = torch.get_rng_state()
    streams().normal(3)
    mix_seed(3)
    image_random(torch.Generator().manual_seed(0), torch.rand(4, 1, 2, 2, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_may_be_passed_as_a_generator():
    x = torch.zeros(6, 1, 2, 2)
    same = [image_random(torch.Generator().manual_seed(5), x).uniform(3) for _ in range(2)]
    assert torch.equal(*same)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(image_random(generator, x).uniform(3), same[0])
    assert not torch.equal(image_random(generator, x).uniform(3), same[0]), "a generator moves on"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(image_random(None, x).uniform(3), same[0])
    own = streams(6)
    own.uniform(2)
    assert torch.equal(image_random(own, x).uniform(3), own.uniform(3)), "streams are taken where they stand"


@pytest.mark.bad_input
def test_streams_for_other_images():
    with pytest.raises(ValueError, match="holds streams for 5 images, but 6 were given"):
        image_random(streams(5), torch.zeros(6, 1, 2, 2))


@pytest.mark.parametrize("shape", [(3, 64, 64), (40_000,), (16,), ()])
@pytest.mark.parametrize("draw", ["normal", "uniform", "signs"])
def test_numbers_made_together_are_those_of_each_image_alone(shape, draw):
    """A CPU makes them a few images at a time: 12,288 numbers an image are two of them, 40,000 one."""
    ids = torch.tensor([7, 0, 3, 12, 5])
    together = getattr(ImageRandom(4, ids), draw)(*shape)
    alone = [getattr(ImageRandom(4, ids[i : i + 1]), draw)(*shape)[0] for i in range(len(ids))]
    assert torch.equal(together, torch.stack(alone))
    assert getattr(ImageRandom(4, ids[:0]), draw)(*shape).shape == (0, *shape)
