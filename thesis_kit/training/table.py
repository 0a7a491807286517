"""The ways to train by name, for recipes and command lines."""

from __future__ import annotations

from thesis_kit.training.certified import IBP, CrownIBP
from thesis_kit.training.gaussian import Gaussian
from thesis_kit.training.methods import PGD, Free, Natural, fgsm, fgsm_rs, n_fgsm

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
}
