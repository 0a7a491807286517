"""Training: one loop, and the methods that differ in the images they descend on."""

from thesis_kit.training.loop import TrainingReport, train
from thesis_kit.training.methods import FGSM, METHODS, PGD, Free, Natural, fgsm, fgsm_rs, n_fgsm

__all__ = ["FGSM", "METHODS", "PGD", "Free", "Natural", "TrainingReport", "fgsm", "fgsm_rs", "n_fgsm", "train"]
