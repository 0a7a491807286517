"""Norm-bounded attacks: functions ``attack(model, x, y, *, eps, norm, …, generator) -> x_adv``.

All keep the pixel range exactly and the ball to ε(1 + 1e-6) + 1e-7, take device and dtype from the images,
leave the model as they found it, and give each image the same result whatever batch it sits in.
"""

from thesis_kit.attacks.apgd import apgd, apgd_targeted
from thesis_kit.attacks.fab import fab_targeted
from thesis_kit.attacks.losses import cross_entropy, dlr, margin, targeted_dlr
from thesis_kit.attacks.pgd import fgsm, pgd
from thesis_kit.attacks.shadow import PUBLISHED, ShadowConstants, shadow
from thesis_kit.attacks.smoothed import smoothed_pgd
from thesis_kit.attacks.spoofing import spoof, spoof_bounds
from thesis_kit.attacks.square import square

__all__ = [
    "PUBLISHED", "ShadowConstants", "apgd", "apgd_targeted", "cross_entropy", "dlr", "fab_targeted", "fgsm", "margin",
    "pgd", "shadow", "smoothed_pgd", "spoof", "spoof_bounds", "square", "targeted_dlr",
]  # fmt: skip
