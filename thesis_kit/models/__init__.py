"""Classifiers from pixels in [0, 1] to logits: the wrapper, the small networks of the book, and timm's by name."""

from thesis_kit.models import anatomy
from thesis_kit.models.build import build
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.stored import from_file

__all__ = ["Classifier", "anatomy", "build", "from_file"]
