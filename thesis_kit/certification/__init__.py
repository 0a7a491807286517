"""What can be proved about a classifier around an image: randomized smoothing, and bounds of margins over a box."""

from thesis_kit.certification.bounds import (
    Box,
    UnsupportedLayer,
    Verification,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    verified_error,
)
from thesis_kit.certification.smoothing import (
    ABSTAIN,
    Budget,
    Certificate,
    Certificates,
    certify,
    certify_nested,
    predict,
)
from thesis_kit.certification.votes import NotDeterministic

__all__ = [
    "ABSTAIN", "Box", "Budget", "Certificate", "Certificates", "NotDeterministic", "UnsupportedLayer", "Verification",
    "certify", "certify_nested", "crown_ibp_margins", "crown_margins", "ibp_margins", "predict", "verified_error",
]  # fmt: skip
