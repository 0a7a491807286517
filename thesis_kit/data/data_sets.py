"""Data sets by name."""

from __future__ import annotations

from functools import partial

from thesis_kit.checks import choose
from thesis_kit.data import scenes
from thesis_kit.data.digits import digits
from thesis_kit.data.parts import Splits
from thesis_kit.data.photos import cifar10, cifar100, fashion_mnist, imagenette

SETS = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "fashion-mnist": fashion_mnist,
    "imagenette": imagenette,
    **{name: partial(scenes.splits, name=name) for name in scenes.DISTRIBUTIONS},
}


def load(name: str, seed: int = 0, **options: object) -> Splits:
    """Return the data set ``name`` ("digits", "scenes.v1", "cifar10", …), cut for run ``seed``; options go to it.

    Examples:
        >>> test = tk.data.load("scenes.v1-a", size=16, n_train=1, n_validation=1, n_test=2).test
        >>> test.x.shape
        torch.Size([2, 3, 16, 16])
    """
    return choose(name, SETS, "data set")(seed, **options)
