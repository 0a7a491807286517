"""Supervision by language: pairs as classifiers, pictures of a prompt, what units answer to, what pairs read."""

from thesis_kit.language.naming import agreement, count_auroc, name_by_text, selective, strata_of, theme_auroc
from thesis_kit.language.prompts import SCHEDULES, Schedule, invert_prompts, shortened, toward
from thesis_kit.language.relations import exchange_similarity, reads_order
from thesis_kit.language.typographic import Typographic, typographic
from thesis_kit.language.zero_shot import SCENE_TEMPLATES, class_features, scene_classes, zero_shot

__all__ = [
    "SCENE_TEMPLATES", "SCHEDULES", "Schedule", "Typographic", "agreement", "class_features", "count_auroc",
    "exchange_similarity", "invert_prompts", "name_by_text", "reads_order", "scene_classes", "selective", "shortened",
    "strata_of", "theme_auroc", "toward", "typographic", "zero_shot",
]  # fmt: skip
