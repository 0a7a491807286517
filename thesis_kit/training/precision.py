"""The precision of a training run's passes: the model's own, or float16 or bfloat16 where that loses little.

The weights keep their own precision; what a pass computes is cast layer by layer (autocast). Small gradients vanish in
float16 unless the loss is scaled up before the backward pass and the gradients down after it (Micikevicius et al.
2018); bfloat16 has the exponents of float32 and needs no scaling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import ask
from thesis_kit.casting import PRECISIONS, autocast
from thesis_kit.checks import choose


def resolve_precision(name: str | None, device: torch.device) -> str:
    """The name given, or for None the device's usual one: float16 on a GPU, float32 on a CPU."""
    if name is None:
        return "float16" if device.type == "cuda" else "float32"
    choose(name, PRECISIONS, "precision")
    return name


class InPrecision(nn.Module):
    """A model whose passes are made in ``dtype``; images, logits and the gradient at the images stay as they were.

    Args:
        model: pixels in [0, 1] to logits; its weights are shared, not copied.
        precision: "float16" or "bfloat16".
        scale: the factor of the loss in the model's backward pass. The gradient at the images comes out without it,
            and finite where it overflows.
    """

    def __init__(self, model: nn.Module, precision: str, scale: Callable[[], float] | None = None):
        super().__init__()
        self.model, self.precision, self.scale = model, precision, scale

    def forward(self, x: Float[Tensor, "n ..."], *others: Tensor) -> Any:
        """Logits (n, k) in float32, or whatever else the model returns for the images and what comes with them."""
        factor = self.scale() / max(len(x), 1) if self.scale else 1.0  # as for the mean of the images' losses
        if factor != 1 and x.requires_grad:
            x = x.view_as(x)  # a hook on the caller's own tensor would outlive this call
            most = torch.finfo(PRECISIONS[self.precision]).max
            x.register_hook(lambda gradient: gradient.nan_to_num(0.0, most, -most) / factor)
        with autocast(self.precision, x.device):
            logits = ask(self.model, x, *others)
        if not isinstance(logits, Tensor):
            return logits  # whoever reads it says what is wrong with it
        logits = logits.float()
        if factor != 1 and logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * factor)
        return logits
