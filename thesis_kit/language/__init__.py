"""Supervision by language: image–text pairs as classifiers, pictures of a prompt, and what pairs read in sentences."""

from thesis_kit.language.prompts import SCHEDULES, Schedule, invert_prompts, shortened, toward
from thesis_kit.language.relations import reads_order
from thesis_kit.language.typographic import Typographic, typographic
from thesis_kit.language.zero_shot import SCENE_TEMPLATES, class_features, scene_classes, zero_shot

__all__ = [
    "SCENE_TEMPLATES", "SCHEDULES", "Schedule", "Typographic", "class_features", "invert_prompts", "reads_order",
    "scene_classes", "shortened", "toward", "typographic", "zero_shot",
]  # fmt: skip
