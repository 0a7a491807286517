"""Data sets as disjoint parts: digits, scenes and speech; CIFAR, Fashion-MNIST and Imagenette, which are downloaded."""

from thesis_kit.data import scenes, speech
from thesis_kit.data.data_sets import SETS, load
from thesis_kit.data.digits import digits
from thesis_kit.data.parts import Part, Splits, Stream
from thesis_kit.data.photos import cifar10, cifar100, fashion_mnist, imagenette

__all__ = [
    "SETS", "Part", "Splits", "Stream", "cifar10", "cifar100", "digits", "fashion_mnist", "imagenette", "load",
    "scenes", "speech",
]  # fmt: skip
