"""Synthesis of inputs: what an image must look like to do something to a network.

A synthesis is a parametrization, augmentations, an objective and a schedule of stages; ``synthesize`` is the one loop
that runs them, and Plug-In Inversion, feature visualization and sonification are settings of it.
"""

from thesis_kit.synthesis.augmentations import (
    Affine,
    Blur,
    ColorShift,
    Crop,
    Ensemble,
    GaussianNoise,
    Jitter,
    Moment,
    Pad,
    preview,
)
from thesis_kit.synthesis.canvas import Canvas
from thesis_kit.synthesis.engine import Synthesis, synthesize
from thesis_kit.synthesis.objectives import (
    IMAGES,
    LOGITS,
    Objective,
    batchnorm_statistics,
    channel,
    cross_entropy,
    direction,
    l2,
    layer,
    logit,
    maximize,
    neuron,
    total_variation,
)
from thesis_kit.synthesis.observing import activations
from thesis_kit.synthesis.parametrizations import Fourier, Parametrization, Phases, Pixels, mean_spectrum
from thesis_kit.synthesis.plan import Adam, Stage
from thesis_kit.synthesis.presets import dream, visualize
from thesis_kit.synthesis.waveforms import BandMask, Gain, ShortTime, Waveform

__all__ = [
    "IMAGES", "LOGITS", "Adam", "Affine", "BandMask", "Blur", "Canvas", "ColorShift", "Crop", "Ensemble", "Fourier",
    "Gain", "GaussianNoise", "Jitter", "Moment", "Objective", "Pad", "Parametrization", "Phases", "Pixels", "ShortTime",
    "Stage", "Synthesis", "Waveform", "activations", "batchnorm_statistics", "channel", "cross_entropy", "direction",
    "dream", "l2", "layer", "logit", "maximize", "mean_spectrum", "neuron", "preview", "synthesize", "total_variation",
    "visualize",
]  # fmt: skip
