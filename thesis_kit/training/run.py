"""A training run in progress, as a method sees it: the model, the update, random numbers, and what is left to do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.checks import NonFiniteOutput, check_labels, check_logits
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.training.precision import PRECISIONS, InPrecision

_NOISE = 2  # which stream of the seed a method's random numbers come from; minibatches.py has the others


class Run:
    """What a method works with.

    Args:
        model: in training mode while the run lasts.
        optimizer: its groups hold their peak rate under "peak".
        rate: schedule from progress in [0, 1) to the share of the peak rate.
        updates: weight updates in all; ``done`` counts those made.
        seed: of the random numbers.
        precision: "float32", "float16" or "bfloat16".

    ``model`` is the network itself, and ``attacked`` what an attack is given: the same weights, its passes in the
    precision of the updates.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, rate: Callable, *, updates: int, seed: int,
                 precision: str):  # fmt: skip
        self.model, self.optimizer, self._rate = model, optimizer, rate
        self.updates, self.done, self._seed = updates, 0, seed
        self.n_classes: int | None = None  # known after the first forward pass
        device, dtype = next(model.parameters()).device.type, PRECISIONS[precision]
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
        scale = self.scaler.get_scale if self.scaler.is_enabled() else None
        self._descended = InPrecision(model, dtype) if dtype else model  # its loss is scaled in ``descend``
        self.attacked = InPrecision(model, dtype, scale) if dtype else model

    @property
    def updates_left(self) -> int:
        """Weight updates until the end of training."""
        return self.updates - self.done

    def random(self, x: Tensor) -> ImageRandom:
        """This update's random numbers for the images x."""
        return ImageRandom(mix_seed(self._seed, _NOISE, self.done), torch.arange(len(x), device=x.device))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy at x, after one forward pass."""
        logits = self._descended(x)
        if self.n_classes is None:
            check_logits(logits, len(x))
            check_labels(y, len(x), logits.shape[1])
            self.n_classes = logits.shape[1]
        return F.cross_entropy(logits, y)

    def ascent_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the loss at x; one forward and one backward pass, no update."""
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.scaler.scale(self.loss(x, y)), x)
        return gradient.nan_to_num_()

    def descend(self, x: Tensor, y: Tensor) -> Tensor:
        """One weight update on (x, y); returns the loss's gradient at x from the same backward pass, up to a factor."""
        x = x.detach().requires_grad_()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate(self.done / self.updates)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, y)
        if not torch.isfinite(loss):
            raise NonFiniteOutput(f"the loss is {loss.item()}")
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        return x.grad.nan_to_num_()
