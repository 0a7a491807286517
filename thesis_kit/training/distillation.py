"""Learning without forgetting: fine-tune every weight on clean images, and hold the features near the robust ones.

Shafahi, Saadatpanah, Zhu, Ghiasi et al. (ICLR 2020) minimize cross-entropy plus the distance between the features z(x)
of the network that is trained and the features z₀(x) of the robust source, which are computed once. As in their
released code the distance is the ℓ₁ norm, the head alone is trained for the first half of the updates, and the network
is in evaluation mode, so that normalization uses the source's statistics. Here its scales and shifts are trained, the
statistics are not, and the strength is stated in units of 1/E‖z₀‖₁, so that it means the same for every network.

The gradient of an ℓ₁ distance does not fade as z comes near z₀: at a constant rate the features go on jumping about z₀
by steps that grow with rate and strength, so a very strong pull moves them away again. A schedule that ends at zero,
such as "cosine", lets them settle.
"""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import gradients
from thesis_kit.checks import check_count
from thesis_kit.data.forms import Labelled
from thesis_kit.models import anatomy
from thesis_kit.passes import count_passes
from thesis_kit.training.loop import TrainingReport, train
from thesis_kit.training.method import Classification
from thesis_kit.training.precision import resolve_precision
from thesis_kit.training.run import Run
from thesis_kit.training.transfer import check_target, source_features


class LwF(Classification):
    """Cross-entropy + ``strength`` · ‖z(x) − z₀(x)‖₁ / E‖z₀‖₁, both averaged over the minibatch. One pass an update.

    Args:
        strength: λ in units of 1/E‖z₀‖₁, at least 0; 0 is plain fine-tuning.
        features: z₀ of every training image, (n, d), in the order of the ``Part`` that is trained on.
        head_updates: train the head alone for so long. z is z₀ then, so such an update makes no pass through the
            network, and counts none.
    """

    training_mode = False

    def __init__(self, strength: float, features: Float[Tensor, "n d"], *, head_updates: int = 0):
        _check_strength(strength)
        check_count(head_updates, what="head_updates", least=0)
        self.strength, self.head_updates, self._features = float(strength), int(head_updates), features
        self.mean_norm = features.abs().sum(dim=1).mean().item()  # E‖z₀‖₁
        if not (math.isfinite(self.mean_norm) and self.mean_norm > 0):
            raise ValueError(f"the source features have a mean norm of {self.mean_norm}: look at the source model")

    def minibatch(self, x: Tensor, y: Tensor, run: Run) -> None:
        """Descend on the loss at x, or in the first updates on the head's own at z₀."""
        if run.index is None:
            raise ValueError("a stream has no stored features to hold on to: distill on a Part")
        loss = self._loss_of_head if run.done < self.head_updates else self._loss
        run.descend(x, y, loss=partial(loss, run, self._features[run.index]))

    def _loss_of_head(self, run: Run, z0: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(anatomy.head(run.model)(z0), y)

    def _loss(self, run: Run, z0: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with anatomy.head_inputs(run.model) as seen:
            cross_entropy = run.loss(x, y)
        distance = (seen[0].to(z0.dtype) - z0).abs().sum(dim=1).mean()
        return cross_entropy + self.strength * distance / self.mean_norm


def distill(
    model: nn.Module, data: Labelled, *, strength: float, n_classes: int, updates: int = 20_000, lr: float = 0.001,
    schedule: str = "constant", weight_decay: float = 2e-4, head: nn.Linear | None = None, precision: str | None = None,
    seed: int = 0, **knobs: object,
) -> tuple[nn.Module, TrainingReport]:  # fmt: skip
    """Return a copy of the model, fine-tuned end to end on clean images with its features held near the source's.

    Defaults are the settings of the paper's released code (robust CIFAR-100 to CIFAR-10), with minibatches of 128 and
    momentum 0.9. Its λ of 0.005 multiplies ‖z − z₀‖₁ itself: divide ours by E‖z₀‖₁ to compare.

    Args:
        model: the robust source, left as it is.
        data: clean images of the new task, in any form that ``evaluation.accuracy`` takes. They are never augmented,
            for their features are computed once.
        strength: λ in units of 1/E‖z₀‖₁, at least 0: 0 is plain fine-tuning, a large one keeps the features.
        n_classes: classes of the new task; ``data`` holds images of each.
        updates: weight updates in all; the first half trains the head alone, unless ``head`` is given.
        lr, schedule, weight_decay, precision: as for ``train``; the source's features are computed in that precision.
        head: a head to begin with, such as ``anatomy.head(linear_head(model, data, n_classes=…))``.
        seed: of a new head's weights, and of training.
        knobs: further settings of ``train``, such as ``batch_size``, ``probe`` and ``checkpoint``.

    Returns:
        The new model, and a report whose passes and seconds include those for the source's features.

    Raises:
        ValueError: a strength or labels that cannot be meant, images on another device, an augmentation, a head of
            another shape, or a model without linear head.

    Source: Shafahi et al. 2020, the section on learning without forgetting.

    Examples:
        >>> few = tk.training.few(tk.data.digits().train, 2, seed=0)
        >>> student, report = tk.training.distill(model, few, strength=1.0, n_classes=10, updates=2, progress=False)
        >>> report.updates
        2
    """
    if knobs.get("augment") is not None:
        raise ValueError("an augmented image has no stored features: distill without augment")
    _check_strength(strength)
    check_count(updates, what="updates")
    data = check_target(model, data, n_classes)
    new = anatomy.replace_head(model, n_classes, seed=seed)
    if head is not None:
        _take_over(anatomy.head(new), head)
    started, precision = time.monotonic(), resolve_precision(precision, data.x.device)
    with gradients("distillation", model), count_passes(model) as passes:
        features = source_features(model, data, precision=precision)
    seconds = time.monotonic() - started
    method = LwF(strength, features, head_updates=updates // 2 if head is None else 0)
    settings = {"lr": lr, "schedule": schedule, "weight_decay": weight_decay, "precision": precision, "seed": seed}
    report = train(new, data, method, updates=updates, **settings, **knobs)
    report.passes, report.seconds = report.passes + passes, report.seconds + seconds
    return new, report


def _check_strength(strength: float) -> None:
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength must be a finite number of at least 0, got {strength}")


def _take_over(layer: nn.Linear, head: nn.Linear) -> None:
    if head.weight.shape != layer.weight.shape:
        raise ValueError(
            f"head has weights of shape {tuple(head.weight.shape)}, this model and these classes need "
            f"{tuple(layer.weight.shape)}: fit it to the same model and classes"
        )
    with torch.no_grad():
        layer.weight.copy_(head.weight)
        layer.bias = None if head.bias is None else nn.Parameter(head.bias.detach().clone().to(layer.weight))
