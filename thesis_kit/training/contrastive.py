"""Contrastive training of image–text pairs: a matching text should be nearer than all others (Radford et al. 2021).

Where captions repeat, plain InfoNCE punishes what is right: with 16 captions in minibatches of 128 it cannot fall below
ln 8. Here every pair with an equal caption is a positive (Khosla et al. 2020, eq. 2), and the loss is counted from the
least value that several right answers allow. For different captions it is InfoNCE. Sentences near by that are false of
an image, where there are any, stand among its wrong answers (Yuksekgonul et al. 2023).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask
from thesis_kit.checks import NonFiniteOutput, check_images, check_same_device
from thesis_kit.data.captioned import Captioned
from thesis_kit.models.clip import check_tokens
from thesis_kit.training.method import Method
from thesis_kit.training.run import Run

_WRAPPED = re.compile(r"^((module|_orig_mod)\.)+")


def contrastive_loss(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], scale: Float[Tensor, ""], same: Tensor,
    wrong: Float[Tensor, "m d"] | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """Symmetric cross-entropy over similarities, where all pairs of ``same`` (n, n) bool count as right; at least 0.

    Mean over images of the mean over its m right texts of −log softmax(s ⟨u, v⟩), less ln m, and the same from texts to
    images, averaged. Rows are brought to length 1; ``scale`` is s. ``wrong`` are texts that are right for no image,
    among which images have to find theirs too.

    Source: Radford et al. 2021, figure 3; several right answers: Khosla et al. 2020, eq. 2; wrong ones near by:
        Yuksekgonul et al. 2023, section 4.

    Examples:
        >>> features = torch.eye(2)
        >>> loss = tk.training.contrastive_loss(features, features, torch.tensor(1.0), torch.eye(2, dtype=torch.bool))
        >>> round(loss.item(), 4)
        0.3133
    """
    u, v = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    if not same.any(dim=1).all():
        raise ValueError("each text must be right for one image at least: same needs a True in every row")
    back = scale * v @ u.T  # (n, n)
    forth = back.T if wrong is None else torch.cat([back.T, scale * u @ F.normalize(wrong, dim=1).T], dim=1)
    right = same.to(back) / same.sum(dim=1, keepdim=True)
    padded = F.pad(right, (0, forth.shape[1] - len(right)))
    losses = (F.kl_div(z.log_softmax(dim=1), t, reduction="batchmean") for z, t in ((forth, padded), (back, right)))
    return sum(losses) / 2


@dataclass
class Contrastive(Method):
    """Contrastive training of images and texts. One pass an update.

    Targets are token ids (n, t), where rows that are equal say the same, or ``data.captioned.Captioned``. The model is
    called with images (n, c, h, w) and token ids (m, t), and returns image features (n, d), text features (m, d) and
    the scale of similarities, as open_clip's models do; m is n, and more where there are wrong sentences near by.

    Args:
        largest_scale: the logarithm of the scale is kept at most at its logarithm; 100 in the paper.
        scale: name of the parameter that holds the logarithm of the scale, in a group without weight decay.
    """

    largest_scale: float = 100.0
    scale: str = "logit_scale"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.largest_scale) and self.largest_scale > 0):
            raise ValueError(f"largest_scale must be a positive number, got {self.largest_scale}")

    def check(self, model: nn.Module, x: Tensor, y: Tensor | Captioned, run: Run) -> None:
        """Require images and one row of token ids an image."""
        check_images(x), check_same_device(model, x)
        tokens = y.tokens if isinstance(y, Captioned) else y
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or len(tokens) != len(x) or tokens.dtype != torch.int64:
            seen = f"{tokens.dtype} of shape {tuple(tokens.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"targets must be token ids, int64 of shape ({len(x)}, t), got {seen}")
        if run.done == 0:  # once: it waits for the device
            for numbers in _parts(y)[::2] if isinstance(y, Captioned) else (y,):
                check_tokens(model, numbers)

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The scale in a group of its own, without weight decay."""
        own = self._own(model)
        rest = [p for p in model.parameters() if p.requires_grad and p is not own]
        alone = [{"params": [own], "weight_decay": 0.0}] if own is not None and own.requires_grad else []
        return [{"params": rest}, *alone]

    def _own(self, model: nn.Module) -> nn.Parameter | None:
        """The parameter that holds the logarithm of the scale, in a model that is wrapped too."""
        return next((p for name, p in model.named_parameters() if _WRAPPED.sub("", name) == self.scale), None)

    def minibatch(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n t"] | Captioned, run: Run) -> None:
        """Descend on the symmetric loss, and hold the scale."""
        run.descend(x, y, loss=partial(self._loss, run))
        own = self._own(run.model)
        if own is not None:
            with torch.no_grad():
                own.clamp_(max=math.log(self.largest_scale))

    def _loss(self, run: Run, x: Tensor, y: Tensor | Captioned) -> Tensor:
        tokens, same, wrong = _parts(y)
        answer = ask(run.passing, x, torch.cat([tokens, wrong]))
        parts = isinstance(answer, tuple | list)
        fits = parts and len(answer) == 3 and all(isinstance(a, Tensor) for a in answer)
        n, m = len(x), len(tokens) + len(wrong)
        if not fits or answer[0].shape[1:] != answer[1].shape[1:] or (len(answer[0]), len(answer[1])) != (n, m):
            raise ValueError(
                f"an image–text model must return image features ({n}, d), text features ({m}, d) and a scale, got "
                + (str([tuple(getattr(a, "shape", ())) for a in answer]) if parts else type(answer).__name__)
            )
        images, texts, scale = (part.float() for part in answer)
        if not (torch.isfinite(images).all() and torch.isfinite(texts).all()):
            raise NonFiniteOutput("the features are NaN or infinite")
        return contrastive_loss(images, texts[:n], scale, same, texts[n:] if len(wrong) else None)


def _parts(y: Tensor | Captioned) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids (n, t), which of them say the same (n, n), and those of the wrong sentences that there are (m, t)."""
    if isinstance(y, Tensor):
        return y, (y[:, None] == y).all(dim=2), y[:0]
    wrong = y.tokens[:0] if y.wrong is None else y.wrong[(y.wrong != 0).any(dim=1)]
    return y.tokens, y.same, wrong
