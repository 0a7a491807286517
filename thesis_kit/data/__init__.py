"""Data sets as disjoint parts: digits, scenes and speech; CIFAR, Fashion-MNIST, Imagenette and pets, downloaded."""

from thesis_kit.data import scenes, speech
from thesis_kit.data.data_sets import SETS, load
from thesis_kit.data.digits import digits
from thesis_kit.data.parts import Part, Splits, Stream
from thesis_kit.data.photos import Outlined, cifar10, cifar100, fashion_mnist, imagenette, oxford_pets

__all__ = [
    "SETS", "Outlined", "Part", "Splits", "Stream", "cifar10", "cifar100", "digits", "fashion_mnist", "imagenette",
    "load", "oxford_pets", "scenes", "speech",
]  # fmt: skip
