"""The ways to train, and the terms a loss can have, by name, for recipes and command lines."""

from __future__ import annotations

from thesis_kit.training.attributes import AttributeTraining
from thesis_kit.training.certified import IBP, CrownIBP
from thesis_kit.training.contrastive import Contrastive
from thesis_kit.training.ctc import CTC
from thesis_kit.training.deit import HardDistillation
from thesis_kit.training.gaussian import Gaussian
from thesis_kit.training.methods import PGD, Free, Natural, fgsm, fgsm_rs, n_fgsm
from thesis_kit.training.regularizers import (
    AdversarialLogitPairing,
    CleanLogitPairing,
    GaussianAugmentation,
    GradientGap,
    LabelSmoothing,
    LogitSimilarity,
    LogitSqueezing,
)

METHODS = {
    "natural": Natural,
    "pgd": PGD,
    "fgsm": fgsm,
    "fgsm-rs": fgsm_rs,
    "n-fgsm": n_fgsm,
    "free": Free,
    "gaussian": Gaussian,
    "ibp": IBP,
    "crown-ibp": CrownIBP,
    "hard-distillation": HardDistillation,
    "attributes": AttributeTraining,
    "contrastive": Contrastive,
    "ctc": CTC,
}

TERMS = {
    "label-smoothing": LabelSmoothing,
    "logit-squeezing": LogitSqueezing,
    "logit-similarity": LogitSimilarity,
    "clean-logit-pairing": CleanLogitPairing,
    "adversarial-logit-pairing": AdversarialLogitPairing,
    "gaussian-augmentation": GaussianAugmentation,
    "gradient-gap": GradientGap,
}
