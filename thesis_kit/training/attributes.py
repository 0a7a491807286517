"""Training on several attributes at once: one network, a softmax for each attribute, and the mean of their losses.

What a caption says, without language: the control that tells supervision by sentences from supervision by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask
from thesis_kit.checks import check_count, check_images, check_logits, check_same_device
from thesis_kit.training.method import Method
from thesis_kit.training.run import Run

UNSAID = -1  # the target of an attribute that an image does not have


def attributes_loss(
    logits: Float[Tensor, "n k"], targets: Int[Tensor, "n a"], widths: Sequence[int]
) -> Float[Tensor, ""]:
    """The mean over attributes of the mean cross-entropy over images that have it; −1 marks those that do not.

    An attribute that no image of the minibatch has adds nothing.

    Examples:
        >>> loss = tk.training.attributes_loss(torch.zeros(2, 5), torch.tensor([[0, 2], [1, -1]]), widths=(2, 3))
        >>> round(loss.item(), 4)
        0.8959
    """
    parts, losses = logits.split(list(widths), dim=1), []
    for part, target in zip(parts, targets.T, strict=True):
        if (target != UNSAID).any():
            losses.append(F.cross_entropy(part, target, ignore_index=UNSAID))
    return sum(losses, torch.zeros((), device=logits.device)) / len(widths)


@dataclass
class AttributeTraining(Method):
    """Cross-entropy on every attribute. One pass an update.

    Args:
        widths: how many answers each attribute has; the model's logits are theirs side by side.
    """

    widths: Sequence[int] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        self.widths = tuple(self.widths)
        if not self.widths:
            raise ValueError("widths is empty: say how many answers each attribute has")
        for width in self.widths:
            check_count(width, what="answers of an attribute", least=2)

    def check(self, model: nn.Module, x: Tensor, y: Tensor, run: Run) -> None:
        """Require images, and one answer or −1 an image and attribute."""
        check_images(x), check_same_device(model, x)
        shape = (len(x), len(self.widths))
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != shape:
            seen = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"targets must be one answer an image and attribute, int64 of shape {shape}, got {seen}")
        if not ((y >= UNSAID) & (y < torch.tensor(self.widths, device=y.device))).all():
            raise ValueError(f"targets must lie in -1 … width - 1 for the widths {self.widths}")

    def minibatch(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n a"], run: Run) -> None:
        """Descend on the mean of the attributes' losses."""
        run.descend(x, y, loss=lambda x, y: self._loss(run, x, y))

    def _loss(self, run: Run, x: Tensor, y: Tensor) -> Tensor:
        logits = ask(run.passing, x)
        check_logits(logits, len(x))
        if logits.shape[1] != sum(self.widths):
            raise ValueError(
                f"the model has {logits.shape[1]} outputs and the attributes {sum(self.widths)} answers: build it with "
                f"n_classes={sum(self.widths)}"
            )
        return attributes_loss(logits.float(), y, self.widths)
