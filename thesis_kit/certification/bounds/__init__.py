"""Bounds of margins over boxes of images: what is proved, for which networks, and how.

``margins`` holds the three bounds and ``verification`` the error that they prove. Below them, in the order in which a
call passes through: ``tracing`` reads a model into steps (``plain``: modules that compute what they seem to;
``layers`` and ``functions``: what bounds are known for; ``forwards``: code of one's own), ``door`` compares the steps
with the model, and ``crown`` pushes and pulls bounds through them (``operations``, ``activations``, ``curves``).
"""

from thesis_kit.certification.bounds.boxes import Box, CenteredBox
from thesis_kit.certification.bounds.margins import (
    BOUNDS,
    BOUNDS_OF_STEPS,
    crown_ibp_margins,
    crown_margins,
    ibp_margins,
    steps_of,
)
from thesis_kit.certification.bounds.plain import UnsupportedLayer
from thesis_kit.certification.bounds.verification import Verification, verified_error

__all__ = [
    "BOUNDS", "BOUNDS_OF_STEPS", "Box", "CenteredBox", "UnsupportedLayer", "Verification", "crown_ibp_margins",
    "crown_margins", "ibp_margins", "steps_of", "verified_error",
]  # fmt: skip
