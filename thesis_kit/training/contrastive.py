"""Contrastive training of image–text pairs: a matching text should be nearer than all others (Radford et al. 2021).

Where captions repeat, plain InfoNCE punishes what is right: with 16 captions in minibatches of 128 it cannot fall below
ln 8. Here every pair with an equal caption is a positive (Khosla et al. 2020, eq. 2), and the loss is counted from the
least value that several right answers allow. For different captions it is InfoNCE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask
from thesis_kit.checks import NonFiniteOutput, check_images, check_same_device
from thesis_kit.training.method import Method
from thesis_kit.training.run import Run


def contrastive_loss(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], scale: Float[Tensor, ""], same: Tensor
) -> Float[Tensor, ""]:
    """Symmetric cross-entropy over similarities, where all pairs of ``same`` (n, n) bool count as right; at least 0.

    Mean over images of the mean over its m right texts of −log softmax(s ⟨u, v⟩), less ln m, and the same from texts to
    images, averaged. Rows are brought to length 1; ``scale`` is s.

    Source: Radford et al. 2021, figure 3; several right answers: Khosla et al. 2020, eq. 2.
    """
    similarities = scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T  # (n, n)
    right = same.to(similarities) / same.sum(dim=1, keepdim=True)
    forth, back = (F.kl_div(z.log_softmax(dim=1), right, reduction="batchmean") for z in (similarities, similarities.T))
    return (forth + back) / 2


@dataclass
class Contrastive(Method):
    """Contrastive training of images and texts. One pass an update.

    The model is called with images (n, c, h, w) and token ids (n, t), and returns image features (n, d), text features
    (n, d) and the scale of similarities, as open_clip's models do.

    Args:
        largest_scale: the logarithm of the scale is kept at most at its logarithm; 100 in the paper.
        scale: name of the parameter that holds the logarithm of the scale, in a group without weight decay.
    """

    largest_scale: float = 100.0
    scale: str = "logit_scale"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.largest_scale) and self.largest_scale > 0):
            raise ValueError(f"largest_scale must be a positive number, got {self.largest_scale}")

    def check(self, model: nn.Module, x: Tensor, y: Tensor, run: Run) -> None:
        """Require images and one row of token ids an image."""
        check_images(x), check_same_device(model, x)
        if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != len(x) or y.dtype != torch.int64:
            seen = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"targets must be token ids, int64 of shape ({len(x)}, t), got {seen}")

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The scale in a group of its own, without weight decay."""
        own = dict(model.named_parameters()).get(self.scale)
        rest = [p for p in model.parameters() if p.requires_grad and p is not own]
        alone = [{"params": [own], "weight_decay": 0.0}] if own is not None and own.requires_grad else []
        return [{"params": rest}, *alone]

    def minibatch(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n t"], run: Run) -> None:
        """Descend on the symmetric loss, and hold the scale."""
        run.descend(x, y, loss=partial(self._loss, run))
        own = dict(run.model.named_parameters()).get(self.scale)
        if own is not None:
            with torch.no_grad():
                own.clamp_(max=math.log(self.largest_scale))

    def _loss(self, run: Run, x: Tensor, y: Tensor) -> Tensor:
        answer = ask(run.passing, x, y)
        fits = isinstance(answer, tuple | list) and len(answer) == 3 and all(isinstance(a, Tensor) for a in answer)
        if not fits or answer[0].shape != answer[1].shape or len(answer[0]) != len(x):
            raise ValueError(
                "an image–text model must return image features (n, d), text features (n, d) and a scale, got "
                f"{[tuple(a.shape) for a in answer] if fits else type(answer).__name__}"
            )
        images, texts, scale = (part.float() for part in answer)
        if not (torch.isfinite(images).all() and torch.isfinite(texts).all()):
            raise NonFiniteOutput("the features are NaN or infinite")
        return contrastive_loss(images, texts, scale, (y[:, None] == y).all(dim=2))
