"""What the units of a network look at: optima, strongest images and maps of them, with controls that cannot be fooled.

``recording.sites(model)`` names the places of a network, unpatched ones of timm, open_clip and torchvision included;
the functions here take these names. ``visualize`` makes the image that excites a unit most, ``maps`` says where in an
image it fires, and ``triples`` shows both beside its strongest images, with a rotated basis and random weights as
controls. ``features.scores`` gives numbers over all units, ``over_images`` their intervals, ``features.tokens`` asks
what class tokens and patches do, ``features.masks`` takes objects out of pictures, ``features.frequency`` takes their
detail, and ``features.codes`` learns sparse directions in place of units.
"""

from thesis_kit.features import codes, frequency, masks, scores, tokens
from thesis_kit.features.controls import random_twin, rotated, rotation
from thesis_kit.features.intervals import Estimate, over_images
from thesis_kit.features.triples import Triples, triples
from thesis_kit.features.units import excitation, maps
from thesis_kit.features.visualization import visualize

__all__ = [
    "Estimate", "Triples", "codes", "excitation", "frequency", "maps", "masks", "over_images", "random_twin", "rotated",
    "rotation", "scores", "tokens", "triples", "visualize",
]  # fmt: skip
