"""What can be proved about a classifier around an image: randomized smoothing."""

from thesis_kit.certification.smoothing import (
    ABSTAIN,
    Budget,
    Certificate,
    Certificates,
    NotDeterministic,
    certify,
    certify_nested,
    predict,
)

__all__ = [
    "ABSTAIN", "Budget", "Certificate", "Certificates", "NotDeterministic", "certify", "certify_nested", "predict",
]  # fmt: skip
