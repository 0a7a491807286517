"""How good a classifier is: accuracy, accuracy under attack, and whether an evaluation can be believed."""

from thesis_kit.evaluation.accuracy import accuracy, correct
from thesis_kit.evaluation.findings import Finding, MaskingReport
from thesis_kit.evaluation.linear import FirstOrder, first_order, smallest_eps
from thesis_kit.evaluation.masking import Averaged, Rescaled, masking_report
from thesis_kit.evaluation.robust import (
    AttackOutcome,
    RobustAccuracy,
    reference_attack,
    robust_accuracy,
    strong_attacks,
    weak_attack,
)
from thesis_kit.evaluation.surface import Surface, loss_surface
from thesis_kit.evaluation.synthesized import class_regions, high_frequency_share, kid, kid_of_images, recognized

__all__ = [
    "AttackOutcome", "Averaged", "Finding", "FirstOrder", "MaskingReport", "Rescaled", "RobustAccuracy",
    "Surface", "accuracy", "class_regions", "correct", "first_order", "high_frequency_share", "kid", "kid_of_images",
    "loss_surface", "masking_report", "recognized", "reference_attack", "robust_accuracy", "smallest_eps",
    "strong_attacks", "weak_attack",
]  # fmt: skip
