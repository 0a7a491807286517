"""Robust and understandable deep networks: the methods of the book, as functions on your own models.

``import thesis_kit as tk``; then ``tk.setup`` chooses where and how large things run, ``tk.train`` trains,
``tk.attacks`` and ``tk.evaluation`` judge, ``tk.certification`` certifies, ``tk.inversion`` and ``tk.synthesis`` look
inside, ``tk.models`` and ``tk.data`` bring networks and images, and ``tk.zoo`` networks that are trained already.
"""

from thesis_kit import attacks, certification, data, evaluation, inversion, models, synthesis, training
from thesis_kit.evaluation import robust_accuracy
from thesis_kit.models import Classifier, build, zoo
from thesis_kit.session import Session, setup
from thesis_kit.training import train

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Session",
    "attacks",
    "build",
    "certification",
    "data",
    "evaluation",
    "inversion",
    "models",
    "robust_accuracy",
    "setup",
    "synthesis",
    "train",
    "training",
    "zoo",
]
