"""Supervision by language: image–text pairs as classifiers, what their units answer to, and pictures of a prompt."""

from thesis_kit.language.zero_shot import SCENE_TEMPLATES, class_features, scene_classes, zero_shot

__all__ = ["SCENE_TEMPLATES", "class_features", "scene_classes", "zero_shot"]
