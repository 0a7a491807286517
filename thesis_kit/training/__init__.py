"""Training: one loop, the methods that differ in what they descend on, and the transfer of a robust model."""

from thesis_kit.training.certified import IBP, CrownIBP
from thesis_kit.training.distillation import LwF, distill
from thesis_kit.training.gaussian import Gaussian
from thesis_kit.training.heads import choose_penalty, linear_head
from thesis_kit.training.loop import TrainingReport, train
from thesis_kit.training.methods import FGSM, PGD, Free, Natural, fgsm, fgsm_rs, n_fgsm
from thesis_kit.training.regularizers import (
    AdversarialLogitPairing,
    CleanLogitPairing,
    GradientGap,
    LabelSmoothing,
    LogitSimilarity,
    LogitSqueezing,
)
from thesis_kit.training.table import METHODS
from thesis_kit.training.transfer import few, retrain_last

__all__ = [
    "FGSM", "IBP", "METHODS", "PGD", "AdversarialLogitPairing", "CleanLogitPairing", "CrownIBP", "Free", "Gaussian",
    "GradientGap", "LabelSmoothing", "LogitSimilarity", "LogitSqueezing", "LwF", "Natural", "TrainingReport",
    "choose_penalty", "distill", "few", "fgsm", "fgsm_rs", "linear_head", "n_fgsm", "retrain_last", "train",
]  # fmt: skip
