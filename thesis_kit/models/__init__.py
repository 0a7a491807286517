"""Models from pixels in [0, 1]: classifiers and image–text pairs, by name or around a network of one's own."""

from thesis_kit.models import anatomy
from thesis_kit.models.build import build
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.clip import Clip
from thesis_kit.models.clip_build import build_clip
from thesis_kit.models.stored import from_file

__all__ = ["Classifier", "Clip", "anatomy", "build", "build_clip", "from_file"]
