"""Scenes: a small world of images whose masks, attributes and captions are known exactly."""

from thesis_kit.data.scenes.captions import captions
from thesis_kit.data.scenes.distributions import DISTRIBUTIONS, Distribution, Scenes, SceneStream, splits
from thesis_kit.data.scenes.render import Rendered, render
from thesis_kit.data.scenes.table import ImpossibleScene, Table, compose

__all__ = [
    "DISTRIBUTIONS", "Distribution", "ImpossibleScene", "Rendered", "SceneStream", "Scenes", "Table",
    "captions", "compose", "render", "splits",
]  # fmt: skip
