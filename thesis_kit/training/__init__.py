"""Training: one loop, the methods that differ in what they descend on, and the transfer of a robust model."""

from thesis_kit.training.attributes import AttributeTraining, attributes_loss
from thesis_kit.training.certified import IBP, CrownIBP
from thesis_kit.training.contrastive import Contrastive, contrastive_loss
from thesis_kit.training.ctc import CTC, Transcripts
from thesis_kit.training.deit import HardDistillation
from thesis_kit.training.distillation import LwF, distill
from thesis_kit.training.gaussian import Gaussian
from thesis_kit.training.heads import choose_penalty, linear_head
from thesis_kit.training.loop import TrainingReport, train
from thesis_kit.training.method import Classification, Method
from thesis_kit.training.method_names import METHODS, TERMS
from thesis_kit.training.methods import FGSM, PGD, Free, Natural, fgsm, fgsm_rs, n_fgsm
from thesis_kit.training.regularizers import (
    AdversarialLogitPairing,
    CleanLogitPairing,
    GaussianAugmentation,
    GradientGap,
    LabelSmoothing,
    LogitSimilarity,
    LogitSqueezing,
)
from thesis_kit.training.transfer import few, retrain_last
from thesis_kit.training.twin import natural_twin

__all__ = [
    "CTC", "FGSM", "IBP", "METHODS", "PGD", "TERMS", "AdversarialLogitPairing", "AttributeTraining", "Classification",
    "CleanLogitPairing", "Contrastive", "CrownIBP", "Free", "Gaussian", "GaussianAugmentation", "GradientGap",
    "HardDistillation", "LabelSmoothing", "LogitSimilarity", "LogitSqueezing", "LwF", "Method", "Natural",
    "TrainingReport", "Transcripts", "attributes_loss", "choose_penalty", "contrastive_loss", "distill", "few", "fgsm",
    "fgsm_rs", "linear_head", "n_fgsm", "natural_twin", "retrain_last", "train",
]  # fmt: skip
