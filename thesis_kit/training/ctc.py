"""Training of a speech recognizer by connectionist temporal classification (Graves et al., ICML 2006)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask
from thesis_kit.checks import NonFiniteOutput, check_same_device
from thesis_kit.data.transcripts import Transcripts
from thesis_kit.training.method import Method
from thesis_kit.training.run import Run


@dataclass
class CTC(Method):
    """Descends on −log p(transcript | clip), a mean over clips of its value a token. One pass an update.

    The model maps clips (n, …, t) to logits (n, t', k) over k tokens, one of them the blank; where it has fewer steps
    than its input, a clip's steps are ⌈frames · t' / t⌉.

    Args:
        blank: number of the token for silence between tokens.
    """

    blank: int = 0

    def check(self, model: nn.Module, x: Tensor, y: Transcripts, run: Run) -> None:
        """Require finite clips and transcripts that fit them."""
        check_same_device(model, x)
        if not isinstance(y, Transcripts) or len(y) != len(x):
            raise ValueError(f"targets must be {len(x)} Transcripts, got {type(y).__name__}")
        if not torch.isfinite(x).all():
            raise ValueError("the clips hold NaN or infinity: look at how they were loaded")
        if len(x) and not (int(y.frames.min()) >= 1 and int(y.frames.max()) <= x.shape[-1]):
            seen = y.frames.tolist()[:8]
            raise ValueError(f"frames must lie in 1 … {x.shape[-1]}, the length of the input, got {seen}")

    def minibatch(self, x: Tensor, y: Transcripts, run: Run) -> None:
        """Descend on the transcripts' loss."""
        run.descend(x, y, loss=partial(self._loss, run))

    def _loss(self, run: Run, x: Tensor, y: Transcripts) -> Float[Tensor, ""]:
        logits = ask(run.passing, x)
        if not isinstance(logits, Tensor) or logits.ndim != 3 or len(logits) != len(x):
            seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"a recognizer must return logits of shape ({len(x)}, steps, tokens), got {seen}")
        if not torch.isfinite(logits).all():
            raise NonFiniteOutput("the logits are NaN or infinite")
        steps = (y.frames * logits.shape[1] + x.shape[-1] - 1) // x.shape[-1]
        return F.ctc_loss(
            logits.float().log_softmax(dim=2).transpose(0, 1), y.tokens, steps, y.lengths, blank=self.blank,
            zero_infinity=True,
        )  # fmt: skip
